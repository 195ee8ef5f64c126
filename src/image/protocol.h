// What the store and caisson-unpack say to each other.
//
// caisson-unpack reads one line of JSON from standard input, works on inherited descriptors, and writes
// lines of JSON to the status descriptor: {"progress":{"step":...,"done":...,"total":...}} any number of times, then
// exactly one of {"result":{...}} or {"error":{"code":...,"message":...,"hint":...,"errno":...}}.
// Standard input stays open as long as the caller lives; its end ends caisson-unpack.
// "split" and "inflate" also write bytes to a data descriptor.
//
// Whoever reads these lines must treat them as hostile: a layer may have taken over the process that wrote them.
#pragma once

#include <cstdint>

namespace caisson::image {

// Descriptor numbers in caisson-unpack.
inline constexpr int kStatusFd = 1;       // lines of JSON
inline constexpr int kOutputFd = 3;       // disk: the image file; split and inflate: a pipe
inline constexpr int kFirstInputFd = 4;   // disk: one for each layer, lowest first; else the one source

// split: a frame for each file of the archive, `size` bytes of content following it, in host byte order (both ends
// are one build on one machine). The name follows the header, then the link's target, then the content.
struct SplitFrame {
    std::uint32_t magic;        // kSplitMagic
    std::uint32_t name_bytes;
    std::uint32_t target_bytes; // of a symbolic or hard link; then size is 0
    std::uint32_t reserved;
    std::uint64_t size;
};
inline constexpr std::uint32_t kSplitMagic = 0x74696c73;

}  // namespace caisson::image
