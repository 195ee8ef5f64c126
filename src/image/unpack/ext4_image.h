// Ext4Image: an ext4 file system written straight into an image file with libext2fs, without mounting anything.
//
// File contents arrive first, while their layers stream by, and go to freshly allocated, contiguous blocks; when the
// whole tree is known, finish() writes directories, inodes and attributes. Same calls, same bytes: no clock, no
// random numbers. Features are those that mke2fs 1.47 gives ext4, without lost+found (e2fsck makes it when it needs
// it); inode tables count as zeroed, since the image file reads as zeros, so that a guest never writes them.
//
// Source: Documentation/filesystems/ext4 of the kernel, libext2fs and mke2fs of e2fsprogs 1.47.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "image/unpack/block_writer.h"
#include "image/unpack/merge.h"

struct struct_ext2_filsys;
struct ext2_inode_large;

namespace caisson::image::unpack {

class Ext4Image final : public ContentSink {
  public:
    struct Options {
        int fd = -1;  // empty regular file, open for reading and writing; stays the caller's
        std::uint64_t virtual_size_bytes = 0;
        std::uint32_t bytes_per_inode = 16384;
        std::array<std::uint8_t, 16> uuid{};
        std::array<std::uint8_t, 16> hash_seed{};
        std::size_t max_extents = kMaxExtents;
    };
    // kLimit for sizes out of range.
    static Result<std::unique_ptr<Ext4Image>> create(const Options& options);
    ~Ext4Image() override;
    Ext4Image(const Ext4Image&) = delete;
    Ext4Image& operator=(const Ext4Image&) = delete;

    Result<std::uint32_t> begin(std::uint64_t size, bool sparse) override;
    Result<> write(std::uint64_t offset, base::ByteView data) override;
    Result<> end() override;

    // How many files the file system can still take: compare with the tree before finish().
    std::uint32_t free_inodes() const;
    std::uint64_t free_blocks() const;
    // Whether something failed because the disk is too small for the image.
    bool full() const { return full_; }
    // Everything but the contents; the image is complete and closed after it, but not synced.
    Result<> finish(const Tree& tree);

  private:
    struct Extent {
        std::uint32_t logical;  // first block within the file
        std::uint32_t count;
        std::uint64_t physical;
    };
    struct Content {
        std::uint32_t first_extent;
        std::uint32_t extent_count;
    };
    explicit Ext4Image(const Options& options) : options_(options), writer_(options.fd), inode_writer_(options.fd) {}
    Result<> format();
    base::Failure too_small();
    // The error of a call of libext2fs.
    base::Failure failed(const std::string& what, long code);
    // Appends blocks [logical, logical + count) to extents_, contiguous wherever the disk allows it.
    Result<> allocate(std::uint32_t logical, std::uint32_t count);
    Result<> release_dead_contents(const Tree& tree);
    Result<> write_inode(std::uint32_t number, ext2_inode_large& inode);
    // Stores the extents [first, end of extents_) into the inode, with index blocks where four are not enough.
    Result<> set_extents(std::uint32_t number, ext2_inode_large& inode, const Extent* extents, std::size_t count);
    Result<> write_tree(const Tree& tree);
    Result<> write_directory(const Tree& tree, const std::vector<Tree::Child>& children, std::uint32_t number,
                             std::uint32_t parent, const Inode& what);
    Result<> write_file(const Tree& tree, std::uint32_t number, const Inode& what);
    Result<> write_xattrs(const Tree& tree);
    Result<> close();

    Options options_;
    BlockWriter writer_;
    // The inode tables: strictly ascending, since a block is written as a whole.
    BlockWriter inode_writer_;
    struct_ext2_filsys* fs_ = nullptr;
    std::uint64_t cursor_ = 0;
    bool full_ = false;
    std::vector<Extent> extents_;
    std::vector<Content> contents_;
    // The content being written.
    std::uint64_t size_ = 0;
    bool sparse_ = false;
    std::size_t write_extent_ = 0;
    std::vector<std::uint32_t> numbers_;  // finish(): inode numbers by InodeId
};

}  // namespace caisson::image::unpack
