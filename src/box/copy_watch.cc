#include "box/copy_watch.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>
#include <memory>
#include <string>
#include <vector>

#include "os/file.h"

namespace caisson::box {

using base::failure;
using base::failure_errno;

namespace {

constexpr std::uint32_t kEvents = IN_CREATE | IN_DELETE | IN_MOVE | IN_CLOSE_WRITE | IN_ATTRIB | IN_MODIFY | IN_DELETE_SELF | IN_ONLYDIR | IN_DONT_FOLLOW;
// Programs write in bursts. One that never rests is copied in between.
constexpr int kQuietMs = 50;
constexpr int kLongestBurst = 40;  // times kQuietMs

Result<std::vector<std::string>> directories_in(os::Fd directory) {
    std::vector<std::string> names;
    const int listed = directory.get();
    auto listing = CAISSON_TRY(os::open_listing(std::move(directory), "a directory"));
    while (dirent* found = ::readdir(listing.get())) {
        const std::string name = found->d_name;
        struct stat info {};
        if (name == "." || name == ".." || (found->d_type != DT_DIR && found->d_type != DT_UNKNOWN)) continue;
        if (::fstatat(listed, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(info.st_mode)) names.push_back(name);
    }
    return names;
}

}  // namespace

Result<TreeWatch> TreeWatch::create(const os::Fd& directory) {
    os::Fd events(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    if (!events) return failure_errno("cannot watch files");
    return TreeWatch(std::move(events), CAISSON_TRY(directory.duplicate()));
}

Result<> TreeWatch::cover() {
    std::vector<std::string> waiting{"."};
    while (!waiting.empty()) {
        const auto path = std::move(waiting.back());
        waiting.pop_back();
        // Watched first: what is made before it is listed is seen by the list, and by the watch what is made after.
        if (::inotify_add_watch(events_.get(), path.c_str(), kEvents) < 0) {
            if (errno == ENOENT || errno == ENOTDIR || errno == ELOOP || errno == EACCES) continue;
            if (errno == ENOSPC)
                return failure(Errc::kLimit, "the host does not let this user watch that many directories",
                               "raise it: sysctl fs.inotify.max_user_watches=524288");
            return failure_errno("cannot watch the directory " + path);
        }
        auto directory = os::open_beneath(directory_, path, O_RDONLY | O_DIRECTORY);
        if (!directory) continue;  // it went away, or may not be read: then packing says so
        for (const auto& name : CAISSON_TRY(directories_in(std::move(*directory)))) waiting.push_back(path == "." ? name : path + "/" + name);
    }
    return {};
}

Result<bool> TreeWatch::poll(int reader, int patience_ms, bool& changed) {
    // Nothing is asked of the reader but whether it is there.
    struct pollfd waited[] = {{events_.get(), POLLIN, 0}, {reader, 0, 0}};
    struct timespec patience {patience_ms / 1000, patience_ms % 1000 * 1'000'000L};
    const int ready = ::ppoll(waited, 2, patience_ms < 0 ? nullptr : &patience, nullptr);
    if (ready < 0 && errno != EINTR) return failure_errno("cannot wait for a change");
    if (waited[1].revents != 0) return false;
    char events[16384];
    changed = false;
    while (::read(events_.get(), events, sizeof events) > 0) changed = true;
    return true;
}

Result<bool> TreeWatch::wait(int reader) {
    for (bool changed = false; !changed;)
        if (!CAISSON_TRY(poll(reader, -1, changed))) return false;
    bool more = true;
    for (int i = 0; more && i < kLongestBurst; ++i)
        if (!CAISSON_TRY(poll(reader, kQuietMs, more))) return false;
    return true;
}

}  // namespace caisson::box
