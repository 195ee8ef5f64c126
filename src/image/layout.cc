#include "image/layout.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <optional>
#include <set>

#include "base/text.h"
#include "image/limits.h"

namespace caisson::image {

using base::failure;
using base::failure_errno;

namespace {
constexpr std::size_t kCopyBytes = 1 << 20;
constexpr const char* kDamagedHint = "remove the image and load it again";
}  // namespace

std::string entry_name(const Descriptor& entry) {
    auto name = entry.annotations.find(std::string(kAnnotationRefName));
    return name == entry.annotations.end() ? std::string() : name->second;
}

Result<Index> read_index(const Layout& layout) {
    auto text = os::read_file(layout.index(), kMaxJsonBytes);
    if (!text) {
        if (text.error().code == Errc::kNotFound) return Index{};
        return failure(std::move(text).error());
    }
    return CAISSON_TRY_CTX(parse_index(*text), layout.index());
}

Result<std::string> read_json_blob(const std::string& digest, const BlobPath& path_of) {
    auto path = path_of(CAISSON_TRY(digest_hex(digest)));
    auto text = os::read_file(path, kMaxJsonBytes);
    if (!text) {
        if (text.error().code == Errc::kNotFound)
            return failure(Errc::kCorrupt, "the image store lacks " + path, kDamagedHint);
        return failure(std::move(text).error());
    }
    if (digest_of(*text) != digest) return failure(Errc::kCorrupt, path + " is damaged", kDamagedHint);
    return text;
}

Result<std::string> read_json_blob(const Layout& layout, const std::string& digest) {
    return read_json_blob(digest, [&](const std::string& hex) { return layout.blob(hex); });
}

Result<Image> read_image(const Layout& layout, const Descriptor& entry) {
    return read_image(entry, [&](const std::string& hex) { return layout.blob(hex); });
}

Result<Image> read_image(const Descriptor& entry, const BlobPath& path_of) {
    Image image;
    image.name = entry_name(entry);
    image.manifest_digest = entry.digest;
    if (auto source = entry.annotations.find(std::string(kAnnotationSourceDigest)); source != entry.annotations.end())
        image.source_digest = source->second;
    auto manifest_text = CAISSON_TRY(read_json_blob(entry.digest, path_of));
    auto manifest = CAISSON_TRY(parse_manifest(manifest_text));
    image.config_digest = manifest.config.digest;
    auto config_text = CAISSON_TRY(read_json_blob(manifest.config.digest, path_of));
    auto config = CAISSON_TRY(parse_config(config_text));
    if (config.diff_ids.size() != manifest.layers.size())
        return failure(Errc::kCorrupt, "image " + base::printable(image.name, 300) + " has " +
                                           std::to_string(manifest.layers.size()) + " layers, but its config describes " +
                                           std::to_string(config.diff_ids.size()));
    image.size_bytes = manifest_text.size() + config_text.size();
    for (std::size_t i = 0; i < manifest.layers.size(); ++i) {
        const auto& layer = manifest.layers[i];
        image.layers.push_back({layer.digest, layer.media_type, layer.size, config.diff_ids[i]});
        image.size_bytes += layer.size;
    }
    image.created = config.config.created;
    image.config = std::move(config.config);
    return image;
}

// ---- staging ---------------------------------------------------------------------------------------------------

Result<Staging> Staging::create(const Layout& layout) {
    // Under this lock, so that no sweeper meets a directory whose own lock is not taken yet.
    auto gate = CAISSON_TRY(os::FileLock::acquire(layout.temporary() + ".lock"));
    CAISSON_TRY(os::make_directories(layout.temporary(), 0700));
    auto directory = CAISSON_TRY(os::TemporaryDirectory::create(layout.temporary(), "load-"));
    auto lock = CAISSON_TRY(os::FileLock::try_acquire(directory.path() + "/lock"));
    return Staging(std::move(directory), std::move(lock));
}

bool is_young(const struct stat& info, const RemoveOptions& options) {
    if (options.grace.count() <= 0) return false;
    const auto now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
    return now - info.st_ctim.tv_sec < options.grace.count();
}

Result<std::uint64_t> sweep_temporary(const Layout& layout, const RemoveOptions& options) {
    std::uint64_t freed = 0;
    if (!os::exists(layout.temporary())) return freed;
    auto gate = CAISSON_TRY(os::FileLock::acquire(layout.temporary() + ".lock"));
    auto names = CAISSON_TRY(os::list_directory(layout.temporary()));
    for (const auto& name : names) {
        auto path = layout.temporary() + "/" + name;
        struct stat info {};
        if (::lstat(path.c_str(), &info) != 0 || is_young(info, options)) continue;
        // One without a lock was cut short before it took it.
        std::optional<os::FileLock> lock;
        if (os::exists(path + "/lock")) {
            auto taken = os::FileLock::try_acquire(path + "/lock");
            if (!taken && taken.error().code == Errc::kInUse) continue;
            if (taken) lock = std::move(*taken);
        }
        const auto bytes = os::disk_usage(path).value_or(0);
        if (!options.dry_run) CAISSON_TRY(os::remove_tree(path));
        if (options.on_removed) options.on_removed("unfinished", name, bytes);
        freed += bytes;
    }
    return freed;
}

Result<> Staging::Writer::write(base::ByteView data) {
    hash_.update(data);
    size_ += data.size();
    CAISSON_TRY_CTX(os::write_all(fd_.get(), data), path_);
    return {};
}

StagedFile Staging::Writer::finish() { return {path_, "sha256:" + hash_.finish_hex(), size_}; }

Result<Staging::Writer> Staging::start() {
    auto path = directory_.path() + "/" + std::to_string(next_++);
    auto fd = CAISSON_TRY(os::open_file(path, O_WRONLY | O_CREAT | O_EXCL, 0600));
    return Writer(std::move(path), std::move(fd));
}

Result<StagedFile> Staging::copy(int source, std::uint64_t limit, const std::string& what,
                                 const std::function<void(std::uint64_t)>& progress) {
    auto writer = CAISSON_TRY(start());
    std::vector<std::uint8_t> buffer(kCopyBytes);
    std::uint64_t total = 0;
    for (;;) {
        ssize_t got = ::read(source, buffer.data(), buffer.size());
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return failure_errno("cannot read " + what);
        if (got == 0) return writer.finish();
        total += static_cast<std::uint64_t>(got);
        if (total > limit)
            return failure(Errc::kLimit, what + " is larger than the limit of " + base::format_size(limit));
        CAISSON_TRY(writer.write({buffer.data(), static_cast<std::size_t>(got)}));
        if (progress) progress(total);
    }
}

Result<StagedFile> Staging::adopt(const std::vector<std::string>& candidates, const std::string& digest, std::uint64_t size) {
    auto path = directory_.path() + "/" + std::to_string(next_++);
    for (const auto& source : candidates) {
        if (::link(source.c_str(), path.c_str()) == 0) return StagedFile{path, digest, size};
        if (errno != ENOENT) return failure_errno("cannot link " + source);
    }
    return failure(Errc::kNotFound, "the blob " + digest + " has gone from the image store");
}

Result<StagedFile> Staging::text(std::string_view content) {
    auto writer = CAISSON_TRY(start());
    CAISSON_TRY(writer.write(base::as_bytes(content)));
    return writer.finish();
}

// ---- changes ---------------------------------------------------------------------------------------------------

Result<> commit(const Layout& layout, const std::vector<StagedFile>& blobs, const std::vector<Descriptor>& entries,
                const std::vector<std::string>& required) {
    // Slow disks are waited for before the lock is taken.
    for (const auto& blob : blobs) {
        auto fd = CAISSON_TRY(os::open_file(blob.path, O_RDONLY));
        if (::fchmod(fd.get(), 0444) != 0) return failure_errno("cannot set the mode of " + blob.path);
        if (::fsync(fd.get()) != 0) return failure_errno("cannot sync " + blob.path);
    }
    auto lock = CAISSON_TRY(os::FileLock::acquire(layout.lock()));
    for (const auto& digest : required) {
        if (!os::exists(layout.blob(CAISSON_TRY(digest_hex(digest)))))
            return failure(Errc::kNotFound, "the blob " + digest + " has gone from the image store");
    }
    for (const auto& blob : blobs) {
        auto target = layout.blob(CAISSON_TRY(digest_hex(blob.digest)));
        // Replacing an equal blob is harmless and repairs a damaged one.
        if (::rename(blob.path.c_str(), target.c_str()) != 0) return failure_errno("cannot rename to " + target);
    }
    CAISSON_TRY(os::fsync_directory(layout.blobs()));
    auto index = CAISSON_TRY(read_index(layout));
    for (const auto& entry : entries) {
        std::erase_if(index.manifests, [&](const Descriptor& old) { return entry_name(old) == entry_name(entry); });
        index.manifests.push_back(entry);
    }
    if (index.manifests.size() > kMaxManifestsPerIndex)
        return failure(Errc::kLimit, "the image store is full: it holds " + std::to_string(kMaxManifestsPerIndex) +
                                         " names", "remove images that are not needed with: caisson image rm NAME");
    CAISSON_TRY(os::write_file_atomic(layout.index(), write_index(index), 0644));
    // The change is complete; what is left over otherwise waits for the next sweep.
    static_cast<void>(sweep_blobs(layout, index));
    return {};
}

Result<std::uint64_t> sweep_blobs(const Layout& layout, const Index& index, const RemoveOptions& options) {
    std::set<std::string> used;
    for (const auto& entry : index.manifests) {
        // If one manifest cannot be read, nobody knows what it needs: keep everything.
        auto image = CAISSON_TRY(read_image(layout, entry));
        used.insert(image.manifest_digest);
        used.insert(image.config_digest);
        for (const auto& layer : image.layers) used.insert(layer.digest);
    }
    std::uint64_t freed = 0;
    auto names = CAISSON_TRY(os::list_directory(layout.blobs()));
    for (const auto& name : names) {
        if (used.contains("sha256:" + name)) continue;
        struct stat info {};
        if (::lstat(layout.blob(name).c_str(), &info) != 0 || is_young(info, options)) continue;
        if (!options.dry_run && ::unlink(layout.blob(name).c_str()) != 0 && errno != ENOENT)
            return failure_errno("cannot remove " + layout.blob(name));
        const auto bytes = static_cast<std::uint64_t>(info.st_blocks) * 512;
        if (options.on_removed) options.on_removed("blob", name, bytes);
        freed += bytes;
    }
    return freed;
}

}  // namespace caisson::image
