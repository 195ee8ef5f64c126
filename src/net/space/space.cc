#include "net/space/space.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/text.h"
#include "net/space/limits.h"
#include "net/space/link.h"
#include "net/space/packet.h"
#include "net/space/protocol.h"
#include "net/space/rules.h"
#include "os/file.h"

namespace caisson::net {

using base::failure;
using base::failure_errno;

namespace {

constexpr const char* kTapName = "tap0";
constexpr const char* kLoopbackName = "lo";
constexpr int kReceiveBytes = 1 << 20;  // as far as the host allows

base::Failure missing(base::Failure failed, const char* hint) {
    failed.value().code = failed.value().sys_errno == EPERM || failed.value().sys_errno == EACCES ? Errc::kPermission : Errc::kHostMissing;
    failed.value().hint = hint;
    return failed;
}

Result<> write_setting(const std::string& path, std::string_view value) {
    auto file = CAISSON_TRY(os::open_file(path, O_WRONLY));
    // One write, all of it: the kernel reads no more than the first.
    if (::write(file.get(), value.data(), value.size()) != static_cast<ssize_t>(value.size())) return failure_errno("cannot write " + path);
    return {};
}

// The caller's own user and group, and no others.
Result<> map_ids(uid_t user, gid_t group) {
    const auto same = [](unsigned id) { return std::to_string(id) + " " + std::to_string(id) + " 1"; };
    CAISSON_TRY(write_setting("/proc/self/setgroups", "deny"));
    CAISSON_TRY(write_setting("/proc/self/uid_map", same(user)));
    return write_setting("/proc/self/gid_map", same(group));
}

Result<> enter_namespaces() {
    constexpr const char* kHint = "needs user namespaces: sysctl user.max_user_namespaces and kernel.unprivileged_userns_clone; "
                                  "Ubuntu: an AppArmor profile with 'userns,'";
    const uid_t user = ::geteuid();
    const gid_t group = ::getegid();
    if (::unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) return missing(failure_errno("cannot make user and network namespaces"), kHint);
    if (auto mapped = map_ids(user, group); !mapped) return missing(base::failure(std::move(mapped).error()), kHint);
    return {};
}

// Those that are right already stay as they are: /proc/sys may be read-only. One that this kernel does not have is left
// out.
Result<> apply_settings() {
    for (const auto& setting : settings()) {
        const auto path = std::string("/proc/sys/net/") + setting.path;
        auto now = os::read_file(path, 4096);
        if (!now && now.error().code == Errc::kNotFound) continue;
        if (now && base::trim(*now) == setting.value) continue;
        if (auto written = write_setting(path, setting.value); !written)
            return missing(base::failure(std::move(written).error()), "caisson must be able to write below /proc/sys/net of its own namespace");
    }
    return {};
}

Result<os::Fd> make_tap(int tun_node) {
    constexpr const char* kHint = "needs the tun device: modprobe tun; chmod 0666 /dev/net/tun";
    os::Fd tap(::open(("/proc/self/fd/" + std::to_string(tun_node)).c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK));
    if (!tap) return missing(failure_errno("cannot open the tun device"), kHint);
    struct ifreq wanted {};
    wanted.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    std::strncpy(wanted.ifr_name, kTapName, sizeof wanted.ifr_name - 1);
    if (::ioctl(tap.get(), TUNSETIFF, &wanted) != 0) return missing(failure_errno("cannot make a tap"), kHint);
    // The VMM asks for fewer if its guest's driver can do fewer.
    if (::ioctl(tap.get(), TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6) != 0)
        return missing(failure_errno("cannot set what the tap leaves to others"), kHint);
    // It goes with the namespace then, and not with its last descriptor, whose owner would wait 15 to 40 ms for its end.
    if (::ioctl(tap.get(), TUNSETPERSIST, 1) != 0) return missing(failure_errno("cannot leave the tap's end to its namespace"), kHint);
    return tap;
}

Result<> configure_links() {
    const unsigned tap = ::if_nametoindex(kTapName), loopback = ::if_nametoindex(kLoopbackName);
    if (tap == 0 || loopback == 0) return failure_errno("cannot find the links of the namespace");
    auto routing = CAISSON_TRY(NetlinkSocket::open(NETLINK_ROUTE));
    if (auto done = routing.carry_out(link_requests(tap, loopback)); !done)
        return missing(base::failure(std::move(done).error()), "needs IPv6 in the host's kernel (not ipv6.disable=1)");
    return {};
}

// To be told that an expression is missing takes 10 ms and more, in which the kernel looks for a module: so first what is
// likely to be there. Once either was found as a module, it stays loaded.
std::array<Queueing, 2> order_of_queueing() {
    if (os::exists("/sys/module/nft_queue")) return {Queueing::kTables, Queueing::kXtables};
    return {Queueing::kXtables, Queueing::kTables};
}

Result<os::Fd> add_rules_and_queue() {
    constexpr const char* kHint = "as root: modprobe -a nf_tables nft_tproxy nft_reject_inet nft_queue nfnetlink_queue";
    const unsigned tap = ::if_nametoindex(kTapName);
    auto netfilter = CAISSON_TRY(NetlinkSocket::open(NETLINK_NETFILTER));
    // First, so that nothing passes by it.
    if (auto queue = netfilter.carry_out(queue_requests()); !queue) return missing(base::failure(std::move(queue).error()), kHint);
    Result<> rules;
    for (auto queueing : order_of_queueing()) {
        rules = netfilter.carry_out(rule_requests(tap, queueing));
        if (rules || rules.error().sys_errno != ENOENT) break;
    }
    if (!rules) return missing(base::failure(std::move(rules).error()), kHint);
    // A packet that the queue has no room for is lost, and that is all.
    const int on = 1;
    if (::setsockopt(netfilter.fd().get(), SOL_NETLINK, NETLINK_NO_ENOBUFS, &on, sizeof on) != 0)
        return failure_errno("cannot set how the queue of packets tells that it is full");
    // As far as the host allows: what has no room here is lost as well.
    constexpr int kRoom = 1 << 20;
    if (::setsockopt(netfilter.fd().get(), SOL_SOCKET, SO_RCVBUF, &kRoom, sizeof kRoom) != 0)
        return failure_errno("cannot set the room of the queue of packets");
    CAISSON_TRY(os::set_nonblocking(netfilter.fd().get(), true));
    return netfilter.take();
}

Result<> set_option(const os::Fd& socket, int level, int option, int value) {
    if (::setsockopt(socket.get(), level, option, &value, sizeof value) != 0)
        return failure_errno("cannot set option " + std::to_string(option) + " of a socket of the box's network");
    return {};
}

// Of both families if `family` is AF_INET6.
Result<os::Fd> transparent_socket(int family, int type) {
    os::Fd socket(::socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!socket) return failure_errno("cannot make a socket of the box's network");
    if (family == AF_INET6) CAISSON_TRY(set_option(socket, SOL_IPV6, IPV6_TRANSPARENT, 1));
    if (family == AF_INET) CAISSON_TRY(set_option(socket, SOL_IP, IP_TRANSPARENT, 1));
    CAISSON_TRY(set_option(socket, SOL_SOCKET, SO_REUSEADDR, 1));
    return socket;
}

Result<> bind_to(const os::Fd& socket, const Endpoint& endpoint, bool dual) {
    auto address = to_socket(endpoint, dual);
    if (::bind(socket.get(), address.get(), address.length) != 0) return failure_errno("cannot bind a socket to " + endpoint.to_string());
    return {};
}

Result<> connect_to(const os::Fd& socket, const Endpoint& endpoint) {
    auto address = to_socket(endpoint);
    if (::connect(socket.get(), address.get(), address.length) != 0 && errno != EINPROGRESS)
        return failure_errno("cannot connect to " + endpoint.to_string());
    return {};
}

Result<os::Fd> make_listener() {
    auto socket = CAISSON_TRY(transparent_socket(AF_INET6, SOCK_STREAM));
    CAISSON_TRY(set_option(socket, SOL_IPV6, IPV6_V6ONLY, 0));
    CAISSON_TRY(bind_to(socket, {Address(), kListenerPort}, true));
    if (::listen(socket.get(), kListenerBacklog) != 0) return failure_errno("cannot listen in the box's network");
    return socket;
}

Result<os::Fd> make_datagrams() {
    auto socket = CAISSON_TRY(transparent_socket(AF_INET6, SOCK_DGRAM));
    CAISSON_TRY(set_option(socket, SOL_IPV6, IPV6_V6ONLY, 0));
    CAISSON_TRY(set_option(socket, SOL_IP, IP_RECVORIGDSTADDR, 1));
    CAISSON_TRY(set_option(socket, SOL_IPV6, IPV6_RECVORIGDSTADDR, 1));
    CAISSON_TRY(set_option(socket, SOL_SOCKET, SO_RCVBUF, kReceiveBytes));
    CAISSON_TRY(bind_to(socket, {Address(), kDatagramPort}, true));
    return socket;
}

Result<os::Fd> raw_socket(int family, int protocol) {
    os::Fd socket(::socket(family, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol));
    if (!socket) return failure_errno("cannot make a raw socket of the box's network");
    CAISSON_TRY(set_option(socket, SOL_SOCKET, SO_RCVBUF, 0));
    return socket;
}

Result<Refusals> make_refusals() {
    Refusals refusals{CAISSON_TRY(raw_socket(AF_INET, IPPROTO_ICMP)), CAISSON_TRY(raw_socket(AF_INET6, IPPROTO_ICMPV6))};
    constexpr int kIcmpFilter = 1;  // ICMP_FILTER of linux/icmp.h, which cannot be included beside net/if.h
    constexpr std::uint32_t none4 = ~0u;
    icmp6_filter none6;
    ICMP6_FILTER_SETBLOCKALL(&none6);
    if (::setsockopt(refusals.four.get(), SOL_RAW, kIcmpFilter, &none4, sizeof none4) != 0 ||
        ::setsockopt(refusals.six.get(), SOL_ICMPV6, ICMP6_FILTER, &none6, sizeof none6) != 0)
        return failure_errno("cannot set what raw sockets receive");
    return refusals;
}

// Whoever asks gets sockets that lead to this box's guest, and nowhere else.
Result<> check_guest(const Endpoint& guest, const Endpoint* outside) {
    const auto own = Address::parse(guest.address.is_v4() ? kGuestAddress : kGuestAddress6);
    if (guest.address != own || guest.port == 0 || (outside != nullptr && outside->address.is_v4() != guest.address.is_v4()))
        return failure_errno("no such endpoint of the guest", EINVAL);
    return {};
}

bool is_gateway(const Address& address) {
    return address == Address::parse(address.is_v4() ? kGatewayAddress : kGatewayAddress6);
}

int family_of(const Endpoint& endpoint) { return endpoint.address.is_v4() ? AF_INET : AF_INET6; }

}  // namespace

Result<Space> make_space(int tun_node) {
    CAISSON_TRY(enter_namespaces());
    CAISSON_TRY(apply_settings());
    Space space;
    space.tap = CAISSON_TRY(make_tap(tun_node));
    CAISSON_TRY(configure_links());
    space.queue = CAISSON_TRY(add_rules_and_queue());
    space.listener = CAISSON_TRY(make_listener());
    space.datagrams = CAISSON_TRY(make_datagrams());
    space.refusals = CAISSON_TRY(make_refusals());
    return space;
}

Result<os::Fd> make_datagram_socket(const Endpoint& guest, const Endpoint& outside) {
    // The name server answers from one socket, to whichever port of the guest's asked it.
    const bool to_any_port = guest.port == 0 && is_gateway(outside.address);
    CAISSON_TRY(check_guest(to_any_port ? Endpoint{guest.address, 1} : guest, &outside));
    auto socket = CAISSON_TRY(transparent_socket(family_of(guest), SOCK_DGRAM));
    CAISSON_TRY(set_option(socket, SOL_SOCKET, SO_RCVBUF, kReceiveBytes));
    CAISSON_TRY(bind_to(socket, outside, false));
    if (!to_any_port) CAISSON_TRY(connect_to(socket, guest));
    return socket;
}

Result<os::Fd> dial_guest(Protocol protocol, const Endpoint& guest, const Endpoint& outside) {
    const bool from_there = outside.port != 0;
    CAISSON_TRY(check_guest(guest, from_there ? &outside : nullptr));
    auto socket = CAISSON_TRY(transparent_socket(family_of(guest), protocol == Protocol::kTcp ? SOCK_STREAM : SOCK_DGRAM));
    if (from_there) CAISSON_TRY(bind_to(socket, outside, false));
    CAISSON_TRY(connect_to(socket, guest));
    return socket;
}

Result<> refuse_datagrams(const Refusals& refusals, const Endpoint& guest, const Endpoint& outside) {
    CAISSON_TRY(check_guest(guest, &outside));
    const auto message = port_unreachable(guest, outside);
    auto to = to_socket({guest.address, 0});
    const auto& socket = guest.address.is_v4() ? refusals.four : refusals.six;
    static_cast<void>(::sendto(socket.get(), message.data(), message.size(), MSG_NOSIGNAL, to.get(), to.length));
    return {};
}

}  // namespace caisson::net
