// What a box does to the host's disk: one that meets its end waits, and so does one that comes near to it, for the host and
// the other boxes need some as well.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <utility>

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
// Of a machine that is held for copies: how often it may meet the end of the disk, and what may go of the room that was left.
constexpr int kMostHeldTries = 100;
constexpr milliseconds kHeldRetry{10};
constexpr std::uint64_t kMostWhileHeld = 16 << 20;
constexpr const char* kReserveOfHome = "../../.reserve";  // from the box's directory
}  // namespace

// QEMU stops the machine when the host's disk is full. It goes on as soon as there is room again.
void Supervisor::on_disk_full() {
    if (held_ || disk_full_timer_ != 0) return;
    if (!disk_full_ && phase_ == Phase::kRunning && !paused_) {
        record_state(store::BoxState::kPaused, std::string(kHostDiskFull) + ": the box goes on by itself when there is room");
        record(audit::this_actor(), "box_paused", {{"reason", kHostDiskFull}});
    }
    disk_full_ = true;
    retry_full_disk();
    if (takes_files_out() && !paused_ && stop_reason_.empty()) hold_for_copies();
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
        if (!paused_ && !short_of_room_) let_run();
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
    if (held_ && room && room->free_bytes + std::max(kMostWhileHeld, held_free_ / 2) < held_free_) give_up_copies();
    if (!room || paused_ || disk_full_) return;
    if (!short_of_room_ && is_short(*room)) {
        short_of_room_ = true;
        if (takes_files_out()) hold_for_copies();
        else note(send_qmp("stop"));
        record_state(store::BoxState::kPaused, std::string(kHostDiskFull) + ": only " + base::format_size(room->free_bytes) +
                                                   " are left on the file system of the home; the box goes on by itself when there is more room");
        record(audit::this_actor(), "box_paused", {{"reason", "the file system of the home is almost full"}});
    } else if (short_of_room_ && has_enough(*room)) {
        short_of_room_ = false;
        let_run();
        record_state(store::BoxState::kRunning, running_reason());
        record(audit::this_actor(), "box_resumed", {});
        guard_guest(set_guest_clock());
    }
}

bool Supervisor::takes_files_out() const {
    return std::any_of(executions_.begin(), executions_.end(), [](const auto& entry) { return entry.second->takes_out && !entry.second->abandoned; });
}

// Files can be taken out of a box that waits for room: its machine runs meanwhile, but the container's processes stand still
// and what their kernel still has to write to a disk waits with the VMM.
void Supervisor::hold_for_copies() {
    held_tries_ = 0;
    const auto room = look_at_room();
    held_free_ = room ? room->free_bytes : 0;
    hold(true);
    note(send_qmp("cont"));
}

void Supervisor::hold(bool held) {
    if (std::exchange(held_, held) == held) return;
    note(os::write_all(vm_.qmp.get(), vmm::qmp_hold_writes("disk0", held)));
    for (const auto& disk : vm_.disks)
        if (!disk.read_only()) note(os::write_all(vm_.qmp.get(), vmm::qmp_hold_writes("volume" + std::to_string(disk.place()), held)));
    wire::ToAgent message;
    message.mutable_freeze()->set_still(held);
    guard_guest(send_to_agent(message));
}

// QEMU has stopped the machine: a write that was under way when the disks were held met the end of the host's disk. (Not each
// of them is told: QEMU says BLOCK_IO_ERROR once a second.)
void Supervisor::hold_again() {
    if (++held_tries_ > kMostHeldTries) return give_up_copies();
    loop_.after(kHeldRetry, [this] {
        if (held_ && takes_files_out() && phase_ == Phase::kRunning) note(send_qmp("cont"));
    });
}

// Nobody takes files out any more.
void Supervisor::stop_again() {
    if (phase_ == Phase::kRunning && waits_for_room() && stop_reason_.empty()) note(send_qmp("stop"));
}

// Either the machine does not get on, or it writes all the same, as a guest can whose kernel does not do as it is told.
void Supervisor::give_up_copies() {
    note(send_qmp("stop"));
    wire::ExecutionEnded ended;
    ended.set_kind(wire::Ended::FAILED);
    ended.set_reason(no_room().message);
    for (auto& [number, execution] : executions_) {
        if (!execution->takes_out || execution->abandoned) continue;
        guard_guest(signal_execution(number, SIGKILL, false));
        abandon(*execution, ended);
    }
}

// For good: what held it for copies is let go first.
void Supervisor::let_run() {
    hold(false);
    note(send_qmp("cont"));
}

// What it says about itself and its guest goes to a file of its own, which a guest can make it fill.
void Supervisor::bound_own_log() {
    struct stat info {};
    if (::fstat(STDERR_FILENO, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size <= limits::kMostSupervisorLogBytes) return;
    if (::ftruncate(STDERR_FILENO, 0) == 0) std::fprintf(stderr, "caisson-shim: what stood here was too long and is gone\n");
}

}  // namespace caisson::box
