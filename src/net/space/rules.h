// What of the guest's packets comes how far: one table of nf_tables, the same for every box. Pure: requests for
// netfilter netlink.
#pragma once

#include <cstdint>

#include "net/space/netlink.h"

namespace caisson::net {

// Where listener and datagram socket are, which no packet names: whatever the guest sends is led there.
inline constexpr std::uint16_t kListenerPort = 15001;
inline constexpr std::uint16_t kDatagramPort = 15002;
// Beginnings of connections wait in this queue.
inline constexpr std::uint16_t kGateQueue = 0;

// What the program writes on the beginning of a connection, as the packet's mark, before it lets it go on.
enum class Mark : std::uint32_t { kNone = 0, kAccept, kRefuse, kHostUnreachable, kNetUnreachable, kProhibited };

// Two chains that every arriving packet passes, one after the other.
//   gate   drops what is not from the guest, for this side, and from the guest's own addresses; the beginning of a TCP
//          connection goes to kGateQueue, and from there, if at all, on to
//   path   TCP and UDP to their sockets, a beginning only with kAccept; other marks are answered to the guest; questions
//          for a neighbour, and echo requests to the gateway; nothing else.
// Fragments were put together before the first (the kernel's doing, since there are rules of tproxy).
//
// kTables is nf_tables' own expression (nft_queue). A kernel without it may have that of xtables (nft_compat, xt_NFQUEUE).
enum class Queueing { kTables, kXtables };
NetlinkBatch rule_requests(std::uint32_t tap, Queueing by);

// Makes the queue, which hands over the first kGateCopyBytes of each packet.
NetlinkBatch queue_requests();
inline constexpr std::uint32_t kGateCopyBytes = 128;

}  // namespace caisson::net
