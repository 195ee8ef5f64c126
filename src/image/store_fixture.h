// What the tests of the image store share: images as other tools write them, and a store in a directory of its own.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "image/digest.h"
#include "image/host.h"
#include "image/layout.h"
#include "image/oci_json.h"
#include "image/store.h"
#include "os/file.h"
#include "tar/tar_builder.h"

namespace caisson::image {

inline constexpr std::uint64_t kDiskBytes = 64ULL << 20;

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

inline Sample sample(const std::string& content = "hello") {
    return {{tar::TarBuilder().directory("bin").file("bin/sh", "#!").finish(), tar::TarBuilder().file("etc", content).finish()}};
}

inline std::string archive(const std::map<std::string, std::string>& files) {
    tar::TarBuilder tar;
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
        auto image = store_->import_rootfs(file(tar::TarBuilder().file("f", content).finish()), {.name = name});
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

}  // namespace caisson::image
