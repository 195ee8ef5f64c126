// When a file system is too full for a box to go on writing to it. Pure.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "box/convert.h"
#include "box/limits.h"
#include "store/reserve.h"

namespace caisson::box {

struct Room {
    std::uint64_t total_bytes = 0;
    std::uint64_t free_bytes = 0;  // that an ordinary user may take
    std::uint64_t reserve_bytes = store::kReserveBytes;  // that the home's reserve holds
};

// What a box leaves to others: a twentieth of the file system, but no more than kRoomBytes; and what the reserve lacks, so
// that one which was released is there for whoever cleans up and not for the boxes that filled the disk.
inline std::uint64_t room_to_leave(const Room& room) {
    return std::min<std::uint64_t>(room.total_bytes / 20, limits::kRoomBytes) + store::reserve_owed(room.total_bytes, room.reserve_bytes);
}
inline bool is_short(const Room& room) { return room.free_bytes < room_to_leave(room); }
// A little more, so that a box does not stop and go on with every block.
inline bool has_enough(const Room& room) { return room.free_bytes >= room_to_leave(room) + room_to_leave(room) / 8; }

// Why a box waits, as its record and every answer about it begin; docs/troubleshooting.md and scripts know it.
inline constexpr const char* kHostDiskFull = "host disk full";
// To whom asks something of a guest that waits for room.
inline Error no_room() { return because(Errc::kNoSpace, std::string("the box is paused: ") + kHostDiskFull + "; it goes on by itself when there is room"); }

}  // namespace caisson::box
