// What one caisson-netns holds at most; docs/limits.md. Whatever a guest can make it or the kernel hold is counted here.
#pragma once

#include <cstddef>
#include <cstdint>

namespace caisson::net {

// Connections that wait for their verdict: the guest's next one is lost, and its kernel tries again a second later.
inline constexpr std::size_t kMostHeldConnections = 1024;
// A verdict that takes longer than this comes to nothing; a guest gives up after about 130 s.
inline constexpr std::int64_t kLongestHoldMs = 150000;
// Verdicts that are remembered, and for how long: what a guest sends again of one attempt gets the same verdict.
inline constexpr std::size_t kMostRememberedVerdicts = 4096;
inline constexpr std::int64_t kVerdictRememberedMs = 60000;
// Connections that are made but not yet taken from the listener.
inline constexpr int kListenerBacklog = 1024;
// Bytes of memory, descriptors, and bytes of the file that its words may go to, of the program itself.
inline constexpr std::uint64_t kMostNetnsMemoryBytes = 67108864;
inline constexpr std::uint64_t kMostNetnsDescriptors = 1024;
inline constexpr std::uint64_t kMostNetnsFileBytes = 1048576;

}  // namespace caisson::net
