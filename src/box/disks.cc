#include "box/disks.h"

#include <sys/stat.h>

#include <set>

#include "base/text.h"
#include "box/limits.h"
#include "os/file.h"
#include "vmm/shape.h"
#include "volume/disk.h"

namespace caisson::box {

using base::failure;

static_assert(limits::kMostDisks == vmm::kVolumeDisks && limits::kMostDisks == volume::kMostDisks);

bool is_disk(const store::Home& home, const std::string& volume) {
    return !volume.empty() && volume.find('/') == std::string::npos && os::exists(home.volumes() + "/disks/" + volume);
}

Result<> check_disks(const store::Home& home, const std::vector<MountOption>& mounts) {
    std::set<std::string> seen;
    for (const auto& mount : mounts)
        if (is_disk(home, mount.volume)) CAISSON_TRY(volume::count_disk(seen, mount.volume, mount.subpath));
    return {};
}

std::vector<wire::BoxMount> disks_of(const store::Home& home, const std::vector<MountOption>& mounts) {
    std::vector<wire::BoxMount> disks;
    for (const auto& option : mounts) {
        if (!is_disk(home, option.volume)) continue;
        wire::BoxMount mount;
        mount.set_disk(true);
        mount.set_volume(option.volume);
        mount.set_target(option.target);
        mount.set_read_only(option.read_only);
        struct stat info {};
        if (::lstat((home.volumes() + "/disks/" + option.volume).c_str(), &info) == 0) mount.set_limit_bytes(static_cast<std::uint64_t>(info.st_size));
        disks.push_back(std::move(mount));
    }
    return disks;
}

Result<std::vector<wire::BoxMount>> disks_of(const store::Home& home, const std::string& box_id) {
    std::vector<wire::BoxMount> disks;
    if (!os::exists(home.volumes())) return disks;
    auto mounts = CAISSON_TRY(CAISSON_TRY(volume::Catalogue::open(home.volumes())).mounts(box_id));
    for (auto& mount : *mounts.mutable_mounts())
        if (mount.disk()) disks.push_back(std::move(mount));
    return disks;
}

std::uint64_t bytes_of(const std::vector<wire::BoxMount>& disks) {
    std::uint64_t bytes = 0;
    for (const auto& disk : disks) bytes += disk.limit_bytes();
    return bytes;
}

std::uint32_t places_for(std::size_t disks) { return disks > 0 ? vmm::kVolumeDisks : 0; }

namespace {
// Names of the boxes that have it and run; of one whose files only are looked at nobody knows that, so else all that have it.
std::string holders(internal::RuntimeState& runtime, const volume::Volume& volume, const std::string& box_id) {
    std::vector<std::string> live, all;
    std::scoped_lock guard(runtime.database_mutex);
    for (const auto& id : volume.boxes) {
        if (id == box_id) continue;
        auto record = runtime.database->find_box(id);
        if (!record) continue;
        if (store::is_live(record->state)) live.push_back(base::printable(record->name, 200));
        all.push_back(base::printable(record->name, 200));
    }
    return base::join(live.empty() ? all : live, ", ");
}
}  // namespace

Result<> check_disks_free(internal::RuntimeState& runtime, const std::string& box_id, const std::vector<wire::BoxMount>& disks) {
    if (disks.empty()) return {};
    auto catalogue = CAISSON_TRY(volume::Catalogue::open(runtime.home.volumes()));
    for (auto mount : disks) {
        auto volume = CAISSON_TRY(catalogue.find(mount.volume()));
        mount.set_limit_bytes(volume.limit_bytes);
        auto held = volume::hold_disk(catalogue, mount);
        if (held) continue;
        const auto boxes = holders(runtime, volume, box_id);
        if (held.error().code != Errc::kInUse || boxes.empty()) return failure(std::move(held).error());
        auto error = std::move(held).error();
        error.message = "volume '" + mount.volume() + "' is in use by box " + boxes;
        return failure(std::move(error));
    }
    return {};
}

}  // namespace caisson::box
