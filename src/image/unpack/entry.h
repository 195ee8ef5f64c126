// One entry of a layer, as the merge sees it: no archive library in sight.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace caisson::image::unpack {

enum class EntryType : std::uint8_t { kFile, kDirectory, kSymlink, kHardLink, kCharacter, kBlock, kFifo, kSocket };

using Xattrs = std::vector<std::pair<std::string, std::string>>;

struct Entry {
    EntryType type = EntryType::kFile;
    std::string path;         // any bytes, as in the archive
    std::string link_target;  // symlink: verbatim; hard link: path of the target
    std::uint32_t mode = 0;   // permission bits, set-id and sticky
    std::uint32_t uid = 0;
    std::uint32_t gid = 0;
    std::uint64_t size = 0;   // files only
    std::int64_t mtime_seconds = 0;
    std::uint32_t mtime_nanoseconds = 0;
    std::uint32_t device_major = 0;
    std::uint32_t device_minor = 0;
    bool sparse = false;      // has holes
    Xattrs xattrs;
};

}  // namespace caisson::image::unpack
