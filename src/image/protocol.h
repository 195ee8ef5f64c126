// What the store and its helper programs (caisson-unpack, caisson-fetch) say to each other.
//
// A helper reads one line of JSON from standard input (caisson-fetch: and as many bytes of secrets as its
// "secret_bytes" says), works on inherited descriptors, and writes lines of JSON to the status descriptor:
// {"progress":{"step":...,"done":...,"total":...}} any number of times, then exactly one of {"result":{...}} or
// {"error":{"code":...,"message":...,"hint":...,"errno":...}}.
// Standard input stays open as long as the caller lives; its end ends the helper.
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
