#include "volume/catalogue.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <set>

#include "base/id.h"
#include "base/text.h"
#include "os/host.h"
#include "os/lasting.h"
#include "os/random.h"
#include "volume/disk.h"
#include "volume/metadata.h"
#include "volume/names.h"
#include "volume/usage.h"

namespace caisson::volume {

using base::failure;
using base::failure_errno;

namespace {

constexpr std::size_t kMostRecordBytes = 1 << 20;
// For whoever counts a volume, which may be large.
constexpr std::chrono::seconds kCountPatience{15};
constexpr const char* kDirectories[] = {"named", "anonymous", "disks", "info", "space", "boxes", "trash"};

bool is_directory(const std::string& path) {
    struct stat status {};
    return ::lstat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}
bool is_file(const std::string& path) {
    struct stat status {};
    return ::lstat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode);
}

// The first 48 bits of an id are when it was made.
std::int64_t made_ms(std::string_view id) {
    constexpr std::string_view kDigits = "0123456789abcdefghjkmnpqrstvwxyz";
    std::int64_t ms = 0;
    for (char digit : id.substr(0, 10)) ms = ms * 32 + static_cast<std::int64_t>(kDigits.find(digit));
    return ms;
}

Result<> unlink_if_there(const std::string& path) {
    if (::unlink(path.c_str()) == 0 || errno == ENOENT) return {};
    return failure_errno("cannot remove " + path);
}

// nullopt: there is none.
template <typename Message>
Result<std::optional<Message>> read_record(const std::string& path) {
    auto text = os::read_file(path, kMostRecordBytes);
    if (!text && text.error().sys_errno == ENOENT) return std::nullopt;
    if (!text) return failure(std::move(text).error());
    Message message;
    if (!message.ParseFromString(*text))
        return failure(Errc::kCorrupt, "the record " + path + " is damaged", "restore it from a backup, or remove it with what it describes");
    return message;
}

Result<std::vector<std::string>> sorted_names(const std::string& directory) {
    auto names = CAISSON_TRY(os::list_directory(directory));
    std::sort(names.begin(), names.end());
    return names;
}

base::Failure not_there(const std::string& name) {
    return failure(Errc::kNotFound, "there is no volume '" + base::printable(name, 200) + "'",
                   "list them: caisson volume ls; make it: caisson volume create NAME");
}

Result<> check_new_name(const std::string& name) {
    CAISSON_TRY(check_name(name));
    if (!base::is_ulid(name)) return {};
    return failure(Errc::kUsage, "'" + name + "' looks like the id of an anonymous volume", "choose a name that people can tell apart from those");
}

wire::VolumeRecord record_of(bool disk, std::uint64_t limit_bytes, const std::map<std::string, std::string>& labels) {
    wire::VolumeRecord record;
    record.set_disk(disk);
    record.set_limit_bytes(limit_bytes);
    record.set_created_ms(os::unix_ms());
    for (const auto& [key, value] : labels) {
        auto* label = record.add_labels();
        label->set_key(key);
        label->set_value(value);
    }
    return record;
}

}  // namespace

Staged::~Staged() {
    if (!path_.empty()) static_cast<void>(os::remove_tree(path_));
}

std::string Catalogue::in(const char* directory, const std::string& name) const {
    return root_ + "/" + directory + (name.empty() ? "" : "/" + name);
}

Result<Catalogue> Catalogue::open(const std::string& volumes) {
    for (const char* directory : kDirectories) CAISSON_TRY(os::make_lasting_directories(volumes + "/" + directory, 0700));
    return Catalogue(volumes);
}

Roots Catalogue::roots() const { return {in("anonymous"), in("named")}; }

std::string Catalogue::directory_of(const Volume& volume) const {
    return in(volume.disk ? "disks" : volume.kind == Kind::kNamed ? "named" : "anonymous", volume.name);
}

// --- looking

Result<std::map<std::string, wire::BoxMounts>> Catalogue::all_mounts() const {
    std::map<std::string, wire::BoxMounts> all;
    for (auto& box : CAISSON_TRY(os::list_directory(in("boxes")))) {
        if (!check_name(box)) continue;
        auto mounts = CAISSON_TRY(read_record<wire::BoxMounts>(in("boxes", box)));
        if (mounts) all.emplace(std::move(box), std::move(*mounts));
    }
    return all;
}

