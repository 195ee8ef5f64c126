#include "store/reserve.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "base/text.h"
#include "os/file.h"

namespace caisson::store {

using base::failure;
using base::failure_errno;

namespace {

constexpr const char* kName = ".reserve";
constexpr const char* kUnfinished = ".reserve.new";
constexpr std::uint64_t kIndexBytes = 32768;  // of one piece of SQLite's index, enough for 4062 pages. Source: sqlite.org/walformat.html

// Bytes that a file takes for itself alone. One that is a link, or has a second name, gives nothing back when it goes.
std::uint64_t taken_by(const struct stat& info) {
    if (!S_ISREG(info.st_mode) || info.st_nlink != 1) return 0;
    return std::min(static_cast<std::uint64_t>(info.st_size), static_cast<std::uint64_t>(info.st_blocks) * 512);
}

// With real zeros, where blocks cannot be had otherwise. `bytes`: whole MiB.
Result<> take_blocks(const os::Fd& file, const std::string& path, std::uint64_t bytes) {
    if (::fallocate(file.get(), 0, 0, static_cast<off_t>(bytes)) == 0) return {};
    if (errno != EOPNOTSUPP && errno != ENOSYS) return failure_errno("cannot make " + path);
    const std::vector<std::uint8_t> zeros(1 << 20);
    for (std::uint64_t done = 0; done < bytes; done += zeros.size()) CAISSON_TRY_CTX(os::write_all(file.get(), zeros), path);
    return {};
}

std::string room_of(const std::string& database) { return database + "-room"; }

std::uint64_t held_by(const std::string& path) { return held_reserve(AT_FDCWD, path.c_str()); }

// The unfinished file, locked: nobody else makes a reserve meanwhile. kInUse: somebody does.
Result<os::FileLock> lock_unfinished(const std::string& path) {
    auto lock = CAISSON_TRY(os::FileLock::try_acquire(path));
    struct stat ours {}, there {};
    const bool same = ::fstat(lock.fd().get(), &ours) == 0 && ::lstat(path.c_str(), &there) == 0 &&
                      ours.st_ino == there.st_ino && ours.st_dev == there.st_dev && S_ISREG(ours.st_mode);
    if (!same) return failure(Errc::kInUse, "somebody else makes the reserve");
    return lock;
}

// kInUse: somebody else does it just now.
Result<> take(const std::string& home) {
    const auto path = home + "/" + kName, unfinished = home + "/" + kUnfinished;
    const auto lock = CAISSON_TRY(lock_unfinished(unfinished));
    // Whoever had the lock before may have made it.
    if (held_reserve(home) >= kReserveBytes) {
        ::unlink(unfinished.c_str());
        return {};
    }
    auto made = [&]() -> Result<> {
        auto file = CAISSON_TRY(os::open_file(unfinished, O_WRONLY | O_NOFOLLOW));
        if (::ftruncate(file.get(), 0) != 0) return failure_errno("cannot write " + unfinished);
        CAISSON_TRY(take_blocks(file, unfinished, kReserveBytes));
        if (::fsync(file.get()) != 0) return failure_errno("cannot sync " + unfinished);
        if (::rename(unfinished.c_str(), path.c_str()) != 0) return failure_errno("cannot rename to " + path);
        return os::fsync_directory(home);
    }();
    if (!made) ::unlink(unfinished.c_str());
    return made;
}

// What a process left that was killed over it holds room that nobody counts.
void discard_unfinished(const std::string& home) {
    const auto unfinished = home + "/" + kUnfinished;
    struct stat info {};
    if (::lstat(unfinished.c_str(), &info) != 0) return;
    if (auto lock = lock_unfinished(unfinished)) ::unlink(unfinished.c_str());
}

}  // namespace

ReserveStep reserve_step(std::uint64_t total_bytes, std::uint64_t free_bytes, std::uint64_t held_bytes) {
    if (held_bytes >= kReserveBytes) return ReserveStep::kKeep;
    if (total_bytes < kReserveRoomBytes) return ReserveStep::kNone;
    return free_bytes >= kReserveRoomBytes ? ReserveStep::kTake : ReserveStep::kWait;
}

std::uint64_t reserve_owed(std::uint64_t total_bytes, std::uint64_t held_bytes) {
    if (total_bytes < kReserveRoomBytes || held_bytes >= kReserveBytes) return 0;
    return kReserveBytes - held_bytes;
}

std::optional<FileSystem> file_system_of(const std::string& path) {
    struct statvfs status {};
    if (::statvfs(path.c_str(), &status) != 0) return std::nullopt;
    return FileSystem{std::uint64_t{status.f_blocks} * status.f_frsize, std::uint64_t{status.f_bavail} * status.f_frsize,
                      status.f_files > 0 && status.f_favail == 0};
}

std::uint64_t held_reserve(int home_fd, const char* path) {
    struct stat info {};
    return ::fstatat(home_fd, path, &info, AT_SYMLINK_NOFOLLOW) == 0 ? taken_by(info) : 0;
}

std::uint64_t held_reserve(const std::string& home) { return held_by(home + "/" + kName); }

std::string keep_reserve(const std::string& home) {
    const auto held = held_reserve(home);
    if (held >= kReserveBytes) return {};
    const auto room = file_system_of(home);
    if (!room) return {};
    switch (reserve_step(room->total_bytes, room->free_bytes, held)) {
        case ReserveStep::kKeep:
        case ReserveStep::kNone: return {};
        case ReserveStep::kWait:
            discard_unfinished(home);
            return "there is no reserve for a full disk (" + home + "/" + kName + "): it is taken again when " +
                   base::format_size(kReserveRoomBytes) + " are free, and " + base::format_size(room->free_bytes) + " are";
        case ReserveStep::kTake: break;
    }
    auto taken = take(home);
    if (taken || taken.error().code == Errc::kInUse) return {};
    return "there is no reserve for a full disk: " + taken.error().to_string();
}

Result<std::uint64_t> release_reserve(const std::string& home) {
    auto directory = os::open_file(home, O_PATH | O_DIRECTORY);
    if (!directory) return failure(std::move(directory).error().with_context("looking for the reserve"));
    std::uint64_t freed = 0;
    bool found = false;
    for (const char* name : {kName, kUnfinished}) {
        const auto held = held_reserve(directory->get(), name);
        if (::unlinkat(directory->get(), name, 0) != 0) {
            if (errno == ENOENT) continue;
            return failure_errno("cannot remove " + home + "/" + name);
        }
        freed += held;
        found = found || name == kName;
    }
    if (found || freed > 0) return freed;
    return failure(Errc::kNotFound, "there is no reserve in " + home + ": it was released before, or there never was room for one",
                   "make room: caisson df shows what takes it; caisson gc, caisson rm and caisson image rm remove");
}

void hold_database_log(const std::string& database) {
    const auto path = database + "-wal";
    struct stat info {};
    if (::lstat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return;
    if (static_cast<std::uint64_t>(info.st_blocks) * 512 >= kDatabaseLogBytes) return;
    auto file = os::open_file(path, O_WRONLY | O_NOFOLLOW);
    // Its size says how much of it counts and stays; SQLite locks other files, so nobody loses a lock when this is closed.
    if (file) static_cast<void>(::fallocate(file->get(), FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(kDatabaseLogBytes)));
}

void hold_index_room(const std::string& database) {
    const auto path = room_of(database);
    if (held_by(path) >= kIndexRoomBytes) return;
    const auto room = file_system_of(database);
    if (!room || room->free_bytes < kReserveBytes) return;
    auto file = os::open_file(path, O_WRONLY | O_CREAT | O_NOFOLLOW, 0600);
    if (file) static_cast<void>(take_blocks(*file, path, kIndexRoomBytes));
}

bool index_lacks_room(const std::string& database) {
    const auto room = file_system_of(database);
    return room && held_by(database + "-shm") + room->free_bytes < kIndexBytes;
}

bool lend_index_room(const std::string& database) {
    const auto path = room_of(database);
    const auto held = held_by(path);
    return held > 0 && ::truncate(path.c_str(), static_cast<off_t>(held - std::min(held, kIndexLoanBytes))) == 0;
}

}  // namespace caisson::store
