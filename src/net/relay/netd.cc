#include "net/relay/netd.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "base/text.h"
#include "net/dns/server.h"
#include "net/proxy/proxy.h"
#include "net/relay/connections.h"
#include "net/relay/context.h"
#include "net/relay/datagrams.h"
#include "wire/net.pb.h"

namespace caisson::net::relay {

using base::failure;
using base::failure_errno;

namespace {

// The kernel says whether there is a way; nothing is sent.
bool has_ipv6() {
    int error = 0;
    return static_cast<bool>(connect_udp({*Address::parse("2001:4860:4860::8888"), kNameServerPort}, error));
}

class Netd {
  public:
    Netd(os::Loop loop, os::Fd orders, os::Fd events) : loop_(std::move(loop)), orders_(std::move(orders)), records_(std::move(events)), context_{.loop = loop_, .records = records_} {}
    Netd(const Netd&) = delete;

    Result<> run() {
        CAISSON_TRY(os::set_nonblocking(orders_.get(), true));
        CAISSON_TRY(loop_.watch(orders_.get(), EPOLLIN, [this](std::uint32_t) { on_order(); }));
        CAISSON_TRY(loop_.run());
        return std::move(result_);
    }

  private:
    void stop(Result<> result) {
        result_ = std::move(result);
        loop_.stop();
    }
    void on_order() {
        std::vector<char> bytes(kMostOrderBytes);
        auto packet = os::receive_packet(orders_.get(), bytes);
        if (packet.length < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (packet.length <= 0) return stop({});
        wire::NetworkOrder order;
        if (packet.cut || !order.ParseFromArray(bytes.data(), static_cast<int>(packet.length))) return stop(failure(Errc::kProtocol, "an order is not a message"));
        auto done = carry_out(order, std::move(packet.descriptors));
        if (done && order.confirm() && !os::send_packet(orders_.get(), kConfirmation)) done = failure_errno("cannot say that an order holds");
        if (!done) stop(std::move(done));
    }
    Result<> carry_out(const wire::NetworkOrder& order, std::vector<os::Fd> descriptors) {
        if (order.has_begin()) return begin(order.begin(), std::move(descriptors));
        if (!connections_) return failure(Errc::kProtocol, "an order comes at the wrong time");
        if (order.has_add_port()) return add_port(order.add_port(), std::move(descriptors));
        if (order.has_remove_port()) return remove_port(order.remove_port().number());
        if (order.has_set_limits()) return set_limits(order.set_limits());
        if (order.order_case() == wire::NetworkOrder::kSetPolicy) return set_policy(order.set_policy());
        return failure(Errc::kProtocol, "an order asks for nothing");
    }
    Result<> add_port(const wire::NetworkOrder::AddPort& port, std::vector<os::Fd> descriptors) {
        if (descriptors.size() != 1 || port.guest_port() == 0 || port.guest_port() > 65535) return failure(Errc::kProtocol, "a port comes without what it needs");
        const auto guest_port = static_cast<std::uint16_t>(port.guest_port());
        if (port.number() == 0 || port.number() > kMostPorts) return failure(Errc::kProtocol, "a port comes without its number");
        const auto number = static_cast<std::uint16_t>(port.number());
        return port.udp() ? datagrams_->publish(std::move(descriptors[0]), guest_port, number) : connections_->publish(std::move(descriptors[0]), guest_port, number);
    }
    Result<> remove_port(std::uint32_t number) {
        connections_->unpublish(number);
        datagrams_->unpublish(number);
        return {};
    }
    Result<> set_policy(const std::string& text) {
        auto policy = CAISSON_TRY(Policy::parse(text));
        context_.use(std::move(policy));
        if (connections_) connections_->judge_again();
        if (datagrams_) datagrams_->judge_again();
        return {};
    }
    Result<> begin(const wire::NetworkOrder::Begin& begin, std::vector<os::Fd> descriptors);
    Result<> begin_names(const wire::NetworkOrder::Begin& begin);
    Result<> set_limits(const wire::NetworkSpec::Limits& limits);
    bool may_use(const std::string& name, const Address& address) const {
        if (auto own = hosts_.find(name); own != hosts_.end() && std::find(own->second.begin(), own->second.end(), address) != own->second.end()) return true;
        return context_.policy.judge_resolved(name, address).allowed();
    }
    void on_question(const dns::Question& question) {
        const auto now = std::chrono::steady_clock::now();
        if (question.verdict == dns::Question::Verdict::kAnswered)
            for (const auto& address : question.addresses) context_.pins.add(question.name, address, std::chrono::seconds(question.ttl), now);
        records_.question(question);
    }

    os::Loop loop_;
    os::Fd orders_;
    Records records_;
    Context context_;
    std::map<std::string, std::vector<Address>> hosts_;
    std::unique_ptr<dns::Resolver> resolver_;
    std::unique_ptr<dns::Server> names_;
    std::unique_ptr<Space> space_;
    std::unique_ptr<Connections> connections_;
    std::unique_ptr<Datagrams> datagrams_;
    Result<> result_;
};

Result<> Netd::set_limits(const wire::NetworkSpec::Limits& limits) {
    context_.most_connections = limits.connections() != 0 ? limits.connections() : kConnections;
    context_.most_flows = limits.flows() != 0 ? limits.flows() : kFlows;
    const auto connects = limits.connects_per_second() != 0 ? limits.connects_per_second() : kConnectsPerSecond;
    context_.connects = Rate(connects, connects);
    const std::uint64_t rates[] = {limits.bytes_per_second_out(), limits.bytes_per_second_in()};
    for (std::size_t way = 0; way < 2; ++way)
        context_.rates[way] = rates[way] != 0 ? Rate(rates[way], std::max(limits.burst_bytes() != 0 ? limits.burst_bytes() : rates[way] / 2, kLeastBurstBytes)) : Rate();
    return {};
}

Result<> Netd::begin_names(const wire::NetworkOrder::Begin& begin) {
    dns::Resolver::Options options;
    options.loop = &loop_;
    for (const auto& server : begin.servers()) options.servers.push_back(CAISSON_TRY(dns::parse_server(server)));
    for (const auto& host : begin.spec().hosts()) {
        auto address = Address::parse(host.address());
        auto name = canonical_name(host.name());
        if (!address || !name) return failure(Errc::kUsage, "'" + base::printable(host.name(), 100) + "' is no host with an address");
        hosts_[*name].push_back(*address);
    }
    auto& own = hosts_[std::string(kHostName)];
    if (own.empty()) own.push_back(*Address::parse(kGatewayAddress));
    options.hosts = hosts_;
    options.may_use = [this](const std::string& name, const Address& address) { return may_use(name, address); };
    resolver_ = std::make_unique<dns::Resolver>(std::move(options));
    context_.resolver = resolver_.get();
    dns::Server::Options server;
    server.loop = &loop_;
    server.resolver = resolver_.get();
    server.judge = [this](const std::string& name) { return context_.policy.judge_question(name).allowed(); };
    server.on_question = [this](const dns::Question& question) { on_question(question); };
    server.ipv6 = context_.ipv6;
    names_ = std::make_unique<dns::Server>(std::move(server));
    return {};
}

Result<> Netd::begin(const wire::NetworkOrder::Begin& begin, std::vector<os::Fd> descriptors) {
    const auto& spec = begin.spec();
    if (connections_ || descriptors.size() != 3) return failure(Errc::kProtocol, "an order comes with other descriptors than it should");
    context_.ipv6 = has_ipv6();
    context_.learn = spec.learn();
    if (!spec.proxy().empty()) context_.proxy = CAISSON_TRY(parse_proxy(spec.proxy()));
    for (const auto& text : begin.host_addresses())
        if (auto address = Address::parse(text)) context_.host_addresses.push_back(*address);
    CAISSON_TRY(set_limits(spec.limits()));
    CAISSON_TRY(set_policy(spec.policy()));
    CAISSON_TRY(begin_names(begin));
    space_ = std::make_unique<Space>(loop_, std::move(descriptors[2]), Space::Told{
        .begins = [this](std::uint64_t number, const Endpoint& guest, const Endpoint& outside) { connections_->begins(number, guest, outside); },
        .gone = [this] { stop({}); }});
    context_.space = space_.get();
    connections_ = std::make_unique<Connections>(context_, Connections::Options{
        .listener = std::move(descriptors[0]),
        .name_server = [this](os::Fd connection) { static_cast<void>(names_->on_stream(std::move(connection))); }});
    datagrams_ = std::make_unique<Datagrams>(context_, Datagrams::Options{
        .socket = std::move(descriptors[1]),
        .name_server = [this](base::ByteView query, Datagrams::Reply reply) { names_->on_datagram(query, std::move(reply)); }});
    CAISSON_TRY(space_->start());
    CAISSON_TRY(connections_->start());
    return datagrams_->start();
}

}  // namespace

Result<> serve(os::Fd orders, os::Fd events) {
    CAISSON_TRY(os::set_nonblocking(events.get(), true));
    return Netd(CAISSON_TRY(os::Loop::create()), std::move(orders), std::move(events)).run();
}

}  // namespace caisson::net::relay
