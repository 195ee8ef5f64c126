// The host's side of boxes: processes, control groups, mounts.
#include <map>

#include "base/text.h"
#include "box/check_boxes.h"
#include "box/host_limits.h"
#include "box/owner.h"
#include "box/strays.h"
#include "os/file.h"

namespace caisson::box {

using store::BoxState;
using store::Troubles;

namespace {

class Checker {
  public:
    explicit Checker(const HomeSeen& seen) : home_(*seen.home) {
        for (const auto& record : seen.records)
            if (is_answered_for(home_, record, seen.boot_id)) living_.emplace(record.id, &record);
    }

    Troubles check() {
        check_processes();
        check_groups();
        check_mounts();
        return std::move(found_);
    }

  private:
    // Somebody answers for it, by its record or by its lock: its files may be looked at while it does not run.
    bool answered_for(const std::string& id) const { return living_.contains(id) || store::is_held(home_.box(id) + "/lock"); }

    void check_processes() {
        std::set<std::string> with_machine;
        for (const auto& process : processes_of_boxes(home_.boxes())) {
            if (process.machine) with_machine.insert(process.box);
            if (answered_for(process.box)) continue;
            auto stray = store::warning("process_stray", "process " + std::to_string(process.pid), process.program + " belongs to box " + process.box + ", which does not run", "ends it");
            stray.mend = [directory = home_.box(process.box)](store::Aside&) -> Result<std::string> {
                std::optional<os::FileLock> lock;
                if (os::exists(directory + "/lock")) lock = CAISSON_TRY(os::FileLock::try_acquire(directory + "/lock"));
                return "ended " + std::to_string(kill_strays(directory)) + " processes of the box";
            };
            found_.push_back(std::move(stray));
        }
        for (const auto& [id, record] : living_) {
            if ((record->state != BoxState::kRunning && record->state != BoxState::kPaused) || with_machine.contains(id)) continue;
            found_.push_back(store::error("box_machine_missing", "box " + id, std::string("is recorded to be ") + to_string(record->state) + ", but it has no machine",
                                          "nothing; end it: caisson rm --force " + base::shell_quote(record->name)));
        }
    }

    void check_groups() {
        for (const auto& [id, directories] : groups_of_boxes(home_)) {
            if (answered_for(id)) continue;
            auto stray = store::warning("control_group_stray", directories.front(), "is the control group of box " + id + ", which does not run", "removes it, as opening the home does");
            stray.finding.repairable = true;
            found_.push_back(std::move(stray));
        }
    }

    // Boxes' mounts, and the namespaces that they are in, live and die with their processes: none of them has a place among
    // the files. A home, or a part of it, may well be a mount of somebody's.
    void check_mounts() {
        auto table = os::read_file("/proc/self/mountinfo", 16 << 20);
        if (!table) return;
        for (const auto& line : base::split(*table, '\n')) {
            const auto fields = base::split(line, ' ');
            if (fields.size() < 5 || !base::starts_with(fields[4], home_.boxes() + "/")) continue;
            found_.push_back(store::warning("mount_stray", store::object_of(home_.root, fields[4]), "something is mounted among the boxes", "nothing; unmount it: umount " + base::shell_quote(fields[4])));
        }
    }

    const store::Home& home_;
    std::map<std::string, const store::BoxRecord*> living_;
    Troubles found_;
};

}  // namespace

store::Troubles check_host(const HomeSeen& seen) { return Checker(seen).check(); }

}  // namespace caisson::box
