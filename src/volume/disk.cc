#include "volume/disk.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>

#include "base/text.h"
#include "os/file.h"
#include "volume/names.h"

namespace caisson::volume {

using base::failure;
using base::failure_errno;

Result<> check_disk_size(std::uint64_t size_bytes) {
    if (size_bytes == 0)
        return failure(Errc::kUsage, "a volume of type disk needs a size", "say how large it is to be: --size 1G");
    if (size_bytes >= kLeastDiskBytes && size_bytes <= kMostDiskBytes && size_bytes % kDiskStepBytes == 0) return {};
    return failure(Errc::kUsage, "a volume of type disk cannot have " + std::to_string(size_bytes) + " bytes",
                   "give it from " + base::format_size(kLeastDiskBytes) + " to " + base::format_size(kMostDiskBytes) + ", a multiple of 4096 bytes");
}

Result<> count_disk(std::set<std::string>& seen, const std::string& name, const std::string& subpath) {
    const auto what = "volume '" + base::printable(name, 100) + "'";
    if (!subpath.empty()) return failure(Errc::kUsage, what + " is a disk, of which no part can be mounted", "mount all of it");
    if (seen.size() >= kMostDisks && !seen.contains(name))
        return failure(Errc::kUsage, what + " is one disk too many: a box has at most " + std::to_string(kMostDisks) + " volumes of type disk",
                       "leave it out, or use a volume that is a directory");
    if (seen.insert(name).second) return {};
    return failure(Errc::kUsage, what + " is a disk and would be mounted twice in one box", "mount it once, and use a link in the box");
}

namespace {

constexpr std::chrono::milliseconds kPatience{300};

Result<> lock_patiently(const os::Fd& file, int how, const std::string& name) {
    if (CAISSON_TRY_CTX(os::lock_within(file, how, kPatience), "cannot lock the disk of volume '" + name + "'")) return {};
    return failure(Errc::kInUse, "volume '" + name + "' is in use by another box",
                   "a disk has one writer at a time: stop that box, or let both mount it read-only");
}

base::Failure tampered(const std::string& name, const std::string& path, const std::string& what) {
    return failure(Errc::kCorrupt, "the disk of volume '" + name + "' " + what + " (" + path + ")",
                   "somebody has changed it; remove the volume, or put back the file that was made for it");
}

// The file that the path names, and not another name's or what somebody else may write to.
Result<> check_file(const HeldDisk& disk, const std::string& name, std::uint64_t size_bytes) {
    struct stat info {}, there {};
    if (::fstat(disk.file.get(), &info) != 0) return failure_errno("cannot look at " + disk.path);
    if (!S_ISREG(info.st_mode)) return tampered(name, disk.path, "is no file");
    if (info.st_uid != ::geteuid() || info.st_nlink != 1) return tampered(name, disk.path, "is another's file");
    if (static_cast<std::uint64_t>(info.st_size) != size_bytes)
        return tampered(name, disk.path, "has " + std::to_string(info.st_size) + " bytes and should have " + std::to_string(size_bytes));
    if (::lstat(disk.path.c_str(), &there) != 0 || there.st_ino != info.st_ino || there.st_dev != info.st_dev)
        return failure(Errc::kNotFound, "volume '" + name + "' was removed meanwhile");
    return {};
}

}  // namespace

Result<HeldDisk> hold_disk(const Catalogue& catalogue, const wire::BoxMount& mount) {
    const auto& name = mount.volume();
    CAISSON_TRY(check_name(name));
    HeldDisk disk;
    disk.path = catalogue.directory_of({.kind = Kind::kNamed, .name = name, .disk = true});
    // A link is not followed, and nobody is waited for at the other end of a pipe.
    const int access = mount.read_only() ? O_RDONLY : O_RDWR;
    auto file = os::open_file(disk.path, access | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (!file && file.error().sys_errno == ENOENT) return failure(Errc::kNotFound, "the disk of volume '" + name + "' is gone (" + disk.path + ")");
    disk.file = CAISSON_TRY_CTX(std::move(file), "volume '" + name + "'");
    CAISSON_TRY(lock_patiently(disk.file, mount.read_only() ? LOCK_SH : LOCK_EX, name));
    CAISSON_TRY(check_file(disk, name, mount.limit_bytes()));
    disk.size_bytes = mount.limit_bytes();
    return disk;
}

}  // namespace caisson::volume
