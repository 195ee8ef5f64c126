// Runtime's view of its home as something that takes room: what does, and what nobody needs any more.
#include "box/space.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>

#include "base/id.h"
#include "base/text.h"
#include "box/decision.h"
#include "box/limits.h"
#include "box/log.h"
#include "box/room.h"
#include "box/strays.h"
#include "caisson/runtime.h"
#include "caisson/space.h"
#include "store/reserve.h"
#include "vmm/template.h"
#include "volume/catalogue.h"

namespace caisson {

using internal::RuntimeState;

namespace internal {

Result<UsedByBoxes> used_by_boxes(RuntimeState& state) {
    UsedByBoxes used;
    auto boxes = CAISSON_TRY(state.database->boxes());
    used.unknown = CAISSON_TRY(state.database->box_ids()).size() != boxes.size();
    for (const auto& box : boxes) {
        used.images.emplace(box.image_digest, box.name);
        // A disk that cannot be told from others may be any of them; a box of an old home names none.
        if (auto disk = box::recorded_base_disk(state.home, box)) ++used.disks[*disk];
        else used.unknown = used.unknown || !box.base_disk.empty();
    }
    return used;
}

}  // namespace internal

namespace {

// ---- garbage ----

// Takes one kind of garbage after another. What cannot be removed is told of and keeps nobody from the rest.
class Collector {
  public:
    Collector(RuntimeState& state, const GarbageOptions& options)
        : state_(state), options_(options), now_(std::chrono::system_clock::to_time_t(std::chrono::system_clock::now())) {}

    Collected collect() {
        note(boxes());
        note(disks());
        note(templates());
        note(blobs());
        return std::move(collected_);
    }

  private:
    void note(const Result<>& done) {
        if (!done) collected_.failed.push_back(done.error());
    }
    void found(const std::string& kind, const std::string& name, std::uint64_t bytes) {
        collected_.removed.push_back({kind, name, bytes});
        collected_.freed_bytes += bytes;
    }
    bool is_young(std::int64_t unix_seconds) const { return now_ - unix_seconds < options_.grace.count(); }

    // Directories without a record: a removal cut short. A record is written before its directory is made. (What dead
    // processes left of boxes that have one was seen to when the home was opened.)
    Result<> boxes() {
        const auto names = CAISSON_TRY(os::list_directory(state_.home.boxes()));
        std::vector<std::string> known;
        {
            std::scoped_lock guard(state_.database_mutex);
            known = CAISSON_TRY(state_.database->box_ids());
        }
        for (const auto& name : names) {
            if (!base::is_ulid(name) || std::find(known.begin(), known.end(), name) != known.end()) continue;
            const auto directory = state_.home.box(name);
            if (!options_.dry_run) {
                auto lock = os::FileLock::try_acquire(directory + "/lock");
                if (!lock && lock.error().code == Errc::kInUse) continue;
                box::kill_strays(directory);
                const auto bytes = os::disk_usage(directory).value_or(0);
                auto removed = os::remove_tree(directory);
                if (removed) found("box", name, bytes);
                note(removed);
            } else {
                found("box", name, os::disk_usage(directory).value_or(0));
            }
        }
        return {};
    }

    image::RemoveOptions removal() {
        image::RemoveOptions removal;
        removal.grace = options_.grace;
        removal.dry_run = options_.dry_run;
        removal.on_removed = [this](const char* kind, const std::string& name, std::uint64_t bytes) { found(kind, name, bytes); };
        return removal;
    }

    Result<> disks() {
        auto removal = this->removal();
        // Asked once the store is locked: a box that was made of an image until then has its record.
        std::optional<internal::UsedByBoxes> used;
        removal.disk_in_use = [this, used](const std::string& path) mutable {
            if (!used) {
                std::scoped_lock guard(state_.database_mutex);
                auto asked = internal::used_by_boxes(state_);
                if (!asked) return true;
                used = std::move(*asked);
            }
            return used->has_disk(path);
        };
        static_cast<void>(CAISSON_TRY(state_.images->collect_disks(removal)));
        return {};
    }

