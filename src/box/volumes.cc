// Runtime's volumes: a thin layer over volume::Catalogue that knows what boxes are called.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "base/labels.h"
#include "base/text.h"
#include "box/host_copy.h"
#include "box/disks.h"
#include "box/events.h"
#include "box/plan.h"
#include "box/recorder.h"
#include "box/state.h"
#include "caisson/runtime.h"
#include "os/file.h"
#include "os/random.h"
#include "volume/archive.h"
#include "volume/catalogue.h"
#include "volume/clone.h"
#include "volume/disk.h"
#include "volume/share/presence.h"

namespace caisson {

using base::failure;
using internal::RuntimeState;

namespace {

// Names of boxes by their ids. One that is just being removed has none any more.
Result<std::map<std::string, std::string>> box_names(RuntimeState& state) {
    std::scoped_lock guard(state.database_mutex);
    std::map<std::string, std::string> names;
    for (auto& box : CAISSON_TRY(state.database->boxes())) names.emplace(box.id, std::move(box.name));
    return names;
}

VolumeInfo info_of(const volume::Catalogue& catalogue, const volume::Volume& volume, const std::map<std::string, std::string>& names) {
    VolumeInfo info;
    info.name = volume.name;
    info.type = volume.disk ? "disk" : "directory";
    info.anonymous = volume.kind == volume::Kind::kAnonymous;
    info.created_ms = volume.created_ms;
    info.size_bytes = volume.limit_bytes;
    info.path = catalogue.directory_of(volume);
    info.labels = volume.labels;
    for (const auto& box : volume.boxes) {
        auto name = names.find(box);
        info.boxes.push_back(name == names.end() ? box : name->second);
    }
    std::sort(info.boxes.begin(), info.boxes.end());
    return info;
}

// One whose directories a box moves all the time has no count, which is no reason to show nothing of it.
Result<> count_space(const volume::Catalogue& catalogue, const volume::Volume& volume, VolumeInfo& info) {
    auto used = catalogue.used_bytes(volume);
    if (used) info.used_bytes = *used;
    else if (used.error().code != Errc::kInUse && used.error().code != Errc::kNotFound) return failure(std::move(used).error());
    return {};
}

base::Failure no_files_of(const volume::Volume& volume) {
    return failure(Errc::kUnsupported, "volume '" + volume.name + "' is a disk, whose files only a box can reach", "mount it in one, and use caisson cp");
}

box::CopyManner manner_of(const VolumeCopyOptions& options) {
    box::CopyManner manner;
    manner.volume = true;
    manner.owner = {options.owner_user, options.owner_group};
    manner.again = options.again;
    manner.update = options.update;
    manner.remove_others = options.update && options.remove_others;
    return manner;
}

// The volume that is written to: there, or to be made.
struct Target {
    os::Fd directory, count;
    std::uint64_t limit_bytes = 0;
    std::shared_ptr<volume::share::Presence> presence;  // boxes that have it hear of it, and ask anew what they know
    std::shared_ptr<volume::Staged> staged;  // that it is made of, when it is complete
};

Result<Target> open_target(volume::Catalogue& catalogue, const std::string& name, const VolumeCopyOptions& options) {
    Target target;
    auto volume = catalogue.find(name);
    if (!volume && (volume.error().code != Errc::kNotFound || !options.make)) return failure(std::move(volume).error());
    if (!volume) {
        CAISSON_TRY(catalogue.check_free(name));
        target.limit_bytes = options.size_bytes;
        if (!options.again) {
            target.staged = std::make_shared<volume::Staged>(CAISSON_TRY(catalogue.stage()));
            target.directory = CAISSON_TRY(target.staged->directory().duplicate());
            return target;
        }
        volume = CAISSON_TRY(catalogue.create(name, false, options.size_bytes, {}));
    } else if (options.size_bytes != 0 && options.size_bytes != volume->limit_bytes) {
        return failure(Errc::kUsage, "volume '" + name + "' is there already, and keeps its limit", "leave the size out");
    }
    if (volume->disk) return no_files_of(*volume);
    target.limit_bytes = volume->limit_bytes;
    target.count = CAISSON_TRY(catalogue.open_space(volume->kind, volume->name, target.limit_bytes > 0));
    target.presence = CAISSON_TRY(volume::share::Presence::enter(CAISSON_TRY(target.count.duplicate())));
    if (target.limit_bytes == 0) target.count.reset();
    target.directory = CAISSON_TRY(volume::pin(catalogue.roots(), volume->kind, volume->name, {})).file;
    return target;
}

Result<volume::Catalogue> catalogue_of(const RuntimeState& state) { return volume::Catalogue::open(state.home.volumes()); }

}  // namespace

namespace internal {

Result<> release_volumes(const store::Home& home, const std::string& box_id) {
    if (!os::exists(home.volumes())) return {};
    return CAISSON_TRY(volume::Catalogue::open(home.volumes())).release(box_id);
}

Result<> sweep_volumes(const store::Home& home, store::Database& database) {
    if (!os::exists(home.volumes())) return {};
    auto catalogue = CAISSON_TRY(volume::Catalogue::open(home.volumes()));
    return catalogue.sweep([&] { return database.box_ids(); }).map([](std::uint64_t) {});
}

}  // namespace internal

Result<VolumeInfo> Runtime::create_volume(const VolumeOptions& options) {
    if (options.type != "directory" && options.type != "disk")
        return failure(Errc::kUsage, "there is no type of volume called '" + base::printable(options.type, 100) + "'", "use: directory, or disk");
    const bool disk = options.type == "disk";
    if (disk) CAISSON_TRY(volume::check_disk_size(options.size_bytes));
    CAISSON_TRY(box::validate_labels(options.labels));
    auto catalogue = CAISSON_TRY(catalogue_of(*state_));
    const auto name = options.name.empty() ? "volume-" + CAISSON_TRY(os::random_hex(8)) : options.name;
    auto make_disk = [&](const std::string& path) -> Result<> {
        return state_->images->make_empty_disk(path, options.size_bytes, CAISSON_TRY(os::random_hex(16)));
    };
    auto made = info_of(catalogue, CAISSON_TRY(catalogue.create(name, disk, options.size_bytes, options.labels, make_disk)), {});
    internal::record(*state_, internal::volume_event("volume_created", name));
    return made;
}

Result<std::vector<VolumeInfo>> Runtime::volumes(bool with_space) const {
    std::vector<VolumeInfo> infos;
    auto catalogue = CAISSON_TRY(catalogue_of(*state_));
    auto names = CAISSON_TRY(box_names(*state_));
    for (const auto& volume : CAISSON_TRY(catalogue.list())) {
        infos.push_back(info_of(catalogue, volume, names));
        if (with_space) CAISSON_TRY(count_space(catalogue, volume, infos.back()));
    }
    return infos;
}

Result<VolumeInfo> Runtime::inspect_volume(const std::string& name) const {
    auto catalogue = CAISSON_TRY(catalogue_of(*state_));
    auto volume = CAISSON_TRY(catalogue.find(name));
    auto info = info_of(catalogue, volume, CAISSON_TRY(box_names(*state_)));
    CAISSON_TRY(count_space(catalogue, volume, info));
    return info;
}

Result<> Runtime::remove_volume(const std::string& name) {
    auto catalogue = CAISSON_TRY(catalogue_of(*state_));
    auto removed = catalogue.remove(name);
    if (removed) internal::record(*state_, internal::volume_event("volume_removed", name));
    if (removed || removed.error().code != Errc::kInUse) return removed;
    // The catalogue knows boxes by their ids.
    auto volume = CAISSON_TRY(catalogue.find(name));
    auto boxes = info_of(catalogue, volume, CAISSON_TRY(box_names(*state_))).boxes;
    if (boxes.empty()) return removed;
    for (auto& box : boxes) box = base::printable(box, 200);
    return failure(Errc::kInUse, "volume '" + name + "' is used by box " + base::join(boxes, ", "),
                   "remove " + std::string(boxes.size() == 1 ? "it" : "them") + " first: caisson rm " + base::join(boxes, " "));
}

namespace {
// While nobody writes to it. The file is filled aside, since others wait for the catalogue meanwhile.
Result<VolumeInfo> clone_disk(RuntimeState& state, volume::Catalogue& catalogue, const volume::Volume& source, const std::string& name) {
    wire::BoxMount mount;
    mount.set_volume(source.name);
    mount.set_read_only(true);
    mount.set_limit_bytes(source.limit_bytes);
    CAISSON_TRY(box::check_disks_free(state, "", {mount}));
    const auto held = CAISSON_TRY(volume::hold_disk(catalogue, mount));
    auto staged = CAISSON_TRY(catalogue.stage());
    const auto copy = staged.path() + "/disk";
    CAISSON_TRY_CTX(volume::clone_file(held.file, held.size_bytes, copy), "cloning volume '" + source.name + "'");
    auto move = [&](const std::string& path) -> Result<> {
        if (::rename(copy.c_str(), path.c_str()) == 0) return {};
        return base::failure_errno("cannot move a new volume to " + path);
    };
    return info_of(catalogue, CAISSON_TRY(catalogue.create(name, true, source.limit_bytes, {}, move)), {});
}
Result<VolumeInfo> clone_directory(volume::Catalogue& catalogue, const volume::Volume& volume, const std::string& name) {
    auto pinned = CAISSON_TRY(volume::pin(catalogue.roots(), volume.kind, volume.name, {}));
    auto staged = CAISSON_TRY(catalogue.stage());
    CAISSON_TRY_CTX(volume::clone_tree(pinned.file, staged.directory()), "cloning volume '" + volume.name + "'");
    return info_of(catalogue, CAISSON_TRY(catalogue.create(name, volume.limit_bytes, {}, std::move(staged))), {});
}
}  // namespace

Result<VolumeInfo> Runtime::clone_volume(const std::string& source, const std::string& name) {
    auto catalogue = CAISSON_TRY(catalogue_of(*state_));
    const auto volume = CAISSON_TRY(catalogue.find(source));
    CAISSON_TRY(catalogue.check_free(name));
    auto cloned = [&]() -> Result<VolumeInfo> {
        if (volume.disk) return clone_disk(*state_, catalogue, volume, name);
        return clone_directory(catalogue, volume, name);
    }();
    if (cloned) internal::record(*state_, {"volume_created", "", "", {{"volume", name}, {"clone_of", source}}});
    return cloned;
}

namespace {
audit::Event transfer_event(const char* kind, const std::string& name, const VolumeCopyOptions& options) {
    auto event = internal::volume_event(kind, name);
    if (!options.path.empty()) event.details.emplace_back("volume_path", options.path);
    if (!options.host_path.empty()) event.details.emplace_back("host_path", options.host_path);
    return event;
}
}  // namespace

Result<HostCopy> Runtime::read_volume(const std::string& name, const VolumeCopyOptions& options) {
    auto catalogue = CAISSON_TRY(catalogue_of(*state_));
    const auto volume = CAISSON_TRY(catalogue.find(name));
    if (volume.disk) return no_files_of(volume);
    auto pinned = CAISSON_TRY(volume::pin(catalogue.roots(), volume.kind, volume.name, {}));
    auto origin = CAISSON_TRY(volume::open_origin(pinned.file, options.path, name + ":" + options.path));
    HostCopy::Plan plan;
    plan.packs = true;
    plan.program = state_->libexec + "/caisson-copy";
    plan.arguments = box::pack_arguments(origin, manner_of(options));
    plan.directory = origin.directory.get();
    plan.complete = [state = state_, name, options]() -> Result<> {
        internal::record(*state, transfer_event("volume_exported", name, options));
        return {};
    };
    plan.on_notice = options.on_notice;
    return HostCopy::start(std::move(plan));
}

Result<HostCopy> Runtime::write_volume(const std::string& name, const VolumeCopyOptions& options) {
    auto catalogue = CAISSON_TRY(catalogue_of(*state_));
    auto target = CAISSON_TRY(open_target(catalogue, name, options));
    auto destination = CAISSON_TRY(volume::open_destination(target.directory, options.path, name + ":" + options.path));
    auto manner = manner_of(options);
    manner.limit_bytes = target.limit_bytes;
    manner.counted = static_cast<bool>(target.count);
    HostCopy::Plan plan;
    plan.program = state_->libexec + "/caisson-copy";
    plan.arguments = box::extract_arguments(destination, options.top, options.keep_owner, 0, manner);
    plan.directory = destination.directory.get();
    plan.count = target.count ? target.count.get() : -1;
    plan.on_notice = options.on_notice;
    plan.on_pass = options.on_pass;
    plan.held = target.presence;
    // What is said to be in a volume is there after a power failure.
    auto written = std::make_shared<os::Fd>(CAISSON_TRY(os::open_at(target.directory, ".", O_RDONLY | O_DIRECTORY)));
    plan.complete = [state = state_, catalogue, name, options, limit = target.limit_bytes, staged = target.staged, written]() mutable -> Result<> {
        if (staged) CAISSON_TRY(catalogue.create(name, limit, {}, std::move(*staged)));
        else if (::syncfs(written->get()) != 0) return base::failure_errno("cannot write the volume's files to the disk");
        internal::record(*state, transfer_event("volume_imported", name, options));
        return {};
    };
    return HostCopy::start(std::move(plan));
}

Result<PrunedVolumes> Runtime::prune_volumes(const std::map<std::string, std::string>& labels) {
    PrunedVolumes pruned;
    auto catalogue = CAISSON_TRY(catalogue_of(*state_));
    for (const auto& volume : CAISSON_TRY(catalogue.list())) {
        if (volume.kind != volume::Kind::kNamed || !volume.boxes.empty() || !base::has_labels(volume.labels, labels)) continue;
        const auto bytes = catalogue.used_bytes(volume);
        auto removed = catalogue.remove(volume.name);
        // Somebody uses it since, or was faster.
        if (!removed && (removed.error().code == Errc::kInUse || removed.error().code == Errc::kNotFound)) continue;
        CAISSON_TRY(std::move(removed));
        internal::record(*state_, internal::volume_event("volume_removed", volume.name));
        pruned.volumes.push_back(volume.name);
        pruned.freed_bytes += bytes.value_or(0);
    }
    if (!labels.empty()) return pruned;
    std::vector<std::string> stray;
    for (const auto& volume : CAISSON_TRY(catalogue.list()))
        if (volume.kind == volume::Kind::kAnonymous) stray.push_back(volume.name);
    auto known = [this]() -> Result<std::vector<std::string>> {
        std::scoped_lock guard(state_->database_mutex);
        return state_->database->box_ids();
    };
    pruned.freed_bytes += CAISSON_TRY(catalogue.sweep(known, true));
    for (auto& id : stray)
        if (!catalogue.find(id)) pruned.volumes.push_back(std::move(id));
    return pruned;
}

}  // namespace caisson
