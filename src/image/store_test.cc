#include "image/store.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <thread>

#include "image/digest.h"
#include "image/disks.h"
#include "image/host.h"
#include "image/layout.h"
#include "image/oci_json.h"
#include "image/unpack/tar_builder.h"
#include "os/file.h"

namespace caisson::image {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using unpack::TarBuilder;

constexpr std::uint64_t kDiskBytes = 64ULL << 20;

// An image as another tool would have written it.
struct Sample {
    std::vector<std::string> layers;
    std::string architecture = host_architecture();
    std::vector<std::string> diff_ids() const {
        std::vector<std::string> ids;
        for (const auto& layer : layers) ids.push_back(digest_of(layer));
        return ids;
    }
    std::string config() const {
        Config config;
        config.architecture = architecture;
        config.os = "linux";
        config.cmd = {"/bin/sh"};
        return write_config(config, diff_ids());
    }
    std::string manifest() const {
        Manifest manifest;
        manifest.config = {std::string(kMediaConfig), digest_of(config()), config().size()};
        for (const auto& layer : layers) manifest.layers.push_back({std::string(kMediaLayerTar), digest_of(layer), layer.size()});
        return write_manifest(manifest);
    }
    Descriptor entry(const std::string& name) const {
        Descriptor entry{std::string(kMediaManifest), digest_of(manifest()), manifest().size()};
        if (!name.empty()) entry.annotations[std::string(kAnnotationRefName)] = name;
        return entry;
    }
    // Path → content of an OCI layout.
    std::map<std::string, std::string> files(const std::string& name) const {
        std::map<std::string, std::string> files;
        auto blob = [&](const std::string& data) { files["blobs/sha256/" + digest_of(data).substr(7)] = data; };
        for (const auto& layer : layers) blob(layer);
        blob(config());
        blob(manifest());
        Index index;
        index.manifests = {entry(name)};
        files["index.json"] = write_index(index);
        files["oci-layout"] = R"({"imageLayoutVersion":"1.0.0"})";
        return files;
    }
};

Sample sample(const std::string& content = "hello") {
    return {{TarBuilder().directory("bin").file("bin/sh", "#!").finish(), TarBuilder().file("etc", content).finish()}};
}

std::string archive(const std::map<std::string, std::string>& files) {
    TarBuilder tar;
    for (const auto& [name, data] : files) tar.file(name, data);
    return tar.finish();
}

template <typename T>
std::string error(const Result<T>& result) {
    return result ? "no error" : result.error().to_string();
}

class StoreTest : public testing::Test {
  protected:
    void SetUp() override {
        auto directory = os::TemporaryDirectory::create(testing::TempDir(), "store-");
        ASSERT_TRUE(directory) << directory.error().to_string();
        directory_.emplace(std::move(*directory));
        store_.emplace(open());
    }
    Store::Options options() {
        Store::Options options;
        options.images_directory = directory_->path() + "/images";
        options.disks_directory = directory_->path() + "/disks";
        options.unpack_program = CAISSON_TEST_UNPACKER;
        options.spawn = [this](const os::Command& command) {
            ++spawned_;
            return os::spawn(command);
        };
        options.now = [] { return std::chrono::system_clock::time_point(std::chrono::seconds(86400)); };
        return options;
    }
    Store open() { return std::move(*Store::open(options())); }
    os::Fd file(const std::string& data) {
        auto path = directory_->path() + "/source" + std::to_string(sources_++);
        EXPECT_TRUE(os::write_file_atomic(path, data));
        return std::move(*os::open_file(path, O_RDONLY));
    }
    os::Fd layout(const std::map<std::string, std::string>& files) {
        auto path = directory_->path() + "/layout" + std::to_string(sources_++);
        EXPECT_TRUE(os::make_directories(path + "/blobs/sha256"));
        for (const auto& [name, data] : files) EXPECT_TRUE(os::write_file_atomic(path + "/" + name, data));
        return std::move(*os::open_file(path, O_RDONLY | O_DIRECTORY));
    }
    Image import(const std::string& name, const std::string& content = "x") {
        auto image = store_->import_rootfs(file(TarBuilder().file("f", content).finish()), {.name = name});
        EXPECT_TRUE(image) << error(image);
        return image ? *image : Image{};
    }
    std::vector<std::string> blobs() { return *os::list_directory(directory_->path() + "/images/blobs/sha256"); }
    std::vector<std::string> disks() {
        auto names = *os::list_directory(directory_->path() + "/disks");
        std::erase_if(names, [](const std::string& name) { return name.ends_with(".lock"); });
        return names;
    }
    std::vector<std::string> temporary() { return *os::list_directory(directory_->path() + "/images/tmp"); }

