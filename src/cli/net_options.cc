#include "cli/net_options.h"

#include <CLI/CLI.hpp>
#include <cstdlib>

#include "base/text.h"
#include "net/policy/limits.h"
#include "os/file.h"

namespace caisson::cli {

using base::failure;

void add_net_options(CLI::App& command, const std::shared_ptr<NetArguments>& arguments) {
    command.add_option("--net", arguments->net, "none, public (the internet; the default unless $CAISSON_NET says otherwise) or open (and private networks)")->type_name("MODE")
        ->check([](const std::string& mode) { return mode.empty() ? std::string("write none, public or open") : std::string(); });
    command
        .add_option("--allow-net", arguments->allow,
                    "Reach this and nothing else; may be repeated: NAME, *.SUFFIX, IP or CIDR, with :PORT, :FROM-TO or :*, /tcp or /udp")
        ->type_name("RULE")
        ->allow_extra_args(false)
        ->take_all();
    command.add_option("--deny-net", arguments->deny, "Do not reach this, whatever else allows it; may be repeated")
        ->type_name("RULE")
        ->allow_extra_args(false)
        ->take_all();
    command.add_option("--net-policy", arguments->policy_file, "Take mode and rules from a file instead")->type_name("FILE");
}

Result<std::string> default_net() {
    const char* set = std::getenv("CAISSON_NET");
    if (set == nullptr || *set == '\0') return std::string(net::to_string(net::Mode::kPublic));
    for (auto mode : {net::Mode::kNone, net::Mode::kPublic, net::Mode::kOpen})
        if (set == std::string_view(net::to_string(mode))) return std::string(set);
    return failure(Errc::kUsage, "CAISSON_NET is '" + base::printable(set, 64) + "', which is no default for --net", "set it to none, public or open");
}

Result<net::Policy> net_policy(const NetArguments& arguments) {
    if (!arguments.given()) return net::Policy::from_words({CAISSON_TRY(default_net()), {}, {}});
    if (arguments.policy_file.empty()) return net::Policy::from_words({arguments.net, arguments.allow, arguments.deny});
    if (!arguments.net.empty() || !arguments.allow.empty() || !arguments.deny.empty())
        return failure(Errc::kUsage, "--net-policy says everything, so --net, --allow-net and --deny-net do not go with it",
                       "write mode and rules into the file");
    const auto context = "--net-policy " + arguments.policy_file;
    const auto text = CAISSON_TRY_CTX(os::read_file(arguments.policy_file, net::limits::kLargestPolicyBytes), context);
    return CAISSON_TRY_CTX(net::Policy::parse(text), context);
}

Result<NetChoice> net_choice(const NetArguments& arguments) {
    const auto policy = CAISSON_TRY(net_policy(arguments));
    return NetChoice{net::to_string(policy.mode()), policy.mode() == net::Mode::kNone ? std::string() : policy.to_json()};
}

void add_publish_option(CLI::App& command, const char* name, std::vector<std::string>& ports, const char* what) {
    command.add_option(name, ports, what)->type_name("[IP:]HOST:BOX[/udp]")->allow_extra_args(false)->take_all();
}

void add_net_limit_option(CLI::App& command, std::vector<std::string>& limits) {
    command.add_option("--net-limit", limits, "Limit the network: connections=N, flows=N, connects=N a second, in=SIZE and out=SIZE a second, burst=SIZE at once")
        ->type_name("WHAT=N")->allow_extra_args(false)->take_all();
}

namespace {

struct PortRange {
    std::uint16_t from, to;
};

std::optional<PortRange> parse_range(std::string_view text) {
    const auto dash = text.find('-');
    const auto from = base::parse_u64(text.substr(0, dash));
    const auto to = dash == std::string_view::npos ? from : base::parse_u64(text.substr(dash + 1));
    if (!from || !to || *from > *to || *to > 65535) return std::nullopt;
    return PortRange{static_cast<std::uint16_t>(*from), static_cast<std::uint16_t>(*to)};
}

}  // namespace

Result<> parse_net_limit(const std::string& text, NetworkLimits& limits) {
    const auto equals = text.find('=');
    const auto key = text.substr(0, equals);
    const auto value = equals == std::string::npos ? std::string() : text.substr(equals + 1);
    if (key == "in" || key == "out" || key == "burst") {
        auto& bytes = key == "in" ? limits.bytes_per_second_in : key == "out" ? limits.bytes_per_second_out : limits.burst_bytes;
        bytes = CAISSON_TRY_CTX(base::parse_size(value), "--net-limit " + key);
        return {};
    }
    auto* number = key == "connections" ? &limits.connections : key == "flows" ? &limits.flows : key == "connects" ? &limits.connects_per_second : nullptr;
    if (number == nullptr)
        return failure(Errc::kUsage, "--net-limit '" + base::printable(text, 100) + "' limits nothing that there is", "write connections=, flows=, connects=, in=, out= or burst= with a number");
    constexpr std::uint64_t kMost = 100'000;
    const auto read = base::parse_u64(value);
    if (!read || *read == 0 || *read > kMost) return failure(Errc::kUsage, "--net-limit '" + base::printable(text, 100) + "': write a number from 1 to 100000");
    *number = static_cast<std::uint32_t>(*read);
    return {};
}

Result<std::vector<PublishedPort>> parse_ports(const std::string& text, const std::string& option) {
    auto wrong = [&](const std::string& why) {
        return failure(Errc::kUsage, option + " '" + base::printable(text, 100) + "': " + why, "write [IP:]HOST:BOX[/udp], such as 8080:80 or 0.0.0.0:5353:53/udp");
    };
    PublishedPort port;
    std::string_view rest = text;
    if (const auto slash = rest.rfind('/'); slash != std::string_view::npos) {
        const auto word = rest.substr(slash + 1);
        if (word != "udp" && word != "tcp") return wrong("the protocol is tcp or udp");
        port.udp = word == "udp";
        rest = rest.substr(0, slash);
    }
    const auto last = rest.rfind(':');
    if (last == std::string_view::npos) return wrong("it names one port, and two are needed");
    const auto guest = parse_range(rest.substr(last + 1));
    rest = rest.substr(0, last);
    const auto before = rest.rfind(':');
    const auto host = parse_range(before == std::string_view::npos ? rest : rest.substr(before + 1));
    if (before != std::string_view::npos) {
        auto address = rest.substr(0, before);
        if (address.size() > 2 && address.front() == '[' && address.back() == ']') address = address.substr(1, address.size() - 2);
        if (!net::Address::parse(address)) return wrong("'" + base::printable(address, 64) + "' is no address");
        port.address = address;
    }
    if (!guest || !host || guest->from == 0) return wrong("ports are numbers up to 65535");
    if (guest->to - guest->from != host->to - host->from) return wrong("both sides need as many ports");
    std::vector<PublishedPort> ports;
    for (std::uint32_t i = 0; i <= static_cast<std::uint32_t>(guest->to - guest->from); ++i) {
        port.host_port = static_cast<std::uint16_t>(host->from + i);
        port.guest_port = static_cast<std::uint16_t>(guest->from + i);
        ports.push_back(port);
    }
    return ports;
}

}  // namespace caisson::cli
