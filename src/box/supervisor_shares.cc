// Volumes that come to a box, and go, while it runs. The supervisor holds none: its launcher hands them to their server,
// as the home's catalogue says, and the guest puts them in place.
#include <algorithm>

#include "base/text.h"
#include "box/convert.h"
#include "box/limits.h"
#include "box/supervisor.h"
#include "wire/control.h"

namespace caisson::box {

using base::failure;

namespace {
// A guest that does not answer keeps nobody waiting.
constexpr std::chrono::milliseconds kVolumePatience{15000};
}  // namespace

// What is served and the guest has not been given yet.
wire::Shares Supervisor::shares_for_guest() {
    wire::Shares shares;
    shares.set_user(launch_.spec().exec().user());
    for (const auto& [entry, mount] : vm_.shares)
        if (vm_.placed.insert(entry).second) *shares.add_mounts() = mount;
    return shares;
}

void Supervisor::hear_of_share(const std::string& packed) {
    wire::ShareMount mount;
    if (!mount.ParseFromString(packed) || vm_.shares.size() >= limits::kMostMounts) return;
    vm_.shares[mount.entry()] = std::move(mount);
}

void Supervisor::hear_of_disk(const std::string& packed) {
    wire::DiskMount mount;
    if (!mount.ParseFromString(packed) || vm_.disks.size() >= limits::kMostDisks) return;
    vm_.disks.push_back(std::move(mount));
}

bool Supervisor::writes_disks() const {
    return std::any_of(vm_.disks.begin(), vm_.disks.end(), [](const auto& disk) { return !disk.read_only(); });
}

void Supervisor::change_volumes(Client& client, const wire::ChangeVolumes& request) {
    if (phase_ != Phase::kRunning || !stop_reason_.empty()) return refuse(client, because(Errc::kInUse, "the box is starting or stopping"));
    if (waits_for_room()) return refuse(client, no_room());
    if (paused_) return refuse(client, because(Errc::kInUse, "the box is paused"));
    if (volume_change_) return refuse(client, because(Errc::kInUse, "another volume of the box is being attached or detached"));
    volume_change_.emplace();
    volume_change_->client = client.number;
    volume_change_->timer = loop_.after(kVolumePatience, [this] {
        end_volume_change(because(Errc::kTimeout, "the box's guest does not say that it has changed its volumes"));
    });
    if (request.detach().empty()) {
        // What it serves now is what is served at all.
        vm_.shares.clear();
        if (!standing_.launcher || !standing_.launcher->ask(LauncherVerb::kAttach))
            end_volume_change(because(Errc::kInternal, "the box's launcher is gone"));
        return;
    }
    volume_change_->step = VolumeChange::Step::kGuest;
    volume_change_->detached = request.detach();
    wire::ToAgent message;
    message.mutable_change_shares()->set_detach(request.detach());
    message.mutable_change_shares()->set_force(request.force());
    guard_guest(send_to_agent(message));
}

void Supervisor::on_shares_served() {
    if (!volume_change_ || volume_change_->step != VolumeChange::Step::kLauncher) return;
    std::erase_if(vm_.placed, [this](const std::string& entry) { return vm_.shares.count(entry) == 0; });
    wire::ToAgent message;
    *message.mutable_change_shares()->mutable_attach() = shares_for_guest();
    if (message.change_shares().attach().mounts_size() == 0) return end_volume_change(std::nullopt);
    volume_change_->step = VolumeChange::Step::kGuest;
    guard_guest(send_to_agent(message));
}

Result<> Supervisor::on_shares_changed(const wire::SharesChanged& changed) {
    // Late, if nobody waited any longer.
    if (!volume_change_ || volume_change_->step != VolumeChange::Step::kGuest) return {};
    if (changed.message().empty()) {
        vm_.placed.erase(volume_change_->detached);
        end_volume_change(std::nullopt);
        return {};
    }
    // The catalogue still has what the guest did not take: whoever asked takes it back out, and then says so.
    const bool used = changed.error_number() == EBUSY;
    auto error = because(used ? Errc::kInUse : Errc::kGuest, base::printable(changed.message(), 1000));
    if (used) error.hint = "end that process, or take the volume away all the same with --force";
    end_volume_change(error);
    return {};
}

void Supervisor::end_volume_change(const std::optional<Error>& error) {
    if (!volume_change_) return;
    auto change = std::exchange(volume_change_, std::nullopt);
    loop_.cancel(change->timer);
    answer(change->client, error);
}

}  // namespace caisson::box
