#include "volume/clone.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/text.h"
#include "os/file.h"

namespace caisson::volume {

using base::failure_errno;

namespace {

constexpr std::size_t kCopyBytes = 1 << 20;

base::Failure failed(const char* what, const std::string& path) { return failure_errno(std::string("cannot ") + what + " " + base::printable(path, 300)); }

// Those that a guest or caisson can have set.
Result<> copy_attributes(int from, int to, const std::string& path) {
    std::string names(XATTR_LIST_MAX, '\0'), value(XATTR_SIZE_MAX, '\0');
    ssize_t size = ::flistxattr(from, names.data(), names.size());
    if (size < 0 && errno == ENOTSUP) return {};
    if (size < 0) return failed("list the attributes of", path);
    names.resize(static_cast<std::size_t>(size));
    for (const auto& name : base::split(names, '\0')) {
        if (!base::starts_with(name, "user.")) continue;
        ssize_t length = ::fgetxattr(from, name.c_str(), value.data(), value.size());
        if (length < 0 && errno == ENODATA) continue;
        if (length < 0 || ::fsetxattr(to, name.c_str(), value.data(), static_cast<std::size_t>(length), 0) != 0)
            return failed("copy the attributes of", path);
    }
    return {};
}

Result<> copy_range(int from, int to, off_t at, off_t end, const std::string& path) {
    std::unique_ptr<char[]> buffer;
    while (at < end) {
        off_t in = at, out = at;
        const auto wanted = static_cast<std::size_t>(std::min<off_t>(end - at, kCopyBytes));
        ssize_t moved = ::copy_file_range(from, &in, to, &out, wanted, 0);
        if (moved < 0 && (errno == EXDEV || errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP)) {
            if (!buffer) buffer.reset(new char[kCopyBytes]);
            moved = ::pread(from, buffer.get(), wanted, at);
            if (moved > 0) moved = ::pwrite(to, buffer.get(), static_cast<std::size_t>(moved), at);
        }
        if (moved < 0 && errno == EINTR) continue;
        if (moved < 0) return failed("copy", path);
        if (moved == 0) return {};  // it was cut short meanwhile
        at += moved;
    }
    return {};
}

Result<> copy_content(int from, int to, off_t size, const std::string& path) {
    if (::ioctl(to, FICLONE, from) == 0) return {};
    for (off_t at = 0; at < size;) {
        const off_t start = ::lseek(from, at, SEEK_DATA);
        if (start < 0 && errno == ENXIO) break;  // nothing but a hole
        if (start < 0) return failed("read", path);
        off_t end = ::lseek(from, start, SEEK_HOLE);
        if (end < 0 || end > size) end = size;
        CAISSON_TRY(copy_range(from, to, start, end, path));
        at = end;
    }
    if (::ftruncate(to, size) != 0) return failed("set the size of", path);
    return {};
}

Result<> copy_times(int to, const struct stat& info, const std::string& path) {
    const struct timespec times[2] = {info.st_atim, info.st_mtim};
    if (::fchmod(to, info.st_mode & 0777) != 0 || ::futimens(to, times) != 0) return failed("set mode and time of", path);
    return {};
}

class Cloner {
  public:
    Cloner(const os::Fd& source, const os::Fd& target) : source_(source), target_(target) {}

    Result<> run() {
        waiting_.emplace_back(".");
        while (!waiting_.empty()) {
            auto path = std::move(waiting_.back());
            waiting_.pop_back();
            CAISSON_TRY(directory(path));
        }
        // Times last, since each new entry changes them, and the deepest first.
        for (auto made = made_.rbegin(); made != made_.rend(); ++made)
            CAISSON_TRY(copy_times(CAISSON_TRY(os::open_beneath(target_, made->first, O_RDONLY | O_DIRECTORY)).get(), made->second, made->first));
        return {};
    }

