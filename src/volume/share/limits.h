// What one share server gives its guest at most; docs/limits.md. Whatever a guest can make it hold is counted here.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace caisson::volume::share {

// Descriptors that the server takes of what the host allows, each of which keeps something in the host's kernel.
inline constexpr std::size_t kMostDescriptors = 65536;
// For itself: its sockets, and files that are open for the time of one request.
inline constexpr std::size_t kSpareDescriptors = 64;
// Files that the guest knows of. Few of them need a descriptor, see Tree.
inline constexpr std::size_t kMostNodes = 262144;
// Directories above a file that has to be opened again by its name.
inline constexpr std::size_t kDeepestReopened = 4096;
// Requests that wait for somebody else's lock.
inline constexpr std::size_t kMostWaiting = 1024;
// Removed files that are remembered until the guest's kernel forgets them.
inline constexpr std::size_t kMostUnnamed = 1024;
// What one copy_file_range(2) copies at a time: nothing else is answered meanwhile.
inline constexpr std::uint64_t kLargestCopyBytes = 16777216;

// How the descriptors are divided.
struct Budget {
    std::size_t nodes;    // known files that are held open
    std::size_t handles;  // files and directories that the guest has open
    std::size_t locks;    // owners of locks, for each file
};

// `descriptors`: the process's limit (RLIMIT_NOFILE).
inline Budget budget_of(std::uint64_t descriptors) {
    const auto limited = static_cast<std::size_t>(std::min<std::uint64_t>(descriptors, kMostDescriptors));
    const std::size_t usable = std::max<std::size_t>(limited, 2 * kSpareDescriptors) - kSpareDescriptors;
    return {usable / 2, usable * 3 / 8, usable / 8};
}

}  // namespace caisson::volume::share
