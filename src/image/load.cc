// Store::load(): OCI layouts, OCI archives and `docker save` archives come into the store.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/text.h"
#include "image/disks.h"
#include "image/host.h"
#include "image/layout.h"
#include "image/limits.h"
#include "image/name.h"
#include "image/protocol.h"
#include "image/store.h"
#include "image/unpacker.h"
#include "os/file.h"

namespace caisson::image {

using base::failure;
using base::printable;

namespace {

// Paths inside the source without "./" and doubled slashes; empty for what nothing refers to.
std::string clean_path(std::string_view path) {
    std::vector<std::string> parts;
    for (auto& part : base::split(path, '/')) {
        if (part.empty() || part == ".") continue;
        if (part == "..") {
            if (parts.empty()) return {};
            parts.pop_back();
            continue;
        }
        parts.push_back(std::move(part));
    }
    return base::join(parts, "/");
}

// Where the files of a source come from.
class Source {
  public:
    virtual ~Source() = default;
    // kNotFound if the source has no such file.
    virtual Result<StagedFile> fetch(const std::string& path) = 0;

    Result<std::string> read_json(const std::string& path) {
        auto file = CAISSON_TRY(fetch(path));
        return os::read_file(file.path, kMaxJsonBytes);
    }
};

// A directory, read beneath its descriptor.
class DirectorySource final : public Source {
  public:
    DirectorySource(os::Fd directory, Staging& staging, const ProgressCallback& progress, std::uint64_t max_bytes)
        : directory_(std::move(directory)), staging_(staging), progress_(progress), left_(max_bytes) {}

    Result<StagedFile> fetch(const std::string& path) override {
        auto known = fetched_.find(path);
        if (known != fetched_.end()) return known->second;
        auto fd = CAISSON_TRY(os::open_beneath(directory_, path, O_RDONLY | O_NONBLOCK));
        struct stat info {};
        if (::fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode))
            return failure(Errc::kCorrupt, printable(path, 300) + " of the image layout is not a file");
        auto size = static_cast<std::uint64_t>(info.st_size);
        auto file = CAISSON_TRY(staging_.copy(fd.get(), left_, printable(path, 300), [&](std::uint64_t done) {
            if (progress_) progress_({"copying " + printable(path, 300), done, size});
        }));
        left_ -= file.size;
        fetched_[path] = file;
        return file;
    }

  private:
    os::Fd directory_;
    Staging& staging_;
    const ProgressCallback& progress_;
    std::uint64_t left_;
    std::map<std::string, StagedFile> fetched_;
};

// An archive, taken apart by caisson-unpack: its frames come as a stream and land in the staging directory.
class ArchiveSource final : public Source {
  public:
    ArchiveSource(Staging& staging, const ProgressCallback& progress) : staging_(staging), progress_(progress) {}

    Result<> read(const Store::Options& options, int fd) {
        max_bytes_ = options.max_source_bytes;
        UnpackJob job{.subcommand = "split", .inputs = {fd}};
        job.request = nlohmann::json{{"max_bytes", max_bytes_}}.dump();
        job.data = [&](base::ByteView data) { return take(data); };
        static_cast<void>(CAISSON_TRY(run_unpacker(options, job, "reading the image archive")));
        if (!header_.empty() || left_ > 0 || writer_)
            return failure(Errc::kProtocol, "the unpacker stopped in the middle of a file");
        return {};
    }

    Result<StagedFile> fetch(const std::string& path) override {
        // Old archives hold equal layers once and link to them.
        std::string name = clean_path(path);
        for (int hops = 0; hops < 8; ++hops) {
            if (auto file = files_.find(name); file != files_.end()) return file->second;
            auto link = links_.find(name);
            if (link == links_.end()) break;
            name = link->second;
        }
        return failure(Errc::kNotFound, "the image archive has no file " + printable(path, 300));
    }

  private:
    Result<> take(base::ByteView data) {
        while (!data.empty()) {
            if (left_ > 0) {
                auto part = data.first(static_cast<std::size_t>(std::min<std::uint64_t>(left_, data.size())));
                CAISSON_TRY(writer_->write(part));
                left_ -= part.size();
                total_ += part.size();
                if (total_ > max_bytes_)
                    return failure(Errc::kLimit, "the image archive holds more than " + base::format_size(max_bytes_));
                data = data.subspan(part.size());
                if (left_ == 0) end_file();
                if (progress_) progress_({"reading the archive", total_, 0});
                continue;
            }
            std::size_t missing = header_bytes() - header_.size();
            auto part = data.first(std::min(missing, data.size()));
            header_ += base::as_text(part);
            data = data.subspan(part.size());
            if (header_.size() == sizeof(SplitFrame)) {
                std::memcpy(&frame_, header_.data(), sizeof frame_);
                if (frame_.magic != kSplitMagic || frame_.name_bytes > kMaxPathBytes || frame_.target_bytes > kMaxPathBytes)
                    return failure(Errc::kProtocol, "the unpacker sent a malformed frame");
            }
            if (header_.size() >= sizeof(SplitFrame) && header_.size() == header_bytes()) CAISSON_TRY(start_file());
        }
        return {};
    }

