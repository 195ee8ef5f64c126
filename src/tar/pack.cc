#include "tar/pack.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <map>
#include <memory>

#include "base/text.h"
#include "os/file.h"
#include "tar/limits.h"
#include "tar/names.h"
#include "tar/notices.h"
#include "tar/writer.h"

namespace caisson::tar {

using base::failure;
using base::failure_errno;
using base::printable;

namespace {

constexpr std::size_t kReadBytes = 256 << 10;

// File systems that hold no files but the kernel's state, some of it without end.
bool is_kernels_own(int fd) {
    struct statfs info {};
    if (::fstatfs(fd, &info) != 0) return false;
    switch (static_cast<unsigned long>(info.f_type)) {
        case PROC_SUPER_MAGIC:
        case SYSFS_MAGIC:
        case CGROUP2_SUPER_MAGIC:
        case CGROUP_SUPER_MAGIC:
        case DEBUGFS_MAGIC:
        case TRACEFS_MAGIC:
        case SECURITYFS_MAGIC:
        case BPF_FS_MAGIC: return true;
        default: return false;
    }
}

class Packer {
  public:
    Packer(const Origin& origin, Sink sink, const Notice& notice, const View& view)
        : origin_(origin), writer_(std::move(sink)), note_(notice), view_(view), buffer_(new std::uint8_t[kReadBytes]) {}

