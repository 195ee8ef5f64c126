#include "image/unpack/ext4_image.h"

#include <ext2fs/ext2_fs.h>
#include <ext2fs/ext2fs.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <map>

#include "base/sha256.h"
#include "os/file.h"
#include "os/process.h"
#include "tar/tar_builder.h"

namespace caisson::image::unpack {
namespace {

using tar::TarBuilder;
using tar::TarEntry;
using testing::HasSubstr;

constexpr std::uint64_t kDiskBytes = 64ULL << 20;

class Ext4ImageTest : public testing::Test {
  protected:
    void SetUp() override {
        auto directory = os::TemporaryDirectory::create(testing::TempDir(), "ext4-");
        ASSERT_TRUE(directory) << directory.error().to_string();
        directory_.emplace(std::move(*directory));
        path_ = directory_->path() + "/disk";
    }

    // Layers (lowest first) into a fresh image.
    Result<> build(const std::vector<std::string>& layers, Ext4Image::Options options = {}) {
        auto fd = CAISSON_TRY(os::open_file(path_, O_RDWR | O_CREAT | O_TRUNC, 0600));
        options.fd = fd.get();
        if (options.virtual_size_bytes == 0) options.virtual_size_bytes = kDiskBytes;
        auto image = CAISSON_TRY(Ext4Image::create(options));
        std::vector<LayerSource> sources;
        for (const auto& layer : layers)
            sources.push_back({"layer", "", [&layer](StreamLimits limits) { return open_stream(base::as_bytes(layer), limits); }});
        auto merged = CAISSON_TRY(merge(sources, *image, {}, {}));
        return image->finish(merged.tree);
    }
    std::string error(const std::vector<std::string>& layers, Ext4Image::Options options = {}) {
        auto built = build(layers, options);
        return built ? "no error" : built.error().to_string();
    }

    // What e2fsck has to say; empty if it finds nothing.
    std::string check() {
        const char* program = "/sbin/e2fsck";
        if (!os::exists(program)) return "";
        auto pipe = os::make_pipe();
        auto process = os::spawn({.arguments = {program, "-fn", path_}, .descriptors = {{pipe->second.get(), 1}, {pipe->second.get(), 2}}});
        pipe->second.reset();
        auto text = os::read_fd(pipe->first.get(), 1 << 20, "e2fsck");
        auto ended = process->wait();
        return ended->code == 0 && !ended->signalled ? "" : *text;
    }

    // The file system, read back with the library.
    class Reader {
      public:
        explicit Reader(const std::string& path) {
            errcode_t code = ::ext2fs_open(path.c_str(), EXT2_FLAG_64BITS, 0, 0, unix_io_manager, &fs);
            EXPECT_EQ(code, 0) << ::error_message(code);
            EXPECT_EQ(::ext2fs_read_bitmaps(fs), 0);
        }
        ~Reader() { ::ext2fs_close_free(&fs); }
        ext2_ino_t number(const std::string& name) {
            ext2_ino_t number = 0;
            return ::ext2fs_namei(fs, EXT2_ROOT_INO, EXT2_ROOT_INO, name.c_str(), &number) == 0 ? number : 0;
        }
        ext2_inode_large inode(const std::string& name) {
            ext2_inode_large inode{};
            EXPECT_EQ(::ext2fs_read_inode_full(fs, number(name), reinterpret_cast<ext2_inode*>(&inode), sizeof inode), 0) << name;
            return inode;
        }
        std::string content(const std::string& name) {
            ext2_file_t file = nullptr;
            EXPECT_EQ(::ext2fs_file_open(fs, number(name), 0, &file), 0) << name;
            __u64 size = 0;
            ::ext2fs_file_get_lsize(file, &size);
            std::string data(static_cast<std::size_t>(size), '\0');
            unsigned got = 0;
            EXPECT_EQ(::ext2fs_file_read(file, data.data(), static_cast<unsigned>(size), &got), 0);
            EXPECT_EQ(got, size);
            ::ext2fs_file_close(file);
            return data;
        }
        ext2_filsys fs = nullptr;
    };

