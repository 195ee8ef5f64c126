// Store::pull(): images come from registries. caisson-fetch gets the bytes; what they mean is checked here, as for
// images from files.
#include <map>

#include "base/text.h"
#include "image/disks.h"
#include "image/downloads.h"
#include "image/host.h"
#include "image/layout.h"
#include "image/name.h"
#include "image/registry/client.h"

namespace caisson::image {

using base::failure;
using base::printable;

namespace {

constexpr std::chrono::seconds kKeepDownloads = std::chrono::hours(7 * 24);
constexpr int kPullTries = 3;  // of meeting somebody else's `image rm` in just the wrong moment

struct PlatformWish {
    std::string os = "linux", architecture, variant;
};

Result<PlatformWish> parse_platform(const std::string& text) {
    if (text.empty()) return PlatformWish{"linux", host_architecture(), ""};
    auto parts = base::split(text, '/');
    auto plain = [](const std::string& part) {
        return !part.empty() && part.size() <= 32 && part.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == std::string::npos;
    };
    bool fine = parts.size() == 2 || parts.size() == 3;
    for (const auto& part : parts) fine = fine && plain(part);
    if (!fine)
        return failure(Errc::kUsage, "\"" + printable(text, 100) + "\" is not a platform", "write it as linux/amd64 or linux/arm/v7");
    return PlatformWish{parts[0], parts[1], parts.size() == 3 ? parts[2] : ""};
}

// What a pull has brought, under names of our own: neither another pull's commit nor an `image rm` takes it away.
class Pulled {
  public:
    Pulled(const Layout& layout, const Downloads& downloads, Staging staging)
        : layout_(layout), downloads_(downloads), staging_(std::move(staging)) {}

    // The image behind `entry`, checked as load() does.
    Result<Image> take(const Descriptor& entry, const PlatformWish& platform) {
        CAISSON_TRY(adopt(entry.digest));
        auto path = [this](const std::string& hex) { return path_of(hex); };
        auto manifest = CAISSON_TRY(parse_manifest(CAISSON_TRY(read_json_blob(entry.digest, path))));
        CAISSON_TRY(adopt(manifest.config.digest));
        for (const auto& layer : manifest.layers) CAISSON_TRY(adopt(layer.digest));
        auto image = CAISSON_TRY(read_image(entry, path));
        ImageConfig config;
        config.config = image.config;
        CAISSON_TRY(check_platform(config, platform.architecture));
        return image;
    }

    std::string path_of(const std::string& hex) const {
        auto file = files_.find(hex);
        return file == files_.end() ? layout_.blob(hex) : file->second.path;
    }

    Result<> commit_as(const Descriptor& entry) {
        std::vector<StagedFile> files;
        for (const auto& [hex, file] : files_) files.push_back(file);
        return commit(layout_, files, {entry});
    }

    // The names in the downloads directory are not needed any more, whatever became of the image.
    void discard() {
        for (const auto& [hex, file] : files_) discard_idle_download(downloads_, hex);
    }

  private:
    Result<> adopt(const std::string& digest) {
        auto hex = CAISSON_TRY(digest_hex(digest));
        if (!files_.contains(hex))
            files_.emplace(hex, CAISSON_TRY(staging_.adopt({downloads_.complete(hex), layout_.blob(hex)}, digest, 0)));
        return {};
    }

    const Layout& layout_;
    const Downloads& downloads_;
    Staging staging_;
    std::map<std::string, StagedFile> files_;
};

}  // namespace

Result<Image> Store::pull(const std::string& name, const PullOptions& options, std::uint64_t disk_bytes,
                          const ProgressCallback& progress) {
    auto reference = CAISSON_TRY(parse_reference(name));
    auto platform = CAISSON_TRY(parse_platform(options.platform));
    if (reference.repository.starts_with("caisson/"))
        // Whoever owned that name on Docker's hub could put code into everybody's first box.
        return failure(Errc::kNotFound, "there is no image \"" + printable(reference.name(), 300) + "\"; names that begin with caisson/ are made on this host and never pulled",
                       "make caisson/base with: make prepare");
    const Layout layout{options_.images_directory};
    const Downloads downloads{layout.downloads()};
    static_cast<void>(CAISSON_TRY(sweep_temporary(layout)));
    // Blobs that have arrived wait for those that have not: nobody takes them away meanwhile.
    const auto pulling = CAISSON_TRY(os::FileLock::acquire(layout.pulls(), true));
    const bool for_this_host = platform.os == "linux" && platform.architecture == host_architecture();
    for (int attempt = 1;; ++attempt) {
        static_cast<void>(CAISSON_TRY(sweep_downloads(downloads, {.grace = kKeepDownloads})));
        CAISSON_TRY(os::make_directories(downloads.directory, 0700));
        bool gone = false;  // somebody removed the image while we took it
        auto pulled = [&]() -> Result<Image> {
            auto answer = CAISSON_TRY(registry::run_fetch(options_, downloads, reference, platform.os, platform.architecture, platform.variant, options));
            Descriptor entry = answer.manifest;
            entry.annotations[std::string(kAnnotationRefName)] = reference.name();
            entry.annotations[std::string(kAnnotationSourceDigest)] = answer.source_digest;
            Pulled files(layout, downloads, CAISSON_TRY(Staging::create(layout)));
            auto done = [&]() -> Result<Image> {
                auto image = files.take(entry, platform);
                gone = !image && image.error().code == Errc::kNotFound;
                if (!image) return image;
                if (for_this_host && disk_bytes > 0)
                    CAISSON_TRY(prepare_disk(options_, *image, disk_bytes, progress, [&](const std::string& hex) { return files.path_of(hex); }));
                CAISSON_TRY(files.commit_as(entry));
                return image;
            }();
            files.discard();
            return done;
        }();
        if (!gone || attempt >= kPullTries) return pulled;
    }
}

Result<> Store::check_login(const std::string& registry, const RegistryAccess& access, bool plain_http) {
    return registry::run_login_check(options_, registry, access, plain_http);
}

}  // namespace caisson::image

namespace caisson {

Result<std::string> registry_of(std::string_view image) {
    return image::registry::place_of(CAISSON_TRY(image::parse_reference(image))).registry;
}

}  // namespace caisson