namespace {
void add_uses(const std::map<std::string, wire::BoxMounts>& all, Volume& volume) {
    for (const auto& [box, mounts] : all) {
        bool has = false;
        for (const auto& mount : mounts.mounts()) {
            if (mount.volume() != volume.name || mount.anonymous() != (volume.kind == Kind::kAnonymous)) continue;
            has = true;
            if (mount.anonymous()) volume.limit_bytes = std::max(volume.limit_bytes, mount.limit_bytes());
        }
        if (has) volume.boxes.push_back(box);
    }
}
}  // namespace

bool Catalogue::has_named(const std::string& name) const { return is_directory(in("named", name)) || is_file(in("disks", name)); }

Result<Volume> Catalogue::look_up(Kind kind, const std::string& name) const {
    if (!check_name(name)) return not_there(name);
    Volume volume;
    volume.kind = kind;
    volume.name = name;
    if (kind == Kind::kAnonymous) {
        if (!base::is_ulid(name) || !is_directory(in("anonymous", name))) return not_there(name);
        volume.created_ms = made_ms(name);
        return volume;
    }
    volume.disk = is_file(in("disks", name));
    if (!has_named(name)) return not_there(name);
    auto record = CAISSON_TRY(read_record<wire::VolumeRecord>(in("info", name)));
    if (!record) return volume;
    volume.limit_bytes = record->limit_bytes();
    volume.created_ms = record->created_ms();
    for (const auto& label : record->labels()) volume.labels[label.key()] = label.value();
    return volume;
}

Result<Volume> Catalogue::find(const std::string& name) const {
    auto volume = look_up(Kind::kNamed, name);
    if (!volume && volume.error().code == Errc::kNotFound) volume = look_up(Kind::kAnonymous, name);
    if (!volume) return volume;
    add_uses(CAISSON_TRY(all_mounts()), *volume);
    return volume;
}

Result<std::vector<Volume>> Catalogue::list() const {
    auto mounts = CAISSON_TRY(all_mounts());
    auto names = CAISSON_TRY(os::list_directory(in("named")));
    for (auto& name : CAISSON_TRY(os::list_directory(in("disks")))) names.push_back(std::move(name));
    std::sort(names.begin(), names.end());
    std::vector<Volume> volumes;
    auto add = [&](Kind kind, const std::string& name) -> Result<> {
        auto volume = look_up(kind, name);
        if (!volume && volume.error().code == Errc::kNotFound) return {};  // it went away, or is none
        volumes.push_back(CAISSON_TRY(std::move(volume)));
        add_uses(mounts, volumes.back());
        return {};
    };
    for (const auto& name : names) CAISSON_TRY(add(Kind::kNamed, name));
    for (const auto& name : CAISSON_TRY(sorted_names(in("anonymous")))) CAISSON_TRY(add(Kind::kAnonymous, name));
    return volumes;
}

Result<std::uint64_t> Catalogue::used_bytes(const Volume& volume) const {
    if (!volume.disk) return allocated_bytes(CAISSON_TRY(pin(roots(), volume.kind, volume.name, {})).file);
    struct stat status {};
    if (::lstat(directory_of(volume).c_str(), &status) != 0) return not_there(volume.name);
    return static_cast<std::uint64_t>(status.st_blocks) * 512;
}

// --- making and removing

Result<> Catalogue::check_free(const std::string& name) const {
    CAISSON_TRY(check_new_name(name));
    if (!has_named(name)) return {};
    return failure(Errc::kAlreadyExists, "there is a volume '" + name + "' already", "use it as it is, or remove it first: caisson volume rm " + name);
}