    std::optional<os::TemporaryDirectory> directory_;
    std::optional<Store> store_;
    std::atomic<int> spawned_ = 0;
    int sources_ = 0;
};

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

// ---- load ------------------------------------------------------------------------------------------------------

TEST_F(StoreTest, LoadsAnOciLayoutAndArchive) {
    auto one = store_->load(layout(sample().files("owner/one:1")), {});
    ASSERT_TRUE(one) << error(one);
    ASSERT_EQ(one->size(), 1U);
    EXPECT_EQ((*one)[0].name, "owner/one:1");
    EXPECT_EQ((*one)[0].layers.size(), 2U);
    auto two = store_->load(file(archive(sample("other").files("docker.io/library/two"))), {});
    ASSERT_TRUE(two) << error(two);
    EXPECT_EQ((*two)[0].name, "two:latest");
    EXPECT_THAT(temporary(), IsEmpty());
}

TEST_F(StoreTest, LoadTakesANameForOneImage) {
    auto files = sample().files("latest");  // umoci's way: only a tag
    EXPECT_THAT(error(store_->load(layout(files), {})), HasSubstr("does not say what its image is called"));
    auto loaded = store_->load(layout(files), {.name = "mine:3"});
    ASSERT_TRUE(loaded) << error(loaded);
    EXPECT_EQ((*loaded)[0].name, "mine:3");
}

TEST_F(StoreTest, LoadMovesANameToTheNewImage) {
    ASSERT_TRUE(store_->load(layout(sample("old").files("a:1")), {}));
    auto before = blobs();
    ASSERT_TRUE(store_->load(layout(sample("new").files("a:1")), {}));
    EXPECT_EQ(store_->list()->size(), 1U);
    EXPECT_EQ(blobs().size(), before.size()) << "the old image's blobs must be gone";
    EXPECT_EQ(store_->find("a:1")->layers[1].digest, digest_of(sample("new").layers[1]));
}

TEST_F(StoreTest, LoadsDockerArchives) {
    auto image = sample();
    // As docker wrote them until version 25, equal layers as links.
    TarBuilder tar;
    auto config_name = digest_of(image.config()).substr(7) + ".json";
    tar.directory("one").file("one/layer.tar", image.layers[0]).file("one/json", "{}").file("two/layer.tar", image.layers[1]);
    tar.symlink("three/layer.tar", "../two/layer.tar").file(config_name, image.config());
    json manifest = {{{"Config", config_name},
                      {"RepoTags", {"app:1", "app:latest"}},
                      {"Layers", {"one/layer.tar", "three/layer.tar"}}}};
    tar.file("manifest.json", manifest.dump()).file("repositories", "{}");
    auto loaded = store_->load(file(tar.finish()), {});
    ASSERT_TRUE(loaded) << error(loaded);
    ASSERT_EQ(loaded->size(), 2U);
    EXPECT_EQ((*loaded)[0].manifest_digest, (*loaded)[1].manifest_digest);
    EXPECT_EQ(store_->find("app")->config_digest, digest_of(image.config()));
    EXPECT_EQ(store_->find("app")->layers[1].diff_id, digest_of(image.layers[1]));
    EXPECT_TRUE(store_->base_disk(*store_->find("app"), kDiskBytes, {}));
}

TEST_F(StoreTest, LoadsNewDockerArchives) {
    // Since version 25: an OCI layout with manifest.json beside it.
    auto image = sample();
    auto files = image.files("1");
    Index index;
    index.manifests = {image.entry("1")};
    index.manifests[0].annotations[std::string(kAnnotationContainerdName)] = "docker.io/library/app:1";
    files["index.json"] = write_index(index);
    files["manifest.json"] = "[]";
    auto loaded = store_->load(file(archive(files)), {});
    ASSERT_TRUE(loaded) << error(loaded);
    EXPECT_EQ((*loaded)[0].name, "app:1");
}

TEST_F(StoreTest, LoadChoosesTheHostsVariantOfANestedIndex) {
    auto ours = sample("ours");
    auto theirs = sample("theirs");
    theirs.architecture = "riscv64";
    auto files = ours.files("");
    Index inner;
    inner.manifests = {theirs.entry(""), ours.entry("")};
    inner.manifests[0].os = inner.manifests[1].os = "linux";
    inner.manifests[0].architecture = "riscv64";
    inner.manifests[1].architecture = host_architecture();
    auto inner_text = write_index(inner);
    files["blobs/sha256/" + digest_of(inner_text).substr(7)] = inner_text;
    Index outer;
    outer.manifests = {{std::string(kMediaIndex), digest_of(inner_text), inner_text.size(),
                        {{std::string(kAnnotationRefName), "multi:1"}}, "", "", ""}};
    files["index.json"] = write_index(outer);
    auto loaded = store_->load(layout(files), {});
    ASSERT_TRUE(loaded) << error(loaded);
    EXPECT_EQ((*loaded)[0].manifest_digest, digest_of(ours.manifest()));
}

TEST_F(StoreTest, LoadRefusesOtherArchitectures) {
    auto image = sample();
    image.architecture = "riscv64";
    EXPECT_THAT(error(store_->load(layout(image.files("a:1")), {})), HasSubstr("linux/riscv64"));
    EXPECT_THAT(blobs(), IsEmpty());
}

TEST_F(StoreTest, LoadVerifiesEveryBlob) {
    auto image = sample();
    for (const auto& victim : {image.layers[1], image.config(), image.manifest()}) {
        auto files = image.files("a:1");
        auto name = "blobs/sha256/" + digest_of(victim).substr(7);
        auto damaged = victim;
        damaged[damaged.size() / 2] ^= 1;
        files[name] = damaged;
        EXPECT_THAT(error(store_->load(layout(files), {})), HasSubstr("damaged"));
        EXPECT_THAT(error(store_->load(file(archive(files)), {})), HasSubstr("damaged"));
        files.erase(name);
        EXPECT_THAT(error(store_->load(layout(files), {})), HasSubstr("lacks the blob"));
        EXPECT_THAT(error(store_->load(file(archive(files)), {})), HasSubstr("lacks the blob"));
    }
    EXPECT_THAT(blobs(), IsEmpty());
    EXPECT_THAT(temporary(), IsEmpty());
}

TEST_F(StoreTest, LoadRefusesWrongSizesAndCounts) {
    auto image = sample();
    auto files = image.files("a:1");
    auto entry = image.entry("a:1");
    entry.size += 1;
    Index index;
    index.manifests = {entry};
    files["index.json"] = write_index(index);
    EXPECT_THAT(error(store_->load(layout(files), {})), HasSubstr("its descriptor says"));
}

TEST_F(StoreTest, LoadRefusesOtherFiles) {
    EXPECT_THAT(error(store_->load(file("garbage"), {})), HasSubstr("damaged"));
    EXPECT_THAT(error(store_->load(file(TarBuilder().file("etc/passwd", "x").finish()), {})), HasSubstr("not an image"));
    EXPECT_THAT(error(store_->load(layout({{"index.json", "{"}}), {})), HasSubstr("not valid JSON"));
}

TEST_F(StoreTest, LoadDoesNotFollowLinksOutOfALayout) {
    auto files = sample().files("a:1");
    auto directory = layout(files);
    auto secret = directory_->path() + "/secret";
    ASSERT_TRUE(os::write_file_atomic(secret, files["index.json"]));
    ASSERT_EQ(::unlinkat(directory.get(), "index.json", 0), 0);
    ASSERT_EQ(::symlinkat(secret.c_str(), directory.get(), "index.json"), 0);
    EXPECT_FALSE(store_->load(std::move(directory), {}));
}

TEST_F(StoreTest, LoadLimitsNestedIndexes) {
    auto image = sample();
    auto files = image.files("");
    Descriptor entry = image.entry("");
    for (int depth = 0; depth <= kMaxIndexDepth; ++depth) {
        Index index;
        index.manifests = {entry};
        auto text = write_index(index);
        files["blobs/sha256/" + digest_of(text).substr(7)] = text;
        entry = {std::string(kMediaIndex), digest_of(text), text.size()};
        entry.annotations[std::string(kAnnotationRefName)] = "deep:1";
        Index outer;
        outer.manifests = {entry};
        files["index.json"] = write_index(outer);
        auto loaded = store_->load(layout(files), {});
        if (depth < kMaxIndexDepth)
            EXPECT_TRUE(loaded) << depth << error(loaded);
        else
            EXPECT_THAT(error(loaded), HasSubstr("nests indexes"));
    }
}

TEST_F(StoreTest, SourcesAreLimited) {
    auto files = sample().files("a:1");
    auto tar = archive(files);
    std::uint64_t contents = 0;
    for (const auto& [name, data] : files) contents += data.size();
    auto limited = [&](std::uint64_t bytes) {
        auto some = options();
        some.max_source_bytes = bytes;
        return std::move(*Store::open(some));
    };
    EXPECT_TRUE(limited(tar.size()).load(file(tar), {}));
    EXPECT_THAT(error(limited(tar.size() - 1).load(file(tar), {})), HasSubstr("unpacks to more than"));
    contents -= files["oci-layout"].size();
    EXPECT_TRUE(limited(contents).load(layout(files), {}));
    EXPECT_THAT(error(limited(contents - 1).load(layout(files), {})), HasSubstr("larger than the limit"));
    auto root = TarBuilder().file("f", "x").finish();
    EXPECT_TRUE(limited(root.size()).import_rootfs(file(root), {.name = "r"}));
    EXPECT_THAT(error(limited(root.size() - 1).import_rootfs(file(root), {.name = "r"})), HasSubstr("larger than the limit"));
}

TEST_F(StoreTest, FilesOfAnArchiveAreLimited) {
    TarBuilder tar;
    for (std::size_t i = 0; i < kMaxArchiveFiles; ++i) tar.file("f" + std::to_string(i));
    EXPECT_THAT(error(store_->load(file(tar.finish()), {})), HasSubstr("not an image"));
    tar.file("one-more");
    EXPECT_THAT(error(store_->load(file(tar.finish()), {})), HasSubstr("more than 16384 files"));
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

// ---- disks -----------------------------------------------------------------------------------------------------

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

}  // namespace
}  // namespace caisson::image
