// Runtime::check(): everything that the rooms know to be true of a home, looked at beside whoever else uses it, and mended.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <span>
#include <thread>

#include "base/id.h"
#include "base/text.h"
#include "box/check_boxes.h"
#include "box/state.h"
#include "image/check.h"
#include "os/host.h"
#include "vmm/check.h"
#include "volume/check.h"

namespace caisson {

using base::failure;
using store::Aside;
using store::Trouble;
using store::Troubles;
using std::chrono::milliseconds;

namespace {

// What others are just doing is done when it is looked at again. If nobody has the database open, what is on its way can only
// be the last of something; else it may take a busy host seconds.
constexpr milliseconds kQuietLooks[] = {milliseconds(100)};
constexpr milliseconds kBusyLooks[] = {milliseconds(100), milliseconds(300), milliseconds(1000), milliseconds(2000)};
// What is mended may show what was hidden behind it: a damaged database hides all boxes.
constexpr int kMostRounds = 4;

std::string key_of(const Trouble& trouble) { return trouble.finding.code + '\0' + trouble.finding.object; }

// One look at all of a home.
class Look {
  public:
    Look(const store::Home& home, bool deep, CheckReport& report) : home_(home), deep_(deep), report_(report) {}

    Troubles all() {
        report_.boxes = report_.volumes = report_.templates = 0;
        add(store::check_home(home_));
        seen_.home = &home_;
        seen_.boot_id = os::boot_id().value_or("");
        seen_.directories = os::list_directory(home_.boxes()).value_or(std::vector<std::string>());
        const bool known = read_database();
        if (known) {
            add(box::check_boxes(seen_));
            add(box::check_host(seen_));
            add(box::check_journal(seen_));
        }
        check_volumes(known);
        add(vmm::check_templates(home_.root, home_.templates(), report_.templates));
        image::CheckCounts counts;
        add(image::check_images({.home = home_.root, .images_directory = home_.images(), .disks_directory = home_.disks(), .deep = deep_}, counts));
        report_.images = counts.images;
        report_.blobs = counts.blobs;
        report_.disks = counts.disks;
        for (auto& trouble : found_) trouble.finding.repairable = trouble.finding.repairable || trouble.mend;
        return std::move(found_);
    }

  private:
    void add(Troubles more) { std::move(more.begin(), more.end(), std::back_inserter(found_)); }

    bool read_database() {
        const auto path = home_.database();
        store::check_mode(home_.root, path, true, "database_mode", found_);
        auto database = store::Database::open_to_look(path);
        if (!database) {
            if (database.error().code == Errc::kNotFound) return missing_database();
            add_unreadable(database.error());
            return false;
        }
        auto flaws = database->flaws();
        if (!flaws) {
            add_unreadable(flaws.error());
            return false;
        }
        for (const auto& flaw : *flaws) add_flaw(flaw);
        if (std::any_of(flaws->begin(), flaws->end(), [](const auto& flaw) { return flaw.kind == store::Database::Flaw::Kind::kDamaged; })) return false;
        auto ids = database->box_ids();
        auto records = database->boxes();
        seen_.journal = database->journal_heads().value_or(std::vector<store::JournalHead>());
        if (!ids || !records) {
            add_unreadable(ids ? records.error() : ids.error());
            return false;
        }
        seen_.ids = {ids->begin(), ids->end()};
        seen_.records = std::move(*records);
        report_.boxes = seen_.ids.size();
        return true;
    }

    // A home that was never used has none, and no boxes either.
    bool missing_database() {
        const bool boxes = std::any_of(seen_.directories.begin(), seen_.directories.end(), [](const auto& name) { return base::is_ulid(name); });
        if (!boxes) return true;
        auto missing = store::error("database_missing", "caisson.db", "the database is missing, but there are boxes", "moves the boxes' directories aside and makes a new database; or put back the database that was there");
        missing.finding.repairable = true;  // by what is done about each of the boxes
        missing.passing = false;
        found_.push_back(std::move(missing));
        return true;
    }

