// Every limit on what an image may ask of the host, in one place. Each has a test one past it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace caisson::image {

// JSON documents of an image: index, manifest, config, docker's manifest.json.
inline constexpr std::size_t kMaxJsonBytes = 4 << 20;
inline constexpr int kMaxJsonDepth = 64;
inline constexpr std::size_t kMaxLayers = 256;
inline constexpr std::size_t kMaxManifestsPerIndex = 1024;
inline constexpr int kMaxIndexDepth = 4;  // an index inside an index inside ...
inline constexpr std::size_t kMaxImageNameBytes = 255;
inline constexpr std::size_t kMaxConfigStrings = 16384;  // arguments, variables, labels, ports and volumes together

// What an archive of images (OCI archive, docker save) may hold.
inline constexpr std::size_t kMaxArchiveFiles = 16384;
inline constexpr std::uint64_t kMaxArchiveBytes = 64ULL << 30;
inline constexpr std::uint64_t kMaxBlobBytes = 64ULL << 30;

// What the layers of one image may hold together.
inline constexpr std::uint32_t kMaxEntries = 2'000'000;
inline constexpr std::size_t kMaxPathBytes = 4096;
inline constexpr std::size_t kMaxNameBytes = 255;
inline constexpr std::size_t kMaxPathDepth = 2048;
inline constexpr std::size_t kMaxSymlinkBytes = 4095;
inline constexpr std::size_t kMaxSymlinkHops = 40;         // as the kernel's MAXSYMLINKS
inline constexpr std::size_t kMaxGraftRounds = 40;         // links through links through links
inline constexpr std::uint32_t kMaxHardLinks = 65'000;     // ext4's EXT4_LINK_MAX
inline constexpr std::size_t kMaxXattrsPerEntry = 1024;
inline constexpr std::size_t kMaxXattrBytesPerEntry = 3968;  // what one ext4 attribute block holds, headers off
inline constexpr std::size_t kMaxXattrBytes = 128 << 20;     // all entries together (memory)
inline constexpr std::size_t kMaxTextBytes = 512 << 20;      // all names and link targets together (memory)
inline constexpr std::uint64_t kDefaultMaxUnpackedBytes = 32ULL << 30;  // tar streams plus holes
// Far above gzip's own ceiling of 1032, and only looked at once a stream is larger than kRatioFreeBytes.
inline constexpr std::uint64_t kMaxCompressionRatio = 1100;
inline constexpr std::uint64_t kRatioFreeBytes = 1ULL << 30;
inline constexpr std::size_t kReadAheadBytes = 64 << 20;  // of layers that are decompressed before they are needed (memory)
inline constexpr std::size_t kMaxExtents = 16'000'000;  // pieces of files (memory)

// Disks.
inline constexpr std::uint64_t kMinDiskBytes = 64ULL << 20;
inline constexpr std::uint64_t kMaxDiskBytes = 16ULL << 40;

// What a registry may answer.
inline constexpr std::size_t kMaxHeaderBytes = 64 << 10;  // of one response, all lines together
inline constexpr std::size_t kMaxChallengeBytes = 8 << 10;
inline constexpr std::size_t kMaxChallenges = 8;
inline constexpr std::size_t kMaxChallengeParameters = 32;
inline constexpr std::size_t kMaxTokenBytes = 64 << 10;   // the token server's whole answer
inline constexpr std::size_t kMaxErrorBodyBytes = 16 << 10;  // of an error's body, the rest is not read
inline constexpr int kMaxRedirects = 5;
inline constexpr int kMaxTries = 5;                       // of one transfer in which no byte arrives
inline constexpr int kMaxRetryAfterSeconds = 60;
inline constexpr std::size_t kMaxMirrors = 16;
inline constexpr std::size_t kMaxProxyBytes = 4 << 10;    // HTTP_PROXY, HTTPS_PROXY, NO_PROXY each
inline constexpr std::size_t kMaxSettingsBytes = 1 << 20;  // registries.json, docker's config.json, a file of authorities

// What a helper program may say to its caller.
inline constexpr std::size_t kMaxProtocolLineBytes = 64 << 10;

}  // namespace caisson::image
