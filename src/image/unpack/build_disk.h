// Layers to a finished disk: as often as it takes to have inodes enough, or to the size that would have been enough.
#pragma once

#include <cstdint>
#include <vector>

#include "image/unpack/ext4_image.h"
#include "image/unpack/merge.h"

namespace caisson::image::unpack {

struct BuiltDisk {
    std::size_t entries = 0;
    std::uint64_t unpacked_bytes = 0;
    std::uint32_t bytes_per_inode = 0;
};

// `options.fd` is emptied first, and synced in the end. kLimit if the image is larger than the disk: the layers are
// then read once more, so that the error can say which size would do. Else the errors of merge() and Ext4Image.
Result<BuiltDisk> build_disk(const std::vector<LayerSource>& layers, Ext4Image::Options options,
                             const MergeLimits& limits, const MergeProgress& progress);

// A size that is enough for the image and 16 MiB more, a few percent above the smallest, in whole MiB. `options.fd` is
// scratch.
Result<std::uint64_t> needed_disk_bytes(const std::vector<LayerSource>& layers, Ext4Image::Options options,
                                        const MergeLimits& limits, const MergeProgress& progress);

}  // namespace caisson::image::unpack