  private:
    Result<> directory(const std::string& path) {
        auto from = os::open_beneath(source_, path, O_RDONLY | O_DIRECTORY);
        if (!from && path != "." && (from.error().sys_errno == ENOENT || from.error().sys_errno == ENOTDIR || from.error().sys_errno == ELOOP)) return {};
        if (!from && from.error().sys_errno == ENAMETOOLONG)
            return base::failure(Errc::kLimit, "directories are nested too deep: a path of " + std::to_string(path.size()) + " bytes is too long for any program");
        if (!from) return base::failure(std::move(from).error());
        if (path != "." && ::mkdirat(target_.get(), path.c_str(), 0700) != 0) return failed("make", path);
        auto to = CAISSON_TRY(os::open_beneath(target_, path, O_RDONLY | O_DIRECTORY));
        struct stat info {};
        if (::fstat(from->get(), &info) != 0) return failed("look at", path);
        CAISSON_TRY(copy_attributes(from->get(), to.get(), path));
        made_.emplace_back(path, info);
        auto dir = CAISSON_TRY(os::open_listing(CAISSON_TRY(os::open_at(*from, ".", O_RDONLY | O_DIRECTORY)), base::printable(path, 300)));
        while (dirent* entry = ::readdir(dir.get())) {
            const std::string name = entry->d_name;
            if (name != "." && name != "..") CAISSON_TRY(child(*from, to, name, path == "." ? name : path + "/" + name));
        }
        return {};
    }

    Result<> child(const os::Fd& from, const os::Fd& to, const std::string& name, const std::string& path) {
        struct stat info {};
        if (::fstatat(from.get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) return errno == ENOENT ? Result<>() : failed("look at", path);
        if (S_ISDIR(info.st_mode)) {
            waiting_.push_back(path);
            return {};
        }
        if (info.st_nlink > 1) {
            if (auto known = names_.find({info.st_dev, info.st_ino}); known != names_.end()) {
                if (::linkat(target_.get(), known->second.c_str(), to.get(), name.c_str(), 0) != 0) return failed("link", path);
                return {};
            }
        }
        if (S_ISLNK(info.st_mode)) CAISSON_TRY(link(from, to, name, path));
        else if (!S_ISREG(info.st_mode) || !CAISSON_TRY(file(from, to, name, path))) return {};
        if (info.st_nlink > 1) names_.emplace(std::pair(info.st_dev, info.st_ino), path);
        return {};
    }

    static Result<> link(const os::Fd& from, const os::Fd& to, const std::string& name, const std::string& path) {
        char text[PATH_MAX];
        ssize_t size = ::readlinkat(from.get(), name.c_str(), text, sizeof text - 1);
        if (size < 0) return failed("read the link", path);
        text[size] = '\0';
        struct stat info {};
        if (::symlinkat(text, to.get(), name.c_str()) != 0) return failed("make the link", path);
        if (::fstatat(from.get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) return {};
        const struct timespec times[2] = {info.st_atim, info.st_mtim};
        if (::utimensat(to.get(), name.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0) return failed("set the time of", path);
        return {};
    }

    // false: it went away, or became something else.
    static Result<bool> file(const os::Fd& from, const os::Fd& to, const std::string& name, const std::string& path) {
        os::Fd old(::openat(from.get(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
        struct stat info {};
        if (!old && (errno == ENOENT || errno == ELOOP)) return false;
        if (!old || ::fstat(old.get(), &info) != 0) return failed("open", path);
        if (!S_ISREG(info.st_mode)) return false;
        auto fresh = CAISSON_TRY(os::open_at(to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600));
        CAISSON_TRY(copy_content(old.get(), fresh.get(), info.st_size, path));
        CAISSON_TRY(copy_attributes(old.get(), fresh.get(), path));
        CAISSON_TRY(copy_times(fresh.get(), info, path));
        return true;
    }

    const os::Fd& source_;
    const os::Fd& target_;
    std::vector<std::string> waiting_;
    std::vector<std::pair<std::string, struct stat>> made_;
    std::map<std::pair<dev_t, ino_t>, std::string> names_;  // files of several names: the first one
};

}  // namespace

Result<> clone_file(const os::Fd& from, std::uint64_t size, const std::string& path) {
    auto to = CAISSON_TRY(os::open_file(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600));
    auto copied = copy_content(from.get(), to.get(), static_cast<off_t>(size), path);
    if (copied && ::fsync(to.get()) != 0) copied = base::failure_errno("cannot sync " + path);
    if (!copied) ::unlink(path.c_str());
    return copied;
}

Result<> clone_tree(const os::Fd& source, const os::Fd& target) { return Cloner(source, target).run(); }

}  // namespace caisson::volume
