// <home>/.reserve: room that is taken while there is plenty, so that somebody who has to clean up a full disk can have it
// back with one unlink(2).
//
// It is made by the first process that opens the home and made again whenever it is missing or too small, but only while
// kReserveRoomBytes are free: recovery must not eat its own lifeboat. A reserve never appears half-made: it is filled as
// .reserve.new, under a lock, and renamed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "store/limits.h"

namespace caisson::store {

// ---- the rules; pure ----

enum class ReserveStep {
    kKeep,  // it is there
    kTake,  // make it
    kWait,  // it is missing, and there is too little room to take it
    kNone,  // the file system is too small to ever have one
};
// `free_bytes`: what an ordinary user may still take of a file system of `total_bytes`; `held_bytes`: what the reserve takes.
ReserveStep reserve_step(std::uint64_t total_bytes, std::uint64_t free_bytes, std::uint64_t held_bytes);
// Bytes of the free ones that are the reserve's, because it was given up or could not be taken: who writes on and on, as a
// box does, leaves them to whoever cleans up.
std::uint64_t reserve_owed(std::uint64_t total_bytes, std::uint64_t held_bytes);

// ---- the file ----

struct FileSystem {
    std::uint64_t total_bytes = 0, free_bytes = 0;  // free to an ordinary user
    bool out_of_files = false;                      // blocks may be left
};
// Of what is at `path`; nullopt: it cannot be asked.
std::optional<FileSystem> file_system_of(const std::string& path);

// Bytes that unlinking it gives back; 0 if there is none. It is looked up below `home_fd`, which may be AT_FDCWD with an
// absolute `path`.
std::uint64_t held_reserve(int home_fd, const char* path);
std::uint64_t held_reserve(const std::string& home);

// Makes it if it has to be made. Cheap if not: two system calls. Safe with several processes at once; one that is killed
// leaves nothing that counts, and the next one removes it. What is returned is said to the user: there is no reserve, and
// why; empty: all is well. Never an error: a home without a reserve works.
std::string keep_reserve(const std::string& home);

// Gives it back with nothing but unlink(2): needs no free block, no database and no sound home. Returns the bytes.
// kNotFound: there is none; kPermission: the home is somebody else's.
Result<std::uint64_t> release_reserve(const std::string& home);

// Takes the blocks of the database's log beforehand. What cannot be done is left: then a full disk is felt earlier.
void hold_database_log(const std::string& database);

// The room for the index of that log, `-room` beside the database: takes it, or takes again what was lent of
// it, while kReserveBytes are free. What cannot be done is left, as above.
void hold_index_room(const std::string& database);
// Whether the index, were it made anew now, would find no blocks.
bool index_lacks_room(const std::string& database);
// Gives kIndexLoanBytes of the room back to the file system. False: there is none left.
bool lend_index_room(const std::string& database);

}  // namespace caisson::store