    // Those that no box can start from any more: of another boot of the host or of other programs, too old, or of a disk
    // that is gone. One without an image serves the boxes that are there, and those that restart while they run.
    Result<> templates() {
        bool any_box;
        {
            std::scoped_lock guard(state_.database_mutex);
            any_box = !CAISSON_TRY(state_.database->box_ids()).empty();
        }
        const auto& directory = state_.home.templates();
        CAISSON_TRY(vmm::sweep_unfinished_templates(directory, options_.dry_run, [this](const std::string& name, std::uint64_t bytes) {
            found("unfinished", name, bytes);
        }));
        for (const auto& info : CAISSON_TRY(vmm::list_templates(directory))) {
            if (is_young(std::max(info.created_unix, info.used_unix))) continue;
            if (info.current && (info.image.empty() ? any_box : has_disk(info))) continue;
            if (!options_.dry_run) {
                auto removed = vmm::remove_template(directory, info.key);
                if (!removed && removed.error().code == Errc::kNotFound) continue;
                note(removed);
                if (!removed) continue;
            }
            found("template", info.key, info.disk_bytes);
        }
        return {};
    }
    bool has_disk(const vmm::TemplateInfo& info) const {
        if (info.base_disk.empty()) return true;
        const auto name = info.base_disk.substr(info.base_disk.rfind('/') + 1);
        const bool goes = std::any_of(collected_.removed.begin(), collected_.removed.end(),
                                      [&](const Garbage& gone) { return gone.kind == "disk" && gone.name == name; });
        return !goes && os::exists(info.base_disk);
    }

    Result<> blobs() {
        static_cast<void>(CAISSON_TRY(state_.images->collect_blobs(removal())));
        return {};
    }