// The record comes first: without its volume it means nothing, while a volume without it would have no limit.
Result<> Catalogue::make_named(const std::string& name, std::uint64_t limit_bytes, const std::map<std::string, std::string>& labels,
                               const std::function<Result<>(const std::string& path)>& appear, bool disk) {
    CAISSON_TRY(check_free(name));
    const std::string directory = in(disk ? "disks" : "named");
    auto made = [&]() -> Result<> {
        CAISSON_TRY(os::write_file_atomic(in("info", name), record_of(disk, limit_bytes, labels).SerializeAsString()));
        CAISSON_TRY(unlink_if_there(in("space", name)));  // of an earlier one of that name
        CAISSON_TRY(appear(directory + "/" + name));
        auto synced = os::fsync_directory(directory);
        // Nobody has seen it yet, for the lock is ours. One that was refused must not be there when it is asked for again.
        std::vector<Discarded> discarded;
        if (!synced && discard(directory + "/" + name, discarded)) static_cast<void>(!remove_discarded(discarded));
        return synced;
    }();
    if (!made && !has_named(name)) static_cast<void>(::unlink(in("info", name).c_str()));
    return made;
}

Result<> make_volume_directory(const std::string& path) {
    if (::mkdir(path.c_str(), 0700) != 0) return failure_errno("cannot make the volume's directory " + path);
    // To a box it is the box's user's, and others may look into it, as into most directories of an image.
    const auto text = encode(Metadata{.user = {}, .group = {}, .mode = 0755});
    int error = ::setxattr(path.c_str(), kMetadataAttribute, text.data(), text.size(), 0) == 0 ? 0 : errno;
    Result<> synced;
    if (error == 0) synced = os::fsync_directory(path);
    if (error == 0 && synced) return {};
    ::rmdir(path.c_str());
    if (!synced) return synced;
    if (error == ENOTSUP || error == EPERM)
        return failure(Errc::kHostMissing, "the file system of " + path + " keeps no attributes of users (user.*), in which volumes keep what boxes make of files",
                       "use a home on ext4, XFS or Btrfs: CAISSON_HOME=/some/directory");
    return failure_errno("cannot make the volume's directory " + path, error);
}

namespace {
Result<> move_in(const std::string& from, const std::string& to) {
    if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) != 0)
        return failure_errno("cannot move a new volume to " + to);
    return {};
}
}  // namespace

Result<Volume> Catalogue::create(const std::string& name, bool disk, std::uint64_t limit_bytes, const std::map<std::string, std::string>& labels,
                                 const std::function<Result<>(const std::string& path)>& make_disk) {
    auto lock = CAISSON_TRY(os::FileLock::acquire(in("lock")));
    auto appear = [&](const std::string& path) -> Result<> {
        if (!disk) return make_volume_directory(path);
        const auto unfinished = in("trash", CAISSON_TRY(os::new_ulid()));
        auto made = make_disk(unfinished);
        if (made) made = move_in(unfinished, path);
        if (!made) static_cast<void>(os::remove_tree(unfinished));
        return made;
    };
    CAISSON_TRY(make_named(name, limit_bytes, labels, appear, disk));
    return look_up(Kind::kNamed, name);
}

