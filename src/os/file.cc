#include "os/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstdlib>
#include <memory>

namespace caisson::os {

using base::failure;
using base::failure_errno;

Result<Fd> open_file(const std::string& path, int flags, unsigned mode) {
    int fd = ::open(path.c_str(), flags | O_CLOEXEC, mode);
    if (fd < 0) return failure_errno("cannot open " + path);
    return Fd(fd);
}

Result<Fd> open_at(const Fd& directory, const std::string& path, int flags, unsigned mode) {
    int fd = ::openat(directory.get(), path.c_str(), flags | O_CLOEXEC, mode);
    if (fd < 0) return failure_errno("cannot open " + path);
    return Fd(fd);
}

Result<Fd> open_beneath(const Fd& directory, const std::string& path, int flags, unsigned mode) {
    struct open_how how {};
    how.flags = static_cast<std::uint64_t>(flags | O_CLOEXEC);
    how.mode = mode;
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS;
    long fd = ::syscall(SYS_openat2, directory.get(), path.c_str(), &how, sizeof how);
    if (fd < 0) return failure_errno("cannot open " + path);
    return Fd(static_cast<int>(fd));
}

Result<std::string> read_fd(int fd, std::size_t limit, const std::string& name) {
    std::string data;
    char buffer[16384];
    for (;;) {
        ssize_t got = ::read(fd, buffer, sizeof buffer);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return failure_errno("cannot read " + name);
        if (got == 0) return data;
        if (data.size() + static_cast<std::size_t>(got) > limit)
            return failure(Errc::kLimit, name + " is larger than the limit of " + std::to_string(limit) + " bytes");
        data.append(buffer, static_cast<std::size_t>(got));
    }
}

Result<std::string> read_file(const std::string& path, std::size_t limit) {
    auto fd = CAISSON_TRY(open_file(path, O_RDONLY));
    return read_fd(fd.get(), limit, path);
}

Result<> write_all(int fd, base::ByteView data) {
    while (!data.empty()) {
        ssize_t put = ::write(fd, data.data(), data.size());
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return failure_errno("cannot write");
        data = data.subspan(static_cast<std::size_t>(put));
    }
    return {};
}

Result<> write_all(int fd, std::string_view data) { return write_all(fd, base::as_bytes(data)); }

namespace {
std::string parent_of(const std::string& path) {
    auto slash = path.rfind('/');
    if (slash == std::string::npos) return ".";
    return slash == 0 ? "/" : path.substr(0, slash);
}
}  // namespace

Result<> fsync_directory(const std::string& path) {
    auto fd = CAISSON_TRY(open_file(path, O_RDONLY | O_DIRECTORY));
    if (::fsync(fd.get()) != 0) return failure_errno("cannot sync directory " + path);
    return {};
}

Result<> write_file_atomic(const std::string& path, std::string_view data, unsigned mode) {
    std::string temporary = path + ".tmp.XXXXXX";
    int number = ::mkostemp(temporary.data(), O_CLOEXEC);
    if (number < 0) return failure_errno("cannot create a file beside " + path);
    Fd fd(number);
    auto written = [&]() -> Result<> {
        CAISSON_TRY_CTX(write_all(fd.get(), data), "writing " + path);
        if (::fchmod(fd.get(), mode) != 0) return failure_errno("cannot set the mode of " + path);
        if (::fsync(fd.get()) != 0) return failure_errno("cannot sync " + path);
        if (::rename(temporary.c_str(), path.c_str()) != 0) return failure_errno("cannot rename to " + path);
        return {};
    }();
    if (!written) {
        ::unlink(temporary.c_str());
        return written;
    }
    return fsync_directory(parent_of(path));
}

bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

Result<> make_directories(const std::string& path, unsigned mode) {
    if (::mkdir(path.c_str(), mode) == 0) {
        if (::chmod(path.c_str(), mode) != 0) return failure_errno("cannot set the mode of " + path);
        return {};
    }
    if (errno == EEXIST) {
        struct stat info {};
        if (::stat(path.c_str(), &info) != 0) return failure_errno("cannot look at " + path);
        if (!S_ISDIR(info.st_mode)) return failure_errno(path + " is in the way", ENOTDIR);
        return {};
    }
    if (errno != ENOENT || parent_of(path) == path) return failure_errno("cannot create directory " + path);
    CAISSON_TRY(make_directories(parent_of(path), mode));
    if (::mkdir(path.c_str(), mode) != 0 && errno != EEXIST) return failure_errno("cannot create directory " + path);
    ::chmod(path.c_str(), mode);
    return {};
}

namespace {
struct DirCloser {
    void operator()(DIR* dir) const { ::closedir(dir); }
};

Result<> remove_entries(int directory_fd, const std::string& name, dev_t device, int depth) {
    constexpr int kMaxDepth = 512;
    if (depth > kMaxDepth) return failure(Errc::kLimit, name + " is nested too deeply to remove");
    std::unique_ptr<DIR, DirCloser> dir(::fdopendir(directory_fd));
    if (!dir) {
        ::close(directory_fd);
        return failure_errno("cannot read directory " + name);
    }
    errno = 0;
    while (dirent* entry = ::readdir(dir.get())) {
        std::string child = entry->d_name;
        if (child == "." || child == "..") continue;
        struct stat info {};
        if (::fstatat(::dirfd(dir.get()), child.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
            if (errno == ENOENT) continue;
            return failure_errno("cannot look at " + name + "/" + child);
        }
        if (S_ISDIR(info.st_mode)) {
            if (info.st_dev != device)
                return failure(Errc::kInUse, name + "/" + child + " is a mount point; not removed");
            int fd = ::openat(::dirfd(dir.get()), child.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (fd < 0 && errno == EACCES) {
                // Our own directory that lost its mode; should this fail, so does the second try.
                if (::fchmodat(::dirfd(dir.get()), child.c_str(), 0700, 0) != 0) errno = EACCES;
                fd = ::openat(::dirfd(dir.get()), child.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            }
            if (fd < 0) return failure_errno("cannot open " + name + "/" + child);
            CAISSON_TRY(remove_entries(fd, name + "/" + child, device, depth + 1));
            if (::unlinkat(::dirfd(dir.get()), child.c_str(), AT_REMOVEDIR) != 0 && errno != ENOENT)
                return failure_errno("cannot remove " + name + "/" + child);
        } else if (::unlinkat(::dirfd(dir.get()), child.c_str(), 0) != 0 && errno != ENOENT) {
            return failure_errno("cannot remove " + name + "/" + child);
        }
        errno = 0;
    }
    if (errno != 0) return failure_errno("cannot read directory " + name);
    return {};
}
}  // namespace

Result<> remove_tree(const std::string& path) {
    struct stat info {};
    if (::lstat(path.c_str(), &info) != 0) {
        if (errno == ENOENT) return {};
        return failure_errno("cannot look at " + path);
    }
    if (S_ISDIR(info.st_mode)) {
        auto fd = CAISSON_TRY(open_file(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
        CAISSON_TRY(remove_entries(fd.release(), path, info.st_dev, 0));
        if (::rmdir(path.c_str()) != 0 && errno != ENOENT) return failure_errno("cannot remove " + path);
        return {};
    }
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) return failure_errno("cannot remove " + path);
    return {};
}

Result<std::vector<std::string>> list_directory(const std::string& path) {
    std::unique_ptr<DIR, DirCloser> dir(::opendir(path.c_str()));
    if (!dir) return failure_errno("cannot read directory " + path);
    std::vector<std::string> names;
    errno = 0;
    while (dirent* entry = ::readdir(dir.get())) {
        std::string name = entry->d_name;
        if (name != "." && name != "..") names.push_back(std::move(name));
        errno = 0;
    }
    if (errno != 0) return failure_errno("cannot read directory " + path);
    return names;
}

Result<std::uint64_t> disk_usage(const std::string& path) {
    struct stat info {};
    if (::lstat(path.c_str(), &info) != 0) return failure_errno("cannot look at " + path);
    std::uint64_t bytes = static_cast<std::uint64_t>(info.st_blocks) * 512;
    if (!S_ISDIR(info.st_mode)) return bytes;
    auto names = CAISSON_TRY(list_directory(path));
    for (const auto& name : names) {
        auto below = disk_usage(path + "/" + name);
        if (below) bytes += *below;  // a file that vanished meanwhile uses nothing
    }
    return bytes;
}

Result<TemporaryDirectory> TemporaryDirectory::create(const std::string& parent, const std::string& prefix) {
    std::string path = parent + "/" + prefix + "XXXXXX";
    if (::mkdtemp(path.data()) == nullptr) return failure_errno("cannot create a directory in " + parent);
    return TemporaryDirectory(std::move(path));
}

TemporaryDirectory::~TemporaryDirectory() {
    if (!path_.empty()) static_cast<void>(remove_tree(path_));
}

Result<FileLock> FileLock::lock(const std::string& path, int operation) {
    auto fd = CAISSON_TRY(open_file(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600));
    while (::flock(fd.get(), operation) != 0) {
        if (errno == EINTR) continue;
        if (errno == EWOULDBLOCK) return failure(Errc::kInUse, path + " is locked by another process");
        return failure_errno("cannot lock " + path);
    }
    return FileLock(std::move(fd));
}

Result<FileLock> FileLock::acquire(const std::string& path, bool shared) {
    return lock(path, shared ? LOCK_SH : LOCK_EX);
}

Result<FileLock> FileLock::try_acquire(const std::string& path, bool shared) {
    return lock(path, (shared ? LOCK_SH : LOCK_EX) | LOCK_NB);
}

}  // namespace caisson::os
