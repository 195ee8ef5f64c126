// Base disks: built once, shared, swept, and never half there.
#include <gmock/gmock.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <thread>

#include "image/disks.h"
#include "image/store_fixture.h"

namespace caisson::image {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using tar::TarBuilder;

TEST_F(StoreTest, BaseDiskIsBuiltOnceAndReadOnly) {
    auto image = import("one");
    EXPECT_EQ(*store_->cached_base_disk(image, kDiskBytes), std::nullopt);
    auto disk = store_->base_disk(image, kDiskBytes, {});
    ASSERT_TRUE(disk) << error(disk);
    struct stat info {};
    ASSERT_EQ(::stat(disk->path.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 07777, 0444U);
    EXPECT_EQ(info.st_size, static_cast<off_t>(kDiskBytes));
    EXPECT_EQ(store_->cached_base_disk(image, kDiskBytes)->value(), disk->path);
    int before = spawned_;
    ASSERT_TRUE(store_->base_disk(image, kDiskBytes, {}));
    EXPECT_EQ(spawned_, before);
    ASSERT_TRUE(store_->base_disk(image, 2 * kDiskBytes, {}));
    EXPECT_EQ(disks().size(), 2U);
}

TEST_F(StoreTest, ImagesOfTheSameLayersShareADisk) {
    auto disk = store_->base_disk(import("one"), kDiskBytes, {});
    auto other = store_->import_rootfs(file(TarBuilder().file("f", "x").finish()), {.name = "two", .config = {.cmd = {"other"}}});
    ASSERT_TRUE(other);
    EXPECT_EQ(store_->cached_base_disk(*other, kDiskBytes)->value(), disk->path);
    ASSERT_TRUE(store_->remove("one", {}));
    EXPECT_TRUE(os::exists(disk->path));
}

TEST_F(StoreTest, ADiskBelongsToTheBytesOfItsLayersNotToWhatAnImageSaysOfThem) {
    auto honest = import("one");
    auto hostile = honest;
    hostile.layers[0].digest = digest_of("something else");
    EXPECT_EQ(hostile.layers[0].diff_id, honest.layers[0].diff_id);
    EXPECT_NE(disk_identity(hostile), disk_identity(honest));
}

TEST_F(StoreTest, ManyAskForADiskOneBuildsIt) {
    auto image = import("one");
    int before = spawned_;
    std::atomic<int> good = 0;
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; ++i)
        threads.emplace_back([&] {
            auto store = open();
            if (store.base_disk(image, kDiskBytes, {})) ++good;
        });
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(good, 8);
    EXPECT_EQ(spawned_ - before, 1);
}

TEST_F(StoreTest, RefusedDisksLeaveNothing) {
    auto image = store_->import_rootfs(file(TarBuilder().file("f", std::string(70 << 20, 'x')).finish()), {.name = "large"});
    ASSERT_TRUE(image) << error(image);
    auto disk = store_->base_disk(*image, kDiskBytes, {});
    ASSERT_FALSE(disk);
    EXPECT_EQ(disk.error().code, Errc::kLimit);
    EXPECT_THAT(disk.error().to_string(), HasSubstr("does not fit"));
    EXPECT_THAT(disks(), IsEmpty());
    EXPECT_EQ(store_->base_disk(*image, 4096, {}).error().code, Errc::kLimit);
}

TEST_F(StoreTest, WrongDiffIdIsRefusedWhenTheDiskIsBuilt) {
    auto image = import("one");
    image.layers[0].diff_id = digest_of("something else");
    auto disk = store_->base_disk(image, kDiskBytes, {});
    ASSERT_FALSE(disk);
    EXPECT_EQ(disk.error().code, Errc::kCorrupt);
    EXPECT_THAT(disk.error().to_string(), HasSubstr("image's config says"));
}

TEST_F(StoreTest, DyingUnpackerIsAnErrorAndLeavesNothing) {
    auto image = import("one");
    for (const char* script : {"kill -9 $$", "exit 0", "exit 1", "echo nonsense", "echo '{\"result\":{}}'", "yes {}",
                               "head -c 1000000 /dev/zero", "echo '{\"progress\":5}'"}) {
        auto broken = options();
        broken.spawn = [&](os::Command command) {
            command.arguments = {"/bin/sh", "-c", script};
            return os::spawn(command);
        };
        auto store = Store::open(broken);
        auto disk = store->base_disk(image, kDiskBytes, {});
        EXPECT_FALSE(disk) << script;
        EXPECT_THAT(disks(), IsEmpty()) << script;
    }
    EXPECT_TRUE(store_->base_disk(image, kDiskBytes, {}));
}

TEST_F(StoreTest, HostileUnpackerCannotChooseItsErrorFreely) {
    auto image = import("one");
    auto broken = options();
    broken.spawn = [](os::Command command) {
        command.arguments = {"/bin/sh", "-c", R"(printf '{"error":{"code":"usage","message":"a\\u001b[31mb","errno":99999}}\n'; exit 1)"};
        return os::spawn(command);
    };
    auto store = Store::open(broken);
    auto disk = store->base_disk(image, kDiskBytes, {});
    ASSERT_FALSE(disk);
    EXPECT_EQ(disk.error().code, Errc::kIo);
    EXPECT_EQ(disk.error().to_string().find('\x1b'), std::string::npos);
    EXPECT_EQ(disk.error().sys_errno, 0);
}

TEST_F(StoreTest, KilledBuilderFreesTheLockAndItsChildDies) {
    auto image = import("one");
    // A builder that is gone leaves its unfinished file; the next one starts over.
    auto path = disk_path(directory_->path() + "/disks", image, kDiskBytes);
    ASSERT_TRUE(os::write_file_atomic(path + ".tmp", "half"));
    ASSERT_TRUE(os::write_file_atomic(path + ".lock", ""));
    ASSERT_TRUE(store_->base_disk(image, kDiskBytes, {}));
    EXPECT_THAT(disks(), ElementsAre(testing::EndsWith(".ext4")));

    // caisson-unpack ends with its standard input, even in the middle of a read that never ends.
    auto request = os::make_socketpair(SOCK_STREAM);
    auto status = os::make_pipe();
    auto source = os::make_pipe();
    auto process = os::spawn({.arguments = {CAISSON_TEST_UNPACKER, "scan"},
                              .descriptors = {{request->second.get(), 0}, {status->second.get(), 1}, {source->first.get(), 4}}});
    ASSERT_TRUE(process);
    request->second.reset();
    ASSERT_TRUE(os::write_all(request->first.get(), "{}\n"));
    EXPECT_EQ(process->wait(std::chrono::milliseconds(300)).error().code, Errc::kTimeout);
    request->first.reset();
    auto ended = process->wait(std::chrono::seconds(20));
    ASSERT_TRUE(ended) << error(ended);
    EXPECT_EQ(ended->code, 1);
}

}  // namespace
}  // namespace caisson::image