    std::size_t header_bytes() const {
        if (header_.size() < sizeof(SplitFrame)) return sizeof(SplitFrame);
        return sizeof(SplitFrame) + frame_.name_bytes + frame_.target_bytes;
    }

    Result<> start_file() {
        std::string raw = header_.substr(sizeof(SplitFrame), frame_.name_bytes);
        std::string target = header_.substr(sizeof(SplitFrame) + frame_.name_bytes);
        header_.clear();
        name_ = clean_path(raw);
        if (++count_ > kMaxArchiveFiles) return failure(Errc::kLimit, "the image archive holds too many files");
        if (frame_.target_bytes > 0) {
            // A symbolic link counts from its own directory, a hard link from the top; only the first kind has "..",
            // and a file of that name exists for at most one reading.
            auto slash = name_.rfind('/');
            auto relative = clean_path((slash == std::string::npos ? "" : name_.substr(0, slash + 1)) + target);
            links_[name_] = files_.contains(clean_path(target)) ? clean_path(target) : relative;
            return {};
        }
        writer_ = CAISSON_TRY(staging_.start());
        left_ = frame_.size;
        if (left_ == 0) end_file();
        return {};
    }

    void end_file() {
        if (!name_.empty()) files_[name_] = writer_->finish();
        writer_.reset();
    }

