// Record against reality: which boxes of the database still live, and what nobody owns any more.
#include <set>

#include "base/id.h"
#include "box/host_limits.h"
#include "box/network_request.h"
#include "box/owner.h"
#include "box/state.h"
#include "box/strays.h"
#include "os/file.h"
#include "os/host.h"
#include "vmm/template.h"

namespace caisson::internal {

Result<> reconcile(const store::Home& home, store::Database& database) {
    auto boot_id = CAISSON_TRY(os::boot_id());
    for (const auto& box : CAISSON_TRY(database.live_boxes())) {
        if (box::is_answered_for(home, box, boot_id)) continue;
        // The lock is held by the launcher and by the shim. Whoever gets it knows that both are gone.
        std::optional<os::FileLock> lock;
        if (os::exists(home.box(box.id))) {
            auto taken = os::FileLock::try_acquire(home.box(box.id) + "/lock");
            if (!taken && taken.error().code == Errc::kInUse) continue;
            if (taken) lock = std::move(*taken);
        }
        // It may have ended, or have been started again, since it was read.
        auto now = database.find_box(box.id);
        if (!now && (now.error().code == Errc::kNotFound || now.error().code == Errc::kCorrupt)) continue;
        if (!now) return base::failure(std::move(now.error()));
        if (!store::is_live(now->state)) continue;
        // Whoever makes a box needs no lock. Else the lock, which is ours, would be its owner's.
        const bool needs_lock = lock && now->state != store::BoxState::kCreating;
        if (!needs_lock && box::owner_lives(now->owner, boot_id)) continue;
        box::kill_strays(home.box(box.id));
        const bool rebooted = now->owner.boot_id != boot_id;
        if (now->auto_remove || now->state == store::BoxState::kCreating) {
            // What cannot be removed keeps its record, and nobody from the other boxes.
            if (os::remove_tree(home.box(box.id))) CAISSON_TRY(database.remove_box(box.id));
        } else {
            CAISSON_TRY(database.finish_box(box.id, store::BoxState::kFailed,
                                            {"failed", 125, rebooted ? box::kHostRebooted : box::kSupervisorDied, os::unix_ms()}));
        }
    }
    vmm::end_unfinished_makers(home.templates());
    CAISSON_TRY(box::sweep_groups(home, database));
    // With a box's record go its volumes, whoever removed that and died over it. What cannot be removed
    // keeps nobody from the other boxes.
    static_cast<void>(sweep_volumes(home, database));
    // Records are written before directories are made, so a directory without a record is a removal cut short.
    auto names = CAISSON_TRY(os::list_directory(home.boxes()));
    if (names.empty()) return {};
    std::set<std::string> known;
    for (auto& id : CAISSON_TRY(database.box_ids())) known.insert(std::move(id));
    for (const auto& name : names) {
        if (box::is_network_request(name)) {
            const auto box = database.find_box(box::box_of_network_request(name));
            box::sweep_network_request(home.box(name), box ? store::is_live(box->state) : box.error().code != Errc::kNotFound);
        }
        if (!base::is_ulid(name) || known.count(name) > 0) continue;
        auto lock = os::FileLock::try_acquire(home.box(name) + "/lock");
        if (!lock && lock.error().code == Errc::kInUse) continue;
        box::kill_strays(home.box(name));
        // What cannot be removed, or is just being removed by somebody else, keeps nobody from the other boxes.
        static_cast<void>(os::remove_tree(home.box(name)));
    }
    return {};
}

}  // namespace caisson::internal
