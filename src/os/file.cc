#include "os/file.h"
#include "os/lasting.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <poll.h>
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
    // A locked supervisor may not make this call, whose flags no filter can see. A single name needs no resolution.
    const bool plain = !path.empty() && path.find('/') == std::string::npos && path != "." && path != "..";
    if (fd < 0 && errno == ENOSYS && plain) return open_at(directory, path, flags | O_NOFOLLOW, mode);
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

Result<> make_lasting_directories(const std::string& path, unsigned mode) {
    const auto parent = parent_of(path);
    const bool was_there = exists(path);
    if (!was_there && parent != path && !exists(parent)) CAISSON_TRY(make_lasting_directories(parent, mode));
    CAISSON_TRY(make_directories(path, mode));
    if (was_there) return {};
    auto synced = fsync_directory(parent);
    // Nobody can ask that of a directory which may be passed, but not read.
    if (synced || synced.error().sys_errno == EACCES) return {};
    ::rmdir(path.c_str());  // or the next one would take it for one that lasts
    return synced;
}

namespace {
// Removes a tree below one directory without ever having more than two directories open, however deep it is: whoever
// made it may have nested it to no end. What a directory holds in directories is moved up to the top first.
class TreeRemover {
  public:
    TreeRemover(Fd top, std::string name, dev_t device) : top_(std::move(top)), name_(std::move(name)), device_(device) {}

    Result<> run() {
        CAISSON_TRY(empty(top_, nullptr));
        while (!waiting_.empty()) {
            auto child = std::move(waiting_.back());
            waiting_.pop_back();
            auto fd = CAISSON_TRY(open_directory(child));
            CAISSON_TRY(empty(fd, &child));
            if (::unlinkat(top_.get(), child.c_str(), AT_REMOVEDIR) != 0 && errno != ENOENT)
                return failure_errno("cannot remove " + name_ + "/" + child);
        }
        return {};
    }

  private:
    // Unlinks what is no directory. Directories of the top are noted, those of `below` are moved to the top.
    Result<> empty(const Fd& directory, const std::string* below) {
        auto dir = CAISSON_TRY(open_listing(CAISSON_TRY(open_at(directory, ".", O_RDONLY | O_DIRECTORY)), "directory " + name_));
        errno = 0;
        while (dirent* entry = ::readdir(dir.get())) {
            std::string child = entry->d_name;
            if (child != "." && child != "..") CAISSON_TRY(take(directory, child, below));
            errno = 0;
        }
        if (errno != 0) return failure_errno("cannot read directory " + name_);
        return {};
    }