    Staging& staging_;
    const ProgressCallback& progress_;
    std::map<std::string, StagedFile> files_;
    std::map<std::string, std::string> links_;
    std::string header_;
    SplitFrame frame_{};
    std::string name_;
    std::uint64_t left_ = 0;
    std::uint64_t total_ = 0;
    std::uint64_t max_bytes_ = 0;
    std::size_t count_ = 0;
    std::optional<Staging::Writer> writer_;
};

// What is to be committed.
struct Found {
    std::vector<StagedFile> blobs;
    std::vector<Descriptor> entries;  // of the index, not named yet
    std::vector<std::vector<std::string>> names;  // of each entry, as the source has them
};

Result<StagedFile> fetch_blob(Source& source, const Descriptor& descriptor) {
    auto path = "blobs/sha256/" + CAISSON_TRY(digest_hex(descriptor.digest));
    auto file = source.fetch(path);
    if (!file && file.error().code == Errc::kNotFound)
        return failure(Errc::kCorrupt, "the source lacks the blob " + descriptor.digest);
    if (!file) return file;
    if (file->digest != descriptor.digest)
        return failure(Errc::kCorrupt, "blob " + descriptor.digest + " is damaged: its content has the digest " + file->digest);
    if (file->size != descriptor.size)
        return failure(Errc::kCorrupt, "blob " + descriptor.digest + " has " + std::to_string(file->size) +
                                           " bytes, but its descriptor says " + std::to_string(descriptor.size));
    return file;
}

Result<std::string> read_blob(Source& source, const Descriptor& descriptor, Found& found) {
    auto file = CAISSON_TRY(fetch_blob(source, descriptor));
    found.blobs.push_back(file);
    return os::read_file(file.path, kMaxJsonBytes);
}

std::vector<std::string> oci_names(const Descriptor& descriptor) {
    for (auto key : {kAnnotationContainerdName, kAnnotationRefName}) {
        auto name = descriptor.annotations.find(std::string(key));
        if (name == descriptor.annotations.end() || name->second.empty()) continue;
        // umoci and others put only a tag here; whose tag it is, nobody knows.
        bool only_tag = name->second.find_first_of("/:@") == std::string::npos &&
                        (name->second == "latest" || (name->second[0] >= '0' && name->second[0] <= '9'));
        if (!only_tag) return {name->second};
    }
    return {};
}

Result<> take_oci_manifest(Source& source, const Descriptor& descriptor, Found& found) {
    auto manifest = CAISSON_TRY(parse_manifest(CAISSON_TRY(read_blob(source, descriptor, found))));
    auto config = CAISSON_TRY(parse_config(CAISSON_TRY(read_blob(source, manifest.config, found))));
    CAISSON_TRY(check_platform(config, host_architecture()));
    if (config.diff_ids.size() != manifest.layers.size())
        return failure(Errc::kCorrupt, "the image has " + std::to_string(manifest.layers.size()) +
                                           " layers, but its config describes " + std::to_string(config.diff_ids.size()));
    for (const auto& layer : manifest.layers) found.blobs.push_back(CAISSON_TRY(fetch_blob(source, layer)));
    return {};
}

bool is_ours(const Descriptor& descriptor) {
    return (descriptor.os.empty() || descriptor.os == "linux") &&
           (descriptor.architecture.empty() || descriptor.architecture == host_architecture());
}

Result<> take_oci_entry(Source& source, const Descriptor& descriptor, const std::vector<std::string>& names, int depth,
                        Found& found) {
    if (is_index_type(descriptor.media_type)) {
        if (depth >= kMaxIndexDepth)
            return failure(Errc::kLimit, "the source nests indexes more than " + std::to_string(kMaxIndexDepth) + " deep");
        Found scratch;  // the index itself does not come into the store
        auto index = CAISSON_TRY(parse_index(CAISSON_TRY(read_blob(source, descriptor, scratch))));
        for (const auto& inner : index.manifests)
            if (is_ours(inner) && inner.artifact_type.empty())
                return take_oci_entry(source, inner, names, depth + 1, found);
        return failure(Errc::kUnsupported, "the image has no variant for linux/" + host_architecture());
    }
    if (!descriptor.media_type.empty() && !is_manifest_type(descriptor.media_type))
        return failure(Errc::kUnsupported, "the source holds \"" + printable(descriptor.media_type, 200) +
                                               "\" instead of an image");
    CAISSON_TRY(take_oci_manifest(source, descriptor, found));
    Descriptor entry{std::string(kMediaManifest), descriptor.digest, descriptor.size};
    if (!descriptor.media_type.empty()) entry.media_type = descriptor.media_type;
    found.entries.push_back(std::move(entry));
    found.names.push_back(names);
    return {};
}

Result<Found> take_oci(Source& source, const std::string& index_text) {
    auto index = CAISSON_TRY(parse_index(index_text));
    Found found;
    for (const auto& descriptor : index.manifests) {
        // One index of several variants, or attestations beside the image.
        if (!is_ours(descriptor) || !descriptor.artifact_type.empty()) continue;
        auto names = oci_names(descriptor);
        // The same image under a further name.
        bool known = false;
        for (std::size_t i = 0; i < found.entries.size(); ++i)
            if (found.entries[i].digest == descriptor.digest) {
                found.names[i].insert(found.names[i].end(), names.begin(), names.end());
                known = true;
            }
        if (!known) CAISSON_TRY(take_oci_entry(source, descriptor, names, 0, found));
    }
    if (found.entries.empty())
        return failure(Errc::kUnsupported, "the source holds no image for linux/" + host_architecture());
    return found;
}

Result<std::string_view> layer_type_of(const StagedFile& file) {
    auto fd = CAISSON_TRY(os::open_file(file.path, O_RDONLY));
    char head[4] = {};
    if (::read(fd.get(), head, sizeof head) < 0) return base::failure_errno("cannot read " + file.path);
    std::string_view start(head, sizeof head);
    if (start.starts_with("\x1f\x8b")) return kMediaLayerGzip;
    if (start == "\x28\xb5\x2f\xfd") return kMediaLayerZstd;
    return kMediaLayerTar;
}

Result<Found> take_docker(Source& source, Staging& staging, const std::string& text) {
    auto images = CAISSON_TRY(parse_docker_manifest(text));
    Found found;
    for (const auto& image : images) {
        auto config_file = CAISSON_TRY(source.fetch(image.config));
        auto config = CAISSON_TRY(parse_config(CAISSON_TRY(os::read_file(config_file.path, kMaxJsonBytes))));
        CAISSON_TRY(check_platform(config, host_architecture()));
        if (config.diff_ids.size() != image.layers.size())
            return failure(Errc::kCorrupt, "an image of manifest.json has " + std::to_string(image.layers.size()) +
                                               " layers, but its config describes " + std::to_string(config.diff_ids.size()));
        Manifest manifest;
        manifest.config = {std::string(kMediaConfig), config_file.digest, config_file.size};
        found.blobs.push_back(config_file);
        for (std::size_t i = 0; i < image.layers.size(); ++i) {
            auto layer = CAISSON_TRY(source.fetch(image.layers[i]));
            auto type = CAISSON_TRY(layer_type_of(layer));
            // A plain tar can be checked here; a compressed one when its disk is built.
            if (type == kMediaLayerTar && layer.digest != config.diff_ids[i])
                return failure(Errc::kCorrupt, "layer " + printable(image.layers[i], 300) + " has the digest " + layer.digest +
                                                   ", but the image's config says " + config.diff_ids[i]);
            manifest.layers.push_back({std::string(type), layer.digest, layer.size});
            found.blobs.push_back(std::move(layer));
        }
        auto manifest_file = CAISSON_TRY(staging.text(write_manifest(manifest)));
        found.entries.push_back({std::string(kMediaManifest), manifest_file.digest, manifest_file.size});
        found.names.push_back(image.repo_tags);
        found.blobs.push_back(std::move(manifest_file));
    }
    if (found.entries.empty()) return failure(Errc::kCorrupt, "manifest.json lists no image");
    return found;
}

// One entry for each name, with the names as the store spells them.
Result<std::vector<Descriptor>> named_entries(const Found& found, const std::string& override_name) {
    if (!override_name.empty() && found.entries.size() != 1)
        return failure(Errc::kUsage, "the source holds " + std::to_string(found.entries.size()) +
                                         " images; a name can only be given to one");
    std::vector<Descriptor> entries;
    for (std::size_t i = 0; i < found.entries.size(); ++i) {
        auto names = override_name.empty() ? found.names[i] : std::vector<std::string>{override_name};
        if (names.empty())
            return failure(Errc::kUsage, "the source does not say what its image is called", "give it a name with --name");
        for (const auto& name : names) {
            auto reference = CAISSON_TRY(parse_reference(name));
            if (reference.tag.empty())
                return failure(Errc::kUsage, "\"" + printable(name, 300) + "\" is a digest, not a name", "give one with --name");
            reference.digest.clear();
            Descriptor entry = found.entries[i];
            entry.annotations[std::string(kAnnotationRefName)] = reference.name();
            entries.push_back(std::move(entry));
        }
    }
    return entries;
}

}  // namespace

