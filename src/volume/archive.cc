#include "volume/archive.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <climits>

#include "base/text.h"
#include "os/file.h"
#include "tar/names.h"
#include "volume/metadata.h"
#include "volume/names.h"

namespace caisson::volume {

using base::failure;
using base::failure_errno;

namespace {

std::optional<Metadata> metadata_of(int file) {
    char text[kMaxMetadataBytes];
    ssize_t size = ::fgetxattr(file, kMetadataAttribute, text, sizeof text);
    return size < 0 ? std::nullopt : decode({text, static_cast<std::size_t>(size)});
}

// A device's number as Linux hands it to user space: 12 bits of major, 20 of minor (new_encode_dev()).
std::uint32_t device_number(std::uint32_t major, std::uint32_t minor) { return (minor & 0xff) | (major & 0xfff) << 8 | (minor & 0xfff00) << 12; }
std::uint32_t major_of(std::uint32_t device) { return (device & 0xfff00) >> 8; }
std::uint32_t minor_of(std::uint32_t device) { return (device & 0xff) | ((device >> 12) & 0xfff00); }

std::uint32_t special_of(tar::Kind kind) {
    switch (kind) {
        case tar::Kind::kCharacter: return S_IFCHR;
        case tar::Kind::kBlock: return S_IFBLK;
        case tar::Kind::kFifo: return S_IFIFO;
        case tar::Kind::kSymlink: return S_IFLNK;
        default: return 0;
    }
}

// false: a socket, or a link without a text.
bool show_special(int file, const Metadata& metadata, tar::Entry& entry) {
    switch (metadata.special) {
        case S_IFLNK: {
            char text[PATH_MAX];
            const ssize_t size = ::pread(file, text, sizeof text - 1, 0);
            if (size <= 0) return false;
            entry.kind = tar::Kind::kSymlink;
            entry.link.assign(text, static_cast<std::size_t>(size));
            return entry.link.find('\0') == std::string::npos;
        }
        case S_IFCHR: entry.kind = tar::Kind::kCharacter; break;
        case S_IFBLK: entry.kind = tar::Kind::kBlock; break;
        case S_IFIFO: entry.kind = tar::Kind::kFifo; return true;
        case S_IFSOCK: return false;
        default: return true;
    }
    entry.major = major_of(metadata.device);
    entry.minor = minor_of(metadata.device);
    return true;
}

// The same as pin()'s, without what only says that a directory is meant.
Result<std::string> inner_path(const std::string& path) {
    auto plain = tar::plain_path("/" + path);
    plain.erase(0, plain.find_first_not_of('/'));
    if (plain.empty() || plain == ".") return std::string();
    CAISSON_TRY(check_subpath(plain));
    return plain;
}

base::Failure cannot_reach(const std::string& shown, const Error& error) {
    const auto place = base::printable(shown, 400);
    if (error.sys_errno == ENOENT || error.sys_errno == ENOTDIR) return failure(Errc::kNotFound, "there is no " + place);
    if (error.sys_errno == ELOOP) return failure(Errc::kUsage, place + " is reached through a link", "name the place that the link leads to");
    return failure_errno("cannot reach " + place, error.sys_errno);
}

}  // namespace

tar::View guest_view(OwnerIds owner) {
    return [owner](int file, tar::Entry& entry) -> Result<bool> {
        entry.user = owner.user;
        entry.group = owner.group;
        const auto metadata = file < 0 ? std::nullopt : metadata_of(file);
        if (!metadata) return true;
        entry.user = metadata->user.value_or(owner.user);
        entry.group = metadata->group.value_or(owner.group);
        entry.mode = metadata->mode;
        return entry.kind != tar::Kind::kFile || show_special(file, *metadata, entry);
    };
}

std::function<Result<>(int file, const tar::Entry& entry, bool fresh)> metadata_keeper(OwnerIds owner, bool keep_owner) {
    return [owner, keep_owner](int file, const tar::Entry& entry, bool fresh) -> Result<> {
        Metadata metadata;
        if (!fresh) metadata = metadata_of(file).value_or(metadata);
        if (fresh && keep_owner) {
            if (entry.user != owner.user) metadata.user = entry.user;
            if (entry.group != owner.group) metadata.group = entry.group;
        }
        metadata.mode = entry.mode & (keep_owner ? 07777u : 01777u);
        metadata.special = special_of(entry.kind);
        if (metadata.special == S_IFCHR || metadata.special == S_IFBLK) metadata.device = device_number(entry.major, entry.minor);
        const auto text = encode(metadata);
        if (::fsetxattr(file, kMetadataAttribute, text.data(), text.size(), 0) == 0) return {};
        if (errno == ENOTSUP)
            return failure(Errc::kHostMissing, "the home's file system keeps no extended attributes, which volumes need",
                           "move the home to ext4, xfs or btrfs (CAISSON_HOME)");
        return failure_errno("cannot keep owner and mode of " + base::printable(entry.path, 300));
    };
}

std::function<bool(const tar::Entry& entry)> foreign_link(OwnerIds owner) {
    return [owner](const tar::Entry& entry) { return !entry.link.empty() && (entry.user != owner.user || entry.group != owner.group); };
}

std::function<Result<>(std::int64_t bytes)> accountant(share::Space& space) {
    return [&space](std::int64_t bytes) -> Result<> {
        // Another writer may be as fast; together they stay below.
        if (bytes > 0 && space.free_bytes() < static_cast<std::uint64_t>(bytes))
            return failure(Errc::kNoSpace, "the volume's limit of " + base::format_size(space.limit_bytes()) + " is reached",
                           "remove files from it, or make a larger volume");
        space.add(bytes);
        return {};
    };
}

Result<tar::Origin> open_origin(const os::Fd& volume, const std::string& path, const std::string& shown) {
    const auto inner = CAISSON_TRY(inner_path(path));
    tar::Origin origin;
    origin.top = tar::base_name("/" + path);
    if (origin.top == ".") {
        auto directory = inner.empty() ? volume.duplicate() : os::open_beneath(volume, inner, O_PATH | O_DIRECTORY | O_NOFOLLOW);
        if (!directory) return cannot_reach(shown, directory.error());
        origin.directory = std::move(*directory);
        origin.name = ".";
        return origin;
    }
    auto parent = os::open_beneath(volume, tar::parent_name(inner), O_PATH | O_DIRECTORY | O_NOFOLLOW);
    if (!parent) return cannot_reach(shown, parent.error());
    origin.directory = std::move(*parent);
    origin.name = tar::base_name(inner);
    struct stat info {};
    if (::fstatat(origin.directory.get(), origin.name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0)
        return failure(Errc::kNotFound, "there is no " + base::printable(shown, 400));
    if (tar::means_directory(path) && !S_ISDIR(info.st_mode)) return failure(Errc::kUsage, base::printable(shown, 400) + " is no directory");
    return origin;
}

Result<tar::Destination> open_destination(const os::Fd& volume, const std::string& path, const std::string& shown) {
    const auto inner = CAISSON_TRY(inner_path(path));
    tar::Destination destination;
    destination.shown = shown;
    destination.slash = tar::means_directory(path);
    auto directory = inner.empty() ? volume.duplicate() : os::open_beneath(volume, inner, O_PATH | O_DIRECTORY | O_NOFOLLOW);
    if (directory) {
        destination.present = tar::Present::kDirectory;
        destination.directory = std::move(*directory);
        return destination;
    }
    auto parent = os::open_beneath(volume, tar::parent_name(inner), O_PATH | O_DIRECTORY | O_NOFOLLOW);
    if (!parent) return cannot_reach("directory for " + shown, parent.error());
    destination.directory = std::move(*parent);
    destination.name = tar::base_name(inner);
    struct stat info {};
    if (::fstatat(destination.directory.get(), destination.name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0) {
        destination.present = tar::Present::kOther;
        if (S_ISLNK(info.st_mode) && destination.slash)
            return failure(Errc::kUsage, base::printable(shown, 400) + " is a link, and is not followed", "name the directory that it leads to");
    }
    return destination;
}

}  // namespace caisson::volume