    Result<> take(const Fd& directory, const std::string& child, const std::string* below) {
        struct stat info {};
        if (::fstatat(directory.get(), child.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
            if (errno == ENOENT) return {};
            return failure_errno("cannot look at " + name_ + "/" + child);
        }
        if (!S_ISDIR(info.st_mode)) {
            if (::unlinkat(directory.get(), child.c_str(), 0) != 0 && errno != ENOENT)
                return failure_errno("cannot remove " + name_ + "/" + child);
            return {};
        }
        if (info.st_dev != device_) return failure(Errc::kInUse, name_ + "/" + child + " is a mount point; not removed");
        if (below == nullptr) {
            waiting_.push_back(child);
            return {};
        }
        if (::unlinkat(directory.get(), child.c_str(), AT_REMOVEDIR) == 0) return {};
        // A directory that is moved is written to: "..".
        if ((info.st_mode & S_IRWXU) != S_IRWXU) static_cast<void>(!::fchmodat(directory.get(), child.c_str(), 0700, 0));
        for (;;) {
            auto moved = ".remove-" + std::to_string(next_++);
            if (::renameat2(directory.get(), child.c_str(), top_.get(), moved.c_str(), RENAME_NOREPLACE) == 0) {
                waiting_.push_back(std::move(moved));
                return {};
            }
            if (errno == ENOENT) return {};
            if (errno != EEXIST) return failure_errno("cannot move " + name_ + "/.../" + child);
        }
    }

    Result<Fd> open_directory(const std::string& child) {
        constexpr int kFlags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
        Fd fd(::openat(top_.get(), child.c_str(), kFlags));
        if (!fd && errno == EACCES) {
            // Our own directory that lost its mode; should this fail, so does the second try.
            static_cast<void>(!::fchmodat(top_.get(), child.c_str(), 0700, 0));
            fd.reset(::openat(top_.get(), child.c_str(), kFlags));
        }
        if (!fd) return failure_errno("cannot open " + name_ + "/" + child);
        // To unlink needs more than to list.
        static_cast<void>(::fchmod(fd.get(), 0700));
        return fd;
    }

    Fd top_;
    std::string name_;
    dev_t device_;
    std::vector<std::string> waiting_;  // directories in the top one
    std::uint64_t next_ = 0;
};
constexpr int kRemoveTries = 8;
}  // namespace

Result<> remove_tree(const std::string& path) {
    struct stat info {};
    if (::lstat(path.c_str(), &info) != 0) {
        if (errno == ENOENT) return {};
        return failure_errno("cannot look at " + path);
    }
    if (S_ISDIR(info.st_mode)) {
        for (int attempt = 0;; ++attempt) {
            // As for what is in it. Between the look and this it can only have become something else of this user's.
            if ((info.st_mode & S_IRWXU) != S_IRWXU && info.st_uid == ::geteuid())
                static_cast<void>(!::fchmodat(AT_FDCWD, path.c_str(), 0700, AT_SYMLINK_NOFOLLOW));
            auto fd = open_file(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
            if (!fd && fd.error().sys_errno == ENOENT) return {};
            CAISSON_TRY(TreeRemover(CAISSON_TRY(std::move(fd)), path, info.st_dev).run());
            if (::rmdir(path.c_str()) == 0 || errno == ENOENT) return {};
            // Somebody has put something into it behind our back.
            if (errno != ENOTEMPTY || attempt == kRemoveTries) return failure_errno("cannot remove " + path);
        }
    }
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) return failure_errno("cannot remove " + path);
    return {};
}

Result<> remove_at(const Fd& directory, const std::string& name) {
    struct stat info {};
    if (::fstatat(directory.get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT ? Result<>() : failure_errno("cannot look at " + name);
    const bool is_directory = S_ISDIR(info.st_mode);
    if (is_directory) {
        if ((info.st_mode & S_IRWXU) != S_IRWXU) static_cast<void>(!::fchmodat(directory.get(), name.c_str(), 0700, 0));
        auto top = CAISSON_TRY(open_at(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
        CAISSON_TRY(TreeRemover(std::move(top), name, info.st_dev).run());
    }
    if (::unlinkat(directory.get(), name.c_str(), is_directory ? AT_REMOVEDIR : 0) == 0 || errno == ENOENT) return {};
    return failure_errno("cannot remove " + name);
}

Result<> empty_directory(const std::string& path) {
    auto fd = open_file(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (!fd && fd.error().sys_errno == ENOENT) return {};
    auto directory = CAISSON_TRY(std::move(fd));
    struct stat info {};
    if (::fstat(directory.get(), &info) != 0) return failure_errno("cannot look at " + path);
    return TreeRemover(std::move(directory), path, info.st_dev).run();
}

Result<Listing> open_listing(Fd directory, const std::string& what) {
    Listing listing(::fdopendir(directory.get()));
    if (!listing) return failure_errno("cannot read " + what);
    static_cast<void>(directory.release());
    return listing;
}

Result<std::vector<std::string>> list_directory(const std::string& path) {
    Listing dir(::opendir(path.c_str()));
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

Result<bool> lock_within(const Fd& file, int operation, std::chrono::milliseconds patience) {
    constexpr int kLookMilliseconds = 1;
    const auto give_up = std::chrono::steady_clock::now() + patience;
    while (::flock(file.get(), operation | LOCK_NB) != 0) {
        if (errno != EINTR && errno != EWOULDBLOCK) return failure_errno("cannot lock a file");
        if (std::chrono::steady_clock::now() >= give_up) return false;
        ::poll(nullptr, 0, kLookMilliseconds);
    }
    return true;
}

bool is_locked(const Fd& file) {
    if (::flock(file.get(), LOCK_SH | LOCK_NB) != 0) return errno == EWOULDBLOCK;
    ::flock(file.get(), LOCK_UN);
    return false;
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