    void add_unreadable(const Error& why) {
        if (why.code == Errc::kInUse) {
            auto old = store::warning("database_old", "caisson.db", why.message, "brings it up to date, as opening the home does");
            old.finding.repairable = true;
            found_.push_back(std::move(old));
        } else if (why.code == Errc::kCorrupt) {
            add_damaged(why.to_string());
        } else {
            const bool newer = why.code == Errc::kUnsupported;
            found_.push_back(store::error(newer ? "database_new" : "database_unreadable", "caisson.db", why.to_string(), newer ? "nothing; use that newer caisson" : "nothing; look at its mode and its file system"));
        }
    }

    void add_damaged(const std::string& what) {
        auto damaged = store::error("database_damaged", "caisson.db", what, "moves it aside and makes a new one of the boxes that can still be read");
        damaged.mend = [home = home_](Aside& aside) { return renew_database(home, aside); };
        found_.push_back(std::move(damaged));
    }

    static Result<std::string> renew_database(const store::Home& home, Aside& aside) {
        const auto path = home.database();
        if (auto users = store::users_of_database(path); !users.empty())
            return failure(Errc::kInUse, "process " + std::to_string(users.front()) + " uses the database", "end it first");
        const auto renewed = path + ".new";
        CAISSON_TRY(aside.take(renewed));
        std::size_t saved = 0;
        if (auto old = store::Database::open_to_look(path)) {
            saved = CAISSON_TRY(old->salvage(renewed));
        } else {
            CAISSON_TRY(store::Database::open(renewed));
        }
        // Its parts may each be what is damaged, and none of them means anything without the others.
        for (const char* part : {"", "-wal", "-shm"}) CAISSON_TRY(aside.take(path + part));
        for (const char* part : {"-wal", "-shm", ""})
            if (::rename((renewed + part).c_str(), (path + part).c_str()) != 0 && errno != ENOENT) return base::failure_errno("cannot place " + path);
        CAISSON_TRY(os::fsync_directory(home.root));
        return "moved aside; " + std::to_string(saved) + " boxes are in the new one";
    }

    void add_flaw(const store::Database::Flaw& flaw) {
        using Kind = store::Database::Flaw::Kind;
        if (flaw.kind == Kind::kDamaged) return add_damaged(flaw.what);
        const char* code = flaw.kind == Kind::kReference ? "execution_of_no_box" : flaw.kind == Kind::kRecord ? "box_record_senseless" : "execution_senseless";
        auto senseless = store::error(code, flaw.kind == Kind::kRecord ? "box " + flaw.id : "execution " + flaw.id, flaw.what,
                                      flaw.kind == Kind::kRecord ? "moves the record aside, and the box's files" : "moves the record aside");
        senseless.mend = [home = home_, flaw](Aside& aside) -> Result<std::string> {
            if (flaw.kind == Kind::kRecord && base::is_ulid(flaw.id)) return box::put_box_aside(home, flaw.id, aside);
            auto database = CAISSON_TRY(store::Database::open(home.database()));
            CAISSON_TRY(aside.note("caisson.db.record", CAISSON_TRY(database.take_out(flaw))));
            return std::string("moved aside");
        };
        found_.push_back(std::move(senseless));
    }

    void check_volumes(bool known) {
        volume::CheckRequest request;
        request.home = home_.root;
        request.volumes = home_.volumes();
        request.boxes = seen_.ids;
        request.boxes_known = known;
        request.give_up_box = [home = home_](const std::string& id, Aside& aside) { return box::put_box_aside(home, id, aside); };
        add(volume::check_volumes(request, report_.volumes));
    }

