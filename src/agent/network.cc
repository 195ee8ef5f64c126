#include "agent/network.h"

#include <fcntl.h>
#include <linux/netlink.h>
#include <unistd.h>

#include <string_view>

#include "agent/paths.h"
#include "agent/uevents.h"
#include "base/text.h"
#include "net/space/link.h"
#include "net/space/netlink.h"
#include "net/space/protocol.h"
#include "os/file.h"

namespace caisson::agent {

using base::failure;

namespace {

constexpr std::chrono::seconds kUpDeadline{10};

// The only one there can be.
std::string card(const char* file) { return std::string(kSys) + "/class/net/eth0/" + file; }

Result<> set(const std::string& setting, std::string_view value) {
    auto file = CAISSON_TRY(os::open_file(std::string(kProc) + "/sys/net/" + setting, O_WRONLY));
    return os::write_all(file.get(), value);
}

// Nobody else is on the link: no address is asked about before it is used, no router is believed, and the groups that the
// card belongs to are told at once or not at all.
Result<> quiet6() {
    const std::string of_card = "ipv6/conf/eth0/";
    for (const char* setting : {"accept_dad", "accept_ra", "router_solicitations"}) CAISSON_TRY(set(of_card + setting, "0"));
    for (const char* setting : {"mldv1_unsolicited_report_interval", "mldv2_unsolicited_report_interval"}) CAISSON_TRY(set(of_card + setting, "1"));
    return {};
}

}  // namespace

Result<> bring_up_network() {
    auto number = os::read_file(card("ifindex"), 64);
    if (!number && number.error().code == Errc::kNotFound) return {};
    const auto index = CAISSON_TRY(base::parse_u64(base::trim(CAISSON_TRY(std::move(number)))));
    CAISSON_TRY(quiet6());
    // The kernel's own choice, fq_codel, draws the seed of all hashes of flows with the first packet that has to wait; and on a
    // link that ends on this host there is no queue to be fair about.
    CAISSON_TRY(set("core/default_qdisc", "pfifo_fast"));
    auto routing = CAISSON_TRY(net::NetlinkSocket::open(NETLINK_ROUTE));
    CAISSON_TRY(routing.carry_out(net::guest_requests(static_cast<std::uint32_t>(index))));
    // What the kernel has put off until then it would do in every box again.
    return wait_for_device(
        [] {
            auto state = os::read_file(card("operstate"), 64);
            return state && base::trim(*state) == "up";
        },
        kUpDeadline, "the network card's link");
}

Result<> check_network(const wire::NetworkLink& link) {
    if (!os::exists(card("ifindex"))) return failure(Errc::kGuest, "this machine has no network card");
    const std::string_view gateway(reinterpret_cast<const char*>(net::kGatewayHardware.data()), net::kGatewayHardware.size());
    if (link.address() != net::kGuestAddress || link.gateway() != net::kGatewayAddress || link.prefix() != net::kPrefix4)
        return failure(Errc::kGuest, "the host has another IPv4 link to the box than its guest");
    if (link.address6() != net::kGuestAddress6 || link.gateway6() != net::kGatewayAddress6 || link.prefix6() != net::kPrefix6)
        return failure(Errc::kGuest, "the host has another IPv6 link to the box than its guest");
    if (link.gateway_hardware() != gateway || link.mtu() != net::kMtu) return failure(Errc::kGuest, "the host has another card for the box than its guest");
    return {};
}

}  // namespace caisson::agent
