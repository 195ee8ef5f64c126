// Volumes that are disks: a raw file below <home>/volumes/disks each, with an ext4 that only guests read and write. The
// host makes it empty (image::Store::make_empty_disk()), and after that never looks at its content.
#pragma once

#include <cstdint>
#include <set>
#include <string>

#include "base/result.h"
#include "os/fd.h"
#include "volume/catalogue.h"
#include "wire/volume.pb.h"

namespace caisson::volume {

inline constexpr std::size_t kMostDisks = 4;  // in one box
inline constexpr std::uint64_t kLeastDiskBytes = 64ull << 20;
inline constexpr std::uint64_t kMostDiskBytes = 1ull << 40;
inline constexpr std::uint64_t kDiskStepBytes = 4096;  // a size is a multiple of it

// Of a new disk. kUsage.
Result<> check_disk_size(std::uint64_t size_bytes);

// One more disk for a box that has those in `seen`, to which it is added. kUsage: a box has no place for so many, has this
// one already, or asks for a part of it.
Result<> count_disk(std::set<std::string>& seen, const std::string& name, const std::string& subpath);

// A disk that nobody else can write to as long as `file` (or a descriptor that was passed on) is open: one writer and no
// reader, or any number of readers.
struct HeldDisk {
    os::Fd file;  // locked (flock(2)); open for writing unless it is mounted read-only
    std::string path;
    std::uint64_t size_bytes = 0;
};
// kInUse: a machine has it, and still has it after a moment: others look for an instant only. kNotFound; kCorrupt: the file is not the one that was made for the volume.
Result<HeldDisk> hold_disk(const Catalogue& catalogue, const wire::BoxMount& mount);

}  // namespace caisson::volume
