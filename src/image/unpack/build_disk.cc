#include "image/unpack/build_disk.h"

#include <unistd.h>

#include <algorithm>

#include "base/text.h"

namespace caisson::image::unpack {

using base::failure;
using base::failure_errno;

namespace {

constexpr std::uint32_t kLeastBytesPerInode = 1024;
constexpr std::uint32_t kFreeInodes = 1024;  // at least so many files can be made in the guest
constexpr std::uint64_t kRoomBytes = 16ULL << 20;  // a full disk would only be refused later: a box makes a few files
constexpr std::uint64_t kSizeStep = 16ULL << 20;

std::uint64_t blocks_of(std::uint64_t bytes) { return (bytes + kBlockBytes - 1) / kBlockBytes; }

// Counts the blocks that contents would take, index blocks included, and keeps nothing.
class BlockCounter final : public ContentSink {
  public:
    Result<std::uint32_t> begin(std::uint64_t size, bool sparse) override {
        sparse_ = sparse;
        next_ = 0;
        pieces_ = 0;
        if (!sparse) count(0, blocks_of(size));
        return contents_++;
    }
    Result<> write(std::uint64_t offset, base::ByteView data) override {
        if (sparse_ && !data.empty())
            count(std::max(next_, offset / kBlockBytes), blocks_of(offset + data.size()));
        return {};
    }
    Result<> end() override {
        // At least 340 pieces have room in an index block, and four in the inode itself.
        if (pieces_ > 4) blocks_ += 1 + pieces_ / 256;
        return {};
    }
    std::uint64_t blocks() const { return blocks_; }

  private:
    // Blocks [first, end) of the file, as a piece of its own for every 64 MiB, as if groups were in the way.
    void count(std::uint64_t first, std::uint64_t end) {
        if (end <= first) return;
        if (first != next_ || pieces_ == 0) ++pieces_;
        pieces_ += (end - first) / (1 << 14);
        blocks_ += end - first;
        next_ = end;
    }
    std::uint32_t contents_ = 0;
    std::uint64_t blocks_ = 0;
    std::uint64_t next_ = 0;  // first block of the file behind those counted
    std::uint64_t pieces_ = 0;
    bool sparse_ = false;
};

// What directories, long symbolic links and attributes take.
std::uint64_t tree_blocks(const Tree& tree) {
    constexpr std::uint64_t kFastSymlinkBytes = 60;
    constexpr std::uint64_t kLargestRecord = 8 + 256;  // what may be left free at a directory block's end
    std::uint64_t blocks = 0;
    auto attributes = [&](InodeId id) {
        if (id != kNone && tree.inode(id).xattrs != kNone) ++blocks;
    };
    attributes(tree.root_inode());
    std::vector<NodeId> open{Tree::kRoot};
    while (!open.empty()) {
        auto directory = open.back();
        open.pop_back();
        std::uint64_t bytes = 24;  // "." and ".."
        for (const auto& child : tree.children(directory)) {
            bytes += 8 + (child.name.size() + 3) / 4 * 4;
            attributes(child.inode);
            const Inode& inode = tree.inode(child.inode);
            if (inode.type == EntryType::kSymlink && tree.target(inode).size() >= kFastSymlinkBytes) ++blocks;
            if (child.directory) open.push_back(child.node);
        }
        blocks += 1 + bytes / (kBlockBytes - kLargestRecord);
    }
    return blocks;
}

Result<> empty(int fd) {
    if (::ftruncate(fd, 0) != 0) return failure_errno("cannot empty the disk");
    return {};
}

base::Failure too_small(std::uint64_t virtual_size_bytes, const Result<std::uint64_t>& needed) {
    if (!needed) return base::failure(needed.error());
    return failure(Errc::kLimit,
                   "the image does not fit into a disk of " + base::format_size(virtual_size_bytes) + ": it needs at least " +
                       base::format_size(*needed),
                   "ask for a larger one: --disk-size " + std::to_string(*needed >> 20) + "M");
}

}  // namespace

Result<std::uint64_t> needed_disk_bytes(const std::vector<LayerSource>& layers, Ext4Image::Options options,
                                        const MergeLimits& limits, const MergeProgress& progress) {
    BlockCounter counter;
    auto merged = CAISSON_TRY(merge(layers, counter, limits, progress));
    const auto blocks = counter.blocks() + tree_blocks(merged.tree) + blocks_of(kRoomBytes);
    const auto inodes = merged.tree.visible_count() + kFreeInodes;
    auto rounded = [](std::uint64_t bytes) { return (bytes + kSizeStep - 1) / kSizeStep * kSizeStep; };
    options.virtual_size_bytes = std::max(rounded(blocks * kBlockBytes), kMinDiskBytes);
    // How much of a disk its own tables take is known once it is laid out; the file is sparse, so that costs little.
    for (;;) {
        CAISSON_TRY(empty(options.fd));
        auto image = CAISSON_TRY(Ext4Image::create(options));
        if (image->free_inodes() < inodes && options.bytes_per_inode / 2 >= kLeastBytesPerInode)
            options.bytes_per_inode /= 2;
        else if (image->free_inodes() < inodes)
            options.virtual_size_bytes += rounded((inodes - image->free_inodes()) * options.bytes_per_inode);
        else if (image->free_blocks() < blocks)
            options.virtual_size_bytes += rounded((blocks - image->free_blocks()) * kBlockBytes);
        else
            return options.virtual_size_bytes;
    }
}

Result<BuiltDisk> build_disk(const std::vector<LayerSource>& layers, Ext4Image::Options options,
                             const MergeLimits& limits, const MergeProgress& progress) {
    const auto first_options = options;
    for (;;) {
        CAISSON_TRY(empty(options.fd));
        auto image = CAISSON_TRY(Ext4Image::create(options));
        auto merged = merge(layers, *image, limits, progress);
        if (merged) {
            if (merged->tree.visible_count() + kFreeInodes > image->free_inodes()) {
                // Inode tables have their place before the contents, so an image of very many small files starts over.
                if (options.bytes_per_inode / 2 >= kLeastBytesPerInode) {
                    options.bytes_per_inode /= 2;
                    continue;
                }
            } else if (auto finished = image->finish(merged->tree); finished) {
                if (::fsync(options.fd) != 0) return failure_errno("cannot sync the disk");
                return BuiltDisk{merged->tree.visible_count(), merged->unpacked_bytes, options.bytes_per_inode};
            } else if (!image->full()) {
                return base::failure(std::move(finished.error()));
            }
        } else if (!image->full()) {
            return base::failure(std::move(merged.error()));
        }
        image.reset();
        return too_small(options.virtual_size_bytes, needed_disk_bytes(layers, first_options, limits, progress));
    }
}

}  // namespace caisson::image::unpack
