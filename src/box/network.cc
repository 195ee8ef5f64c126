#include "box/network.h"

#include <algorithm>

#include "base/text.h"
#include "box/limits.h"
#include "net/dns/message.h"
#include "net/policy/policy.h"
#include "net/proxy/proxy.h"
#include "net/relay/limits.h"
#include "net/space/protocol.h"

namespace caisson::box {

using base::failure;

namespace {

constexpr const char* kResolverPath = "/etc/resolv.conf";

Result<net::Policy> policy_of(const BoxOptions& options) {
    if (options.network_policy.empty()) {
        const bool rules = options.network == net::to_string(net::Mode::kRules);
        if (rules && options.allow_network.empty())
            return failure(Errc::kUsage, "mode rules reaches what is allowed, and nothing is", "allow something; or use mode none; or a policy file with mode rules and no rules, which has a card and reaches nothing");
        return net::Policy::from_words({rules ? std::string() : options.network, options.allow_network, options.deny_network});
    }
    if (!options.allow_network.empty() || !options.deny_network.empty())
        return failure(Errc::kUsage, "a network policy says everything, so no further rules go with it");
    return net::Policy::parse(options.network_policy);
}

Result<> add_port(wire::NetworkSpec& spec, const PublishedPort& port) {
    if (!net::Address::parse(port.address)) return failure(Errc::kUsage, "'" + base::printable(port.address, 64) + "' is no address to publish a port at");
    if (port.guest_port == 0) return failure(Errc::kUsage, "port 0 of the box cannot be published");
    if (static_cast<std::size_t>(spec.ports_size()) >= net::relay::kMostPorts)
        return failure(Errc::kUsage, "more than " + std::to_string(net::relay::kMostPorts) + " ports are to be published");
    auto& added = *spec.add_ports();
    added.set_address(port.address);
    added.set_host_port(port.host_port);
    added.set_guest_port(port.guest_port);
    added.set_udp(port.udp);
    return {};
}

Result<> add_names(wire::NetworkSpec& spec, const BoxOptions& options) {
    for (const auto& server : options.name_servers) {
        CAISSON_TRY(net::dns::parse_server(server));
        spec.add_servers(server);
    }
    for (const auto& [name, address] : options.hosts) {
        auto normal = net::canonical_name(name);
        if (!normal) return failure(Errc::kUsage, "'" + base::printable(name, 100) + "' is no name of a host");
        if (!net::Address::parse(address)) return failure(Errc::kUsage, "'" + base::printable(address, 64) + "' is no address for " + *normal);
        auto& host = *spec.add_hosts();
        host.set_name(*normal);
        host.set_address(address);
    }
    return {};
}

bool asks_for_more(const BoxOptions& options) {
    return !options.allow_network.empty() || !options.deny_network.empty() || !options.ports.empty() || !options.name_servers.empty() || !options.hosts.empty() ||
           options.network_learn;
}

Result<std::optional<wire::NetworkSpec>> without_network(const BoxOptions& options) {
    if (!options.network_proxy.empty())
        return failure(Errc::kUsage, "a box without a network has no proxy, and would forget one", "a policy file with mode rules and no rules reaches nothing and keeps it");
    if (asks_for_more(options))
        return failure(Errc::kUsage, "a box without a network reaches nothing and is not reached", "choose a network: public or open; or rules alone");
    return std::optional<wire::NetworkSpec>();
}

}  // namespace

Result<std::optional<wire::NetworkSpec>> network_of(const BoxOptions& options) {
    if (options.network == "none" && options.network_policy.empty()) return without_network(options);
    const auto policy = CAISSON_TRY(policy_of(options));
    if (policy.mode() == net::Mode::kNone) return without_network(options);
    wire::NetworkSpec spec;
    spec.set_policy(policy.to_json());
    for (const auto& port : options.ports) CAISSON_TRY(add_port(spec, port));
    CAISSON_TRY(add_names(spec, options));
    spec.set_learn(options.network_learn);
    if (!options.network_proxy.empty()) spec.set_proxy(CAISSON_TRY(net::parse_proxy(options.network_proxy)).to_string());
    for (const auto asked : {options.network_limits.connections, options.network_limits.flows})
        if (asked > net::relay::kMostConnections)
            return failure(Errc::kUsage, "a box may have at most " + std::to_string(net::relay::kMostConnections) + " connections and as many flows, not " + std::to_string(asked));
    const auto burst = options.network_limits.burst_bytes;
    if (burst != 0 && options.network_limits.bytes_per_second_in == 0 && options.network_limits.bytes_per_second_out == 0)
        return failure(Errc::kUsage, "a burst is what may pass beyond a rate, and there is none", "limit in or out as well");
    if (burst != 0 && burst < net::relay::kLeastBurstBytes)
        return failure(Errc::kUsage, "a burst has at least " + std::to_string(net::relay::kLeastBurstBytes) + " bytes, not " + std::to_string(burst) + ": the largest datagram has to pass at once");
    auto& limits = *spec.mutable_limits();
    limits.set_burst_bytes(burst);
    limits.set_connections(options.network_limits.connections);
    limits.set_flows(options.network_limits.flows);
    limits.set_connects_per_second(options.network_limits.connects_per_second);
    limits.set_bytes_per_second_in(options.network_limits.bytes_per_second_in);
    limits.set_bytes_per_second_out(options.network_limits.bytes_per_second_out);
    if (spec.ByteSizeLong() > net::relay::kMostSpecBytes)
        return failure(Errc::kUsage, "what is said of the box's network (rules, ports, hosts) has more than " + std::to_string(net::relay::kMostSpecBytes) + " bytes", "say less: ranges instead of addresses, *.suffix instead of names");
    return std::optional(std::move(spec));
}

std::string resolver_file(bool connected) { return connected ? "nameserver " + std::string(net::kGatewayAddress) + "\n" : "# this box has no network\n"; }

void set_network(wire::BoxSpec& spec, const std::optional<wire::NetworkSpec>& network) {
    auto& configure = *spec.mutable_configure();
    spec.clear_network();
    configure.clear_network();
    if (network) *spec.mutable_network() = *network;
    if (network) *configure.mutable_network() = network_link();
    for (auto& file : *configure.mutable_files())
        if (file.path() == kResolverPath) file.set_content(resolver_file(network.has_value()));
}

std::string port_text(const wire::NetworkSpec::Port& port) {
    const auto& address = port.address();
    return (address.find(':') == std::string::npos ? address : "[" + address + "]") + ":" + std::to_string(port.host_port()) + ":" + std::to_string(port.guest_port()) +
           (port.udp() ? "/udp" : "");
}

std::vector<wire::NetworkSpec::Port> sound_ports(const google::protobuf::RepeatedPtrField<wire::NetworkSpec::Port>& told) {
    constexpr std::uint32_t kLastPort = 65535;
    std::vector<wire::NetworkSpec::Port> ports;
    for (const auto& one : told) {
        const auto address = net::Address::parse(one.address());
        if (ports.size() >= net::relay::kMostPorts || !address || one.host_port() > kLastPort || one.chosen_port() > kLastPort || one.guest_port() > kLastPort) continue;
        ports.push_back(one);
        ports.back().set_address(address->to_string());
    }
    return ports;
}

namespace {

PublishedPort published(const wire::NetworkSpec::Port& port) {
    return {port.address(), static_cast<std::uint16_t>(port.host_port()), static_cast<std::uint16_t>(port.guest_port()), port.udp()};
}

// As the options would say it.
BoxOptions options_of(const wire::NetworkSpec* spec) {
    BoxOptions options;
    if (spec == nullptr) {
        options.network = net::to_string(net::Mode::kNone);
        return options;
    }
    options.network_policy = spec->policy();
    options.network_learn = spec->learn();
    options.network_proxy = spec->proxy();
    options.name_servers.assign(spec->servers().begin(), spec->servers().end());
    for (const auto& host : spec->hosts()) options.hosts.emplace_back(host.name(), host.address());
    for (const auto& port : spec->ports()) options.ports.push_back(published(port));
    const auto& limits = spec->limits();
    options.network_limits = {limits.connections(), limits.flows(), limits.connects_per_second(), limits.bytes_per_second_in(), limits.bytes_per_second_out(), limits.burst_bytes()};
    return options;
}

bool is_same(const PublishedPort& one, const PublishedPort& other) {
    return net::Address::parse(one.address) == net::Address::parse(other.address) && one.host_port == other.host_port && one.guest_port == other.guest_port && one.udp == other.udp;
}

// One of `options` that was asked for like this; or whose port was chosen, and is this one.
Result<> unpublish(BoxOptions& options, const std::vector<wire::NetworkSpec::Port>& chosen, const PublishedPort& port) {
    auto find = [&](const PublishedPort& wanted) { return std::find_if(options.ports.begin(), options.ports.end(), [&](const auto& one) { return is_same(one, wanted); }); };
    auto found = find(port);
    for (const auto& one : chosen) {
        auto real = published(one);
        real.host_port = static_cast<std::uint16_t>(one.chosen_port());
        if (found == options.ports.end() && one.host_port() == 0 && is_same(real, port)) found = find(published(one));
    }
    if (found != options.ports.end()) {
        options.ports.erase(found);
        return {};
    }
    wire::NetworkSpec::Port said;
    said.set_address(port.address);
    said.set_host_port(port.host_port);
    said.set_guest_port(port.guest_port);
    said.set_udp(port.udp);
    return failure(Errc::kNotFound, "port " + port_text(said) + " is not published", "see: caisson port");
}

}  // namespace

Result<std::optional<wire::NetworkSpec>> changed_network(const wire::NetworkSpec* before, const std::vector<wire::NetworkSpec::Port>& ports, const BoxUpdate& update) {
    auto options = options_of(before);
    if (update.network || !update.network_policy.empty() || !update.allow_network.empty() || !update.deny_network.empty()) {
        options.network = update.network.value_or("");
        options.network_policy = update.network_policy;
        options.allow_network = update.allow_network;
        options.deny_network = update.deny_network;
    }
    if (options.network == "none" && options.network_policy.empty()) {
        // They would be of no use; and with ports it is an error.
        options.name_servers.clear();
        options.hosts.clear();
        options.network_learn = false;
        if (update.network_limits) return failure(Errc::kUsage, "a box without a network has no limits of it", "choose a network: public or open; or rules alone");
    }
    if (update.network_limits) options.network_limits = *update.network_limits;
    for (const auto& port : update.unpublished) CAISSON_TRY(unpublish(options, ports, port));
    for (const auto& port : update.published) {
        const bool twice = port.host_port != 0 && std::any_of(options.ports.begin(), options.ports.end(), [&](const auto& one) { return is_same(one, port); });
        if (!twice) options.ports.push_back(port);
    }
    return network_of(options);
}

wire::NetworkLink network_link() {
    wire::NetworkLink link;
    link.set_address(net::kGuestAddress);
    link.set_prefix(net::kPrefix4);
    link.set_gateway(net::kGatewayAddress);
    link.set_address6(net::kGuestAddress6);
    link.set_prefix6(net::kPrefix6);
    link.set_gateway6(net::kGatewayAddress6);
    link.set_gateway_hardware(net::kGatewayHardware.data(), net::kGatewayHardware.size());
    link.set_mtu(net::kMtu);
    return link;
}

void describe_network(const wire::NetworkSpec& spec, BoxDetails& details) {
    if (auto policy = net::Policy::parse(spec.policy())) details.network = net::to_string(policy->mode());
    details.network_policy = spec.policy();
    details.network_learn = spec.learn();
    details.network_proxy = spec.proxy();
    for (const auto& port : spec.ports())
        details.ports.push_back({port.address(), static_cast<std::uint16_t>(port.host_port()), static_cast<std::uint16_t>(port.guest_port()), port.udp()});
}

}  // namespace caisson::box