    Result<> run() {
        struct stat info {};
        if (::fstatat(origin_.directory.get(), origin_.name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0)
            return failure_errno("cannot look at " + printable(origin_.name, 300));
        if (S_ISDIR(info.st_mode)) {
            CAISSON_TRY(tree(info));
        } else {
            CAISSON_TRY(other(origin_.directory, origin_.name, origin_.top, info));
        }
        note_.finish();
        return writer_.finish();
    }

  private:
    Result<> tree(const struct stat& info) {
        root_ = CAISSON_TRY(os::open_beneath(origin_.directory, origin_.name, O_RDONLY | O_DIRECTORY));
        device_ = info.st_dev;
        waiting_.emplace_back();
        while (!waiting_.empty()) {
            auto path = std::move(waiting_.back());
            waiting_.pop_back();
            CAISSON_TRY(directory(path));
        }
        return {};
    }

    std::string archived(const std::string& path) const { return path.empty() ? origin_.top : origin_.top + "/" + path; }

    // `path` is below the root; empty for the root itself.
    Result<> directory(const std::string& path) {
        auto opened = path.empty() ? root_.duplicate() : os::open_beneath(root_, path, O_RDONLY | O_DIRECTORY);
        if (!opened) {
            if (opened.error().sys_errno == ENOENT) return {};  // removed meanwhile
            if (opened.error().sys_errno == ENAMETOOLONG) return too_deep(path);
            return base::failure(std::move(opened).error());
        }
        struct stat info {};
        if (::fstat(opened->get(), &info) != 0) return failure_errno("cannot look at " + printable(path, 300));
        auto entry = describe(Kind::kDirectory, archived(path), info);
        CAISSON_TRY(seen_as(opened->get(), entry));
        CAISSON_TRY(writer_.begin(entry));
        if (info.st_dev != device_ && is_kernels_own(opened->get())) {
            note_("left out what is in " + printable(archived(path), 300) + ": it holds no files but the kernel's state");
            return {};
        }
        auto listing = CAISSON_TRY(os::open_listing(CAISSON_TRY(opened->duplicate()), "the directory " + printable(archived(path), 300)));
        const auto first_waiting = static_cast<std::ptrdiff_t>(waiting_.size());
        errno = 0;
        while (dirent* found = ::readdir(listing.get())) {
            std::string name = found->d_name;
            if (name != "." && name != "..") CAISSON_TRY(child(*opened, path, name));
            errno = 0;
        }
        if (errno != 0) return failure_errno("cannot read the directory " + printable(archived(path), 300));
        // Taken from the end: so they come in the order in which they were found.
        std::reverse(waiting_.begin() + first_waiting, waiting_.end());
        return {};
    }

    Result<> child(const os::Fd& parent, const std::string& path, const std::string& name) {
        struct stat info {};
        auto below = path.empty() ? name : path + "/" + name;
        if (::fstatat(parent.get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
            if (errno == ENOENT) return {};
            return failure_errno("cannot look at " + printable(archived(below), 300));
        }
        if (S_ISDIR(info.st_mode)) {
            waiting_.push_back(std::move(below));
            return {};
        }
        return other(parent, name, archived(below), info);
    }

    static base::Failure too_deep(const std::string& path) {
        return failure(Errc::kLimit, "directories are nested too deep: a path of " + std::to_string(path.size()) + " bytes is too long for any program; it begins " +
                                         printable(path, 100),
                       "remove them, or copy the parts one by one");
    }

    Result<bool> seen_as(int file, Entry& entry) {
        if (!view_ || CAISSON_TRY(view_(file, entry))) return true;
        note_("left out " + printable(entry.path, 300) + ": it is nothing that an archive can hold");
        return false;
    }

    static Entry describe(Kind kind, std::string path, const struct stat& info) {
        Entry entry;
        entry.kind = kind;
        entry.path = std::move(path);
        entry.mode = info.st_mode & 07777;
        entry.user = info.st_uid;
        entry.group = info.st_gid;
        entry.seconds = info.st_mtim.tv_sec;
        entry.nanoseconds = static_cast<std::uint32_t>(info.st_mtim.tv_nsec);
        return entry;
    }

    // Anything but a directory.
    Result<> other(const os::Fd& parent, const std::string& name, const std::string& path, const struct stat& info) {
        if (info.st_nlink > 1 && !S_ISSOCK(info.st_mode)) {
            auto [known, fresh] = links_.try_emplace({info.st_dev, info.st_ino}, path);
            if (!fresh) {
                auto entry = describe(Kind::kFile, path, info);
                if (view_ && S_ISREG(info.st_mode)) {
                    os::Fd fd(::openat(parent.get(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
                    if (fd && !CAISSON_TRY(seen_as(fd.get(), entry))) return {};
                } else {
                    CAISSON_TRY(seen_as(-1, entry));
                }
                entry.kind = Kind::kHardLink;
                entry.link = known->second;
                return writer_.begin(entry);
            }
        }
        if (S_ISREG(info.st_mode)) return file(parent, name, path, info);
        if (S_ISLNK(info.st_mode)) {
            auto entry = describe(Kind::kSymlink, path, info);
            char target[PATH_MAX];
            ssize_t size = ::readlinkat(parent.get(), name.c_str(), target, sizeof target);
            if (size < 0 && errno == ENOENT) return gone(info);
            if (size < 0) return failure_errno("cannot read the link " + printable(path, 300));
            entry.link.assign(target, static_cast<std::size_t>(size));
            CAISSON_TRY(seen_as(-1, entry));
            return writer_.begin(entry);
        }
        if (S_ISFIFO(info.st_mode)) return writer_.begin(describe(Kind::kFifo, path, info));
        if (S_ISCHR(info.st_mode) || S_ISBLK(info.st_mode)) {
            auto entry = describe(S_ISCHR(info.st_mode) ? Kind::kCharacter : Kind::kBlock, path, info);
            entry.major = major(info.st_rdev);
            entry.minor = minor(info.st_rdev);
            return writer_.begin(entry);
        }
        note_("left out " + printable(path, 300) + ": it is a socket");
        return {};
    }

    Result<> gone(const struct stat& info) {
        links_.erase({info.st_dev, info.st_ino});
        return {};
    }

    Result<> file(const os::Fd& parent, const std::string& name, const std::string& path, const struct stat& seen) {
        // What was a file may be a pipe by now: no waiting for it.
        os::Fd fd(::openat(parent.get(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
        if (!fd && errno == ENOENT) return gone(seen);
        if (!fd) return failure_errno("cannot open " + printable(path, 300));
        struct stat info {};
        if (::fstat(fd.get(), &info) != 0) return failure_errno("cannot look at " + printable(path, 300));
        if (!S_ISREG(info.st_mode) || info.st_size < 0) {
            note_("left out " + printable(path, 300) + ": it has become something else");
            return gone(seen);
        }
        auto entry = describe(Kind::kFile, path, info);
        entry.size = static_cast<std::uint64_t>(info.st_size);
        if (!CAISSON_TRY(seen_as(fd.get(), entry))) return gone(info);
        if (entry.kind != Kind::kFile) {
            entry.size = 0;
            return writer_.begin(entry);
        }
        if (info.st_blocks < info.st_size / 512) find_holes(fd.get(), entry);
        CAISSON_TRY(writer_.begin(entry));
        bool short_of = false;
        if (!entry.sparse) entry.extents = {{0, entry.size}};
        for (const auto& extent : entry.extents) CAISSON_TRY(data(fd.get(), path, extent, short_of));
        if (::fstat(fd.get(), &info) == 0 && static_cast<std::uint64_t>(info.st_size) != entry.size) short_of = true;
        if (short_of) note_(printable(path, 300) + " changed its size while it was read; copied as the " +
                              std::to_string(entry.size) + " bytes that it had at first");
        return {};
    }

    // Only the size counts for the archive; the content may change at any time.
    static void find_holes(int fd, Entry& entry) {
        auto size = static_cast<off_t>(entry.size);
        off_t at = 0;
        while (at < size) {
            off_t start = ::lseek(fd, at, SEEK_DATA);
            if (start < 0 && errno == ENXIO) break;  // nothing but a hole
            if (start < 0) {
                entry.extents.clear();
                return;
            }
            if (start >= size) break;
            off_t end = entry.extents.size() + 1 == kMaxPackedExtents ? size : ::lseek(fd, start, SEEK_HOLE);
            if (end <= start || end > size) end = size;
            entry.extents.push_back({static_cast<std::uint64_t>(start), static_cast<std::uint64_t>(end - start)});
            at = end;
        }
        entry.sparse = true;
    }

    Result<> data(int fd, const std::string& path, Extent extent, bool& short_of) {
        while (extent.size > 0) {
            auto wanted = static_cast<std::size_t>(std::min<std::uint64_t>(extent.size, kReadBytes));
            ssize_t got = ::pread(fd, buffer_.get(), wanted, static_cast<off_t>(extent.offset));
            if (got < 0 && errno == EINTR) continue;
            if (got < 0) return failure_errno("cannot read " + printable(path, 300));
            if (got == 0) {
                short_of = true;
                std::fill_n(buffer_.get(), wanted, std::uint8_t{0});
                got = static_cast<ssize_t>(wanted);
            }
            CAISSON_TRY(writer_.data({buffer_.get(), static_cast<std::size_t>(got)}));
            extent.offset += static_cast<std::uint64_t>(got);
            extent.size -= static_cast<std::uint64_t>(got);
        }
        return {};
    }

    const Origin& origin_;
    Writer writer_;
    Notices note_;
    const View& view_;
    std::unique_ptr<std::uint8_t[]> buffer_;
    os::Fd root_;
    dev_t device_ = 0;
    std::vector<std::string> waiting_;  // directories below the root
    std::map<std::pair<dev_t, ino_t>, std::string> links_;  // files of several names: the first one
};

}  // namespace

Result<Origin> open_origin(const std::string& path, bool follow) {
    if (path.empty() || path.find('\0') != std::string::npos) return failure(Errc::kUsage, "a path to copy is empty");
    Origin origin;
    origin.top = base_name(path);
    std::string real = plain_path(path);
    struct stat info {};
    if (!follow && means_directory(path) && ::lstat(real.c_str(), &info) == 0 && S_ISLNK(info.st_mode))
        return failure(Errc::kUsage, printable(path, 300) + " is a link, and is not followed",
                       "name the directory that it leads to, or ask for what it leads to (-L)");
    if (origin.top == ".") {
        origin.directory = CAISSON_TRY(os::open_file(real, O_PATH | O_DIRECTORY | (follow ? 0 : O_NOFOLLOW)));
        origin.name = ".";
        return origin;
    }
    if (follow) {
        std::unique_ptr<char, void (*)(void*)> resolved(::realpath(path.c_str(), nullptr), std::free);
        if (!resolved) return failure_errno("cannot find " + printable(path, 300));
        real = resolved.get();
    }
    origin.directory = CAISSON_TRY(os::open_file(parent_name(real), O_PATH | O_DIRECTORY));
    origin.name = base_name(real);
    if (::fstatat(origin.directory.get(), origin.name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0)
        return failure_errno("cannot find " + printable(path, 300));
    if (means_directory(path) && !S_ISDIR(info.st_mode)) return failure(Errc::kUsage, printable(path, 300) + " is no directory");
    return origin;
}

Result<> pack(const Origin& origin, Sink sink, const Notice& notice, const View& view) {
    return Packer(origin, std::move(sink), notice, view).run();
}

}  // namespace caisson::tar
