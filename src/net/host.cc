#include "net/host.h"

#include <fcntl.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <set>
#include <utility>

#include "base/text.h"
#include "jail/kinds.h"
#include "net/dns/message.h"
#include "net/relay/limits.h"
#include "net/relay/netd.h"
#include "os/file.h"

namespace caisson::net {

using base::failure;
using base::failure_errno;

namespace {

constexpr const char* kNetdInJail = "/caisson-netd";
constexpr std::uint64_t kNetdMemoryBytes = 1ull << 30;
// Two for each connection and flow, and some for names.
constexpr std::uint64_t kNetdDescriptors = 4 * relay::kMostConnections + 1024;
constexpr std::size_t kMostLastWords = 400;

std::uint64_t most_descriptors() {
    struct rlimit now {};
    if (::getrlimit(RLIMIT_NOFILE, &now) != 0) return 1024;
    return std::min<std::uint64_t>(now.rlim_max, kNetdDescriptors);
}

std::uint16_t chosen_port(const os::Fd& socket) {
    SocketAddress own;
    own.length = sizeof own.storage;
    if (::getsockname(socket.get(), own.get(), &own.length) != 0) return 0;
    const auto place = from_socket(own.get(), own.length);
    return place ? place->port : 0;
}

// A socket of the host for one published port.
Result<os::Fd> listen_at(const wire::NetworkSpec::Port& port) {
    auto address = Address::parse(port.address());
    if (!address) return failure(Errc::kUsage, "'" + base::printable(port.address(), 64) + "' is no address of this host");
    const Endpoint place{*address, static_cast<std::uint16_t>(port.host_port())};
    const auto said = place.to_string() + (port.udp() ? "/udp" : "");
    const auto where = to_socket(place);
    os::Fd socket(::socket(where.storage.ss_family, (port.udp() ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!socket) return failure_errno("cannot make a socket");
    const int on = 1;
    if (!port.udp()) ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    // The kernel keeps a port for a socket that stops listening only if it was asked for by number: see died().
    if (!port.udp() && place.port == 0) {
        if (::bind(socket.get(), where.get(), where.length) != 0) return failure_errno("cannot listen at " + said);
        auto chosen = port;
        chosen.set_host_port(chosen_port(socket));
        return listen_at(chosen);
    }
    if (::bind(socket.get(), where.get(), where.length) != 0 || (!port.udp() && ::listen(socket.get(), SOMAXCONN) != 0)) {
        if (errno == EADDRINUSE) return failure(Errc::kInUse, "port " + said + " of this host is in use", "see by whom: ss -lntup; or publish another one");
        if (errno == EACCES) return failure(Errc::kPermission, "port " + said + " of this host is for root", "publish one from 1024 on, or: sudo sysctl net.ipv4.ip_unprivileged_port_start=" + std::to_string(place.port));
        return failure_errno("cannot listen at " + said);
    }
    return socket;
}

// A socket that was shut down while it did not listen, by us or by whoever had it, would hand that on to all that it accepts:
// they would be at their end before they have begun. This makes it as new; it stays bound.
bool listen_again(const os::Fd& socket) {
    struct sockaddr nowhere {};
    nowhere.sa_family = AF_UNSPEC;
    return ::connect(socket.get(), &nowhere, sizeof nowhere) == 0 && ::listen(socket.get(), SOMAXCONN) == 0;
}

}  // namespace

jail::Description netd_jail(const std::string& program, const jail::Sandbox& sandbox) {
    jail::Description description;
    description.name = "netd";
    description.share_network = true;
    description.resource_limits = {{RLIMIT_NOFILE, most_descriptors()}};
    description.arguments = {program};
    if (&sandbox == &jail::no_jail()) return description;
    description.filter = jail::netd_filter();
#ifdef CAISSON_STATIC_NETD
    description.mounts = {{jail::Mount::Kind::kReadOnly, program, kNetdInJail}};
    description.arguments = {kNetdInJail};
    description.resource_limits.push_back({RLIMIT_DATA, kNetdMemoryBytes});
#else
    description.root = "/";  // sanitizers need shared libraries
#endif
    return description;
}

Result<NetworkHost> NetworkHost::open(Options options) {
    auto host = CAISSON_TRY(start(std::move(options)));
    CAISSON_TRY(host.wait());
    return host;
}

Result<> NetworkHost::wait() { return space_.wait(); }

Result<NetworkHost> NetworkHost::start(Options options) {
    NetworkHost host;
    auto words = CAISSON_TRY(os::make_pipe());
    SpaceHost::Options space;
    space.program = options.netns_program;
    space.groups = options.groups;
    space.tun = options.tun_fd;
    space.error_fd = words.second.get();
    host.space_ = CAISSON_TRY(SpaceHost::start(space));
    host.options_ = std::move(options);
    host.words_ = std::move(words.first);
    host.words_in_ = std::move(words.second);
    return host;
}

Result<os::Fd> NetworkHost::begin(wire::NetworkOrder::Begin begin) {
    begin_ = std::move(begin);
    ports_ = CAISSON_TRY(plan_ports(begin_.spec())).all;
    return start_netd();
}

// The namespace's sockets stay here as well, for another one.
Result<os::Fd> NetworkHost::start_netd() {
    std::vector<os::Fd> descriptors;
    descriptors.push_back(CAISSON_TRY(space_.listener.duplicate()));
    descriptors.push_back(CAISSON_TRY(space_.datagrams.duplicate()));
    descriptors.push_back(std::move(space_.ask));
    auto orders = CAISSON_TRY(os::make_socketpair(SOCK_SEQPACKET));
    auto events = CAISSON_TRY(os::make_socketpair(SOCK_SEQPACKET));
    auto description = netd_jail(options_.netd_program, *options_.sandbox);
    description.descriptors = {{orders.second.get(), relay::kOrdersFd}, {words_in_.get(), STDERR_FILENO}, {events.second.get(), relay::kEventsFd}};
    description.groups = options_.groups;
    auto jailed = CAISSON_TRY_CTX(jail::start(description, *options_.sandbox), "starting the box's network");
    netd_ = std::move(jailed.process);
    init_ = std::move(jailed.init);
    orders_ = std::move(orders.first);
    // Who does not read its orders keeps nobody waiting who gives them.
    const int room = 2 * static_cast<int>(relay::kMostOrderBytes);
    ::setsockopt(orders_.get(), SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    CAISSON_TRY(os::set_nonblocking(orders_.get(), true));
    wire::NetworkOrder order;
    *order.mutable_begin() = begin_;
    CAISSON_TRY(tell(order, descriptors));
    if (open_) CAISSON_TRY(add_ports());
    init_.learn();
    return std::move(events.first);
}

Result<> NetworkHost::let_in() {
    if (std::exchange(open_, true)) return {};
    return add_ports();
}

Result<> NetworkHost::add_ports() {
    for (const auto& port : ports_) CAISSON_TRY(add_port(port, false));
    return {};
}

// What stays the same keeps its socket; what only leads elsewhere now gets a duplicate of it, for nobody could listen at
// its place meanwhile. Nothing has changed if one cannot be had.
Result<NetworkHost::Ports> NetworkHost::plan_ports(const wire::NetworkSpec& spec) const {
    Ports ports;
    std::vector<bool> kept(ports_.size(), false);
    std::vector<const Port*> same(static_cast<std::size_t>(spec.ports_size()), nullptr);
    const auto equal_place = [](const auto& one, const auto& other) {
        return one.address() == other.address() && one.host_port() == other.host_port() && one.udp() == other.udp();
    };
    std::set<std::uint32_t> numbers;
    for (int i = 0; i < spec.ports_size(); ++i)
        for (std::size_t old = 0; old < ports_.size(); ++old)
            if (!kept[old] && equal_place(ports_[old].spec, spec.ports(i)) && ports_[old].spec.guest_port() == spec.ports(i).guest_port()) {
                kept[old] = true;
                same[static_cast<std::size_t>(i)] = &ports_[old];
                numbers.insert(ports_[old].number);
                break;
            }
    std::vector<bool> taken = kept;
    for (int i = 0; i < spec.ports_size(); ++i) {
        Port port;
        port.spec = spec.ports(i);
        if (const auto* old = same[static_cast<std::size_t>(i)]) {
            port.number = old->number;
            port.socket = CAISSON_TRY(old->socket.duplicate());
            ports.all.push_back(std::move(port));
            continue;
        }
        for (std::size_t old = 0; old < ports_.size() && !port.socket; ++old) {
            if (taken[old] || port.spec.host_port() == 0 || !equal_place(ports_[old].spec, port.spec)) continue;
            taken[old] = true;
            port.socket = CAISSON_TRY(ports_[old].socket.duplicate());
        }
        if (!port.socket) port.socket = CAISSON_TRY(listen_at(port.spec));
        for (port.number = 1; numbers.contains(port.number); ++port.number) {}
        numbers.insert(port.number);
        ports.added.push_back(ports.all.size());
        ports.all.push_back(std::move(port));
    }
    for (std::size_t old = 0; old < ports_.size(); ++old)
        if (!kept[old]) ports.removed.push_back(ports_[old].number);
    return ports;
}

Result<> NetworkHost::add_port(const Port& port, bool confirm) {
    wire::NetworkOrder order;
    order.mutable_add_port()->set_guest_port(port.spec.guest_port());
    order.mutable_add_port()->set_udp(port.spec.udp());
    order.mutable_add_port()->set_number(port.number);
    order.set_confirm(confirm);
    std::vector<os::Fd> socket;
    socket.push_back(CAISSON_TRY(port.socket.duplicate()));
    CAISSON_TRY(tell(order, socket));
    return confirm ? hear_confirmation() : Result<>();
}

Result<> NetworkHost::change(const wire::NetworkSpec& spec) {
    if (!netd_.running()) return failure(Errc::kIo, "the box's network process died", "give the box another one with: caisson update --net-restart");
    auto ports = CAISSON_TRY(plan_ports(spec));
    if (auto obeyed = obey(spec, ports); !obeyed) {
        // It may do what it was told to stop: then rather nothing at all.
        init_.kill();
        static_cast<void>(netd_.send_signal(SIGKILL));
        return base::failure(std::move(obeyed.error()));
    }
    dont_linger();
    ports_ = std::move(ports.all);
    *begin_.mutable_spec() = spec;
    return {};
}

Result<> NetworkHost::obey(const wire::NetworkSpec& spec, const Ports& ports) {
    obeys_until_ = std::chrono::steady_clock::now() + relay::kObeyPatience;
    wire::NetworkOrder order;
    order.set_confirm(true);
    auto say = [&]() -> Result<> {
        CAISSON_TRY(tell(order, {}));
        return hear_confirmation();
    };
    if (open_) {
        for (const auto number : ports.removed) {
            order.mutable_remove_port()->set_number(number);
            CAISSON_TRY(say());
        }
        for (const auto index : ports.added) CAISSON_TRY(add_port(ports.all[index], true));
    }
    if (spec.limits().SerializeAsString() != begin_.spec().limits().SerializeAsString()) {
        *order.mutable_set_limits() = spec.limits();
        CAISSON_TRY(say());
    }
    if (spec.policy() == begin_.spec().policy()) return {};
    order.set_set_policy(spec.policy());
    return say();
}

Result<os::Fd> NetworkHost::restart(const wire::NetworkSpec& spec) {
    if (!space_.process().running()) return failure(Errc::kIo, "the box's network namespace is gone, and with it the cable of its card", "restart the box: caisson restart");
    auto ports = CAISSON_TRY(plan_ports(spec));
    end_netd();
    ports_ = std::move(ports.all);
    *begin_.mutable_spec() = spec;
    for (const auto& port : ports_)
        if (!port.spec.udp() && !listen_again(port.socket))
            return failure_errno("cannot listen again at port " + std::to_string(chosen_port(port.socket)) + " of this host");
    space_.ask = CAISSON_TRY(space_.another_ask());
    auto events = start_netd();
    if (!events) end_netd();
    return events;
}

void NetworkHost::end_netd() {
    init_.kill();
    netd_ = os::Process();
    init_ = jail::Init();
    dont_linger();
}

// caisson-netd could have made them sockets whose close() waits.
void NetworkHost::dont_linger() const {
    const linger off{};
    for (const auto& port : ports_) ::setsockopt(port.socket.get(), SOL_SOCKET, SO_LINGER, &off, sizeof off);
    ::setsockopt(space_.listener.get(), SOL_SOCKET, SO_LINGER, &off, sizeof off);
}

// It stays bound, so that nobody else gets it; who comes is refused.
void NetworkHost::died() {
    for (const auto& port : ports_)
        if (!port.spec.udp()) ::shutdown(port.socket.get(), SHUT_RD);
}

wire::NetworkPorts NetworkHost::ports() const {
    wire::NetworkPorts told;
    for (const auto& port : ports_) {
        *told.add_ports() = port.spec;
        told.mutable_ports(told.ports_size() - 1)->set_chosen_port(chosen_port(port.socket));
    }
    return told;
}

Result<> NetworkHost::tell(const wire::NetworkOrder& order, const std::vector<os::Fd>& descriptors) {
    std::string packed;
    if (!order.SerializeToString(&packed) || packed.size() > relay::kMostOrderBytes) return failure(Errc::kLimit, "the box's network policy is too large");
    if (!os::send_packet(orders_.get(), packed, descriptors)) return failure_errno("cannot tell the box's network what to do");
    return {};
}

Result<> NetworkHost::hear_confirmation() {
    struct pollfd waited {orders_.get(), POLLIN, 0};
    int ready;
    do {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(obeys_until_ - std::chrono::steady_clock::now()).count();
        ready = ::poll(&waited, 1, static_cast<int>(std::max<std::int64_t>(0, left)));
    } while (ready < 0 && errno == EINTR);
    char room[8];
    if (ready > 0)
        if (const auto packet = os::receive_packet(orders_.get(), room); packet.length == static_cast<ssize_t>(relay::kConfirmation.size())) return {};
    return failure(Errc::kIo, ready == 0 ? "the box's network process does not do what it is told, and was ended" : "the box's network process died",
                   "give the box another one with: caisson update --net-restart");
}

std::string NetworkHost::last_words() {
    char text[4096];
    if (!words_ || !os::set_nonblocking(words_.get(), true)) return {};
    const ssize_t got = ::read(words_.get(), text, sizeof text);
    const std::string_view line(text, static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    return base::printable(line.substr(0, line.find('\n')), kMostLastWords);
}

std::vector<std::string> host_name_servers() {
    constexpr std::size_t kLargest = 64 << 10;
    std::vector<std::string> servers;
    if (auto text = os::read_file("/etc/resolv.conf", kLargest))
        for (const auto& server : dns::parse_resolv_conf(*text)) servers.push_back(server.to_string());
    return servers;
}

std::vector<Address> host_addresses() {
    std::vector<Address> addresses;
    ifaddrs* first = nullptr;
    if (::getifaddrs(&first) != 0) return addresses;
    const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> all(first, &::freeifaddrs);
    for (const auto* one = first; one != nullptr; one = one->ifa_next) {
        if (one->ifa_addr == nullptr) continue;
        const auto length = one->ifa_addr->sa_family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
        if (auto place = from_socket(one->ifa_addr, static_cast<socklen_t>(length))) addresses.push_back(place->address);
    }
    return addresses;
}

}  // namespace caisson::net
