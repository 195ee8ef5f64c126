#include "image/unpack/build_disk.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/text.h"
#include "os/file.h"
#include "tar/tar_builder.h"

namespace caisson::image::unpack {
namespace {

using tar::TarBuilder;
using testing::HasSubstr;

constexpr std::uint64_t kMiB = 1 << 20;

class BuildDiskTest : public testing::Test {
  protected:
    void SetUp() override {
        auto directory = os::TemporaryDirectory::create(testing::TempDir(), "disk-");
        ASSERT_TRUE(directory) << directory.error().to_string();
        directory_.emplace(std::move(*directory));
        fd_ = std::move(*os::open_file(directory_->path() + "/disk", O_RDWR | O_CREAT, 0600));
    }
    Result<BuiltDisk> build(const std::string& layer, std::uint64_t bytes) {
        return build_disk(sources(layer), {.fd = fd_.get(), .virtual_size_bytes = bytes}, {}, {});
    }
    static std::vector<LayerSource> sources(const std::string& layer) {
        return {{"layer", "", [&layer](StreamLimits limits) { return open_stream(base::as_bytes(layer), limits); }}};
    }
    // The size in MiB that the refusal of a disk of 64 MiB asks for.
    std::uint64_t asked_for(const std::string& layer) {
        auto refused = build(layer, 64 * kMiB);
        EXPECT_FALSE(refused);
        if (refused) return 0;
        EXPECT_EQ(refused.error().code, Errc::kLimit);
        EXPECT_THAT(refused.error().to_string(), HasSubstr("does not fit into a disk of 64.0 MiB: it needs at least "));
        const auto& hint = refused.error().hint;
        const std::string option = "--disk-size ";
        auto at = hint.find(option);
        EXPECT_NE(at, std::string::npos) << hint;
        EXPECT_EQ(hint.back(), 'M');
        return base::parse_size(hint.substr(at + option.size())).value_or(0) / kMiB;
    }

    std::optional<os::TemporaryDirectory> directory_;
    os::Fd fd_;
};

TEST_F(BuildDiskTest, AnImageThatFitsIsBuilt) {
    auto built = build(TarBuilder().directory("d").file("d/f", "x").finish(), 64 * kMiB);
    ASSERT_TRUE(built) << built.error().to_string();
    EXPECT_EQ(built->entries, 2U);
    EXPECT_EQ(built->bytes_per_inode, 16384U);
}

TEST_F(BuildDiskTest, TheSizeThatIsAskedForIsEnoughForContents) {
    auto layer = TarBuilder().file("large", std::string(100 * kMiB, 'x')).finish();
    auto size = asked_for(layer);
    EXPECT_GE(size, 100U);
    EXPECT_LE(size, 128U);
    auto built = build(layer, size * kMiB);
    EXPECT_TRUE(built) << built.error().to_string();
}

TEST_F(BuildDiskTest, TheSizeThatIsAskedForIsEnoughForVeryManyFiles) {
    TarBuilder tar;
    for (int i = 0; i < 70'000; ++i) tar.file("directory-" + std::to_string(i % 7) + "/file-" + std::to_string(i));
    auto layer = tar.finish();
    auto size = asked_for(layer);
    EXPECT_LE(size, 96U);
    auto built = build(layer, size * kMiB);
    EXPECT_TRUE(built) << built.error().to_string();
}

TEST_F(BuildDiskTest, TheSizeThatIsAskedForIsEnoughForDirectoriesLinksAndAttributes) {
    TarBuilder tar;
    for (int i = 0; i < 9'000; ++i) {
        auto number = std::to_string(i);
        tar.directory("directory-" + number);
        tar.symlink("directory-" + number + "/link", std::string(90, 'a'));
        tar.add({.name = "attributed-" + number, .pax = {{"SCHILY.xattr.user.x", std::string(500, 'v')}}});
    }
    auto layer = tar.finish();
    auto size = asked_for(layer);
    EXPECT_GE(size, 100U);
    EXPECT_LE(size, 144U);
    auto built = build(layer, size * kMiB);
    EXPECT_TRUE(built) << built.error().to_string();
}

TEST_F(BuildDiskTest, ALimitThatNoDiskMovesIsSaidInstead) {
    auto layer = TarBuilder().file("large", std::string(100 * kMiB, 'x')).finish();
    auto refused = build_disk(sources(layer), {.fd = fd_.get(), .virtual_size_bytes = 64 * kMiB},
                              {.max_unpacked_bytes = 90 * kMiB}, {});
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().to_string(), HasSubstr("unpacks to more than"));
}

}  // namespace
}  // namespace caisson::image::unpack
