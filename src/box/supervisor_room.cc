// What a box does to the host's disk: one that meets its end waits, and so does one that comes near to it, for the host and
// the other boxes need some as well.
#include <fcntl.h>
#include <sys/vfs.h>

#include "base/text.h"
#include "box/limits.h"
#include "box/room.h"
#include "box/supervisor.h"
#include "os/file.h"

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
}  // namespace

// QEMU stops the machine when the host's disk is full. It goes on as soon as there is room again.
void Supervisor::on_disk_full() {
    if (disk_full_timer_ != 0) return;
    if (!disk_full_ && phase_ == Phase::kRunning && !paused_) {
        record_state(store::BoxState::kPaused, "the host's disk is full; it goes on when there is room");
        record(audit::this_actor(), "box_paused", {{"reason", "the host's disk is full"}});
    }
    disk_full_ = true;
    disk_full_timer_ = loop_.after(kDiskFullRetry, [this] {
        disk_full_timer_ = 0;
        if (phase_ < Phase::kGone && !paused_ && !short_of_room_) note(send_qmp("cont"));
        // No further complaint for a while: there is room.
        loop_.after(kDiskRoomPatience, [this] {
            if (!disk_full_ || disk_full_timer_ != 0) return;
            disk_full_ = false;
            if (phase_ == Phase::kRunning && !paused_ && !short_of_room_ && stop_reason_.empty()) {
                record_state(store::BoxState::kRunning, "");
                record(audit::this_actor(), "box_resumed", {});
            }
        });
    });
}

void Supervisor::watch_room() {
    auto directory = os::open_file(launch_.box_directory(), O_RDONLY | O_DIRECTORY);
    if (!directory) return note(base::failure(std::move(directory.error())));
    room_ = std::move(*directory);
    check_room();
}

void Supervisor::check_room() {
    if (phase_ != Phase::kRunning || !stop_reason_.empty()) return;
    struct statfs status {};
    const bool seen = ::fstatfs(room_.get(), &status) == 0;
    const auto unit = static_cast<std::uint64_t>(status.f_bsize);
    const Room room{status.f_blocks * unit, status.f_bavail * unit};
    const bool near = seen && room.free_bytes < kNear * room_to_leave(room);
    loop_.after(near ? kRoomIntervalWhenNear : kRoomInterval, [this] { check_room(); });
    if (!seen || paused_ || disk_full_) return;
    if (!short_of_room_ && is_short(room)) {
        short_of_room_ = true;
        note(send_qmp("stop"));
        record_state(store::BoxState::kPaused, "only " + base::format_size(room.free_bytes) +
                                                   " are left on the file system of the home; it goes on when there is more room");
        record(audit::this_actor(), "box_paused", {{"reason", "the file system of the home is almost full"}});
    } else if (short_of_room_ && has_enough(room)) {
        short_of_room_ = false;
        note(send_qmp("cont"));
        record_state(store::BoxState::kRunning, "");
        record(audit::this_actor(), "box_resumed", {});
        guard_guest(set_guest_clock());
    }
}

}  // namespace caisson::box
