#include "image/disks.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <set>

#include "base/sha256.h"
#include "base/text.h"
#include "image/digest.h"
#include "image/limits.h"
#include "image/protocol.h"
#include "image/unpacker.h"
#include "os/file.h"

namespace caisson::image {

using base::failure;
using base::failure_errno;

namespace {

// Raised whenever the same layers would give another file system, so that old disks are built anew.
constexpr const char* kDiskFormat = "caisson-ext4-2";
constexpr const char* kDiskSuffix = ".ext4";
constexpr const char* kUnfinishedSuffix = ".tmp";
constexpr const char* kLockSuffix = ".lock";
constexpr std::size_t kIdentityDigits = 64;

// The lock of one disk. Its file goes away with the disk, so what was locked must still be what the path names.
Result<os::FileLock> lock_disk(const std::string& path, bool wait) {
    for (;;) {
        auto lock = CAISSON_TRY(wait ? os::FileLock::acquire(path) : os::FileLock::try_acquire(path));
        struct stat ours {}, there {};
        if (::fstat(lock.fd().get(), &ours) != 0) return failure_errno("cannot look at " + path);
        if (::stat(path.c_str(), &there) == 0 && ours.st_ino == there.st_ino && ours.st_dev == there.st_dev) return lock;
    }
}

bool is_complete(const std::string& path, std::uint64_t virtual_size_bytes) {
    struct stat info {};
    return ::lstat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) &&
           static_cast<std::uint64_t>(info.st_size) == virtual_size_bytes;
}

}  // namespace

std::string disk_identity(const Image& image) {
    std::string text = kDiskFormat;
    // By what we have hashed ourselves: a diff_id is the image's own claim, which only the jailed unpacker checks. One
    // that was taken over by a hostile image must not be able to make the disk of another image.
    for (const auto& layer : image.layers) text += "\n" + layer.digest + " " + layer.diff_id;
    return base::sha256_hex(base::as_bytes(text));
}

std::string disk_path(const std::string& disks_directory, const Image& image, std::uint64_t virtual_size_bytes) {
    return disks_directory + "/" + disk_identity(image) + "-" + std::to_string(virtual_size_bytes) + kDiskSuffix;
}

std::string DiskName::lock_of(const std::string& directory) const { return directory + "/" + disk + kLockSuffix; }

std::optional<DiskName> parse_disk_name(std::string_view name) {
    DiskName parts;
    for (const auto& [suffix, flag] : {std::pair{kUnfinishedSuffix, &DiskName::unfinished}, std::pair{kLockSuffix, &DiskName::lock}}) {
        if (!name.ends_with(suffix)) continue;
        parts.*flag = true;
        name.remove_suffix(std::string_view(suffix).size());
        break;
    }
    parts.disk = name;
    if (!name.ends_with(kDiskSuffix)) return std::nullopt;
    name.remove_suffix(std::string_view(kDiskSuffix).size());
    if (name.size() <= kIdentityDigits + 1 || !is_hex(name.substr(0, kIdentityDigits)) || name[kIdentityDigits] != '-') return std::nullopt;
    auto bytes = base::parse_u64(name.substr(kIdentityDigits + 1));
    if (!bytes) return std::nullopt;
    parts.bytes = *bytes;
    return parts;
}

