#include "net/space/link.h"

#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>

#include "net/space/protocol.h"

namespace caisson::net {

namespace {

Address known(const char* text) { return Address::parse(text).value(); }

std::uint8_t family_of(const Address& address) { return address.is_v4() ? AF_INET : AF_INET6; }

// As it goes over the wire: 4 bytes, or 16.
base::ByteView wire_bytes(const Address& address) {
    return base::ByteView(address.bytes()).subspan(address.is_v4() ? 12 : 0);
}

constexpr std::uint16_t kNew = NLM_F_CREATE | NLM_F_EXCL;

}  // namespace

const std::vector<Setting>& settings() {
    static const std::vector<Setting> all{
        {"ipv6/conf/all/disable_ipv6", "0"},
        {"ipv6/conf/default/disable_ipv6", "0"},
        // Nothing that the guest says about routes is believed.
        {"ipv6/conf/default/accept_ra", "0"},
        {"ipv6/conf/default/accept_redirects", "0"},
        {"ipv4/conf/all/accept_redirects", "0"},
        {"ipv4/conf/default/accept_redirects", "0"},
        {"ipv4/conf/all/accept_source_route", "0"},
        {"ipv4/conf/default/accept_source_route", "0"},
        // A host that routes hands that down to new namespaces.
        {"ipv4/conf/all/forwarding", "0"},
        {"ipv6/conf/all/forwarding", "0"},
        // Only the guest's own address may be a source, even of a question for an address: a table of neighbours is
        // shared by the whole host, and could be filled else.
        {"ipv4/conf/all/rp_filter", "1"},
        // Whatever of its subnet the guest asks for is found here, and refused here: faster than no answer.
        {"ipv4/conf/all/arp_ignore", "0"},
        {"ipv4/conf/default/arp_ignore", "0"},
        // No acknowledgement but that of a connection whose beginning was let through makes one.
        {"ipv4/tcp_syncookies", "0"},
        {"ipv4/tcp_max_syn_backlog", "4096"},
        {"core/somaxconn", "4096"},
        // The errors are the relay's answers; the kernel would tell one a second. No type is limited: 255 is not used.
        {"ipv4/icmp_ratemask", "0"},
        {"ipv6/icmp/ratemask", "255"},
        // Answers come from ports like 53 and 123.
        {"ipv4/ip_unprivileged_port_start", "0"},
    };
    return all;
}

void set_hardware(NetlinkBatch& batch, std::uint32_t link, const std::array<std::uint8_t, 6>& hardware) {
    ifinfomsg fixed{};
    fixed.ifi_index = static_cast<int>(link);
    batch.begin("give a link its hardware address", RTM_NEWLINK, 0, base::bytes_of(fixed));
    batch.attribute(IFLA_ADDRESS, hardware);
    batch.number32(IFLA_MTU, kMtu);
    // No address that the kernel makes up by itself.
    batch.nested(IFLA_AF_SPEC, [&] { batch.nested(AF_INET6, [&] { batch.number8(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE); }); });
}

void bring_up(NetlinkBatch& batch, std::uint32_t link) {
    ifinfomsg fixed{};
    fixed.ifi_index = static_cast<int>(link);
    fixed.ifi_flags = fixed.ifi_change = IFF_UP;
    batch.begin("switch a link on", RTM_NEWLINK, 0, base::bytes_of(fixed));
}

void add_address(NetlinkBatch& batch, std::uint32_t link, const Address& address, unsigned prefix) {
    ifaddrmsg fixed{};
    fixed.ifa_family = family_of(address);
    fixed.ifa_prefixlen = static_cast<std::uint8_t>(prefix);
    fixed.ifa_index = link;
    batch.begin("set the address " + address.to_string(), RTM_NEWADDR, kNew, base::bytes_of(fixed));
    batch.attribute(IFA_LOCAL, wire_bytes(address));
    batch.attribute(IFA_ADDRESS, wire_bytes(address));
    // At once, without asking around for others that have it.
    if (!address.is_v4()) batch.number32(IFA_FLAGS, IFA_F_NODAD);
}

void add_route(NetlinkBatch& batch, std::uint32_t link, std::uint8_t type, const Address& destination, unsigned prefix,
               const Address& gateway) {
    const bool direct = gateway == Address();
    rtmsg fixed{};
    fixed.rtm_family = family_of(destination);
    fixed.rtm_dst_len = static_cast<std::uint8_t>(prefix);
    fixed.rtm_table = RT_TABLE_MAIN;
    fixed.rtm_protocol = RTPROT_STATIC;
    fixed.rtm_type = type;
    fixed.rtm_scope = RT_SCOPE_UNIVERSE;
    if (destination.is_v4() && type == RTN_LOCAL) fixed.rtm_scope = RT_SCOPE_HOST;
    if (destination.is_v4() && type == RTN_UNICAST && direct) fixed.rtm_scope = RT_SCOPE_LINK;
    batch.begin("add the route to " + destination.to_string() + "/" + std::to_string(prefix), RTM_NEWROUTE, kNew, base::bytes_of(fixed));
    if (prefix > 0) batch.attribute(RTA_DST, wire_bytes(destination));
    if (!direct) batch.attribute(RTA_GATEWAY, wire_bytes(gateway));
    batch.number32(RTA_OIF, link);
}

void add_neighbour(NetlinkBatch& batch, std::uint32_t link, const Address& address, const std::array<std::uint8_t, 6>& hardware) {
    ndmsg fixed{};
    fixed.ndm_family = family_of(address);
    fixed.ndm_ifindex = static_cast<int>(link);
    fixed.ndm_state = NUD_PERMANENT;
    batch.begin("set the neighbour " + address.to_string(), RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, base::bytes_of(fixed));
    batch.attribute(NDA_DST, wire_bytes(address));
    batch.attribute(NDA_LLADDR, hardware);
}

NetlinkBatch link_requests(std::uint32_t tap, std::uint32_t loopback) {
    constexpr unsigned kHost4 = 32, kHost6 = 128;
    NetlinkBatch batch;
    bring_up(batch, loopback);
    set_hardware(batch, tap, kGatewayHardware);
    bring_up(batch, tap);
    // Only the guest is reached over the tap; the rest of its subnet is here, as is the rest of the world.
    add_address(batch, tap, known(kGatewayAddress), kHost4);
    add_address(batch, tap, known(kGatewayAddress6), kHost6);
    add_route(batch, tap, RTN_UNICAST, known(kGuestAddress), kHost4);
    add_route(batch, tap, RTN_UNICAST, known(kGuestAddress6), kHost6);
    add_neighbour(batch, tap, known(kGuestAddress), kGuestHardware);
    add_neighbour(batch, tap, known(kGuestAddress6), kGuestHardware);
    add_route(batch, loopback, RTN_LOCAL, Address::v4(0), 0);
    add_route(batch, loopback, RTN_LOCAL, Address(), 0);
    return batch;
}

NetlinkBatch guest_requests(std::uint32_t card) {
    NetlinkBatch batch;
    set_hardware(batch, card, kGuestHardware);
    bring_up(batch, card);
    add_address(batch, card, known(kGuestAddress), kPrefix4);
    add_address(batch, card, known(kGuestAddress6), kPrefix6);
    add_route(batch, card, RTN_UNICAST, Address::v4(0), 0, known(kGatewayAddress));
    add_route(batch, card, RTN_UNICAST, Address(), 0, known(kGatewayAddress6));
    add_neighbour(batch, card, known(kGatewayAddress), kGatewayHardware);
    add_neighbour(batch, card, known(kGatewayAddress6), kGatewayHardware);
    return batch;
}

}  // namespace caisson::net
