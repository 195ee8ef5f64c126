// The two links of a box's namespace: its loopback, to which every address of the world leads, and the tap at whose other
// end the guest is. Pure: requests for routing netlink, and settings below /proc/sys/net.
#pragma once

#include <cstdint>
#include <vector>

#include "net/address.h"
#include "net/space/netlink.h"

namespace caisson::net {

struct Setting {
    const char* path;   // below /proc/sys/net
    const char* value;
};

// In the order in which they are to be made, before the tap is there: new links take over those of "default".
const std::vector<Setting>& settings();

// `tap` and `loopback` are the links' numbers. The guest's hardware address is fixed here, so nothing that it says about
// its neighbours is ever learnt.
NetlinkBatch link_requests(std::uint32_t tap, std::uint32_t loopback);

// The guest's side of the link, the same in every box: addresses, ways out, and the gateway's hardware address, for which
// nobody has to ask. `card` is the link's number.
NetlinkBatch guest_requests(std::uint32_t card);

// Parts of which these are made.
void set_hardware(NetlinkBatch& batch, std::uint32_t link, const std::array<std::uint8_t, 6>& hardware);
void bring_up(NetlinkBatch& batch, std::uint32_t link);
void add_address(NetlinkBatch& batch, std::uint32_t link, const Address& address, unsigned prefix);
// `type` is RTN_UNICAST or RTN_LOCAL; to all addresses of `prefix` bits of `destination`; over `gateway` unless that is ::.
void add_route(NetlinkBatch& batch, std::uint32_t link, std::uint8_t type, const Address& destination, unsigned prefix,
               const Address& gateway = {});
void add_neighbour(NetlinkBatch& batch, std::uint32_t link, const Address& address, const std::array<std::uint8_t, 6>& hardware);

}  // namespace caisson::net
