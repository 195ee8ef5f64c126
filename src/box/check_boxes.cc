#include "box/check_boxes.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <optional>

#include "base/id.h"
#include "base/text.h"
#include "box/decision.h"
#include "box/network_request.h"
#include "box/owner.h"
#include "os/file.h"
#include "vmm/qcow2.h"
#include "volume/check.h"
#include "wire/shim.pb.h"

namespace caisson::box {

using base::failure;
using store::Aside;
using store::BoxRecord;
using store::BoxState;
using store::object_of;
using store::Trouble;
using store::Troubles;

Result<std::string> put_box_aside(const store::Home& home, const std::string& id, Aside& aside) {
    if (!base::is_ulid(id)) return failure(Errc::kCorrupt, "'" + base::printable(id, 100) + "' is no id of a box");
    std::optional<os::FileLock> lock;
    auto taken = os::FileLock::try_acquire(home.box(id) + "/lock");
    if (taken) lock = std::move(*taken);
    else if (taken.error().code == Errc::kInUse) return failure(Errc::kInUse, "box " + id + " is in use by another process", "stop it first: caisson stop " + id);
    // The record goes last: without it, what is still there would be taken for a removal that was cut short.
    CAISSON_TRY(aside.take(home.box(id)));
    CAISSON_TRY(volume::put_box_aside(home.volumes(), id, aside));
    auto database = CAISSON_TRY(store::Database::open(home.database()));
    const auto row = CAISSON_TRY(database.take_out({store::Database::Flaw::Kind::kRecord, id, ""}));
    if (!row.empty()) CAISSON_TRY(aside.note("boxes/" + id + ".record", row));
    return std::string("moved aside");
}

namespace {

class Checker {
  public:
    explicit Checker(const HomeSeen& seen) : seen_(seen), home_(*seen.home) {}

    Troubles check() {
        for (const auto& record : seen_.records) check_record(record);
        for (const auto& name : seen_.directories)
            if (!seen_.ids.contains(name)) check_stray(name);
        return std::move(found_);
    }

  private:
    std::string object(const std::string& path) const { return object_of(home_.root, path); }
    std::string said(const BoxRecord& record) const { return "box " + record.id; }

    void add_aside(Trouble trouble, const std::string& id) {
        trouble.mend = [home = home_, id](Aside& aside) { return put_box_aside(home, id, aside); };
        found_.push_back(std::move(trouble));
    }

    void check_record(const BoxRecord& record) {
        const auto directory = home_.box(record.id);
        const bool lives = is_answered_for(home_, record, seen_.boot_id);
        // Whoever makes it is not finished.
        if (record.state == BoxState::kCreating && lives) return;
        if (store::is_live(record.state) && !lives) {
            if (!store::is_held(directory + "/lock")) add_abandoned(record);
            return;
        }
        struct stat info {};
        if (::lstat(directory.c_str(), &info) != 0) {
            // Who answers for it may be just removing it, and its record comes last.
            if (lives && (record.auto_remove || record.state == BoxState::kStarting || record.state == BoxState::kStopping)) return;
            add_aside(store::error("box_files_missing", said(record), "its directory " + object(directory) + " is missing",
                                   "takes its record and its anonymous volumes out of the home; as: caisson rm " + base::shell_quote(record.name)), record.id);
            return;
        }
        if (!S_ISDIR(info.st_mode) || info.st_uid != ::geteuid()) {
            found_.push_back(store::error("box_directory_damaged", object(directory),
                                          S_ISDIR(info.st_mode) ? "belongs to user " + std::to_string(info.st_uid) : std::string("is no directory"),
                                          "nothing; put back what was there"));
            return;
        }
        store::check_mode(home_.root, directory, true, "box_mode", found_);
        check_files(record, directory);
    }

    void add_abandoned(const BoxRecord& record) {
        const bool made = record.state == BoxState::kCreating;
        auto dead = store::warning(made ? "box_unfinished" : "box_abandoned", said(record),
                                   std::string("is recorded to be ") + to_string(record.state) + ", but " +
                                       (record.owner.boot_id != seen_.boot_id ? "the host was restarted since" : "process " + std::to_string(record.owner.pid) + ", which answered for it, does not any more"),
                                   made || record.auto_remove ? "removes it, as opening the home does" : "records that it failed, as opening the home does");
        dead.finding.repairable = true;
        found_.push_back(std::move(dead));
    }