Result<Staged> Catalogue::stage() {
    auto lock = CAISSON_TRY(os::FileLock::acquire(in("lock")));
    const auto path = in("trash", CAISSON_TRY(os::new_ulid()));
    CAISSON_TRY(make_volume_directory(path));
    auto directory = CAISSON_TRY(os::open_file(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
    if (::flock(directory.get(), LOCK_EX | LOCK_NB) != 0) return failure_errno("cannot lock " + path);
    return Staged(std::move(directory), path);
}

Result<Volume> Catalogue::create(const std::string& name, std::uint64_t limit_bytes, const std::map<std::string, std::string>& labels,
                                 Staged staged) {
    // Whoever sees the volume after a power failure sees all of it.
    if (::syncfs(staged.directory().get()) != 0) return failure_errno("cannot write the new volume to the disk");
    if (::fchmod(staged.directory().get(), 0700) != 0) return failure_errno("cannot close the new volume to others");
    auto lock = CAISSON_TRY(os::FileLock::acquire(in("lock")));
    auto appear = [&](const std::string& path) -> Result<> {
        CAISSON_TRY(move_in(staged.path(), path));
        staged.path_.clear();
        return {};
    };
    CAISSON_TRY(make_named(name, limit_bytes, labels, appear, false));
    return look_up(Kind::kNamed, name);
}

// nullopt: somebody holds it.
std::optional<Catalogue::Discarded> Catalogue::condemn(const std::string& path) {
    auto file = os::open_file(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    if (file && ::flock(file->get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) return std::nullopt;
    return Discarded{path, file ? std::move(*file) : os::Fd()};
}

Result<std::uint64_t> Catalogue::remove_discarded(const std::vector<Discarded>& all) {
    std::uint64_t freed = 0;
    Result<> first_error;
    for (const auto& one : all) {
        struct stat status {};
        std::uint64_t bytes = 0;
        if (one.lock && ::fstat(one.lock.get(), &status) == 0) {
            bytes = static_cast<std::uint64_t>(status.st_blocks) * 512;
            if (S_ISDIR(status.st_mode))
                if (auto below = allocated_bytes(one.lock)) bytes = *below;
        }
        auto removed = os::remove_tree(one.path);
        if (removed) freed += bytes;
        else if (first_error) first_error = std::move(removed);
    }
    if (!first_error) return failure(std::move(first_error).error());
    return freed;
}

// Out of sight in one step; what it held is removed later, without the lock.
Result<> Catalogue::discard(const std::string& path, std::vector<Discarded>& discarded) {
    const auto target = in("trash", CAISSON_TRY(os::new_ulid()));
    if (::rename(path.c_str(), target.c_str()) != 0) {
        if (errno == ENOENT) return {};
        return failure_errno("cannot move the volume " + path + " away");
    }
    if (auto one = condemn(target)) discarded.push_back(std::move(*one));
    return {};
}

Result<> Catalogue::remove(const std::string& name) {
    std::vector<Discarded> discarded;
    {
        auto lock = CAISSON_TRY(os::FileLock::acquire(in("lock")));
        auto volume = CAISSON_TRY(find(name));
        if (!volume.boxes.empty())
            return failure(Errc::kInUse, "volume '" + name + "' is used by box " + base::join(volume.boxes, ", "),
                           "remove the box first: caisson rm " + volume.boxes.front());
        const auto path = directory_of(volume);
        CAISSON_TRY(discard(path, discarded));
        CAISSON_TRY(os::fsync_directory(path.substr(0, path.rfind('/'))));
        CAISSON_TRY(unlink_if_there(in("info", name)));
        CAISSON_TRY(unlink_if_there(in("space", name)));
    }
    CAISSON_TRY(remove_discarded(discarded));
    return {};
}

// What somebody fills or removes is left to them.
Result<std::uint64_t> Catalogue::empty_trash() {
    std::vector<Discarded> discarded;
    {
        auto lock = CAISSON_TRY(os::FileLock::acquire(in("lock")));
        for (const auto& name : CAISSON_TRY(os::list_directory(in("trash"))))
            if (auto one = condemn(in("trash", name))) discarded.push_back(std::move(*one));
    }
    return remove_discarded(discarded);
}

// --- boxes

Result<wire::BoxMounts> Catalogue::mounts(const std::string& box) const {
    CAISSON_TRY(check_name(box));
    return CAISSON_TRY(read_record<wire::BoxMounts>(in("boxes", box))).value_or(wire::BoxMounts());
}

Result<> Catalogue::write(const std::string& box, const wire::BoxMounts& mounts) {
    return os::write_file_atomic(in("boxes", box), mounts.SerializeAsString());
}

// The volume itself, found or made; `made` are names of new ones.
Result<wire::BoxMount> Catalogue::plan(const Request& request, std::vector<std::string>& made) {
    wire::BoxMount mount;
    mount.set_subpath(request.subpath);
    mount.set_target(request.target);
    mount.set_read_only(request.read_only);
    mount.set_no_exec(request.no_exec);
    mount.set_no_suid(request.no_suid);
    mount.set_directory(true);
    Kind kind = Kind::kNamed;
    std::string name = request.name;
    if (!request.host_path.empty()) {
        auto pinned = CAISSON_TRY(pin_path(roots(), request.host_path));
        kind = pinned.kind;
        name = pinned.name;
    } else if (name.empty()) {
        mount.set_anonymous(true);
        mount.set_volume(CAISSON_TRY(os::new_ulid()));
        mount.set_limit_bytes(request.limit_bytes);
        if (!request.subpath.empty()) return failure(Errc::kUsage, "a new volume has no part '" + base::printable(request.subpath, 200) + "' yet", "name the volume");
        return mount;
    } else if (CAISSON_TRY(check_name(name)); !has_named(name) && request.subpath.empty()) {
        CAISSON_TRY(make_named(name, request.limit_bytes, {}, make_volume_directory, false));
        made.push_back(name);
        mount.set_made(true);
    }
    mount.set_volume(name);
    mount.set_anonymous(kind == Kind::kAnonymous);
    auto volume = CAISSON_TRY(look_up(kind, name));
    add_uses(CAISSON_TRY(all_mounts()), volume);
    mount.set_limit_bytes(volume.limit_bytes);
    mount.set_disk(volume.disk);
    if (request.limit_bytes != 0 && request.limit_bytes != volume.limit_bytes)
        return failure(Errc::kUsage,
                       "volume '" + name + "' is there already, " +
                           (volume.limit_bytes == 0 ? "without a limit" : "with a limit of " + base::format_size(volume.limit_bytes)),
                       "leave the size out; a limit is set when a volume is made");
    if (volume.disk) return mount;
    mount.set_directory(CAISSON_TRY(pin(roots(), kind, name, request.subpath)).directory);
    return mount;
}

// The box's file names them already.
Result<> Catalogue::make_anonymous(const std::vector<wire::BoxMount>& mounts) {
    bool any = false;
    for (const auto& mount : mounts) {
        if (!mount.anonymous() || is_directory(in("anonymous", mount.volume()))) continue;
        CAISSON_TRY(make_volume_directory(in("anonymous", mount.volume())));
        any = true;
    }
    return any ? os::fsync_directory(in("anonymous")) : Result<>();
}

Result<> Catalogue::add(const std::string& box, wire::BoxMounts mounts, const std::vector<Request>& requests, bool attached, wire::BoxMounts& result) {
    const auto before = mounts;
    const bool had_file = os::exists(in("boxes", box));
    std::vector<std::string> named;
    std::vector<wire::BoxMount> added;
    std::set<std::string> disks;
    auto done = [&]() -> Result<> {
        for (const auto& request : requests) {
            auto mount = CAISSON_TRY(plan(request, named));
            if (mount.disk()) CAISSON_TRY(count_disk(disks, mount.volume(), request.subpath));
            mount.set_number(mounts.last_number() + 1);
            mount.set_attached(attached);
            mounts.set_last_number(mount.number());
            *mounts.add_mounts() = mount;
            added.push_back(std::move(mount));
        }
        CAISSON_TRY(write(box, mounts));
        return make_anonymous(added);
    }();
    if (done) {
        result = std::move(mounts);
        return {};
    }
    for (const auto& mount : added)
        if (mount.anonymous()) static_cast<void>(::rmdir(in("anonymous", mount.volume()).c_str()));
    if (!had_file) static_cast<void>(::unlink(in("boxes", box).c_str()));
    else static_cast<void>(write(box, before));
    for (const auto& name : named) {
        static_cast<void>(::rmdir(in("named", name).c_str()));
        static_cast<void>(::unlink(in("info", name).c_str()));
    }
    return done;
}

Result<wire::BoxMounts> Catalogue::give(const std::string& box, const std::vector<Request>& requests) {
    CAISSON_TRY(check_name(box));
    auto lock = CAISSON_TRY(os::FileLock::acquire(in("lock")));
    if (os::exists(in("boxes", box))) return failure(Errc::kAlreadyExists, "box " + box + " has its volumes already");
    wire::BoxMounts mounts;
    CAISSON_TRY(add(box, {}, requests, false, mounts));
    return mounts;
}

Result<wire::BoxMount> Catalogue::attach(const std::string& box, const Request& request) {
    auto lock = CAISSON_TRY(os::FileLock::acquire(in("lock")));
    auto before = CAISSON_TRY(mounts(box));
    if (check_name(request.name) && is_file(in("disks", request.name)))
        return failure(Errc::kUnsupported, "volume '" + request.name + "' is a disk, which a machine has from its start or not at all",
                       "make a new box with it (caisson run -v " + request.name + ":/PATH), or attach a volume that is a directory");
    for (const auto& mount : before.mounts())
        if (mount.target() == request.target)
            return failure(Errc::kInUse, "the box has volume '" + mount.volume() + "' at " + base::printable(request.target, 400),
                           "detach that one first, or choose another place");
    wire::BoxMounts after;
    CAISSON_TRY(add(box, std::move(before), {request}, true, after));
    return after.mounts(after.mounts_size() - 1);
}

// Those of `ids` that no box but this one has.
Result<> Catalogue::discard_anonymous(const std::string& box, const std::vector<std::string>& ids, std::vector<Discarded>& discarded) {
    if (ids.empty()) return {};
    std::set<std::string> kept;
    for (const auto& [other, mounts] : CAISSON_TRY(all_mounts()))
        for (const auto& mount : mounts.mounts())
            if (other != box && mount.anonymous()) kept.insert(mount.volume());
    for (const auto& id : ids) {
        if (kept.contains(id) || !base::is_ulid(id)) continue;
        CAISSON_TRY(discard(in("anonymous", id), discarded));
        CAISSON_TRY(unlink_if_there(in("space", id)));
    }
    return {};
}

Result<> Catalogue::detach(const std::string& box, std::uint32_t number) {
    std::vector<Discarded> discarded;
    {
        auto lock = CAISSON_TRY(os::FileLock::acquire(in("lock")));
        auto left = CAISSON_TRY(mounts(box));
        auto* all = left.mutable_mounts();
        auto found = std::find_if(all->begin(), all->end(), [&](const auto& mount) { return mount.number() == number; });
        if (found == all->end()) return failure(Errc::kNotFound, "the box has no volume number " + std::to_string(number));
        const auto gone = *found;
        all->erase(found);
        const bool again = std::any_of(all->begin(), all->end(), [&](const auto& mount) { return mount.anonymous() && mount.volume() == gone.volume(); });
        CAISSON_TRY(write(box, left));
        if (gone.anonymous() && !again) CAISSON_TRY(discard_anonymous(box, {gone.volume()}, discarded));
    }
    CAISSON_TRY(remove_discarded(discarded));
    return {};
}

Result<> Catalogue::undo(const wire::BoxMounts& given) {
    auto lock = CAISSON_TRY(os::FileLock::acquire(in("lock")));
    for (const auto& mount : given.mounts()) {
        if (!mount.made() || !check_name(mount.volume())) continue;
        auto volume = look_up(Kind::kNamed, mount.volume());
        if (!volume || volume->disk) continue;
        add_uses(CAISSON_TRY(all_mounts()), *volume);
        // One that somebody has filled meanwhile is his: rmdir(2) leaves it.
        if (!volume->boxes.empty() || ::rmdir(directory_of(*volume).c_str()) != 0) continue;
        CAISSON_TRY(unlink_if_there(in("info", volume->name)));
        CAISSON_TRY(unlink_if_there(in("space", volume->name)));
    }
    return {};
}

Result<> Catalogue::release(const std::string& box) {
    if (!check_name(box) || !os::exists(in("boxes", box))) return {};
    std::vector<Discarded> discarded;
    {
        auto lock = CAISSON_TRY(os::FileLock::acquire(in("lock")));
        std::vector<std::string> ids;
        const auto had = CAISSON_TRY(mounts(box));
        for (const auto& mount : had.mounts())
            if (mount.anonymous()) ids.push_back(mount.volume());
        // The file goes last: as long as it is there, whoever finds it does this again.
        CAISSON_TRY(discard_anonymous(box, ids, discarded));
        CAISSON_TRY(unlink_if_there(in("boxes", box)));
    }
    CAISSON_TRY(remove_discarded(discarded));
    return {};
}

// --- what dead processes left

// A first look, without the lock.
bool Catalogue::has_strays() const {
    for (const char* directory : {"trash", "boxes", "anonymous"}) {
        auto names = os::list_directory(in(directory));
        if (!names || !names->empty()) return true;
    }
    for (const char* directory : {"info", "space"}) {
        auto names = os::list_directory(in(directory));
        if (!names) return true;
        for (const auto& name : *names)
            if (!has_named(name)) return true;
    }
    return false;
}

Result<> Catalogue::sweep_locked(const std::vector<std::string>& known) {
    std::vector<Discarded> discarded;  // let go of at the end: empty_trash() finds them
    const std::set<std::string> boxes(known.begin(), known.end());
    std::set<std::string> mentioned;
    bool complete = true;
    for (const auto& box : CAISSON_TRY(os::list_directory(in("boxes")))) {
        if (!boxes.contains(box)) {
            CAISSON_TRY(os::remove_tree(in("boxes", box)));
            continue;
        }
        // Of a damaged file nobody knows what it mentioned. It keeps nobody from the other boxes.
        auto mounts = read_record<wire::BoxMounts>(in("boxes", box));
        complete = complete && mounts.has_value();
        if (!mounts || !*mounts) continue;
        for (const auto& mount : (*mounts)->mounts())
            if (mount.anonymous()) mentioned.insert(mount.volume());
    }
    if (complete)
        for (const auto& id : CAISSON_TRY(os::list_directory(in("anonymous"))))
            if (!mentioned.contains(id)) CAISSON_TRY(discard(in("anonymous", id), discarded));
    for (const char* directory : {"info", "space"})
        for (const auto& name : CAISSON_TRY(os::list_directory(in(directory))))
            if (!has_named(name) && !is_directory(in("anonymous", name)))
                CAISSON_TRY(os::remove_tree(in(directory, name)));
    return {};
}

Result<std::uint64_t> Catalogue::sweep(const std::function<Result<std::vector<std::string>>()>& known, bool wait) {
    if (!has_strays()) return 0;
    {
        auto lock = wait ? os::FileLock::acquire(in("lock")) : os::FileLock::try_acquire(in("lock"));
        if (!lock && lock.error().code == Errc::kInUse) return 0;
        CAISSON_TRY(std::move(lock));
        CAISSON_TRY(sweep_locked(CAISSON_TRY(known())));
    }
    return empty_trash();
}

// --- the count of a volume with a limit

Result<os::Fd> Catalogue::open_space(Kind kind, const std::string& name, bool counted) const {
    auto volume = CAISSON_TRY(pin(roots(), kind, name, {}));
    for (;;) {
        auto count = CAISSON_TRY(os::open_file(in("space", name), O_RDWR | O_CREAT | O_NOFOLLOW, 0600));
        // Whoever is alone counts: the last one may have died between a write and its count.
        if (::flock(count.get(), LOCK_EX | LOCK_NB) == 0) {
            const auto used = counted ? static_cast<std::int64_t>(CAISSON_TRY(allocated_bytes(volume.file))) : std::int64_t{0};
            char bytes[sizeof used];
            std::memcpy(bytes, &used, sizeof used);
            if (::pwrite(count.get(), bytes, sizeof bytes, 0) != sizeof bytes || ::ftruncate(count.get(), sizeof bytes) != 0)
                return failure_errno("cannot write how much volume '" + name + "' takes");
        } else if (errno != EWOULDBLOCK) {
            return failure_errno("cannot lock the count of volume '" + name + "'");
        }
        // Whoever counts has it for a moment. A server that was taken over could keep it for ever.
        if (!CAISSON_TRY_CTX(os::lock_within(count, LOCK_SH, kCountPatience), "cannot lock the count of volume '" + name + "'"))
            return failure(Errc::kInUse, "volume '" + name + "' is being counted, or a box that has it does not let others come",
                           "see which boxes have it: caisson volume inspect " + name);
        struct stat status {};
        if (::fstat(count.get(), &status) != 0) return failure_errno("cannot look at the count of volume '" + name + "'");
        // Empty: whoever counted died meanwhile. Without a name: the volume was removed.
        if (status.st_size == sizeof(std::int64_t) && status.st_nlink > 0) return count;
    }
}

}  // namespace caisson::volume
