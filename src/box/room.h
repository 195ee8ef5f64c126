// When a file system is too full for a box to go on writing to it. Pure.
#pragma once

#include <algorithm>
#include <cstdint>

#include "box/limits.h"

namespace caisson::box {

struct Room {
    std::uint64_t total_bytes = 0;
    std::uint64_t free_bytes = 0;  // that an ordinary user may take
};

// What a box leaves to others: a twentieth of the file system, but no more than kRoomBytes.
inline std::uint64_t room_to_leave(const Room& room) { return std::min<std::uint64_t>(room.total_bytes / 20, limits::kRoomBytes); }
inline bool is_short(const Room& room) { return room.free_bytes < room_to_leave(room); }
// A little more, so that a box does not stop and go on with every block.
inline bool has_enough(const Room& room) { return room.free_bytes >= room_to_leave(room) + room_to_leave(room) / 8; }

}  // namespace caisson::box
