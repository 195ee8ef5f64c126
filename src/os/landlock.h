// Landlock: what a process forbids itself and all that it will start, for good. Rules are plain data.
// Specification: https://docs.kernel.org/userspace-api/landlock.html
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace caisson::os {

// What files below a directory, or one file, may be used for. Only what no rule names is forbidden.
namespace landlock {
inline constexpr std::uint64_t kExecute = 1ULL << 0;
inline constexpr std::uint64_t kWriteFile = 1ULL << 1;
inline constexpr std::uint64_t kReadFile = 1ULL << 2;
inline constexpr std::uint64_t kReadDirectory = 1ULL << 3;
inline constexpr std::uint64_t kRemoveDirectory = 1ULL << 4;
inline constexpr std::uint64_t kRemoveFile = 1ULL << 5;
inline constexpr std::uint64_t kMakeCharacterDevice = 1ULL << 6;
inline constexpr std::uint64_t kMakeDirectory = 1ULL << 7;
inline constexpr std::uint64_t kMakeFile = 1ULL << 8;
inline constexpr std::uint64_t kMakeSocket = 1ULL << 9;
inline constexpr std::uint64_t kMakePipe = 1ULL << 10;
inline constexpr std::uint64_t kMakeBlockDevice = 1ULL << 11;
inline constexpr std::uint64_t kMakeLink = 1ULL << 12;  // symbolic
inline constexpr std::uint64_t kRefer = 1ULL << 13;     // links and renames from one directory into another; version 2
inline constexpr std::uint64_t kTruncate = 1ULL << 14;  // version 3
inline constexpr std::uint64_t kDeviceIoctl = 1ULL << 15;  // version 5
}  // namespace landlock

struct LandlockRule {
    std::string path;  // a file, or a directory with everything below
    int fd = -1;       // instead of a path; stays the caller's
    // Rights that the kernel does not know, and those of directories if it is a file, are left out.
    std::uint64_t rights = 0;
};

struct Landlock {
    std::vector<LandlockRule> rules;
    bool forbid_tcp = true;              // bind and connect; version 4
    bool scope_abstract_sockets = true;  // only those made under the same rules; version 6
    bool scope_signals = true;           // the same for signals; version 6
};

// The kernel's version of Landlock: 0 if it has none, or none that is switched on.
int landlock_version();

// Restricts the calling thread and what it starts from now on, with no_new_privs (threads that run already stay as they
// are: call it before there are any). Returns the version that was applied, with what that version can do; 0 if the
// kernel has none, or one that would forbid what a rule allows (kRefer before version 2): then nothing is restricted,
// and the caller says so. Errors: a path that does not exist, a kernel that refuses.
Result<int> restrict_self(const Landlock& landlock);

}  // namespace caisson::os