std::string flaw_of_base_disk(const std::string& path, std::uint64_t virtual_size_bytes) {
    struct stat info {};
    if (::lstat(path.c_str(), &info) != 0) return "is missing";
    if (!S_ISREG(info.st_mode)) return "is no plain file";
    if (info.st_uid != ::geteuid()) return "belongs to another user";
    if (static_cast<std::uint64_t>(info.st_size) != virtual_size_bytes)
        return "has " + std::to_string(info.st_size) + " bytes and should have " + std::to_string(virtual_size_bytes);
    // The superblock of ext2 to ext4: its magic number, the count of blocks, the size of one.
    constexpr off_t kSuperblock = 1024;
    std::uint8_t bytes[104]{};
    auto file = os::open_file(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    if (!file || ::pread(file->get(), bytes, sizeof bytes, kSuperblock) != static_cast<ssize_t>(sizeof bytes)) return "cannot be read";
    const auto magic = static_cast<unsigned>(bytes[56] | bytes[57] << 8);
    const auto block = std::uint64_t{1024} << std::min(base::load_le32(bytes + 24), std::uint32_t{6});
    if (magic != 0xef53 || base::load_le32(bytes + 4) * block != virtual_size_bytes) return "does not begin as the file system that was made";
    return {};
}

Result<std::optional<std::string>> Store::cached_base_disk(const Image& image, std::uint64_t virtual_size_bytes) const {
    auto path = disk_path(options_.disks_directory, image, virtual_size_bytes);
    if (!is_complete(path, virtual_size_bytes)) return std::optional<std::string>();
    return std::optional<std::string>(std::move(path));
}

Result<BaseDisk> Store::base_disk(const Image& image, std::uint64_t virtual_size_bytes,
                                  const ProgressCallback& progress) {
    Layout layout{options_.images_directory};
    return build_disk(options_, image, virtual_size_bytes, progress, [&](const std::string& hex) { return layout.blob(hex); });
}

Result<BaseDisk> build_disk(const Store::Options& options, const Image& image, std::uint64_t virtual_size_bytes,
                            const ProgressCallback& progress, const BlobPath& path_of) {
    auto path = disk_path(options.disks_directory, image, virtual_size_bytes);
    BaseDisk disk{path, virtual_size_bytes};
    if (is_complete(path, virtual_size_bytes)) return disk;
    if (image.layers.size() > kMaxLayers) return failure(Errc::kLimit, "the image has too many layers");

    auto lock = lock_disk(path + kLockSuffix, false);
    if (!lock && lock.error().code == Errc::kInUse) {
        if (progress) progress({"waiting for another process that builds this disk", 0, 0});
        lock = lock_disk(path + kLockSuffix, true);
    }
    if (!lock) return failure(std::move(lock).error());
    if (is_complete(path, virtual_size_bytes)) return disk;

    std::vector<os::Fd> blobs;
    UnpackJob job{.subcommand = "disk", .progress = progress};
    auto layers = nlohmann::json::array();
    for (const auto& layer : image.layers) {
        auto hex = CAISSON_TRY(digest_hex(layer.digest));
        auto blob = os::open_file(path_of(hex), O_RDONLY);
        if (!blob && blob.error().code == Errc::kNotFound)
            return failure(Errc::kCorrupt, "the image store lacks " + path_of(hex), "load the image again");
        if (!blob) return failure(std::move(blob).error());
        job.inputs.push_back(blob->get());
        blobs.push_back(std::move(*blob));
        layers.push_back({{"digest", layer.digest}, {"diff_id", layer.diff_id}, {"size", layer.size_bytes}});
    }
    job.request = nlohmann::json{{"virtual_size_bytes", virtual_size_bytes},
                                 {"max_unpacked_bytes", options.max_unpacked_bytes},
                                 {"identity", disk_identity(image) + "-" + std::to_string(virtual_size_bytes)},
                                 {"layers", layers}}
                      .dump();

    // Left over from a builder that was killed: nobody else writes it while we hold the lock, except a process that
    // outlived its builder, and that one keeps the old file.
    auto unfinished = path + kUnfinishedSuffix;
    if (::unlink(unfinished.c_str()) != 0 && errno != ENOENT) return failure_errno("cannot remove " + unfinished);
    auto output = CAISSON_TRY(os::open_file(unfinished, O_RDWR | O_CREAT | O_EXCL, 0600));
    job.output = output.get();
    // For an image that does not fit, the unpacker finds out which size would do by laying out the tables of larger ones.
    job.output_bytes = std::max(virtual_size_bytes, 2 * options.max_unpacked_bytes);
    auto built = [&]() -> Result<> {
        static_cast<void>(CAISSON_TRY(run_unpacker(options, job, "building the disk of " + base::printable(image.name, 300))));
        // caisson-unpack may have been taken over by these very layers: then the disk holds what it likes, as the layers
        // could have anyway, for boxes of an image with exactly these layers. Its size it cannot choose.
        if (!is_complete(unfinished, virtual_size_bytes))
            return failure(Errc::kIo, "the unpacker left a disk of the wrong size");
        if (::fchmod(output.get(), 0444) != 0) return failure_errno("cannot set the mode of " + unfinished);
        if (::fsync(output.get()) != 0) return failure_errno("cannot sync " + unfinished);
        if (::rename(unfinished.c_str(), path.c_str()) != 0) return failure_errno("cannot rename to " + path);
        return os::fsync_directory(options.disks_directory);
    }();
    if (!built) {
        ::unlink(unfinished.c_str());
        // Where the disk is to lie says something about a host's trouble, nothing about an image's.
        bool host = built.error().code == Errc::kIo || built.error().code == Errc::kNoSpace;
        return host ? failure(std::move(built).error().with_context(path)) : failure(std::move(built).error());
    }
    return disk;
}

Result<> Store::make_empty_disk(const std::string& path, std::uint64_t size_bytes, const std::string& identity) const {
    auto output = CAISSON_TRY(os::open_file(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600));
    UnpackJob job{.subcommand = "disk", .output = output.get(), .output_bytes = size_bytes};
    job.request = nlohmann::json{{"virtual_size_bytes", size_bytes}, {"identity", identity}, {"layers", nlohmann::json::array()}}.dump();
    auto made = [&]() -> Result<> {
        static_cast<void>(CAISSON_TRY(run_unpacker(options_, job, "making an empty disk")));
        if (!is_complete(path, size_bytes)) return failure(Errc::kIo, "the unpacker left a disk of the wrong size");
        if (::fsync(output.get()) != 0) return failure_errno("cannot sync " + path);
        return {};
    }();
    if (!made) ::unlink(path.c_str());
    return made;
}

Result<> prepare_disk(const Store::Options& options, const Image& image, std::uint64_t virtual_size_bytes,
                      const ProgressCallback& progress, const BlobPath& path_of) {
    auto usual = build_disk(options, image, virtual_size_bytes, progress, path_of);
    if (usual) return {};
    // Twice what may be unpacked: what fails here as well is not a matter of the disk's size.
    const auto ample = std::min(2 * options.max_unpacked_bytes, kMaxDiskBytes);
    if (usual.error().code != Errc::kLimit || ample <= virtual_size_bytes) return failure(std::move(usual).error());
    auto large = build_disk(options, image, ample, progress, path_of);
    if (!large) return failure(std::move(large).error());
    ::unlink(large->path.c_str());
    ::unlink((large->path + kLockSuffix).c_str());
    return {};
}

Result<std::uint64_t> sweep_disks(const Layout& layout, const std::string& disks_directory, const Index& index,
                                  const RemoveOptions& options) {
    std::set<std::string> used;
    for (const auto& entry : index.manifests) used.insert(disk_identity(CAISSON_TRY(read_image(layout, entry))));
    std::uint64_t freed = 0;
    std::set<std::string> seen;
    for (const auto& name : CAISSON_TRY(os::list_directory(disks_directory))) {
        // A disk, its lock and its unfinished form share the beginning of their names.
        auto end = name.find(kDiskSuffix);
        if (end == std::string::npos || name.size() < kIdentityDigits || !is_hex(name.substr(0, kIdentityDigits))) continue;
        auto path = disks_directory + "/" + name.substr(0, end) + kDiskSuffix;
        bool wanted = used.contains(name.substr(0, kIdentityDigits)) || (options.disk_in_use && options.disk_in_use(path));
        if (wanted && !name.ends_with(kUnfinishedSuffix)) continue;
        struct stat found {};
        if (::lstat(path.c_str(), &found) == 0 && is_young(found, options)) continue;
        if (::lstat((path + kUnfinishedSuffix).c_str(), &found) == 0 && is_young(found, options)) continue;
        auto lock = lock_disk(path + kLockSuffix, false);
        if (!lock && lock.error().code == Errc::kInUse) continue;  // being built just now
        if (!lock) return failure(std::move(lock).error());
        for (const char* suffix : {kUnfinishedSuffix, ""}) {
            if (wanted && *suffix == 0) break;
            struct stat info {};
            auto file = path + suffix;
            if (::stat(file.c_str(), &info) != 0) continue;
            if (!seen.insert(file).second) continue;  // told of before, and still there
            if (!options.dry_run && ::unlink(file.c_str()) != 0 && errno != ENOENT) return failure_errno("cannot remove " + file);
            const auto bytes = static_cast<std::uint64_t>(info.st_blocks) * 512;
            if (options.on_removed) options.on_removed("disk", file.substr(disks_directory.size() + 1), bytes);
            freed += bytes;
        }
        if (!options.dry_run) ::unlink((path + kLockSuffix).c_str());
    }
    return freed;
}

}  // namespace caisson::image