Result<std::vector<Image>> Store::load(os::Fd source_fd, const LoadOptions& options) {
    if (!options.name.empty()) CAISSON_TRY(parse_reference(options.name));
    Layout layout{options_.images_directory};
    static_cast<void>(CAISSON_TRY(sweep_temporary(layout)));
    auto staging = CAISSON_TRY(Staging::create(layout));
    struct stat info {};
    if (::fstat(source_fd.get(), &info) != 0) return base::failure_errno("cannot look at the source of the image");
    std::unique_ptr<Source> source;
    if (S_ISDIR(info.st_mode)) {
        source = std::make_unique<DirectorySource>(std::move(source_fd), staging, options.progress,
                                                   options_.max_source_bytes);
    } else {
        auto archive = std::make_unique<ArchiveSource>(staging, options.progress);
        CAISSON_TRY(archive->read(options_, source_fd.get()));
        source = std::move(archive);
    }

    Found found;
    auto index = source->read_json("index.json");
    if (index) {
        found = CAISSON_TRY(take_oci(*source, *index));
    } else if (index.error().code != Errc::kNotFound) {
        return failure(std::move(index).error());
    } else {
        auto docker = source->read_json("manifest.json");
        if (!docker && docker.error().code == Errc::kNotFound)
            return failure(Errc::kCorrupt, "the source is not an image: it has neither index.json nor manifest.json",
                           "a root file system's tar is brought in with: caisson image import");
        if (!docker) return failure(std::move(docker).error());
        found = CAISSON_TRY(take_docker(*source, staging, *docker));
    }
    auto entries = CAISSON_TRY(named_entries(found, options.name));
    // The same blob may serve several images; its file moves only once.
    std::map<std::string, StagedFile> unique;
    for (const auto& blob : found.blobs) unique.emplace(blob.path, blob);
    std::map<std::string, StagedFile> by_digest;
    for (const auto& [path, blob] : unique) by_digest.emplace(blob.digest, blob);
    std::vector<StagedFile> blobs;
    for (const auto& [digest, blob] : by_digest) blobs.push_back(blob);
    if (options.disk_bytes > 0) {
        auto path_of = [&](const std::string& hex) {
            auto staged = by_digest.find("sha256:" + hex);
            return staged == by_digest.end() ? layout.blob(hex) : staged->second.path;
        };
        for (const auto& entry : entries) {
            auto image = CAISSON_TRY(read_image(entry, path_of));
            CAISSON_TRY(prepare_disk(options_, image, options.disk_bytes, options.progress, path_of));
        }
    }
    CAISSON_TRY(commit(layout, blobs, entries));

    std::vector<Image> images;
    for (const auto& entry : entries) images.push_back(CAISSON_TRY(find(entry_name(entry))));
    return images;
}

}  // namespace caisson::image
