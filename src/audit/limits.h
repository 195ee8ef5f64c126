// Limits of the journal, in one place. docs/limits.md lists them for users; a test compares the two.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace caisson::audit::limits {

// ---- an entry ----
inline constexpr std::size_t kLongestText = 4096;         // bytes of one text in an entry
inline constexpr std::size_t kMostWords = 256;            // of a list, such as a command's arguments
inline constexpr std::size_t kLongestList = 16384;        // bytes of a list
inline constexpr std::size_t kLongestLine = 131072;       // of an entry as it is stored, everything escaped

// ---- a chain on the disk ----
inline constexpr std::uint64_t kFileBytes = 1048576;      // then another file goes on
inline constexpr std::size_t kMostFiles = 8;              // of one chain; the oldest goes first
inline constexpr std::size_t kMostRemovedChains = 1000;   // of boxes that are removed; the longest removed go first
inline constexpr std::uint64_t kMostRemovedBytes = 67108864;

// ---- batches ----
inline constexpr std::chrono::milliseconds kBatchDelay{25};  // from an entry until it is brought to the disk
inline constexpr std::size_t kMemoryEvents = 1000;           // of one box, that a program holds if it does not say otherwise

}  // namespace caisson::audit::limits