    void check_files(const BoxRecord& record, const std::string& directory) {
        store::find_unfinished(home_.root, directory, found_);
        const auto unfinished = directory + "/disk.new";
        if (os::exists(unfinished) && !store::is_held(directory + "/lock")) add_unfinished_disk(unfinished);
        check_base_disk(record);
        wire::BoxSpec spec;
        // Of homes of old there is none; such boxes can be looked at and removed.
        if (record.spec.empty()) return;
        if (!spec.ParseFromString(record.spec)) {
            add_aside(store::error("box_record_damaged", said(record), "what it was asked to be cannot be read any more", "moves it aside with its disk"), record.id);
            return;
        }
        check_disk(record, directory + "/disk.qcow2", spec.disk_bytes());
    }

    void add_unfinished_disk(const std::string& path) {
        auto left = store::warning("unfinished_file", object(path), "the disk of a box that somebody began to make and did not finish", "moves it aside");
        left.mend = [path](Aside& aside) -> Result<std::string> {
            auto lock = CAISSON_TRY(os::FileLock::try_acquire(path.substr(0, path.rfind('/')) + "/lock"));
            CAISSON_TRY(aside.take(path));
            return std::string("moved aside");
        };
        found_.push_back(std::move(left));
    }

    void check_base_disk(const BoxRecord& record) {
        if (record.base_disk.empty()) return;
        auto path = recorded_base_disk(home_, record);
        if (!path) {
            add_aside(store::error("box_record_damaged", said(record), path.error().message, "moves it aside with its disk"), record.id);
        } else if (!os::exists(*path)) {
            found_.push_back(store::error("base_disk_missing", said(record), "the root disk that it was made from is missing: " + object(*path),
                                          "nothing; get its image again, which makes the same disk: caisson image pull " + base::shell_quote(record.image)));
        }
    }

    void check_disk(const BoxRecord& record, const std::string& path, std::uint64_t bytes) {
        struct stat info {};
        if (::lstat(path.c_str(), &info) != 0) {
            if (record.started_ms > 0)
                add_aside(store::error("box_disk_missing", said(record), "it ran, but its disk " + object(path) + " is missing", "moves what is left of it aside"), record.id);
            return;
        }
        if (auto sound = vmm::check_overlay(path, bytes); !sound)
            add_aside(store::error("box_disk_damaged", said(record), sound.error().message, "moves it aside with its disk"), record.id);
    }

    // A directory without a record is what a removal leaves that was cut short, or all that there is of a box whose record
    // was lost.
    void check_stray(const std::string& name) {
        const auto path = home_.box(name);
        if (is_network_request(name)) {
            // Else somebody is changing it, or its start has the last word.
            const auto runs = [&](const BoxRecord& record) { return record.id == box_of_network_request(name) && store::is_live(record.state); };
            if (std::any_of(seen_.records.begin(), seen_.records.end(), runs) && is_unsettled_request(path))
                found_.push_back(store::warning("network_unsettled", "box " + box_of_network_request(name), "somebody died while he changed its network: what is recorded may not be in force",
                                                "nothing; any change of its network settles it: caisson update BOX --net-restart"));
            return;
        }
        if (store::is_held(path + "/lock") || !os::exists(path)) return;
        auto stray = base::is_ulid(name) ? store::warning("box_stray", object(path), "is the directory of a box that has no record", "moves it aside; else it is removed when the home is opened next")
                                         : store::warning("box_unknown", object(path), "is no box, but lies among them", "moves it aside");
        stray.mend = [path](Aside& aside) -> Result<std::string> {
            std::optional<os::FileLock> lock;
            if (os::exists(path + "/lock")) lock = CAISSON_TRY(os::FileLock::try_acquire(path + "/lock"));
            CAISSON_TRY(aside.take(path));
            return std::string("moved aside");
        };
        found_.push_back(std::move(stray));
    }

    const HomeSeen& seen_;
    const store::Home& home_;
    Troubles found_;
};

}  // namespace

store::Troubles check_boxes(const HomeSeen& seen) { return Checker(seen).check(); }

}  // namespace caisson::box
