// What a box does to the host's disk: one that meets its end waits, and so does one that comes near to it, for the host and
// the other boxes need some as well.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cstdio>

#include "base/text.h"
#include "box/limits.h"
#include "box/room.h"
#include "box/supervisor.h"
#include "os/file.h"
#include "store/reserve.h"

namespace caisson::box {

using std::chrono::milliseconds;

namespace {
constexpr milliseconds kDiskFullRetry{1000};
// A machine that went on for this long after its disk was full has room again.
constexpr milliseconds kDiskRoomPatience{3000};
// How often to look: a fast writer fills some 50 MB within the shorter one.
constexpr milliseconds kRoomInterval{1000};
constexpr milliseconds kRoomIntervalWhenNear{100};
constexpr std::uint64_t kNear = 8;  // times what is to be left
constexpr const char* kReserveOfHome = "../../.reserve";  // from the box's directory
}  // namespace

// QEMU stops the machine when the host's disk is full. It goes on as soon as there is room again.
void Supervisor::on_disk_full() {
    if (disk_full_timer_ != 0) return;
    if (!disk_full_ && phase_ == Phase::kRunning && !paused_) {
        record_state(store::BoxState::kPaused, std::string(kHostDiskFull) + ": the box goes on by itself when there is room");
        record(audit::this_actor(), "box_paused", {{"reason", kHostDiskFull}});
    }
    disk_full_ = true;
    retry_full_disk();
}

void Supervisor::retry_full_disk() {
    disk_full_timer_ = loop_.after(kDiskFullRetry, [this] {
        disk_full_timer_ = 0;
        if (phase_ >= Phase::kGone) return;
        // What is free may be the reserve, given back to whoever cleans up. One that is being ended may take it: that is
        // how it writes back what it has, and it takes no more than its memory holds. A quota does not show here, so
        // where there is room it is simply tried.
        const auto room = look_at_room();
        if (stop_reason_.empty() && phase_ == Phase::kRunning && room && !has_enough(*room)) return retry_full_disk();
        if (!paused_ && !short_of_room_) note(send_qmp("cont"));
        // No further complaint for a while: there is room.
        loop_.after(kDiskRoomPatience, [this] {
            if (!disk_full_ || disk_full_timer_ != 0) return;
            disk_full_ = false;
            if (phase_ != Phase::kRunning || paused_ || short_of_room_ || !stop_reason_.empty()) return;
            record_state(store::BoxState::kRunning, running_reason());
            record(audit::this_actor(), "box_resumed", {});
            guard_guest(set_guest_clock());
        });
    });
}

void Supervisor::watch_room() {
    auto directory = os::open_file(launch_.box_directory(), O_RDONLY | O_DIRECTORY);
    if (!directory) return note(base::failure(std::move(directory.error())));
    room_ = std::move(*directory);
    check_room();
}

std::optional<Room> Supervisor::look_at_room() const {
    struct statfs status {};
    if (!room_ || ::fstatfs(room_.get(), &status) != 0) return std::nullopt;
    const auto unit = static_cast<std::uint64_t>(status.f_bsize);
    return Room{status.f_blocks * unit, status.f_bavail * unit, store::held_reserve(room_.get(), kReserveOfHome)};
}

void Supervisor::check_room() {
    if (phase_ != Phase::kRunning || !stop_reason_.empty()) return;
    const auto room = look_at_room();
    const bool near = room && room->free_bytes < kNear * room_to_leave(*room);
    loop_.after(near ? kRoomIntervalWhenNear : kRoomInterval, [this] { check_room(); });
    bound_own_log();
    if (!room || paused_ || disk_full_) return;
    if (!short_of_room_ && is_short(*room)) {
        short_of_room_ = true;
        note(send_qmp("stop"));
        record_state(store::BoxState::kPaused, std::string(kHostDiskFull) + ": only " + base::format_size(room->free_bytes) +
                                                   " are left on the file system of the home; the box goes on by itself when there is more room");
        record(audit::this_actor(), "box_paused", {{"reason", "the file system of the home is almost full"}});
    } else if (short_of_room_ && has_enough(*room)) {
        short_of_room_ = false;
        note(send_qmp("cont"));
        record_state(store::BoxState::kRunning, running_reason());
        record(audit::this_actor(), "box_resumed", {});
        guard_guest(set_guest_clock());
    }
}

// What it says about itself and its guest goes to a file of its own, which a guest can make it fill.
void Supervisor::bound_own_log() {
    struct stat info {};
    if (::fstat(STDERR_FILENO, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size <= limits::kMostSupervisorLogBytes) return;
    if (::ftruncate(STDERR_FILENO, 0) == 0) std::fprintf(stderr, "caisson-shim: what stood here was too long and is gone\n");
}

}  // namespace caisson::box