    std::optional<os::TemporaryDirectory> directory_;
    std::string path_;
};

std::string noise(std::size_t bytes, unsigned seed) {
    std::string data(bytes, '\0');
    for (auto& c : data) {
        seed = seed * 1'664'525 + 1'013'904'223;
        c = static_cast<char>(seed >> 24);
    }
    return data;
}

TEST_F(Ext4ImageTest, EmptyImageIsSound) {
    ASSERT_EQ(error({}), "no error");
    EXPECT_EQ(check(), "");
}

TEST_F(Ext4ImageTest, FilesComeBack) {
    TarBuilder tar;
    std::map<std::string, std::string> files;
    for (std::size_t size : {0UL, 1UL, 4095UL, 4096UL, 4097UL, 100'000UL, 3'000'000UL}) {
        auto name = "f" + std::to_string(size);
        files[name] = noise(size, static_cast<unsigned>(size));
        tar.file(name, files[name]);
    }
    ASSERT_EQ(error({tar.finish()}), "no error");
    EXPECT_EQ(check(), "");
    Reader reader(path_);
    for (const auto& [name, data] : files) EXPECT_TRUE(reader.content(name) == data) << name;
}

TEST_F(Ext4ImageTest, SameLayersGiveSameBytes) {
    std::vector<std::string> layers{TarBuilder().directory("d").file("d/a", noise(9000, 1)).symlink("l", std::string(100, 't')).finish(),
                                    TarBuilder().file("d/b", noise(70'000, 2)).hard_link("c", "d/a").finish()};
    ASSERT_EQ(error(layers), "no error");
    auto first = os::read_file(path_, kDiskBytes);
    ASSERT_EQ(error(layers), "no error");
    auto second = os::read_file(path_, kDiskBytes);
    ASSERT_TRUE(first && second);
    EXPECT_TRUE(*first == *second);
}

TEST_F(Ext4ImageTest, ZerosAreAllocatedButNotWritten) {
    ASSERT_EQ(error({TarBuilder().file("zeros", std::string(20 << 20, '\0')).finish()}), "no error");
    struct stat info {};
    ASSERT_EQ(::stat(path_.c_str(), &info), 0);
    EXPECT_LT(info.st_blocks * 512, 2 << 20);
    Reader reader(path_);
    EXPECT_EQ(reader.inode("zeros").i_blocks, (20U << 20) / 512);
    EXPECT_EQ(check(), "");
}

TEST_F(Ext4ImageTest, ReplacedContentIsFreedAndGone) {
    // Twice in one layer: the first content is written before anybody knows of the second.
    auto secret = std::string(1 << 20, 'S');
    ASSERT_EQ(error({TarBuilder().file("f", secret).file("f", "new").finish()}), "no error");
    EXPECT_EQ(check(), "");
    auto bytes = os::read_file(path_, kDiskBytes);
    ASSERT_TRUE(bytes);
    EXPECT_EQ(bytes->find("SSSSSSSS"), std::string::npos);
}

TEST_F(Ext4ImageTest, ManyPiecesNeedAnExtentTree) {
    // 3000 pieces of one block with holes between them: two levels of index blocks.
    std::string map, data;
    constexpr int kPieces = 3000;
    for (int i = 0; i < kPieces; ++i) {
        map += std::to_string(i * 8192) + ",4096,";
        data += noise(4096, static_cast<unsigned>(i));
    }
    map += std::to_string(kPieces * 8192) + ",0";
    TarBuilder tar;
    tar.add({.name = "GNUSparseFile/s",
             .data = data,
             .pax = {{"GNU.sparse.size", std::to_string(kPieces * 8192)},
                     {"GNU.sparse.numblocks", std::to_string(kPieces + 1)},
                     {"GNU.sparse.map", map},
                     {"GNU.sparse.name", "s"}}});
    ASSERT_EQ(error({tar.finish()}), "no error");
    EXPECT_EQ(check(), "");
    Reader reader(path_);
    auto content = reader.content("s");
    ASSERT_EQ(content.size(), std::size_t{kPieces} * 8192);
    for (int i = 0; i < kPieces; ++i) {
        auto start = static_cast<std::size_t>(i) * 8192;
        ASSERT_TRUE(content.compare(start, 4096, data, static_cast<std::size_t>(i) * 4096, 4096) == 0) << i;
        ASSERT_EQ(content.substr(start + 4096, 4096), std::string(4096, '\0')) << i;
    }
    EXPECT_GE(reader.inode("s").i_blocks, (kPieces + 9U) * 8);
}

TEST_F(Ext4ImageTest, PiecesAreLimited) {
    auto tar = TarBuilder().file("a", "x").file("b", "y").finish();
    EXPECT_EQ(error({tar}, {.max_extents = 3}), "no error");  // two files and the root directory
    EXPECT_THAT(error({tar}, {.max_extents = 1}), HasSubstr("more than 1 pieces"));
}

TEST_F(Ext4ImageTest, DirectoriesOfManyBlocks) {
    TarBuilder tar;
    for (int i = 0; i < 3000; ++i) tar.file("d/" + std::string(static_cast<std::size_t>(i % 240), 'n') + std::to_string(i));
    for (int i = 0; i < 300; ++i) tar.directory("d/sub" + std::to_string(i));
    ASSERT_EQ(error({tar.finish()}, {.bytes_per_inode = 8192}), "no error");
    EXPECT_EQ(check(), "");
    Reader reader(path_);
    EXPECT_NE(reader.number("d/" + std::string(2999 % 240, 'n') + "2999"), 0U);
    EXPECT_EQ(reader.inode("d").i_links_count, 302);
}

TEST_F(Ext4ImageTest, ManySubdirectoriesSaturateTheLinkCount) {
    TarBuilder tar;
    for (int i = 0; i < 65'000; ++i) tar.directory("d/" + std::to_string(i));
    ASSERT_EQ(error({tar.finish()}, {.virtual_size_bytes = 512ULL << 20, .bytes_per_inode = 4096}), "no error");
    EXPECT_EQ(check(), "");
    Reader reader(path_);
    EXPECT_EQ(reader.inode("d").i_links_count, 1);
}

TEST_F(Ext4ImageTest, HardLinksShareAnInode) {
    ASSERT_EQ(error({TarBuilder().file("a", "x").hard_link("b", "a").finish()}), "no error");
    Reader reader(path_);
    EXPECT_EQ(reader.number("a"), reader.number("b"));
    EXPECT_EQ(reader.inode("a").i_links_count, 2);
    EXPECT_EQ(check(), "");
}

TEST_F(Ext4ImageTest, TimesReachFrom1901To2446) {
    TarBuilder tar;
    tar.add({.name = "old", .pax = {{"mtime", "-2147483648"}}});
    tar.add({.name = "too-old", .pax = {{"mtime", "-99999999999"}}});
    tar.add({.name = "late", .pax = {{"mtime", "15032385535.999999999"}}});
    tar.add({.name = "too-late", .pax = {{"mtime", "15032385536"}}});
    ASSERT_EQ(error({tar.finish()}), "no error");
    EXPECT_EQ(check(), "");
    Reader reader(path_);
    auto seconds = [&](const char* name) {
        auto inode = reader.inode(name);
        return static_cast<std::int64_t>(static_cast<std::int32_t>(inode.i_mtime)) + (std::int64_t{inode.i_mtime_extra & 3} << 32);
    };
    EXPECT_EQ(seconds("old"), -2147483648LL);
    EXPECT_EQ(seconds("too-old"), -2147483648LL);
    EXPECT_EQ(seconds("late"), 15032385535LL);
    EXPECT_EQ(seconds("too-late"), 15032385535LL);
    EXPECT_EQ(reader.inode("late").i_mtime_extra >> 2, 999'999'999U);
}

TEST_F(Ext4ImageTest, XattrsOfKnownNamespacesAreKept) {
    TarBuilder tar;
    tar.add({.name = "f",
             .pax = {{"SCHILY.xattr.user.small", "v"},
                     {"SCHILY.xattr.user.large", std::string(2000, 'L')},
                     {"SCHILY.xattr.com.apple.quarantine", "q"}}});
    ASSERT_EQ(error({tar.finish()}), "no error");
    EXPECT_EQ(check(), "");
    Reader reader(path_);
    struct ext2_xattr_handle* handle = nullptr;
    ASSERT_EQ(::ext2fs_xattrs_open(reader.fs, reader.number("f"), &handle), 0);
    ASSERT_EQ(::ext2fs_xattrs_read(handle), 0);
    std::size_t count = 0;
    ::ext2fs_xattrs_count(handle, &count);
    EXPECT_EQ(count, 2U);
    void* value = nullptr;
    std::size_t size = 0;
    ASSERT_EQ(::ext2fs_xattr_get(handle, "user.large", &value, &size), 0);
    EXPECT_EQ(std::string(static_cast<char*>(value), size), std::string(2000, 'L'));
    ::ext2fs_free_mem(&value);
    ::ext2fs_xattrs_close(&handle);
}

TEST_F(Ext4ImageTest, LargestAllowedXattrsFit) {
    TarBuilder tar;
    tar.add({.name = "one", .pax = {{"SCHILY.xattr.user.x", std::string(kMaxXattrBytesPerEntry - 22, 'v')}}});
    TarEntry many{.name = "many"};
    for (int i = 0; i < 150; ++i) many.pax.emplace_back("SCHILY.xattr.user." + std::to_string(1000 + i), "");
    tar.add(many);
    ASSERT_EQ(error({tar.finish()}), "no error");
    EXPECT_EQ(check(), "");
}

TEST_F(Ext4ImageTest, BadAclIsRefused) {
    EXPECT_THAT(error({TarBuilder().add({.name = "f", .pax = {{"SCHILY.xattr.system.posix_acl_access", "nonsense"}}}).finish()}),
                HasSubstr("extended attribute"));
}

TEST_F(Ext4ImageTest, ContentThatDoesNotFitIsRefused) {
    EXPECT_THAT(error({TarBuilder().file("f", noise(66 << 20, 7)).finish()}), HasSubstr("does not fit into a disk of 64"));
}

TEST_F(Ext4ImageTest, DiskSizesAreLimited) {
    EXPECT_THAT(error({}, {.virtual_size_bytes = kMinDiskBytes - 4096}), HasSubstr("out of range"));
    EXPECT_THAT(error({}, {.virtual_size_bytes = kMaxDiskBytes + 4096}), HasSubstr("out of range"));
    EXPECT_THAT(error({}, {.virtual_size_bytes = kMinDiskBytes + 1}), HasSubstr("out of range"));
    EXPECT_EQ(error({}, {.virtual_size_bytes = 1ULL << 40}), "no error");
}

TEST_F(Ext4ImageTest, InodeTablesCountAsZeroed) {
    ASSERT_EQ(error({}, {.virtual_size_bytes = 1ULL << 30}), "no error");
    Reader reader(path_);
    for (dgrp_t group = 0; group < reader.fs->group_desc_count; ++group)
        EXPECT_TRUE(ext2fs_bg_flags_test(reader.fs, group, EXT2_BG_INODE_ZEROED)) << group;
    struct stat info {};
    ASSERT_EQ(::stat(path_.c_str(), &info), 0);
    EXPECT_LT(info.st_blocks * 512, 1 << 20);
}

}  // namespace
}  // namespace caisson::image::unpack
