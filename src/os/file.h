// Files and directories, directory fd first. Writes that matter are: write, fsync, rename, fsync directory.
#pragma once

#include <dirent.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "os/fd.h"

namespace caisson::os {

// open(2) with O_CLOEXEC; the error names the path.
Result<Fd> open_file(const std::string& path, int flags, unsigned mode = 0);
Result<Fd> open_at(const Fd& directory, const std::string& path, int flags, unsigned mode = 0);
// openat2(2) RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS: for paths from guests, images or users.
Result<Fd> open_beneath(const Fd& directory, const std::string& path, int flags, unsigned mode = 0);

// Whole file, at most `limit` bytes (kLimit beyond it). Works for /proc files of unknown size.
Result<std::string> read_file(const std::string& path, std::size_t limit = 16 << 20);
Result<std::string> read_fd(int fd, std::size_t limit, const std::string& name);
// All of `data`, through short writes and EINTR. Not for non-blocking descriptors.
Result<> write_all(int fd, base::ByteView data);
Result<> write_all(int fd, std::string_view data);
// Durable replacement of `path`: temporary file beside it, fsync, rename, fsync of the directory.
Result<> write_file_atomic(const std::string& path, std::string_view data, unsigned mode = 0600);
Result<> fsync_directory(const std::string& path);

bool exists(const std::string& path);
// mkdir -p; directories that it makes get `mode` exactly (umask is not applied).
Result<> make_directories(const std::string& path, unsigned mode = 0700);
// rm -rf, never following links, never leaving the file system that `path` is on; a missing path is fine. However deep
// it is; a removal cut short may leave directories moved up to the top.
Result<> remove_tree(const std::string& path);
// The same for one name of a directory; no link is followed, not even an earlier part of a path.
Result<> remove_at(const Fd& directory, const std::string& name);
// The same with everything in the directory, but not itself.
Result<> empty_directory(const std::string& path);
Result<std::vector<std::string>> list_directory(const std::string& path);

struct ListingCloser {
    void operator()(DIR* directory) const { ::closedir(directory); }
};
using Listing = std::unique_ptr<DIR, ListingCloser>;
// For readdir(3), from where `directory` stands, which it takes. `what` is for the error: "cannot read " and that.
Result<Listing> open_listing(Fd directory, const std::string& what);
// Bytes allocated on disk below `path` (st_blocks), hard links counted once per name.
Result<std::uint64_t> disk_usage(const std::string& path);

// mkdtemp(3) below `parent`, removed with everything in it by the destructor unless released.
class TemporaryDirectory {
  public:
    static Result<TemporaryDirectory> create(const std::string& parent, const std::string& prefix);
    TemporaryDirectory(TemporaryDirectory&& other) noexcept : path_(std::exchange(other.path_, {})) {}
    TemporaryDirectory& operator=(TemporaryDirectory&&) = delete;
    ~TemporaryDirectory();
    const std::string& path() const { return path_; }
    std::string release() { return std::exchange(path_, {}); }

  private:
    explicit TemporaryDirectory(std::string path) : path_(std::move(path)) {}
    std::string path_;
};

// flock(2) within a time: it tells nobody when it could be had, so it is tried again and again. false: not in time.
Result<bool> lock_within(const Fd& file, int operation, std::chrono::milliseconds patience);

// flock(2) on a file that is made if missing; released with the descriptor, hence with the process.
// Whether somebody else holds flock(2) of the file for himself.
bool is_locked(const Fd& file);

class FileLock {
  public:
    // Waits for the lock. `shared` takes it for reading.
    static Result<FileLock> acquire(const std::string& path, bool shared = false);
    // kInUse if somebody else holds it.
    static Result<FileLock> try_acquire(const std::string& path, bool shared = false);
    const Fd& fd() const { return fd_; }

  private:
    explicit FileLock(Fd fd) : fd_(std::move(fd)) {}
    static Result<FileLock> lock(const std::string& path, int operation);
    Fd fd_;
};

}  // namespace caisson::os
