#include "image/downloads.h"

#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <set>

namespace caisson::image {

using base::failure;
using base::failure_errno;

Result<os::FileLock> lock_download(const Downloads& downloads, const std::string& hex) {
    const auto path = downloads.lock_file(hex);
    for (;;) {
        auto lock = CAISSON_TRY(os::FileLock::try_acquire(path));
        // Its file goes away with the download, so what was locked must still be what the path names.
        struct stat ours {}, there {};
        if (::fstat(lock.fd().get(), &ours) != 0) return failure_errno("cannot look at " + path);
        if (::stat(path.c_str(), &there) == 0 && ours.st_ino == there.st_ino && ours.st_dev == there.st_dev) return lock;
    }
}

void discard_download(const Downloads& downloads, const std::string& hex) {
    ::unlink(downloads.partial(hex).c_str());
    ::unlink(downloads.complete(hex).c_str());
    ::unlink(downloads.lock_file(hex).c_str());
}

void discard_idle_download(const Downloads& downloads, const std::string& hex) {
    if (!os::exists(downloads.directory)) return;
    if (auto lock = lock_download(downloads, hex)) discard_download(downloads, hex);
}

Result<std::uint64_t> sweep_downloads(const Downloads& downloads, const RemoveOptions& options) {
    if (!os::exists(downloads.directory)) return 0;
    std::set<std::string> all;
    for (const auto& name : CAISSON_TRY(os::list_directory(downloads.directory)))
        if (auto hex = name.substr(0, name.find('.')); is_hex(hex)) all.insert(hex);
    std::uint64_t freed = 0;
    const auto now = ::time(nullptr);
    for (const auto& hex : all) {
        bool young = false;
        std::uint64_t bytes = 0;
        for (const auto& path : {downloads.partial(hex), downloads.complete(hex), downloads.lock_file(hex)}) {
            struct stat info {};
            if (::stat(path.c_str(), &info) != 0) continue;
            bytes += static_cast<std::uint64_t>(info.st_blocks) * 512;
            young = young || now - info.st_mtim.tv_sec < options.grace.count();
        }
        if (young && options.grace.count() > 0) continue;
        auto lock = lock_download(downloads, hex);
        if (!lock && lock.error().code == Errc::kInUse) continue;
        if (!lock) return failure(std::move(lock).error());
        if (!options.dry_run) discard_download(downloads, hex);
        if (options.on_removed) options.on_removed("download", hex, bytes);
        freed += bytes;
    }
    return freed;
}

}  // namespace caisson::image
