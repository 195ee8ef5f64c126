// caisson-unpack in the jail that the store gives it by default.
#include <fcntl.h>
#include <gtest/gtest.h>

#include "image/store.h"
#include "os/file.h"
#include "tar/tar_builder.h"

namespace caisson::image {
namespace {

TEST(UnpackerJail, ImportsAndBuildsADisk) {
    auto directory = os::TemporaryDirectory::create(testing::TempDir(), "jail-");
    ASSERT_TRUE(directory) << directory.error().to_string();
    auto store = Store::open({.images_directory = directory->path() + "/images",
                              .disks_directory = directory->path() + "/disks",
                              .unpack_program = CAISSON_TEST_UNPACKER});
    ASSERT_TRUE(store) << store.error().to_string();
    auto path = directory->path() + "/root.tar";
    ASSERT_TRUE(os::write_file_atomic(path, tar::TarBuilder().file("f", "x").finish()));
    auto image = store->import_rootfs(std::move(*os::open_file(path, O_RDONLY)), {.name = "base"});
    ASSERT_TRUE(image) << image.error().to_string();
    auto disk = store->base_disk(*image, 64ULL << 20, {});
    EXPECT_TRUE(disk) << disk.error().to_string();

    // Refusals come through the jail with their names.
    ASSERT_TRUE(os::write_file_atomic(path, tar::TarBuilder().file("../escape", "x").finish()));
    auto refused = store->import_rootfs(std::move(*os::open_file(path, O_RDONLY)), {.name = "bad"});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::kCorrupt);
    EXPECT_NE(refused.error().to_string().find("../escape"), std::string::npos);
}

}  // namespace
}  // namespace caisson::image
