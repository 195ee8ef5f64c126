#include "image/unpack/ext4_image.h"

#include <ext2fs/ext2_fs.h>
#include <ext2fs/ext2fs.h>
#include <ext2fs/ext3_extents.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "base/text.h"
#include "image/limits.h"

namespace caisson::image::unpack {

static_assert(std::endian::native == std::endian::little, "on-disk structures are written as they are in memory");

using base::failure;
using base::failure_errno;

namespace {

// Everything that caisson makes has this age; the real times are those of the image's files.
constexpr std::uint32_t kFixedTime = 1;

std::uint32_t journal_blocks(std::uint64_t disk_bytes) {
    if (disk_bytes >= 8ULL << 30) return (32 << 20) / kBlockBytes;
    if (disk_bytes >= 1ULL << 30) return (16 << 20) / kBlockBytes;
    return (4 << 20) / kBlockBytes;
}

}  // namespace

base::Failure Ext4Image::too_small() {
    full_ = true;
    return failure(Errc::kLimit, "the image does not fit into a disk of " + base::format_size(options_.virtual_size_bytes));
}

base::Failure Ext4Image::failed(const std::string& what, long code) {
    // Codes below the com_err tables are errno values.
    if (code == EXT2_ET_BLOCK_ALLOC_FAIL || code == EXT2_ET_INODE_ALLOC_FAIL) return too_small();
    if (code > 0 && code < 4096) return failure_errno(what, static_cast<int>(code));
    return failure(Errc::kIo, what + ": " + ::error_message(code));
}

#define EXT4_TRY(call, what)                                                             \
    do {                                                                                 \
        errcode_t ext4_code_ = (call);                                                   \
        if (ext4_code_ != 0) return failed(what, ext4_code_);                            \
    } while (false)

Result<std::unique_ptr<Ext4Image>> Ext4Image::create(const Options& options) {
    if (options.virtual_size_bytes < kMinDiskBytes || options.virtual_size_bytes > kMaxDiskBytes ||
        options.virtual_size_bytes % kBlockBytes != 0)
        return failure(Errc::kLimit, "a disk of " + std::to_string(options.virtual_size_bytes) +
                                         " bytes is out of range: from " + base::format_size(kMinDiskBytes) + " to " +
                                         base::format_size(kMaxDiskBytes) + ", a multiple of 4096");
    std::unique_ptr<Ext4Image> image(new Ext4Image(options));
    CAISSON_TRY(image->format());
    return image;
}

Ext4Image::~Ext4Image() {
    if (fs_ != nullptr) ::ext2fs_free(fs_);
}

Result<> Ext4Image::format() {
    ::initialize_ext2_error_table();
    if (::ftruncate(options_.fd, static_cast<off_t>(options_.virtual_size_bytes)) != 0)
        return failure_errno("cannot set the size of the disk");

    struct ext2_super_block parameters {};
    parameters.s_log_block_size = 2;
    parameters.s_log_cluster_size = 2;
    parameters.s_rev_level = EXT2_DYNAMIC_REV;
    parameters.s_inode_size = 256;
    parameters.s_log_groups_per_flex = 4;
    parameters.s_feature_compat = EXT3_FEATURE_COMPAT_HAS_JOURNAL | EXT2_FEATURE_COMPAT_EXT_ATTR |
                                  EXT2_FEATURE_COMPAT_RESIZE_INODE | EXT2_FEATURE_COMPAT_DIR_INDEX;
    parameters.s_feature_incompat = EXT2_FEATURE_INCOMPAT_FILETYPE | EXT3_FEATURE_INCOMPAT_EXTENTS |
                                    EXT4_FEATURE_INCOMPAT_64BIT | EXT4_FEATURE_INCOMPAT_FLEX_BG;
    parameters.s_feature_ro_compat = EXT2_FEATURE_RO_COMPAT_SPARSE_SUPER | EXT2_FEATURE_RO_COMPAT_LARGE_FILE |
                                     EXT4_FEATURE_RO_COMPAT_HUGE_FILE | EXT4_FEATURE_RO_COMPAT_DIR_NLINK |
                                     EXT4_FEATURE_RO_COMPAT_EXTRA_ISIZE | EXT4_FEATURE_RO_COMPAT_METADATA_CSUM;
    std::uint64_t blocks = options_.virtual_size_bytes / kBlockBytes;
    ext2fs_blocks_count_set(&parameters, blocks);
    std::uint64_t inodes = std::max<std::uint64_t>(64, options_.virtual_size_bytes / options_.bytes_per_inode);
    parameters.s_inodes_count = static_cast<std::uint32_t>(std::min<std::uint64_t>(inodes, 0x7fffffff));

    // libext2fs closes the descriptor that it is given.
    int copy = ::fcntl(options_.fd, F_DUPFD_CLOEXEC, 3);
    if (copy < 0) return failure_errno("cannot duplicate a descriptor");
    EXT4_TRY(::ext2fs_initialize(std::to_string(copy).c_str(), EXT2_FLAG_64BITS | EXT2_FLAG_EXCLUSIVE, &parameters,
                                 unixfd_io_manager, &fs_),
             "cannot lay out the file system");
    // Inode tables and contents are written past it, so it must keep no copies of blocks.
    EXT4_TRY(::io_channel_set_options(fs_->io, "cache=off"), "cannot switch off a cache");
    auto* super = fs_->super;
    fs_->now = kFixedTime;
    super->s_mkfs_time = super->s_lastcheck = super->s_wtime = kFixedTime;
    super->s_max_mnt_count = -1;
    super->s_checkinterval = 0;
    super->s_def_hash_version = EXT2_HASH_HALF_MD4;
    super->s_flags |= EXT2_FLAGS_SIGNED_HASH;
    super->s_default_mount_opts = EXT2_DEFM_XATTR_USER | EXT2_DEFM_ACL;
    super->s_checksum_type = EXT2_CRC32C_CHKSUM;
    super->s_creator_os = EXT2_OS_LINUX;
    std::memcpy(super->s_uuid, options_.uuid.data(), 16);
    std::memcpy(super->s_hash_seed, options_.hash_seed.data(), 16);
    ::ext2fs_init_csum_seed(fs_);

    EXT4_TRY(::ext2fs_allocate_tables(fs_), "cannot allocate the inode tables");
    // The file is sparse: the tables are zero without being written.
    for (dgrp_t group = 0; group < fs_->group_desc_count; ++group) {
        ext2fs_bg_flags_set(fs_, group, EXT2_BG_INODE_ZEROED);
        ::ext2fs_group_desc_csum_set(fs_, group);
    }
    // Reserved inodes must carry a checksum even when empty.
    ext2_inode_large empty{};
    for (ext2_ino_t number = 1; number < EXT2_FIRST_INO(super); ++number) {
        EXT4_TRY(::ext2fs_write_inode_full(fs_, number, reinterpret_cast<ext2_inode*>(&empty), sizeof empty),
                 "cannot write a reserved inode");
        ::ext2fs_inode_alloc_stats2(fs_, number, +1, number == EXT2_ROOT_INO);
    }
    EXT4_TRY(::ext2fs_create_resize_inode(fs_), "cannot reserve room to grow");
    EXT4_TRY(::ext2fs_add_journal_inode2(fs_, journal_blocks(options_.virtual_size_bytes), ~0ULL,
                                         EXT2_MKJOURNAL_LAZYINIT | EXT2_MKJOURNAL_NO_MNT_CHECK),
             "cannot make the journal");
    return {};
}

Result<> Ext4Image::allocate(std::uint32_t logical, std::uint32_t count) {
    std::uint64_t last = ext2fs_blocks_count(fs_->super) - 1;
    bool wrapped = false;
    while (count > 0) {
        blk64_t start = 0;
        errcode_t code = cursor_ > last ? ENOENT
                                        : ::ext2fs_find_first_zero_block_bitmap2(fs_->block_map, cursor_, last, &start);
        if (code == ENOENT) {
            if (wrapped) return too_small();
            wrapped = true;
            cursor_ = fs_->super->s_first_data_block;
            continue;
        }
        EXT4_TRY(code, "cannot search for free blocks");
        std::uint64_t limit = std::min<std::uint64_t>(last, start + count - 1);
        blk64_t used = 0;
        code = ::ext2fs_find_first_set_block_bitmap2(fs_->block_map, start, limit, &used);
        if (code == ENOENT)
            used = limit + 1;
        else
            EXT4_TRY(code, "cannot search for free blocks");
        auto got = static_cast<std::uint32_t>(used - start);
        ::ext2fs_block_alloc_stats_range(fs_, start, got, +1);
        Extent* previous = extents_.empty() || contents_.empty() ||
                                   extents_.size() <= contents_.back().first_extent
                               ? nullptr
                               : &extents_.back();
        if (previous != nullptr && previous->logical + previous->count == logical &&
            previous->physical + previous->count == start) {
            previous->count += got;
        } else {
            if (extents_.size() >= options_.max_extents)
                return failure(Errc::kLimit,
                               "the image's files are in more than " + std::to_string(options_.max_extents) + " pieces");
            extents_.push_back({logical, got, start});
        }
        logical += got;
        count -= got;
        cursor_ = used;
    }
    return {};
}

Result<std::uint32_t> Ext4Image::begin(std::uint64_t size, bool sparse) {
    constexpr std::uint64_t kMaxFileBytes = (std::uint64_t{1} << 32) * kBlockBytes - kBlockBytes;
    if (size > kMaxFileBytes)
        return failure(Errc::kLimit, "a file of " + base::format_size(size) + " is more than ext4 can hold");
    size_ = size;
    sparse_ = sparse;
    contents_.push_back({static_cast<std::uint32_t>(extents_.size()), 0});
    write_extent_ = extents_.size();
    if (!sparse) CAISSON_TRY(allocate(0, static_cast<std::uint32_t>((size + kBlockBytes - 1) / kBlockBytes)));
    return static_cast<std::uint32_t>(contents_.size() - 1);
}

Result<> Ext4Image::write(std::uint64_t offset, base::ByteView data) {
    if (sparse_) {
        auto first = static_cast<std::uint32_t>(offset / kBlockBytes);
        auto last = static_cast<std::uint32_t>((offset + data.size() - 1) / kBlockBytes);
        if (extents_.size() > contents_.back().first_extent)
            first = std::max(first, extents_.back().logical + extents_.back().count);
        if (first <= last) CAISSON_TRY(allocate(first, last - first + 1));
    }
    while (!data.empty()) {
        auto block = static_cast<std::uint32_t>(offset / kBlockBytes);
        while (write_extent_ < extents_.size() &&
               block >= extents_[write_extent_].logical + extents_[write_extent_].count)
            ++write_extent_;
        CAISSON_CHECK(write_extent_ < extents_.size() && block >= extents_[write_extent_].logical);
        const Extent& extent = extents_[write_extent_];
        std::uint64_t within = offset - std::uint64_t{extent.logical} * kBlockBytes;
        std::uint64_t room = std::uint64_t{extent.count} * kBlockBytes - within;
        auto take = static_cast<std::size_t>(std::min<std::uint64_t>(room, data.size()));
        CAISSON_TRY(writer_.write(extent.physical * kBlockBytes + within, data.first(take)));
        offset += take;
        data = data.subspan(take);
    }
    return {};
}

Result<> Ext4Image::end() {
    contents_.back().extent_count = static_cast<std::uint32_t>(extents_.size()) - contents_.back().first_extent;
    return {};
}

std::uint32_t Ext4Image::free_inodes() const { return fs_->super->s_free_inodes_count; }
std::uint64_t Ext4Image::free_blocks() const { return ext2fs_free_blocks_count(fs_->super); }

Result<> Ext4Image::close() {
    CAISSON_TRY(writer_.flush());
    EXT4_TRY(::ext2fs_close_free(&fs_), "cannot write the file system's tables");
    return {};
}

}  // namespace caisson::image::unpack
