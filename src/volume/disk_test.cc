#include "volume/disk.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/file.h"

namespace caisson::volume {
namespace {

class Disk : public testing::Test {
  protected:
    void SetUp() override {
        volumes_ = directory_.path() + "/volumes";
        catalogue_.emplace(Catalogue::open(volumes_).value());
        ASSERT_TRUE(make("one"));
    }
    Result<> make(const std::string& name) {
        auto made = catalogue_->create(name, true, kLeastDiskBytes, {}, [](const std::string& path) -> Result<> {
            auto file = os::open_file(path, O_RDWR | O_CREAT | O_EXCL, 0600);
            if (!file || ::ftruncate(file->get(), static_cast<off_t>(kLeastDiskBytes)) != 0) return base::failure_errno("cannot make it");
            return {};
        });
        if (!made) return base::failure(made.error());
        return {};
    }
    wire::BoxMount mount(const std::string& name, bool read_only = false) {
        wire::BoxMount mount;
        mount.set_volume(name);
        mount.set_disk(true);
        mount.set_read_only(read_only);
        mount.set_limit_bytes(kLeastDiskBytes);
        return mount;
    }
    Result<HeldDisk> hold(const std::string& name, bool read_only = false) { return hold_disk(*catalogue_, mount(name, read_only)); }
    std::string path_of(const std::string& name) { return volumes_ + "/disks/" + name; }

    os::TemporaryDirectory directory_ = os::TemporaryDirectory::create(testing::TempDir(), "disk-").value();
    std::string volumes_;
    std::optional<Catalogue> catalogue_;
};

TEST(DiskSize, HasToBeSaidAndToBePossible) {
    EXPECT_EQ(check_disk_size(0).error().code, Errc::kUsage);
    EXPECT_TRUE(check_disk_size(kLeastDiskBytes));
    EXPECT_TRUE(check_disk_size(kMostDiskBytes));
    for (auto bad : {kLeastDiskBytes - kDiskStepBytes, kLeastDiskBytes + 1, kMostDiskBytes + kDiskStepBytes})
        EXPECT_EQ(check_disk_size(bad).error().code, Errc::kUsage) << bad;
}

TEST(DiskCount, TheFifthIsRefusedByName) {
    std::set<std::string> seen;
    for (const char* name : {"a", "b", "c", "d"}) EXPECT_TRUE(count_disk(seen, name, ""));
    auto refused = count_disk(seen, "fifth", "");
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message.find("'fifth'"), std::string::npos) << refused.error().message;
    EXPECT_NE(count_disk(seen, "a", "").error().message.find("twice"), std::string::npos);
    EXPECT_FALSE(count_disk(seen, "a", "part"));
}

TEST_F(Disk, HasOneWriterOrAnyNumberOfReaders) {
    {
        auto writer = hold("one");
        ASSERT_TRUE(writer) << writer.error().to_string();
        EXPECT_EQ(writer->path, path_of("one"));
        EXPECT_EQ(hold("one").error().code, Errc::kInUse);
        EXPECT_EQ(hold("one", true).error().code, Errc::kInUse);
    }
    auto reader = hold("one", true);
    auto another = hold("one", true);
    ASSERT_TRUE(reader);
    EXPECT_TRUE(another);
    EXPECT_EQ(hold("one").error().code, Errc::kInUse);
    // Not even by mistake.
    EXPECT_EQ(::fcntl(reader->file.get(), F_GETFL) & O_ACCMODE, O_RDONLY);
}

TEST_F(Disk, IsHeldAsLongAsACopyOfItsDescriptorIsOpen) {
    auto writer = hold("one");
    ASSERT_TRUE(writer);
    auto copy = writer->file.duplicate();
    ASSERT_TRUE(copy);
    writer->file.reset();
    EXPECT_EQ(hold("one").error().code, Errc::kInUse);
    copy->reset();
    EXPECT_TRUE(hold("one"));
}

TEST_F(Disk, IsTheFileThatWasMadeForIt) {
    EXPECT_EQ(hold("missing").error().code, Errc::kNotFound);
    EXPECT_EQ(hold("../disks/one").error().code, Errc::kUsage);
    ASSERT_TRUE(make("link") && make("shared") && make("short") && make("pipe"));
    ASSERT_EQ(::unlink(path_of("link").c_str()), 0);
    ASSERT_EQ(::symlink(path_of("one").c_str(), path_of("link").c_str()), 0);
    EXPECT_FALSE(hold("link"));
    ASSERT_EQ(::link(path_of("shared").c_str(), (volumes_ + "/disks/other").c_str()), 0);
    EXPECT_EQ(hold("shared").error().code, Errc::kCorrupt);
    ASSERT_EQ(::truncate(path_of("short").c_str(), kLeastDiskBytes - 1), 0);
    EXPECT_EQ(hold("short").error().code, Errc::kCorrupt);
    ASSERT_EQ(::unlink(path_of("pipe").c_str()), 0);
    ASSERT_EQ(::mkfifo(path_of("pipe").c_str(), 0600), 0);
    EXPECT_EQ(hold("pipe").error().code, Errc::kCorrupt);
}

TEST_F(Disk, ABoxGetsEachOnceWholeAndFromItsStart) {
    auto given = catalogue_->give("box1", {{.name = "one", .target = "/data", .read_only = true}});
    ASSERT_TRUE(given) << given.error().to_string();
    EXPECT_TRUE(given->mounts(0).disk());
    EXPECT_EQ(given->mounts(0).limit_bytes(), kLeastDiskBytes);
    EXPECT_EQ(catalogue_->give("box2", {{.name = "one", .target = "/a"}, {.name = "one", .target = "/b"}}).error().code, Errc::kUsage);
    EXPECT_EQ(catalogue_->give("box2", {{.name = "one", .subpath = "x", .target = "/a"}}).error().code, Errc::kUsage);
    EXPECT_EQ(catalogue_->attach("box2", {.name = "one", .target = "/a"}).error().code, Errc::kUnsupported);
    std::vector<Request> requests;
    for (const char* name : {"two", "three", "four", "five"}) {
        ASSERT_TRUE(make(name));
        requests.push_back({.name = name, .target = std::string("/") + name});
    }
    EXPECT_TRUE(catalogue_->give("box3", requests));
    requests.push_back({.name = "one", .target = "/one"});
    auto refused = catalogue_->give("box4", requests);
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message.find("'one'"), std::string::npos) << refused.error().message;
    EXPECT_EQ(catalogue_->mounts("box4").value().mounts_size(), 0);
}

}  // namespace
}  // namespace caisson::volume