    const store::Home& home_;
    bool deep_;
    CheckReport& report_;
    box::HomeSeen seen_;
    Troubles found_;
};

bool somebody_works(const store::Home& home, const Troubles& troubles) {
    return !store::users_of_database(home.database()).empty() ||
           std::any_of(troubles.begin(), troubles.end(), [](const Trouble& trouble) { return trouble.finding.code == "process_stray"; });
}

bool any_passing(const Troubles& troubles) {
    return std::any_of(troubles.begin(), troubles.end(), [](const Trouble& trouble) { return trouble.passing; });
}

// What is still there after others had time to finish what they do. Contents do not change by themselves: they are read once.
Troubles settled(const store::Home& home, bool deep, CheckReport& report) {
    auto found = Look(home, deep, report).all();
    if (!any_passing(found)) return found;
    const bool busy = somebody_works(home, found);
    const auto looks = busy ? std::span<const milliseconds>(kBusyLooks) : std::span<const milliseconds>(kQuietLooks);
    for (const auto pause : looks) {
        std::this_thread::sleep_for(pause);
        CheckReport again;
        std::map<std::string, Trouble> now;
        for (auto& trouble : Look(home, false, again).all()) now.emplace(key_of(trouble), std::move(trouble));
        std::erase_if(found, [&](const Trouble& trouble) { return trouble.passing && !now.contains(key_of(trouble)); });
        if (!any_passing(found)) break;
    }
    return found;
}

// What opening the home does.
Result<> tidy_up(const store::Home& home) {
    CAISSON_TRY(store::open_home(home.root));
    auto database = CAISSON_TRY(store::Database::open(home.database()));
    return internal::reconcile(home, database);
}

class Repair {
  public:
    Repair(const store::Home& home, const CheckOptions& options, CheckReport& report) : home_(home), options_(options), report_(report), aside_(home.root) {}

    Result<> run() {
        for (int round = 0; round < kMostRounds; ++round)
            if (!mend(settled(home_, options_.deep, report_))) break;
        const auto tidied = tidy_up(home_);
        std::map<std::string, bool> left;
        for (const auto& trouble : settled(home_, options_.deep, report_)) {
            left[key_of(trouble)] = true;
            if (!known_.contains(key_of(trouble))) add(trouble);
        }
        for (auto& [key, at] : known_) {
            auto& finding = report_.findings[at];
            finding.left = left.contains(key);
            if (!finding.left && finding.done.empty()) finding.done = finding.repairable ? "done" : "it is gone by itself";
            if (finding.left && finding.done.empty() && !tidied && finding.repairable) finding.done = "failed: " + tidied.error().to_string();
        }
        report_.aside = aside_.directory();
        return {};
    }

  private:
    std::size_t add(const Trouble& trouble) {
        auto [at, fresh] = known_.emplace(key_of(trouble), report_.findings.size());
        if (fresh) report_.findings.push_back(trouble.finding);
        return at->second;
    }

    // Whether there may be more to do now.
    bool mend(const Troubles& troubles) {
        bool mended = false;
        for (const auto& trouble : troubles) {
            const auto at = add(trouble);
            if (!trouble.mend) continue;
            auto done = trouble.mend(aside_);
            mended = mended || done;
            report_.findings[at].done = done ? *done : "failed: " + done.error().to_string();
        }
        return mended;
    }

    const store::Home& home_;
    const CheckOptions& options_;
    CheckReport& report_;
    Aside aside_;
    std::map<std::string, std::size_t> known_;  // keys of findings
};

}  // namespace

Result<CheckReport> Runtime::check(const RuntimeOptions& options, const CheckOptions& checks) {
    if (::geteuid() == 0)
        return failure(Errc::kPermission, "caisson does not work as root", "call caisson::leave_root_to_look() (or leave_root(), to repair) first, or run as an ordinary user");
    const auto root = options.home.empty() ? CAISSON_TRY(store::default_home(::getenv("CAISSON_HOME"), ::getenv("HOME"), false)) : options.home;
    const store::Home home{root};
    if (::access(root.c_str(), F_OK) != 0) {
        auto missing = base::failure_errno("there is no home " + root).value();
        return failure(missing.code == Errc::kNotFound ? std::move(missing).with_hint("it is made when it is first used; another one: CAISSON_HOME=/some/directory") : std::move(missing));
    }
    CheckReport report;
    report.home = root;
    if (checks.repair) {
        CAISSON_TRY(Repair(home, checks, report).run());
    } else {
        for (auto& trouble : settled(home, checks.deep, report)) report.findings.push_back(std::move(trouble.finding));
    }
    return report;
}

}  // namespace caisson
