// Volumes for boxes that are there already: in the catalogue first, so that the box's launcher may serve them, then in the
// guest. Out again in the other direction.
#include <algorithm>

#include "base/text.h"
#include "box/lifecycle.h"
#include "box/events.h"
#include "box/mounts.h"
#include "box/plan.h"
#include "box/recorder.h"
#include "volume/catalogue.h"

namespace caisson {

using base::failure;
using internal::RuntimeState;

namespace {

// To the supervisor: go by the catalogue, or (with an entry) let the guest forget one first.
Result<> tell_supervisor(RuntimeState& runtime, const store::BoxRecord& record, const std::string& detach, bool force) {
    auto shim = CAISSON_TRY(internal::reach(runtime, record));
    wire::ToShim request;
    request.mutable_change_volumes()->set_detach(detach);
    request.mutable_change_volumes()->set_force(force);
    CAISSON_TRY(internal::ask(*shim, request));
    return {};
}

std::string entry_of(const wire::BoxMount& mount) { return "m" + std::to_string(mount.number()); }

}  // namespace

namespace {

// What a box has from now on, or no longer.
void record_mount(RuntimeState& runtime, const char* kind, const store::BoxRecord& record, const std::string& volume, const std::string& target) {
    internal::record(runtime, {kind, record.id, record.name, {{"volume", volume}, {"target", target}}});
}

}  // namespace

Result<MountInfo> Runtime::attach_volume(const std::string& reference, const MountOption& option) {
    BoxOptions checked;
    checked.image = "-";
    checked.mounts.push_back(option);
    CAISSON_TRY(box::validate(checked));
    auto record = CAISSON_TRY(internal::find_record(*state_, reference));
    auto spec = CAISSON_TRY(internal::spec_of(record));
    for (const auto& tmpfs : spec.configure().tmpfs())
        if (tmpfs.path() == option.target)
            return failure(Errc::kInUse, "box " + record.name + " has a tmpfs at " + base::printable(option.target, 256), "choose another place");
    auto catalogue = CAISSON_TRY(volume::Catalogue::open(state_->home.volumes()));
    auto mount = CAISSON_TRY(catalogue.attach(record.id, box::requests_of({option}).front()));
    if (mount.made()) internal::record(*state_, internal::volume_event("volume_created", mount.volume()));
    auto attached = [&] {
        record_mount(*state_, "volume_attached", record, mount.volume(), option.target);
        return box::mount_info(mount);
    };
    if (!store::is_live(record.state)) return attached();
    auto told = tell_supervisor(*state_, record, "", false);
    if (told) return attached();
    // It ended meanwhile: it has the volume when it is started again, if it still is.
    if (auto now = internal::find_record(*state_, record.id); now && !store::is_live(now->state)) return attached();
    if (catalogue.detach(record.id, mount.number())) static_cast<void>(tell_supervisor(*state_, record, "", false));
    return base::failure(std::move(told.error()).with_context("attaching the volume to box " + record.name));
}

Result<> Runtime::detach_volume(const std::string& reference, const std::string& target, bool force) {
    auto record = CAISSON_TRY(internal::find_record(*state_, reference));
    auto catalogue = CAISSON_TRY(volume::Catalogue::open(state_->home.volumes()));
    const auto mounts = CAISSON_TRY(catalogue.mounts(record.id));
    auto found = std::find_if(mounts.mounts().begin(), mounts.mounts().end(), [&](const auto& mount) { return mount.target() == target; });
    if (found == mounts.mounts().end())
        return failure(Errc::kNotFound, "box " + record.name + " has no volume at " + base::printable(target, 256),
                       "list what it has: caisson inspect " + record.name);
    if (found->disk() && store::is_live(record.state))
        return failure(Errc::kUnsupported, "volume '" + found->volume() + "' is a disk, which box " + record.name + " has as long as it runs",
                       "stop the box first: caisson stop " + record.name);
    if (store::is_live(record.state)) {
        auto told = tell_supervisor(*state_, record, entry_of(*found), force);
        // A guest may not want to, or be silent. Its server does not ask it.
        const bool by_guest = !told && (told.error().code == Errc::kGuest || told.error().code == Errc::kTimeout);
        if (!told && !(force && by_guest)) return base::failure(std::move(told.error()));
    }
    CAISSON_TRY(catalogue.detach(record.id, found->number()));
    record_mount(*state_, "volume_detached", record, found->volume(), target);
    if (store::is_live(record.state)) CAISSON_TRY(tell_supervisor(*state_, record, "", false));
    return {};
}

}  // namespace caisson
