// What the home keeps free and holds, in one place. docs/limits.md lists them for users; a test compares the two.
#pragma once

#include <cstdint>

namespace caisson::store {

inline constexpr std::uint64_t kReserveBytes = 67108864;       // of <home>/.reserve
inline constexpr std::uint64_t kReserveRoomBytes = 134217728;  // that must be free before it is taken (again)
// Of the database's log, whose blocks are taken beforehand: what is to be written down on a full disk, above all that a
// box ended or was removed, finds room there. SQLite begins the log anew after 1000 pages; this is a little more.
inline constexpr std::uint64_t kDatabaseLogBytes = 5242880;
// Beside the database, for the index of its log: who opens a database that nobody has open makes the index anew, and on a
// full disk somebody else may take the blocks of the old one in between.
inline constexpr std::uint64_t kIndexRoomBytes = 1048576;
inline constexpr std::uint64_t kIndexLoanBytes = 65536;  // of it, given at once; an index takes 32768

}  // namespace caisson::store
