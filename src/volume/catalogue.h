// All volumes of a home, and which box uses which. Everything is a file below <home>/volumes (0700), changed by rename(2)
// only, under one lock, so that a process that dies at any point leaves either the old or the new, and what lies between
// is removed by sweep():
//
//   named/NAME, anonymous/ID   the volumes themselves, see gate.h
//   disks/NAME                 volumes that are disks, see disk.h
//   info/NAME                  wire::VolumeRecord of a named one. Without it: a directory without a limit
//   space/NAME, space/ID       count of used bytes of one with a limit, see share/space.h
//   boxes/BOX                  wire::BoxMounts: what that box has. It is what its launcher goes by; the supervisor, which
//                              talks to the guest, can neither read nor write it
//   trash/                     what is being removed, and what is being made: a directory in it that somebody holds a
//                              lock on (flock(2)) is still being filled
//   lock
//
// One object may be used by several threads. Errors name the volume and say what to do.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "os/file.h"
#include "volume/gate.h"
#include "wire/volume.pb.h"

namespace caisson::volume {

struct Volume {
    Kind kind = Kind::kNamed;
    std::string name;  // or id
    bool disk = false;
    std::uint64_t limit_bytes = 0;
    std::int64_t created_ms = 0;
    std::map<std::string, std::string> labels;
    std::vector<std::string> boxes;  // ids of those that have it, sorted
};

// A directory that becomes a volume, or nothing if its owner dies before that.
class Staged {
  public:
    Staged(Staged&& other) noexcept : directory_(std::move(other.directory_)), path_(std::exchange(other.path_, {})) {}
    Staged& operator=(Staged&&) = delete;
    ~Staged();
    const os::Fd& directory() const { return directory_; }
    const std::string& path() const { return path_; }

  private:
    friend class Catalogue;
    Staged(os::Fd directory, std::string path) : directory_(std::move(directory)), path_(std::move(path)) {}
    os::Fd directory_;  // locked
    std::string path_;
};

// What a box is to have; validated (names, targets) by whoever asks.
struct Request {
    std::string name;       // empty: an anonymous one is made
    std::string host_path;  // instead of a name: pin_path()'s
    std::string subpath, target;
    bool read_only = false, no_exec = false, no_suid = false;
    std::uint64_t limit_bytes = 0;  // of one that is made for this; one that is there must have it, too
};

// An empty directory (0700) that boxes see as their user's. kHostMissing: its file system keeps no attributes of users.
Result<> make_volume_directory(const std::string& path);

class Catalogue {
  public:
    // `volumes`: <home>/volumes. Makes what is missing.
    static Result<Catalogue> open(const std::string& volumes);

    Roots roots() const;
    std::string directory_of(const Volume& volume) const;  // of a disk: its file

    // kAlreadyExists; kUsage for a name that is none, or that looks like an anonymous volume's. A disk's file is made by the
    // caller with `make_disk`, which gets its path, before anybody sees the volume.
    Result<Volume> create(const std::string& name, bool disk, std::uint64_t limit_bytes, const std::map<std::string, std::string>& labels,
                          const std::function<Result<>(const std::string& path)>& make_disk = {});
    // What create() would say of the name, for those who have much to do before.
    Result<> check_free(const std::string& name) const;
    // An empty directory, 0700, and what turns it into a named volume in one step. Errors as for create().
    Result<Staged> stage();
    Result<Volume> create(const std::string& name, std::uint64_t limit_bytes, const std::map<std::string, std::string>& labels, Staged staged);
    // kNotFound. By name, or by the id of an anonymous one.
    Result<Volume> find(const std::string& name) const;
    // Named ones first, each by name.
    Result<std::vector<Volume>> list() const;
    // kInUse names a box (by id) that has it; kNotFound.
    Result<> remove(const std::string& name);
    // Bytes that it takes on the host's disk. kNotFound; kInUse: a box moved its directories all the time meanwhile.
    Result<std::uint64_t> used_bytes(const Volume& volume) const;

    // Gives a box that has none yet its mounts: makes anonymous volumes and missing named ones, checks that every part
    // exists (gate.h), writes the box's file. All or nothing: after an error nothing that it made is left.
    Result<wire::BoxMounts> give(const std::string& box, const std::vector<Request>& requests);
    // The box has to be known to those whom sweep() asks.
    // One more, or one less (by its number), of a box that has its file or not. A named volume is made if it is missing.
    // kInUse: something is mounted there.
    Result<wire::BoxMount> attach(const std::string& box, const Request& request);
    Result<> detach(const std::string& box, std::uint32_t number);
    // Empty if it has none.
    Result<wire::BoxMounts> mounts(const std::string& box) const;
    // The box is gone: so are its file and its anonymous volumes, unless another box mounted them by their path. Not an
    // error if there are none.
    Result<> release(const std::string& box);
    // What give() returned came to nothing: of the named volumes that it made those go that are empty and that no box has.
    Result<> undo(const wire::BoxMounts& given);
    // Removes what dead processes left: of boxes that are not `known`, and what was being removed. Cheap if there is nothing.
    // `known` is asked only if something is there, and under the lock: whoever calls give() has told of the box before.
    // While another process changes something it does nothing, unless it is to `wait` for it. Bytes that it freed.
    Result<std::uint64_t> sweep(const std::function<Result<std::vector<std::string>>()>& known, bool wait = false);

    // The count of used bytes of a volume with a limit, as the share server wants it; counted anew if nobody else has it
    // open. Held (shared flock) as long as the descriptor is open. Takes no lock of the catalogue. Not `counted`: of a volume
    // without a limit, whose servers only learn from it of each other.
    Result<os::Fd> open_space(Kind kind, const std::string& name, bool counted = true) const;

  private:
    explicit Catalogue(std::string root) : root_(std::move(root)) {}
    std::string in(const char* directory, const std::string& name = {}) const;
    // The lock is held by whoever calls these.
    Result<std::map<std::string, wire::BoxMounts>> all_mounts() const;
    Result<Volume> look_up(Kind kind, const std::string& name) const;
    Result<> make_named(const std::string& name, std::uint64_t limit_bytes, const std::map<std::string, std::string>& labels,
                        const std::function<Result<>(const std::string& path)>& appear, bool disk);
    Result<wire::BoxMount> plan(const Request& request, std::vector<std::string>& made);
    Result<> make_anonymous(const std::vector<wire::BoxMount>& mounts);
    Result<> add(const std::string& box, wire::BoxMounts mounts, const std::vector<Request>& requests, bool attached, wire::BoxMounts& result);
    Result<> write(const std::string& box, const wire::BoxMounts& mounts);
    // What is being removed. The lock (flock(2)) tells others that somebody does it.
    struct Discarded {
        std::string path;
        os::Fd lock;
    };
    static std::optional<Discarded> condemn(const std::string& path);
    static Result<std::uint64_t> remove_discarded(const std::vector<Discarded>& all);
    Result<> discard(const std::string& path, std::vector<Discarded>& discarded);
    Result<> discard_anonymous(const std::string& box, const std::vector<std::string>& ids, std::vector<Discarded>& discarded);
    Result<std::uint64_t> empty_trash();
    bool has_named(const std::string& name) const;
    bool has_strays() const;
    Result<> sweep_locked(const std::vector<std::string>& known);
    std::string root_;
};

}  // namespace caisson::volume
