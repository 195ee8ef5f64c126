// The second half of Ext4Image: directories, inodes and attributes, written once the whole tree is known.
#include <ext2fs/ext2_fs.h>
#include <ext2fs/ext2fs.h>
#include <ext2fs/ext3_extents.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/text.h"
#include "image/limits.h"
#include "image/unpack/ext4_image.h"

namespace caisson::image::unpack {

using base::failure;

#define EXT4_TRY(call, what)                                                             \
    do {                                                                                 \
        errcode_t ext4_code_ = (call);                                                   \
        if (ext4_code_ != 0) return failed(what, ext4_code_);                            \
    } while (false)

namespace {

constexpr std::uint32_t kMaxExtentBlocks = 1 << 15;  // of one initialised extent
constexpr std::size_t kExtentsPerInode = 4;
constexpr std::size_t kExtentsPerBlock = (kBlockBytes - sizeof(ext3_extent_header)) / sizeof(ext3_extent);
constexpr std::size_t kFastSymlinkBytes = 60;
constexpr std::size_t kDirectoryTailBytes = 12;
constexpr std::uint32_t kMaxDirectoryLinks = 65000;

std::uint16_t type_bits(EntryType type) {
    switch (type) {
        case EntryType::kFile: return S_IFREG;
        case EntryType::kDirectory: return S_IFDIR;
        case EntryType::kSymlink: return S_IFLNK;
        case EntryType::kCharacter: return S_IFCHR;
        case EntryType::kBlock: return S_IFBLK;
        case EntryType::kFifo: return S_IFIFO;
        case EntryType::kSocket: return S_IFSOCK;
        case EntryType::kHardLink: break;
    }
    return S_IFREG;
}

std::uint8_t directory_type(EntryType type) {
    switch (type) {
        case EntryType::kFile: return EXT2_FT_REG_FILE;
        case EntryType::kDirectory: return EXT2_FT_DIR;
        case EntryType::kSymlink: return EXT2_FT_SYMLINK;
        case EntryType::kCharacter: return EXT2_FT_CHRDEV;
        case EntryType::kBlock: return EXT2_FT_BLKDEV;
        case EntryType::kFifo: return EXT2_FT_FIFO;
        case EntryType::kSocket: return EXT2_FT_SOCK;
        case EntryType::kHardLink: break;
    }
    return EXT2_FT_UNKNOWN;
}

// 34 bits of seconds and 30 of nanoseconds: 1901 to 2446.
struct DiskTime {
    std::uint32_t seconds;
    std::uint32_t extra;
};
DiskTime disk_time(std::int64_t seconds, std::uint32_t nanoseconds) {
    constexpr std::int64_t kFirst = -(std::int64_t{1} << 31);
    constexpr std::int64_t kLast = kFirst + (std::int64_t{1} << 34) - 1;
    seconds = std::clamp(seconds, kFirst, kLast);
    auto low = static_cast<std::uint32_t>(static_cast<std::uint64_t>(seconds));
    std::int64_t epoch = (seconds - static_cast<std::int32_t>(low)) >> 32;
    return {low, static_cast<std::uint32_t>(epoch & 3) | nanoseconds << 2};
}

ext2_inode_large disk_inode(const Inode& what) {
    ext2_inode_large inode{};
    inode.i_mode = static_cast<std::uint16_t>(type_bits(what.type) | what.mode);
    inode.i_uid = static_cast<std::uint16_t>(what.uid);
    inode.osd2.linux2.l_i_uid_high = static_cast<std::uint16_t>(what.uid >> 16);
    inode.i_gid = static_cast<std::uint16_t>(what.gid);
    inode.osd2.linux2.l_i_gid_high = static_cast<std::uint16_t>(what.gid >> 16);
    auto time = disk_time(what.mtime_seconds, what.mtime_nanoseconds);
    inode.i_mtime = inode.i_ctime = inode.i_atime = inode.i_crtime = time.seconds;
    inode.i_mtime_extra = inode.i_ctime_extra = inode.i_atime_extra = inode.i_crtime_extra = time.extra;
    inode.i_extra_isize = sizeof(ext2_inode_large) - EXT2_GOOD_OLD_INODE_SIZE;
    inode.i_links_count = static_cast<std::uint16_t>(what.links);
    return inode;
}

void set_size(ext2_inode_large& inode, std::uint64_t size) {
    inode.i_size = static_cast<std::uint32_t>(size);
    inode.i_size_high = static_cast<std::uint32_t>(size >> 32);
}

// i_blocks counts 512-byte sectors in 48 bits.
void add_blocks(ext2_inode_large& inode, std::uint64_t blocks) {
    std::uint64_t sectors = inode.i_blocks + (std::uint64_t{inode.osd2.linux2.l_i_blocks_hi} << 32);
    sectors += blocks * (kBlockBytes / 512);
    inode.i_blocks = static_cast<std::uint32_t>(sectors);
    inode.osd2.linux2.l_i_blocks_hi = static_cast<std::uint16_t>(sectors >> 32);
}

// As the kernel's new_encode_dev(): 12 bits of major number, 20 of minor.
void set_device(ext2_inode_large& inode, std::uint32_t major, std::uint32_t minor) {
    if (major < 256 && minor < 256)
        inode.i_block[0] = major << 8 | minor;
    else
        inode.i_block[1] = (minor & 0xff) | major << 8 | (minor & ~0xffU) << 12;
}

}  // namespace

Result<> Ext4Image::release_dead_contents(const Tree& tree) {
    std::vector<bool> alive(contents_.size());
    for (InodeId id = 0; id < tree.inode_count(); ++id) {
        const Inode& inode = tree.inode(id);
        if (inode.links > 0 && inode.type == EntryType::kFile && inode.content != kNone) alive[inode.content] = true;
    }
    for (std::size_t i = 0; i < contents_.size(); ++i) {
        if (alive[i]) continue;
        // Replaced by a later entry of its own layer, or by a graft. Free blocks of a disk must be zero: what is
        // allocated next counts on it, and nothing that the image deleted stays readable.
        for (std::uint32_t e = 0; e < contents_[i].extent_count; ++e) {
            const Extent& extent = extents_[contents_[i].first_extent + e];
            ::ext2fs_block_alloc_stats_range(fs_, extent.physical, extent.count, -1);
            if (::fallocate(options_.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                            static_cast<off_t>(extent.physical * kBlockBytes),
                            static_cast<off_t>(std::uint64_t{extent.count} * kBlockBytes)) != 0)
                return base::failure_errno("cannot free unused blocks of the disk");
        }
    }
    return {};
}

Result<> Ext4Image::write_inode(std::uint32_t number, ext2_inode_large& inode) {
    auto* super = fs_->super;
    std::uint32_t per_block = kBlockBytes / EXT2_INODE_SIZE(super);
    if (number <= per_block) {
        // Shares its block with the reserved inodes, which libext2fs has in its cache.
        EXT4_TRY(::ext2fs_write_inode_full(fs_, number, reinterpret_cast<ext2_inode*>(&inode), sizeof inode),
                 "cannot write an inode");
        return {};
    }
    std::uint8_t raw[256] = {};
    static_assert(sizeof inode <= sizeof raw);
    std::memcpy(raw, &inode, sizeof inode);
    EXT4_TRY(::ext2fs_inode_csum_set(fs_, number, reinterpret_cast<ext2_inode_large*>(raw)), "cannot sum an inode");
    std::uint32_t group = (number - 1) / super->s_inodes_per_group;
    std::uint64_t index = (number - 1) % super->s_inodes_per_group;
    return inode_writer_.write(ext2fs_inode_table_loc(fs_, group) * kBlockBytes + index * sizeof raw, raw);
}

Result<> Ext4Image::set_extents(std::uint32_t number, ext2_inode_large& inode, const Extent* extents,
                                std::size_t count) {
    struct Piece {
        std::uint32_t logical;
        std::uint64_t physical;
        std::uint32_t count;  // blocks; unused in index levels
    };
    std::vector<Piece> level;
    std::uint64_t blocks = 0;
    for (std::size_t i = 0; i < count; ++i) {
        blocks += extents[i].count;
        for (std::uint32_t done = 0; done < extents[i].count;) {
            std::uint32_t piece = std::min(extents[i].count - done, kMaxExtentBlocks);
            level.push_back({extents[i].logical + done, extents[i].physical + done, piece});
            done += piece;
        }
    }
    auto store = [](void* block, const Piece* pieces, std::size_t n, std::size_t max, std::uint16_t depth) {
        ext3_extent_header header{};
        header.eh_magic = EXT3_EXT_MAGIC;
        header.eh_entries = static_cast<std::uint16_t>(n);
        header.eh_max = static_cast<std::uint16_t>(max);
        header.eh_depth = depth;
        auto* out = static_cast<std::uint8_t*>(block);
        std::memcpy(out, &header, sizeof header);
        out += sizeof header;
        for (std::size_t i = 0; i < n; ++i, out += sizeof(ext3_extent)) {
            if (depth == 0) {
                ext3_extent leaf{};
                leaf.ee_block = pieces[i].logical;
                leaf.ee_len = static_cast<std::uint16_t>(pieces[i].count);
                leaf.ee_start = static_cast<std::uint32_t>(pieces[i].physical);
                leaf.ee_start_hi = static_cast<std::uint16_t>(pieces[i].physical >> 32);
                std::memcpy(out, &leaf, sizeof leaf);
            } else {
                ext3_extent_idx node{};
                node.ei_block = pieces[i].logical;
                node.ei_leaf = static_cast<std::uint32_t>(pieces[i].physical);
                node.ei_leaf_hi = static_cast<std::uint16_t>(pieces[i].physical >> 32);
                std::memcpy(out, &node, sizeof node);
            }
        }
    };
    std::uint16_t depth = 0;
    while (level.size() > kExtentsPerInode) {
        std::size_t needed = (level.size() + kExtentsPerBlock - 1) / kExtentsPerBlock;
        std::size_t mark = extents_.size();
        contents_.push_back({static_cast<std::uint32_t>(mark), 0});
        CAISSON_TRY(allocate(0, static_cast<std::uint32_t>(needed)));
        contents_.pop_back();
        std::vector<Piece> above;
        std::size_t next = 0;
        for (std::size_t e = mark; e < extents_.size(); ++e)
            for (std::uint32_t b = 0; b < extents_[e].count; ++b) {
                std::size_t n = std::min(kExtentsPerBlock, level.size() - next);
                alignas(8) std::uint8_t block[kBlockBytes] = {};
                store(block, level.data() + next, n, kExtentsPerBlock, depth);
                EXT4_TRY(::ext2fs_extent_block_csum_set(fs_, number, reinterpret_cast<ext3_extent_header*>(block)),
                         "cannot sum an extent block");
                CAISSON_TRY(writer_.write((extents_[e].physical + b) * kBlockBytes, block));
                above.push_back({level[next].logical, extents_[e].physical + b, 0});
                next += n;
            }
        extents_.resize(mark);
        blocks += needed;
        level = std::move(above);
        ++depth;
    }
    store(inode.i_block, level.data(), level.size(), kExtentsPerInode, depth);
    inode.i_flags |= EXT4_EXTENTS_FL;
    add_blocks(inode, blocks);
    return {};
}

Result<> Ext4Image::write_directory(const Tree& tree, const std::vector<Tree::Child>& children, std::uint32_t number,
                                    std::uint32_t parent, const Inode& what) {
    std::vector<std::uint8_t> data;
    std::size_t block_start = 0;
    std::size_t last_entry = 0;  // whose record takes the rest of its block
    std::uint32_t subdirectories = 0;
    auto record_bytes = [](std::size_t name) { return (8 + name + 3) & ~std::size_t{3}; };
    std::size_t used = 0;  // within the block, data.size() being always whole blocks
    auto stretch = [&] {
        auto rest = static_cast<std::uint16_t>(kBlockBytes - kDirectoryTailBytes - (last_entry - block_start));
        std::memcpy(data.data() + last_entry + 4, &rest, 2);
    };
    auto start_block = [&] {
        block_start = data.size();
        data.resize(data.size() + kBlockBytes);
        used = 0;
    };
    auto put = [&](std::uint32_t inode, std::string_view name, std::uint8_t type) {
        std::size_t bytes = record_bytes(name.size());
        if (used + bytes > kBlockBytes - kDirectoryTailBytes) {
            stretch();
            start_block();
        }
        last_entry = block_start + used;
        std::uint8_t* out = data.data() + last_entry;
        auto length = static_cast<std::uint16_t>(bytes);
        std::memcpy(out, &inode, 4);
        std::memcpy(out + 4, &length, 2);
        out[6] = static_cast<std::uint8_t>(name.size());
        out[7] = type;
        std::memcpy(out + 8, name.data(), name.size());
        used += bytes;
    };
    start_block();
    put(number, ".", EXT2_FT_DIR);
    put(parent, "..", EXT2_FT_DIR);
    for (const auto& child : children) {
        put(numbers_[child.inode], child.name, directory_type(tree.inode(child.inode).type));
        if (child.directory) ++subdirectories;
    }
    stretch();

    std::size_t mark = extents_.size();
    contents_.push_back({static_cast<std::uint32_t>(mark), 0});
    CAISSON_TRY(allocate(0, static_cast<std::uint32_t>(data.size() / kBlockBytes)));
    contents_.pop_back();
    std::size_t offset = 0;
    for (std::size_t e = mark; e < extents_.size(); ++e)
        for (std::uint32_t b = 0; b < extents_[e].count; ++b, offset += kBlockBytes) {
            std::uint8_t* block = data.data() + offset;
            ::ext2fs_initialize_dirent_tail(fs_, EXT2_DIRENT_TAIL(block, kBlockBytes));
            EXT4_TRY(::ext2fs_dir_block_csum_set(fs_, number, reinterpret_cast<ext2_dir_entry*>(block)),
                     "cannot sum a directory block");
            CAISSON_TRY(writer_.write((extents_[e].physical + b) * kBlockBytes, {block, kBlockBytes}));
        }
    auto inode = disk_inode(what);
    set_size(inode, data.size());
    // Beyond what the field can count, 1 stands for "many" (feature dir_nlink).
    inode.i_links_count =
        subdirectories + 2 >= kMaxDirectoryLinks ? 1 : static_cast<std::uint16_t>(subdirectories + 2);
    CAISSON_TRY(set_extents(number, inode, extents_.data() + mark, extents_.size() - mark));
    extents_.resize(mark);
    return write_inode(number, inode);
}

Result<> Ext4Image::write_file(const Tree& tree, std::uint32_t number, const Inode& what) {
    auto inode = disk_inode(what);
    switch (what.type) {
        case EntryType::kFile: {
            set_size(inode, what.size);
            const Extent* first = nullptr;
            std::size_t count = 0;
            if (what.content != kNone) {
                first = extents_.data() + contents_[what.content].first_extent;
                count = contents_[what.content].extent_count;
            }
            // Index blocks may move extents_.
            std::vector<Extent> copy(first, first + count);
            CAISSON_TRY(set_extents(number, inode, copy.data(), copy.size()));
            break;
        }
        case EntryType::kSymlink: {
            auto target = tree.target(what);
            set_size(inode, target.size());
            if (target.size() < kFastSymlinkBytes) {
                std::memcpy(inode.i_block, target.data(), target.size());
                break;
            }
            std::size_t mark = extents_.size();
            contents_.push_back({static_cast<std::uint32_t>(mark), 0});
            CAISSON_TRY(allocate(0, 1));
            contents_.pop_back();
            Extent extent = extents_[mark];
            extents_.resize(mark);
            CAISSON_TRY(writer_.write(extent.physical * kBlockBytes, base::as_bytes(target)));
            CAISSON_TRY(set_extents(number, inode, &extent, 1));
            break;
        }
        case EntryType::kCharacter:
        case EntryType::kBlock: set_device(inode, what.device_major, what.device_minor); break;
        case EntryType::kFifo:
        case EntryType::kSocket:
        case EntryType::kDirectory:
        case EntryType::kHardLink: break;
    }
    return write_inode(number, inode);
}

Result<> Ext4Image::write_tree(const Tree& tree) {
    // Numbers first, since directories name them: the children of a directory get consecutive ones.
    numbers_.assign(tree.inode_count(), 0);
    struct Numbered {
        InodeId inode;
        NodeId node;  // kNone unless a directory
        std::uint32_t parent;
    };
    std::vector<Numbered> numbered;  // from the first free number on
    numbered.reserve(tree.visible_count());
    const ext2_ino_t first = EXT2_FIRST_INO(fs_->super);
    Numbered root{tree.resolve(tree.root_inode()), Tree::kRoot, EXT2_ROOT_INO};
    numbers_[root.inode] = EXT2_ROOT_INO;
    std::vector<Numbered> open{root};
    while (!open.empty()) {
        auto directory = open.back();
        open.pop_back();
        auto children = tree.children(directory.node);
        std::size_t mark = open.size();
        for (const auto& child : children) {
            if (numbers_[child.inode] != 0) continue;  // a further name of the same file
            auto number = static_cast<ext2_ino_t>(first + numbered.size());
            numbers_[child.inode] = number;
            ::ext2fs_inode_alloc_stats2(fs_, number, +1, child.directory);
            numbered.push_back({child.inode, child.directory ? child.node : kNone, numbers_[directory.inode]});
            if (child.directory) open.push_back(numbered.back());
        }
        std::reverse(open.begin() + static_cast<std::ptrdiff_t>(mark), open.end());  // depth first, in order
    }
    // In the order of their numbers, so that the tables are written once and in whole blocks.
    auto write = [&](const Numbered& what) {
        if (what.node == kNone) return write_file(tree, numbers_[what.inode], tree.inode(what.inode));
        return write_directory(tree, tree.children(what.node), numbers_[what.inode], what.parent, tree.inode(what.inode));
    };
    CAISSON_TRY(write(root));
    for (const auto& what : numbered) CAISSON_TRY(write(what));
    return {};
}

Result<> Ext4Image::write_xattrs(const Tree& tree) {
    static constexpr std::string_view kNamespaces[] = {"user.", "trusted.", "security."};
    static constexpr std::string_view kAcls[] = {"system.posix_acl_access", "system.posix_acl_default"};
    for (InodeId id = 0; id < tree.inode_count(); ++id) {
        if (tree.resolve(id) != id || numbers_[id] == 0 || tree.inode(id).xattrs == kNone) continue;
        struct ext2_xattr_handle* handle = nullptr;
        EXT4_TRY(::ext2fs_xattrs_open(fs_, numbers_[id], &handle), "cannot open extended attributes");
        auto fill = [&]() -> Result<> {
            EXT4_TRY(::ext2fs_xattrs_read(handle), "cannot read extended attributes");
            for (const auto& [key, value] : tree.xattrs(tree.inode(id))) {
                bool known = std::find(std::begin(kAcls), std::end(kAcls), key) != std::end(kAcls);
                for (auto prefix : kNamespaces) known = known || (key.starts_with(prefix) && key.size() > prefix.size());
                // Linux has no other namespaces; an extraction would be refused them too.
                if (!known) continue;
                errcode_t code = ::ext2fs_xattr_set(handle, key.c_str(), value.data(), value.size());
                if (code == EXT2_ET_EA_NO_SPACE || code == EINVAL)
                    return failure(code == EINVAL ? Errc::kCorrupt : Errc::kLimit,
                                   "extended attribute " + base::printable(key, 300) +
                                       (code == EINVAL ? " is not valid" : " is larger than ext4 can hold"));
                EXT4_TRY(code, "cannot set extended attribute " + base::printable(key, 300));
            }
            return {};
        }();
        ::ext2fs_xattrs_close(&handle);  // writes what was not written yet
        CAISSON_TRY(std::move(fill));
    }
    return {};
}

Result<> Ext4Image::finish(const Tree& tree) {
    CAISSON_TRY(writer_.flush());
    CAISSON_TRY(release_dead_contents(tree));
    CAISSON_TRY(write_tree(tree));
    CAISSON_TRY(writer_.flush());
    CAISSON_TRY(inode_writer_.flush());
    // libext2fs reads inodes back for their attributes, and must not find them in a buffer from before.
    EXT4_TRY(::ext2fs_flush_icache(fs_), "cannot forget cached inodes");
    CAISSON_TRY(write_xattrs(tree));
    return close();
}

}  // namespace caisson::image::unpack
