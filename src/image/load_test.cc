// Loading images from what other tools wrote.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "image/store_fixture.h"

namespace caisson::image {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::IsEmpty;
using tar::TarBuilder;

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

}  // namespace
}  // namespace caisson::image
