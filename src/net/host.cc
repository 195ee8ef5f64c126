#include "net/host.h"

#include <fcntl.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

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
    if (::bind(socket.get(), where.get(), where.length) != 0 || (!port.udp() && ::listen(socket.get(), SOMAXCONN) != 0)) {
        if (errno == EADDRINUSE) return failure(Errc::kInUse, "port " + said + " of this host is in use", "see by whom: ss -lntup; or publish another one");
        if (errno == EACCES) return failure(Errc::kPermission, "port " + said + " of this host is for root", "publish one from 1024 on, or: sudo sysctl net.ipv4.ip_unprivileged_port_start=" + std::to_string(place.port));
        return failure_errno("cannot listen at " + said);
    }
    return socket;
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
    std::vector<os::Fd> descriptors;
    descriptors.push_back(std::move(space_.listener));
    descriptors.push_back(std::move(space_.datagrams));
    descriptors.push_back(std::move(space_.ask));
    std::vector<os::Fd> ports;
    for (const auto& port : begin.spec().ports()) ports.push_back(CAISSON_TRY(listen_at(port)));
    auto orders = CAISSON_TRY(os::make_socketpair(SOCK_SEQPACKET));
    auto events = CAISSON_TRY(os::make_socketpair(SOCK_SEQPACKET));
    auto description = netd_jail(options_.netd_program, *options_.sandbox);
    description.descriptors = {{orders.second.get(), relay::kOrdersFd}, {words_in_.get(), STDERR_FILENO}, {events.second.get(), relay::kEventsFd}};
    description.groups = options_.groups;
    auto jailed = CAISSON_TRY_CTX(jail::start(description, *options_.sandbox), "starting the box's network");
    netd_ = std::move(jailed.process);
    init_ = std::move(jailed.init);
    orders_ = std::move(orders.first);
    wire::NetworkOrder order;
    *order.mutable_begin() = begin;
    CAISSON_TRY(tell(order, descriptors));
    for (int i = 0; i < begin.spec().ports_size(); ++i) {
        auto& port = *order.mutable_add_port();
        port.set_guest_port(begin.spec().ports(i).guest_port());
        port.set_udp(begin.spec().ports(i).udp());
        std::vector<os::Fd> socket;
        socket.push_back(std::move(ports[static_cast<std::size_t>(i)]));
        CAISSON_TRY(tell(order, socket));
    }
    init_.learn();
    return std::move(events.first);
}

Result<> NetworkHost::tell(const wire::NetworkOrder& order, const std::vector<os::Fd>& descriptors) {
    std::string packed;
    if (!order.SerializeToString(&packed) || packed.size() > relay::kMostOrderBytes) return failure(Errc::kLimit, "the box's network policy is too large");
    if (!os::send_packet(orders_.get(), packed, descriptors)) return failure_errno("cannot tell the box's network what to do");
    return {};
}

std::string NetworkHost::last_words() {
    words_in_.reset();
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
