// What the share server is told by the process that started it: mounts, over a SOCK_SEQPACKET socket, a packet each.
//   "mount NUMBER ro|rw LIMIT OWNER GROUP"
//       With the descriptor of the directory or file, and that of the volume's own file, opened for this mount alone: it
//       holds the count of used bytes, which there must be for a LIMIT in bytes (0: none), and tells who else has the
//       volume (presence.h). Without a limit and without that file, nobody else may have it.
//   "unmount NUMBER"
//   "end"                       writes everything to the disk
// Each is answered with "ok" or "error TEXT". Pure but for the sockets.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "os/fd.h"

namespace caisson::volume::share {

struct Order {
    enum class Kind { kMount, kUnmount, kEnd };
    Kind kind = Kind::kMount;
    std::uint32_t number = 0;
    bool read_only = false;
    std::uint64_t limit_bytes = 0;
    std::uint32_t owner = 0, group = 0;  // of the volume, on the host: the server's own numbers may be others
    std::vector<os::Fd> descriptors;
};

std::string encode(const Order& order);
// kProtocol: not one of the above.
Result<Order> parse_order(std::string_view text);

// Sends an order with its descriptors and waits for the answer, as long as the socket's own patience (SO_RCVTIMEO) says.
// Errors: what the server says; kCancelled: it is gone; kTimeout: it may still answer, so that nothing more can be asked.
Result<> give_order(int socket, const Order& order);
// nullopt: the other side is gone.
Result<std::optional<Order>> take_order(int socket);
void answer_order(int socket, const Result<>& done);

}  // namespace caisson::volume::share
