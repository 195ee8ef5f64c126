// Base disks: their names, how one is built once, how unused ones go. Internal to src/image.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "image/layout.h"
#include "image/store.h"

namespace caisson::image {

// Identity of what the layers of an image add up to, as hex digits: images with the same layers share their disks.
std::string disk_identity(const Image& image);
std::string disk_path(const std::string& disks_directory, const Image& image, std::uint64_t virtual_size_bytes);

// What the name of a file in the directory of base disks says.
struct DiskName {
    std::string disk;          // the name of the disk itself
    std::uint64_t bytes = 0;   // its virtual size
    bool unfinished = false;   // being made, under its lock
    bool lock = false;
    std::string lock_of(const std::string& directory) const;
};
// nullopt: none that caisson gives.
std::optional<DiskName> parse_disk_name(std::string_view name);
// Why this file cannot be the complete base disk of this size; empty: it can. Reads the start of the file only.
std::string flaw_of_base_disk(const std::string& path, std::uint64_t virtual_size_bytes);

// Store::base_disk(), with blobs wherever they lie.
Result<BaseDisk> build_disk(const Store::Options& options, const Image& image, std::uint64_t virtual_size_bytes,
                            const ProgressCallback& progress, const BlobPath& path_of);

// The disk with which an image comes into the store. One that is too large for `virtual_size_bytes` comes in without,
// if it can be unpacked at all: boxes with larger disks can use it.
Result<> prepare_disk(const Store::Options& options, const Image& image, std::uint64_t virtual_size_bytes,
                      const ProgressCallback& progress, const BlobPath& path_of);

// Removes disks of no image in `index` that carry no box, and half-made ones whose builder died. Bytes freed.
Result<std::uint64_t> sweep_disks(const Layout& layout, const std::string& disks_directory, const Index& index,
                                  const RemoveOptions& options);

}  // namespace caisson::image
