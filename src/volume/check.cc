#include "volume/check.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <map>

#include "base/id.h"
#include "base/text.h"
#include "os/host.h"
#include "volume/names.h"

namespace caisson::volume {

using base::failure;
using base::failure_errno;
using store::Aside;
using store::object_of;
using store::Trouble;
using store::Troubles;

namespace {

constexpr std::size_t kMostRecordBytes = 1 << 20;
// Whoever holds the catalogue does so for milliseconds; a stopped one must not stop who looks.
constexpr std::chrono::milliseconds kPatience{2000};

// The catalogue's lock for reading, without making or writing anything; none if there is no such file, or not in time: what is
// in the way of another process is looked at again anyway.
os::Fd lock_to_look(const std::string& path) {
    auto file = os::open_file(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    if (!file) return {};
    return os::lock_within(*file, LOCK_SH, kPatience).value_or(false) ? std::move(*file) : os::Fd();
}

// nullopt with `damaged` set, or if there is none.
template <typename Message>
std::optional<Message> read_message(const std::string& path, bool& damaged) {
    auto text = os::read_file(path, kMostRecordBytes);
    Message message;
    damaged = text ? !message.ParseFromString(*text) : text.error().sys_errno != ENOENT;
    return text && !damaged ? std::optional<Message>(std::move(message)) : std::nullopt;
}

std::vector<std::string> names_in(const std::string& directory) {
    return os::list_directory(directory).value_or(std::vector<std::string>());
}

// Empty: it is what it should be.
std::string flaw_of(const struct stat& info, bool directory) {
    if (S_ISLNK(info.st_mode)) return "is a symbolic link";
    if (directory ? !S_ISDIR(info.st_mode) : !S_ISREG(info.st_mode)) return directory ? "is no directory" : "is no file";
    if (info.st_uid != ::geteuid()) return "belongs to user " + std::to_string(info.st_uid);
    if (!directory && info.st_nlink != 1) return "has a second name somewhere";
    return {};
}

class Checker {
  public:
    explicit Checker(const CheckRequest& request) : request_(request) {}

    Troubles check(std::size_t& volumes) {
        struct stat info {};
        if (::lstat(request_.volumes.c_str(), &info) != 0) return {};
        auto lock = lock_to_look(in("lock"));
        for (const char* directory : {"named", "anonymous", "disks", "info", "space", "boxes", "trash"}) {
            store::check_mode(request_.home, in(directory), false, "home_mode", found_);
            store::find_unfinished(request_.home, in(directory), found_);
        }
        read_boxes();
        check_named();
        check_anonymous();
        check_records();
        check_mounts();
        check_trash();
        volumes = count_;
        return std::move(found_);
    }

  private:
    std::string in(const std::string& directory, const std::string& name = {}) const {
        return request_.volumes + "/" + directory + (name.empty() ? "" : "/" + name);
    }
    std::string object(const std::string& path) const { return object_of(request_.home, path); }
    std::string lock_path() const { return in("lock"); }

    void add_aside(Trouble trouble, const std::string& path) {
        trouble.mend = [path, lock_path = lock_path()](Aside& aside) -> Result<std::string> {
            auto lock = CAISSON_TRY(os::FileLock::acquire(lock_path));
            CAISSON_TRY(aside.take(path));
            return std::string("moved aside");
        };
        found_.push_back(std::move(trouble));
    }

    void read_boxes() {
        for (const auto& box : names_in(in("boxes"))) {
            const auto path = in("boxes", box);
            if (is_temporary(box)) continue;
            if (request_.boxes_known && !request_.boxes.contains(box)) {
                auto stray = store::warning("volume_mounts_stray", object(path), "says which volumes a box has that there is not", "moves it aside, with the anonymous volumes of that box");
                stray.mend = [volumes = request_.volumes, box](Aside& aside) -> Result<std::string> {
                    CAISSON_TRY(put_box_aside(volumes, box, aside));
                    return std::string("moved aside");
                };
                found_.push_back(std::move(stray));
            }
            bool damaged = false;
            auto mounts = read_message<wire::BoxMounts>(path, damaged);
            if (mounts) mounts_.emplace(box, std::move(*mounts));
            if (!damaged) continue;
            complete_ = false;
            if (request_.boxes_known && !request_.boxes.contains(box)) continue;
            auto bad = store::error("volume_mounts_damaged", object(path), "says which volumes box " + box + " has, and cannot be read",
                                    "moves the box aside, with its disk and its anonymous volumes; named volumes stay");
            bad.mend = [give_up = request_.give_up_box, box](Aside& aside) { return give_up(box, aside); };
            found_.push_back(std::move(bad));
        }
        for (const auto& [box, mounts] : mounts_)
            for (const auto& mount : mounts.mounts())
                if (mount.anonymous()) mentioned_.insert(mount.volume());
    }

    static bool is_temporary(const std::string& name) { return name.find(".tmp.") != std::string::npos; }

    void check_one(const std::string& path, bool directory) {
        struct stat info {};
        if (::lstat(path.c_str(), &info) != 0) return;
        if (auto what = flaw_of(info, directory); !what.empty()) {
            const bool foreign = S_ISREG(info.st_mode) || S_ISDIR(info.st_mode);
            auto bad = store::error("volume_damaged", object(path), what + ", which no volume does", foreign ? "nothing; give it back to user " + std::to_string(::geteuid()) + " (chown), or move it away" : "moves it aside");
            if (foreign) found_.push_back(std::move(bad));
            else add_aside(std::move(bad), path);
            return;
        }
        store::check_mode(request_.home, path, true, "volume_mode", found_);
    }

    void check_named() {
        for (const auto& name : names_in(in("named"))) check_name_of("named", name, true);
        for (const auto& name : names_in(in("disks"))) check_name_of("disks", name, false);
    }

    void check_name_of(const char* place, const std::string& name, bool directory) {
        if (is_temporary(name)) return;
        const auto path = in(place, name);
        if (!check_name(name)) {
            found_.push_back(store::warning("volume_unknown", object(path), "has a name that no volume can have", "nothing; move it away"));
            return;
        }
        ++count_;
        check_one(path, directory);
        if (directory && exists(in("disks", name)))
            found_.push_back(store::error("volume_twice", object(path), "is there as a directory and as a disk", "nothing; move one of them away"));
        bool damaged = false;
        auto record = read_message<wire::VolumeRecord>(in("info", name), damaged);
        if (damaged) add_lost_record(name, directory, path);
        else if (!directory) check_disk(name, path, record);
    }

    static bool exists(const std::string& path) {
        struct stat info {};
        return ::lstat(path.c_str(), &info) == 0;
    }

    void add_lost_record(const std::string& name, bool directory, const std::string& path) {
        auto bad = store::error("volume_info_damaged", object(in("info", name)), "is what is known of volume '" + name + "', and cannot be read",
                                std::string("moves it aside; the volume stays, without its labels") + (directory ? " and its limit" : ""));
        bad.mend = [info = in("info", name), path, directory, lock_path = lock_path()](Aside& aside) -> Result<std::string> {
            auto lock = CAISSON_TRY(os::FileLock::acquire(lock_path));
            CAISSON_TRY(aside.take(info));
            if (!directory) CAISSON_TRY(write_disk_record(info, path));
            return std::string("moved aside");
        };
        found_.push_back(std::move(bad));
    }

    static Result<> write_disk_record(const std::string& info, const std::string& disk) {
        struct stat status {};
        if (::lstat(disk.c_str(), &status) != 0) return failure_errno("cannot look at " + disk);
        wire::VolumeRecord record;
        record.set_disk(true);
        record.set_limit_bytes(static_cast<std::uint64_t>(status.st_size));
        record.set_created_ms(os::unix_ms());
        return os::write_file_atomic(info, record.SerializeAsString());
    }

    void check_disk(const std::string& name, const std::string& path, const std::optional<wire::VolumeRecord>& record) {
        struct stat status {};
        if (::lstat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return;
        const auto size = static_cast<std::uint64_t>(status.st_size);
        if (record && record->disk() && record->limit_bytes() == size) return;
        auto bad = store::error("volume_disk_size", object(path),
                                record ? "has " + std::to_string(size) + " bytes and should have " + std::to_string(record->limit_bytes())
                                       : "is a disk whose size nobody has recorded",
                                "records the size that it has; the disk itself is left as it is");
        bad.mend = [info = in("info", name), path, lock_path = lock_path()](Aside& aside) -> Result<std::string> {
            auto lock = CAISSON_TRY(os::FileLock::acquire(lock_path));
            CAISSON_TRY(aside.take(info));
            CAISSON_TRY(write_disk_record(info, path));
            return std::string("recorded its size");
        };
        found_.push_back(std::move(bad));
    }

    void check_anonymous() {
        for (const auto& id : names_in(in("anonymous"))) {
            const auto path = in("anonymous", id);
            if (base::is_ulid(id)) ++count_;
            check_one(path, true);
            if (!complete_ || mentioned_.contains(id)) continue;
            auto stray = store::warning("volume_stray", object(path), "is an anonymous volume that no box has", "moves it aside; else it is removed when the home is opened next");
            if (!exists(path)) continue;
            add_aside(std::move(stray), path);
        }
    }

    void check_records() {
        for (const char* directory : {"info", "space"})
            for (const auto& name : names_in(in(directory))) {
                if (is_temporary(name) || exists(in("named", name)) || exists(in("disks", name)) || exists(in("anonymous", name))) continue;
                const auto path = in(directory, name);
                add_aside(store::warning("volume_record_stray", object(path), "is about a volume that there is not", "moves it aside"), path);
            }
    }

    // What boxes have.
    void check_mounts() {
        for (const auto& [box, mounts] : mounts_) {
            if (request_.boxes_known && !request_.boxes.contains(box)) continue;
            for (const auto& mount : mounts.mounts()) {
                const auto path = mount.anonymous() ? in("anonymous", mount.volume()) : mount.disk() ? in("disks", mount.volume()) : in("named", mount.volume());
                if (exists(path)) continue;
                add_lost(box, mount, path);
            }
        }
    }

    void add_lost(const std::string& box, const wire::BoxMount& mount, const std::string& path) {
        auto lost = store::error("volume_missing", "box " + box, "its volume " + object(path) + " (" + mount.target() + ") is missing",
                                 mount.anonymous() ? "makes an empty one in its place" : "nothing; put the volume back, make a new one (caisson volume create), or remove the box");
        if (mount.anonymous() && base::is_ulid(mount.volume()))
            lost.mend = [path, lock_path = lock_path()](Aside&) -> Result<std::string> {
                auto lock = CAISSON_TRY(os::FileLock::acquire(lock_path));
                if (exists(path)) return std::string("it is there by now");
                CAISSON_TRY(make_volume_directory(path));
                return std::string("made an empty one");
            };
        found_.push_back(std::move(lost));
    }

    void check_trash() {
        for (const auto& name : names_in(in("trash"))) {
            const auto path = in("trash", name);
            if (store::is_held(path)) continue;
            auto left = store::warning("volume_unfinished", object(path), "is a volume that was being made or removed when who did that died", "removes it, as opening the home does");
            left.finding.repairable = true;
            found_.push_back(std::move(left));
        }
    }

    const CheckRequest& request_;
    std::map<std::string, wire::BoxMounts> mounts_;
    std::set<std::string> mentioned_;  // anonymous volumes
    bool complete_ = true;             // every box's file could be read
    std::size_t count_ = 0;
    Troubles found_;
};

}  // namespace

Troubles check_volumes(const CheckRequest& request, std::size_t& volumes) {
    volumes = 0;
    return Checker(request).check(volumes);
}

Result<> put_box_aside(const std::string& volumes, const std::string& box, Aside& aside) {
    CAISSON_TRY(check_name(box));
    const auto path = volumes + "/boxes/" + box;
    if (!os::exists(path)) return {};
    auto lock = CAISSON_TRY(os::FileLock::acquire(volumes + "/lock"));
    std::map<std::string, std::set<std::string>> users;
    for (const auto& other : names_in(volumes + "/boxes")) {
        bool damaged = false;
        auto mounts = read_message<wire::BoxMounts>(volumes + "/boxes/" + other, damaged);
        if (!mounts) continue;
        for (const auto& mount : mounts->mounts())
            if (mount.anonymous() && base::is_ulid(mount.volume())) users[mount.volume()].insert(other);
    }
    // The file goes last: as long as it is there, whoever finds it does this again.
    for (const auto& [id, having] : users)
        if (having == std::set<std::string>{box}) CAISSON_TRY(aside.take(volumes + "/anonymous/" + id));
    return aside.take(path);
}

}  // namespace caisson::volume
