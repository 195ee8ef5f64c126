#include "image/store.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <thread>

#include "image/store_fixture.h"

namespace caisson::image {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using tar::TarBuilder;

// ---- import, find, list ----------------------------------------------------------------------------------------

TEST_F(StoreTest, ImportMakesAnOciImage) {
    auto tar = TarBuilder().file("f", "x").finish();
    auto image = store_->import_rootfs(file(tar), {.name = "base", .config = {.cmd = {"sh"}, .env = {"A=1"}, .user = "7"}});
    ASSERT_TRUE(image) << error(image);
    EXPECT_EQ(image->name, "base:latest");
    ASSERT_EQ(image->layers.size(), 1U);
    EXPECT_EQ(image->layers[0].diff_id, digest_of(tar));
    EXPECT_EQ(image->layers[0].digest, digest_of(tar));
    EXPECT_EQ(image->layers[0].media_type, kMediaLayerTar);
    EXPECT_THAT(image->config.cmd, ElementsAre("sh"));
    EXPECT_THAT(image->config.env, ElementsAre("A=1"));
    EXPECT_EQ(image->config.user, "7");
    EXPECT_EQ(image->config.architecture, host_architecture());
    EXPECT_EQ(image->created, "1970-01-02T00:00:00Z");
    EXPECT_THAT(temporary(), IsEmpty());
}

TEST_F(StoreTest, ImportReadsFromAPipe) {
    auto tar = TarBuilder().file("f", std::string(300'000, 'x')).finish();
    auto pipe = os::make_pipe();
    std::thread writer([&] {
        static_cast<void>(os::write_all(pipe->second.get(), tar));
        pipe->second.reset();
    });
    auto image = store_->import_rootfs(std::move(pipe->first), {.name = "base"});
    writer.join();
    ASSERT_TRUE(image) << error(image);
    EXPECT_EQ(image->layers[0].diff_id, digest_of(tar));
}

TEST_F(StoreTest, ImportRefusesWhatIsNoTar) {
    EXPECT_THAT(error(store_->import_rootfs(file("not a tar at all"), {.name = "base"})), HasSubstr("tar archive is damaged"));
    EXPECT_THAT(error(store_->import_rootfs(file(""), {.name = "base"})), HasSubstr("holds no files"));
    EXPECT_THAT(error(store_->import_rootfs(file("BZh91AY&SY"), {.name = "base"})), HasSubstr("bzip2"));
    EXPECT_THAT(error(store_->import_rootfs(file(TarBuilder().file("../x").finish()), {.name = "base"})), HasSubstr(".."));
    EXPECT_THAT(error(store_->import_rootfs(file(""), {.name = "Not A Name"})), HasSubstr("not an image name"));
    EXPECT_THAT(blobs(), IsEmpty());
    EXPECT_THAT(temporary(), IsEmpty());
}

TEST_F(StoreTest, FindsByNameDigestAndPrefix) {
    auto image = import("caisson/base:1");
    for (const auto& name : {std::string("caisson/base:1"), std::string("docker.io/caisson/base:1"), image.manifest_digest,
                             image.config_digest, image.config_digest.substr(7), image.config_digest.substr(7, 4),
                             image.manifest_digest.substr(0, 19), "caisson/base@" + image.manifest_digest}) {
        auto found = store_->find(name);
        ASSERT_TRUE(found) << name << ": " << error(found);
        EXPECT_EQ(found->manifest_digest, image.manifest_digest);
        EXPECT_EQ(found->name, "caisson/base:1");
    }
}

TEST_F(StoreTest, NotFoundSaysWhatToDo) {
    auto image = import("caisson/base:1");
    for (const auto& name : {std::string("caisson/base"), std::string("other"), std::string("ffff"), "other@" + image.manifest_digest}) {
        auto found = store_->find(name);
        ASSERT_FALSE(found) << name;
        EXPECT_EQ(found.error().code, Errc::kNotFound) << name;
        EXPECT_THAT(found.error().message, HasSubstr(name));
        EXPECT_THAT(found.error().hint, HasSubstr("caisson image load"));
    }
    EXPECT_EQ(store_->find("Bad Name").error().code, Errc::kUsage);
    EXPECT_EQ(store_->find("").error().code, Errc::kUsage);
}

TEST_F(StoreTest, AmbiguousPrefixIsRefused) {
    // With 17 images two ids share their first digit; a test needs no more digits than the lookup allows, so two
    // entries are given one digest's prefix by hand.
    std::vector<Image> images;
    for (int i = 0; i < 600; ++i) {
        Config config;
        config.cmd = {std::to_string(i)};
        images.push_back({.config_digest = digest_of(write_config(config, {}))});
    }
    auto same = [&](std::size_t a, std::size_t b) {
        return images[a].config_digest.substr(7, 4) == images[b].config_digest.substr(7, 4);
    };
    Layout layout{directory_->path() + "/images"};
    for (std::size_t a = 0; a < images.size(); ++a)
        for (std::size_t b = 0; b < a; ++b) {
            if (!same(a, b)) continue;
            auto staging = Staging::create(layout);
            std::vector<Descriptor> entries;
            std::vector<StagedFile> staged;
            for (std::size_t i : {a, b}) {
                Config config;
                config.cmd = {std::to_string(i)};
                auto config_file = *staging->text(write_config(config, {}));
                Manifest manifest;
                manifest.config = {std::string(kMediaConfig), config_file.digest, config_file.size};
                auto manifest_file = *staging->text(write_manifest(manifest));
                Descriptor entry{std::string(kMediaManifest), manifest_file.digest, manifest_file.size};
                entry.annotations[std::string(kAnnotationRefName)] = "n" + std::to_string(i) + ":latest";
                entries.push_back(entry);
                staged.push_back(config_file);
                staged.push_back(manifest_file);
            }
            auto committed = commit(layout, staged, entries);
            ASSERT_TRUE(committed) << error(committed);
            auto found = store_->find(images[a].config_digest.substr(7, 4));
            ASSERT_FALSE(found);
            EXPECT_EQ(found.error().code, Errc::kUsage);
            EXPECT_TRUE(store_->find(images[a].config_digest.substr(7, 20)));
            return;
        }
    FAIL() << "no two of 600 digests share 16 bits";
}

TEST_F(StoreTest, ListIsSorted) {
    EXPECT_THAT(*store_->list(), IsEmpty());
    import("b");
    import("a", "other");
    auto images = store_->list();
    ASSERT_TRUE(images);
    ASSERT_EQ(images->size(), 2U);
    EXPECT_EQ((*images)[0].name, "a:latest");
}

TEST_F(StoreTest, DamagedStoreIsNoticed) {
    auto image = import("base");
    auto path = directory_->path() + "/images/blobs/sha256/" + image.config_digest.substr(7);
    ::chmod(path.c_str(), 0600);
    ASSERT_TRUE(os::write_file_atomic(path, "{}"));
    auto found = store_->find("base");
    ASSERT_FALSE(found);
    EXPECT_EQ(found.error().code, Errc::kCorrupt);
    EXPECT_THAT(found.error().to_string(), HasSubstr("damaged"));
}

TEST_F(StoreTest, CompressedRootFileSystems) {
    if (!os::exists("/usr/bin/gzip") || !os::exists("/usr/bin/xz") || !os::exists("/usr/bin/zstd"))
        GTEST_SKIP() << "gzip, xz or zstd is not installed";
    auto tar = TarBuilder().file("f", std::string(100'000, 'x')).finish();
    for (const char* tool : {"/usr/bin/gzip", "/usr/bin/xz", "/usr/bin/zstd"}) {
        auto pipe = os::make_pipe();
        auto source = file(tar);
        auto process = os::spawn({.arguments = {tool, "-c"}, .descriptors = {{source.get(), 0}, {pipe->second.get(), 1}}});
        pipe->second.reset();
        auto image = store_->import_rootfs(std::move(pipe->first), {.name = "c"});
        ASSERT_TRUE(image) << tool << error(image);
        EXPECT_EQ(image->layers[0].diff_id, digest_of(tar)) << tool;
        EXPECT_TRUE(store_->base_disk(*image, kDiskBytes, {})) << tool;
    }
}

// ---- tag, remove, garbage ---------------------------------------------------------------------------------------

TEST_F(StoreTest, TagSharesTheImage) {
    auto image = import("a");
    auto tagged = store_->tag("a", "b:2");
    ASSERT_TRUE(tagged) << error(tagged);
    EXPECT_EQ(tagged->manifest_digest, image.manifest_digest);
    EXPECT_EQ(store_->list()->size(), 2U);
    ASSERT_TRUE(store_->remove("a", {}));
    EXPECT_TRUE(store_->find("b:2"));
}

TEST_F(StoreTest, RemoveTakesBlobsAndDisksNobodyUses) {
    auto one = import("one", "1");
    auto two = import("two", "2");
    ASSERT_TRUE(store_->base_disk(one, kDiskBytes, {}));
    ASSERT_TRUE(store_->base_disk(two, kDiskBytes, {}));
    auto removed = store_->remove("one", {});
    ASSERT_TRUE(removed) << error(removed);
    EXPECT_THAT(removed->names, ElementsAre("one:latest"));
    EXPECT_GT(removed->freed_bytes, 0U);
    EXPECT_EQ(blobs().size(), 3U);
    EXPECT_EQ(disks().size(), 1U);
    EXPECT_TRUE(store_->find("two"));
    EXPECT_EQ(store_->remove("one", {}).error().code, Errc::kNotFound);
}

TEST_F(StoreTest, RemoveById) {
    auto image = import("one");
    ASSERT_TRUE(store_->tag("one", "other"));
    auto removed = store_->remove(image.config_digest, {});
    ASSERT_TRUE(removed) << error(removed);
    EXPECT_EQ(removed->names.size(), 2U);
    EXPECT_THAT(blobs(), IsEmpty());
}

TEST_F(StoreTest, DiskOfABoxOutlivesItsImage) {
    auto image = import("one");
    auto disk = store_->base_disk(image, kDiskBytes, {});
    ASSERT_TRUE(disk) << error(disk);
    ASSERT_TRUE(store_->remove("one", {.disk_in_use = [&](const std::string& path) { return path == disk->path; }}));
    EXPECT_TRUE(os::exists(disk->path));
    ASSERT_TRUE(store_->collect_garbage({}));
    EXPECT_FALSE(os::exists(disk->path));
    EXPECT_THAT(*os::list_directory(directory_->path() + "/disks"), IsEmpty());
}

TEST_F(StoreTest, WhatKilledWritersLeftIsSwept) {
    import("one");
    auto images = directory_->path() + "/images";
    ASSERT_TRUE(os::make_directories(images + "/tmp/load-dead"));
    ASSERT_TRUE(os::write_file_atomic(images + "/tmp/load-dead/0", "half a layer"));
    ASSERT_TRUE(os::write_file_atomic(images + "/blobs/sha256/" + std::string(64, '0'), "committed, never listed"));
    auto dead_disk = directory_->path() + "/disks/" + std::string(64, '1') + "-4096.ext4.tmp";
    ASSERT_TRUE(os::write_file_atomic(dead_disk, "half a disk"));
    // A writer that lives keeps its directory.
    auto live = Staging::create(Layout{images});
    ASSERT_TRUE(live);
    ASSERT_TRUE(store_->collect_garbage({}));
    EXPECT_FALSE(os::exists(images + "/tmp/load-dead"));
    EXPECT_FALSE(os::exists(images + "/blobs/sha256/" + std::string(64, '0')));
    EXPECT_FALSE(os::exists(dead_disk));
    EXPECT_EQ(temporary().size(), 1U);
    EXPECT_TRUE(store_->find("one"));
}

TEST_F(StoreTest, GarbageIsKeptForItsGraceAndOnlyToldOfInADryRun) {
    import("one");
    const auto images = directory_->path() + "/images";
    const auto disks = directory_->path() + "/disks/";
    const std::string blob = std::string(64, '0'), download = std::string(64, '2'), disk = std::string(64, '1') + "-4096.ext4";
    ASSERT_TRUE(os::write_file_atomic(images + "/blobs/sha256/" + blob, "committed, never listed"));
    ASSERT_TRUE(os::make_directories(images + "/tmp/load-dead"));
    ASSERT_TRUE(os::write_file_atomic(images + "/downloads/" + download + ".part", "half a blob"));
    ASSERT_TRUE(os::write_file_atomic(disks + disk, "a disk of no image"));
    std::map<std::string, std::string> told;
    RemoveOptions options{.grace = std::chrono::minutes(10)};
    options.on_removed = [&](const char* kind, const std::string& name, std::uint64_t) { told[kind] = name; };
    ASSERT_TRUE(store_->collect_garbage(options));
    EXPECT_TRUE(told.empty());
    options.grace = std::chrono::seconds(0);
    options.dry_run = true;
    auto would = store_->collect_garbage(options);
    const std::map<std::string, std::string> all{{"blob", blob}, {"unfinished", "load-dead"}, {"download", download}, {"disk", disk}};
    EXPECT_EQ(told, all);
    for (const auto& path : {images + "/blobs/sha256/" + blob, images + "/tmp/load-dead", images + "/downloads/" + download + ".part", disks + disk})
        EXPECT_TRUE(os::exists(path)) << path;
    options.dry_run = false;
    told.clear();
    {
        // What a pull that runs has downloaded waits for the rest of its image.
        auto pull = os::FileLock::acquire(Layout{images}.pulls(), true);
        ASSERT_TRUE(pull);
        ASSERT_TRUE(store_->collect_garbage(options));
        EXPECT_TRUE(os::exists(images + "/downloads/" + download + ".part"));
        EXPECT_FALSE(os::exists(disks + disk));
    }
    auto rest = store_->collect_garbage(options);
    ASSERT_TRUE(would && rest);
    EXPECT_EQ(told, all);
    EXPECT_FALSE(os::exists(images + "/downloads/" + download + ".part"));
    EXPECT_TRUE(store_->find("one"));
}

TEST_F(StoreTest, SweepKeepsEverythingIfAnImageCannotBeRead) {
    auto image = import("one");
    import("two", "2");
    auto manifest = directory_->path() + "/images/blobs/sha256/" + image.manifest_digest.substr(7);
    ASSERT_TRUE(os::write_file_atomic(manifest, "damaged"));
    auto before = blobs().size();
    import("three", "3");
    EXPECT_EQ(blobs().size(), before + 3);
    // The damaged image itself can still be removed.
    EXPECT_TRUE(store_->remove("one", {}));
    EXPECT_TRUE(store_->find("two"));
}

}  // namespace
}  // namespace caisson::image
