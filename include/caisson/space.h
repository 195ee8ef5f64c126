// Room: what takes it in a home, what can be given back, and the reserve that a full disk leaves.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "caisson/export.h"
#include "caisson/result.h"

namespace caisson {

// One kind of thing that takes room in a home. Bytes are those that the file system has allocated.
struct SpaceKind {
    std::string kind;  // "images", "disks", "boxes", "volumes", "templates", "logs", "journal", "reserve", "other"
    std::uint64_t count = 0;
    std::uint64_t bytes = 0;
    std::uint64_t shared_bytes = 0;       // of these: used by more than one (of the images; of the boxes, for disks)
    std::uint64_t reclaimable_bytes = 0;  // what collect_garbage() without a grace would give back; of the reserve, its release
};

struct Space {
    std::vector<SpaceKind> kinds;  // always the same ones in the same order
    std::uint64_t bytes = 0;       // all of them
    std::uint64_t total_bytes = 0, free_bytes = 0;  // of the home's file system; what this user may still take
    std::uint64_t box_limit_bytes = 0;  // boxes are paused while less is free
};

struct GarbageOptions {
    bool dry_run = false;                // nothing is removed
    std::chrono::seconds grace{600};     // what is younger, or was used since, stays
};

// One thing that was (or would be) removed.
struct Garbage {
    std::string kind;  // "box", "template", "disk", "blob", "download", "unfinished"
    std::string name;
    std::uint64_t bytes = 0;
};

struct Collected {
    std::vector<Garbage> removed;  // in the order in which they went
    std::uint64_t freed_bytes = 0;
    std::vector<Error> failed;  // what could not be removed, and why
};

// $CAISSON_HOME, else the default of the user who calls: for root /var/lib/caisson, else ~/.caisson. kUsage: neither
// names one. A program started as root asks before leave_root().
CAISSON_API Result<std::string> caller_home();

// Gives the home's reserve back: an unlink(2), which works on a file system without a free block and in a home that
// cannot be opened. Returns the bytes. The reserve is taken again by the first process that opens the home while twice
// that is free. `home` is absolute; empty: $CAISSON_HOME, else the default of the user who calls. kNotFound: there is
// none; kPermission.
CAISSON_API Result<std::uint64_t> release_reserve(const std::string& home = {});

// What to do about `error` if its cause is that the host's disk (or a quota) has no room, as one line for a person; empty
// for any other. It names `caisson reserve-release` only if there is a reserve to release. `home` as above.
CAISSON_API std::string full_disk_hint(const Error& error, const std::string& home = {});

}  // namespace caisson
