// The image store on a file system that is full: every refusal names the file, nothing half-made stays, what was there
// before still works. Needs root, to mount a small tmpfs.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>

#include "image/store.h"
#include "os/file.h"
#include "tar/tar_builder.h"

namespace caisson::image {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

class FullDiskTest : public testing::Test {
  protected:
    void SetUp() override {
        if (::geteuid() != 0) GTEST_SKIP() << "needs root, to mount a tmpfs";
        auto directory = os::TemporaryDirectory::create(testing::TempDir(), "full-");
        ASSERT_TRUE(directory) << directory.error().to_string();
        directory_.emplace(std::move(*directory));
        home_ = directory_->path() + "/home";
        ASSERT_TRUE(os::make_directories(home_));
        ASSERT_EQ(::mount("tmpfs", home_.c_str(), "tmpfs", 0, "size=8m"), 0) << std::strerror(errno);
        mounted_ = true;
        auto store = Store::open({.images_directory = home_ + "/images",
                                  .disks_directory = home_ + "/disks",
                                  .unpack_program = CAISSON_TEST_UNPACKER,
                                  .spawn = [](const os::Command& command) { return os::spawn(command); }});
        ASSERT_TRUE(store) << store.error().to_string();
        store_.emplace(std::move(*store));
    }
    void TearDown() override {
        if (mounted_) ::umount2(home_.c_str(), MNT_DETACH);
    }
    Result<Image> import(const std::string& name, std::size_t bytes) {
        std::string data(bytes, 'x');
        auto path = directory_->path() + "/root.tar";
        CAISSON_TRY(os::write_file_atomic(path, tar::TarBuilder().file("f", data).finish()));
        return store_->import_rootfs(CAISSON_TRY(os::open_file(path, O_RDONLY)), {.name = name});
    }

    std::optional<os::TemporaryDirectory> directory_;
    std::string home_;
    bool mounted_ = false;
    std::optional<Store> store_;
};

TEST_F(FullDiskTest, ImportIsRefusedAndLeavesNothing) {
    ASSERT_TRUE(import("small", 1000));
    auto refused = import("large", 10 << 20);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::kNoSpace);
    EXPECT_THAT(refused.error().to_string(), HasSubstr(home_ + "/images/tmp/"));
    EXPECT_THAT(refused.error().to_string(), HasSubstr("No space left on device"));
    EXPECT_THAT(*os::list_directory(home_ + "/images/tmp"), IsEmpty());
    EXPECT_TRUE(store_->find("small"));
    EXPECT_EQ(store_->find("large").error().code, Errc::kNotFound);
}

TEST_F(FullDiskTest, DiskIsRefusedAndLeavesNothing) {
    auto image = import("image", 5 << 20);
    ASSERT_TRUE(image) << image.error().to_string();
    auto refused = store_->base_disk(*image, 64ULL << 20, {});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::kNoSpace);
    EXPECT_THAT(refused.error().to_string(), HasSubstr(home_ + "/disks/"));
    auto left = os::list_directory(home_ + "/disks");
    ASSERT_TRUE(left);
    for (const auto& name : *left) EXPECT_TRUE(name.ends_with(".lock")) << name;
}

TEST_F(FullDiskTest, RemoveWorksWithNothingLeft) {
    ASSERT_TRUE(import("a", 2 << 20));
    // Fill what is left, to the last byte.
    auto filler = os::open_file(home_ + "/filler", O_WRONLY | O_CREAT, 0600);
    std::string block(4096, 'x');
    while (::write(filler->get(), block.data(), block.size()) > 0) {
    }
    auto removed = store_->remove("a", {});
    // The index is replaced by a new file, which needs a block: without any the store says so and stays as it was.
    if (!removed) {
        EXPECT_EQ(removed.error().code, Errc::kNoSpace);
        EXPECT_TRUE(store_->find("a"));
        ASSERT_EQ(::ftruncate(filler->get(), 4096), 0);
        removed = store_->remove("a", {});
    }
    EXPECT_TRUE(removed) << removed.error().to_string();
}

}  // namespace
}  // namespace caisson::image
