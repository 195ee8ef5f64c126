// Every limit on what an archive may ask of its reader. Each has a test one past it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace caisson::tar {

inline constexpr std::size_t kMaxPathBytes = 4095;        // the kernel's PATH_MAX without its null
inline constexpr std::size_t kMaxHeaderBytes = 32 << 20;  // one extended header, a sparse map included (memory)
inline constexpr std::size_t kMaxExtents = 1 << 20;       // pieces of one sparse file (memory)
inline constexpr std::uint64_t kMaxFileBytes = INT64_MAX;  // what a file offset can say

// What the writer does with a file of more pieces: the rest of it is one piece, holes written as zeros.
inline constexpr std::size_t kMaxPackedExtents = 1 << 16;

}  // namespace caisson::tar