    RuntimeState& state_;
    const GarbageOptions options_;
    const std::int64_t now_;
    Collected collected_;
};

// ---- counting ----

bool is_log(const std::string& name) {
    return base::starts_with(name, box::kOutputLog) || base::starts_with(name, box::kConsoleLog) ||
           base::starts_with(name, box::execution_log("")) || base::starts_with(name, "shim.log");
}

std::uint64_t logs_of(const std::string& directory) {
    std::uint64_t bytes = 0;
    auto names = os::list_directory(directory);
    if (!names) return 0;
    for (const auto& name : *names)
        if (is_log(name)) bytes += os::disk_usage(directory + "/" + name).value_or(0);
    return bytes;
}

std::uint64_t usage_of(const std::string& path) { return os::disk_usage(path).value_or(0); }

SpaceKind count_images(const RuntimeState& state, const std::vector<image::Image>& images) {
    SpaceKind kind{.kind = "images", .bytes = usage_of(state.home.images())};
    std::map<std::string, std::set<std::string>> users;  // blob → images
    std::map<std::string, std::uint64_t> sizes;
    std::set<std::string> distinct;
    for (const auto& image : images) {
        distinct.insert(image.manifest_digest);
        for (const auto& layer : image.layers) {
            users[layer.digest].insert(image.manifest_digest);
            sizes[layer.digest] = layer.size_bytes;
        }
    }
    kind.count = distinct.size();
    for (const auto& [digest, names] : users)
        if (names.size() > 1) kind.shared_bytes += sizes[digest];
    return kind;
}

SpaceKind count_disks(const RuntimeState& state, const internal::UsedByBoxes& used) {
    SpaceKind kind{.kind = "disks", .bytes = usage_of(state.home.disks())};
    auto names = os::list_directory(state.home.disks());
    if (!names) return kind;
    for (const auto& name : *names) {
        if (!name.ends_with(".ext4")) continue;
        ++kind.count;
        auto boxes = used.disks.find(state.home.disks() + "/" + name);
        if (boxes != used.disks.end() && boxes->second > 1) kind.shared_bytes += usage_of(boxes->first);
    }
    return kind;
}

Result<SpaceKind> count_volumes(const RuntimeState& state) {
    SpaceKind kind{.kind = "volumes"};
    if (!os::exists(state.home.volumes())) return kind;
    kind.bytes = usage_of(state.home.volumes());
    kind.count = CAISSON_TRY(CAISSON_TRY(volume::Catalogue::open(state.home.volumes())).list()).size();
    return kind;
}

// Which kind a thing that could be removed belongs to.
std::string kind_of(const Garbage& garbage) {
    if (garbage.kind == "box") return "boxes";
    if (garbage.kind == "disk") return "disks";
    const bool of_template = base::starts_with(garbage.name, ".new-") || base::starts_with(garbage.name, ".old-");
    if (garbage.kind == "template" || of_template) return "templates";
    return "images";
}

}  // namespace

Result<Collected> Runtime::collect_garbage(const GarbageOptions& options) {
    return Collector(*state_, options).collect();
}

Result<Space> Runtime::space() const {
    Space space;
    const auto& home = state_->home;
    // One that is damaged takes room, too.
    const auto images = state_->images->list().value_or(std::vector<image::Image>());
    const auto used = CAISSON_TRY([&] {
        std::scoped_lock guard(state_->database_mutex);
        return internal::used_by_boxes(*state_);
    }());
    SpaceKind boxes{.kind = "boxes", .bytes = usage_of(home.boxes())}, templates{.kind = "templates", .bytes = usage_of(home.templates())};
    SpaceKind logs{.kind = "logs"}, journal{.kind = "journal"}, reserve{.kind = "reserve"}, other{.kind = "other"};
    for (const auto& name : CAISSON_TRY(os::list_directory(home.boxes()))) {
        const auto bytes = logs_of(home.box(name));
        logs.count += bytes > 0 ? 1 : 0;
        logs.bytes += bytes;
        boxes.bytes -= std::min(boxes.bytes, bytes);
        ++boxes.count;
    }
    const auto makers = logs_of(home.templates());
    logs.bytes += makers;
    templates.bytes -= std::min(templates.bytes, makers);
    templates.count = CAISSON_TRY(vmm::list_templates(home.templates())).size();
    if (auto files = os::list_directory(home.audit())) {
        journal.count = files->size();
        journal.bytes = usage_of(home.audit());
    }
    reserve.bytes = reserve.reclaimable_bytes = store::held_reserve(home.root);
    reserve.count = reserve.bytes > 0 ? 1 : 0;
    space.kinds = {count_images(*state_, images), count_disks(*state_, used), boxes, CAISSON_TRY(count_volumes(*state_)), templates, logs, journal, reserve};
    space.bytes = usage_of(home.root);
    for (const auto& kind : space.kinds) other.bytes += kind.bytes;
    other.bytes = space.bytes - std::min(space.bytes, other.bytes);
    space.kinds.push_back(other);
    for (const auto& garbage : Collector(*state_, {.dry_run = true, .grace = std::chrono::seconds(0)}).collect().removed)
        for (auto& kind : space.kinds)
            if (kind.kind == kind_of(garbage)) kind.reclaimable_bytes += garbage.bytes;
    if (auto status = store::file_system_of(home.root)) {
        space.total_bytes = status->total_bytes;
        space.free_bytes = status->free_bytes;
        space.box_limit_bytes = box::room_to_leave({status->total_bytes, status->free_bytes, reserve.bytes});
    }
    return space;
}

Result<std::string> caller_home() { return store::default_home(::getenv("CAISSON_HOME"), ::getenv("HOME"), ::geteuid() == 0); }

Result<std::uint64_t> release_reserve(const std::string& home) {
    return store::release_reserve(home.empty() ? CAISSON_TRY(caller_home()) : home);
}

std::string full_disk_hint(const Error& error, const std::string& home) {
    // A guest's own disk is no matter of the host's; that of its machine is, which dies when its memory file cannot grow.
    if (error.code == Errc::kGuest && error.to_string().find("host's disk is full") == std::string::npos) return {};
    const bool said = error.code == Errc::kNoSpace || error.code == Errc::kGuest || error.sys_errno == ENOSPC || error.sys_errno == EDQUOT;
    if (!said) return {};
    auto place = home.empty() ? caller_home() : Result<std::string>(home);
    if (!place) return {};
    const auto status = store::file_system_of(*place);
    const auto held = store::held_reserve(*place);
    const bool full = status && (status->out_of_files || status->free_bytes < store::kReserveRoomBytes);
    // Who knows of another limit than the home's disk, a volume's for instance, has said what to do about it.
    if (!full && error.sys_errno == 0 && !error.hint.empty()) return {};
    const std::string rest = "make room: caisson df shows what takes it; caisson gc, caisson rm and caisson image rm remove";
    if (held == 0) return rest;
    const std::string release = "caisson reserve-release gives " + base::format_size(held) + " back at once";
    return full ? release + "; then " + rest : "if the disk of " + *place + " is full, " + release + "; " + rest;
}

}  // namespace caisson
