// Volumes: directories (or disks) of the home that boxes may use, the only state of the host that a box can see.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "caisson/copy.h"
#include "caisson/result.h"

namespace caisson {

// A volume, or one file or directory of it, in a box.
struct MountOption {
    std::string volume;         // its name; made if there is none. Empty: one that is made for this box and removed with it
    std::string host_path;      // instead of a name, for callers that know a volume by its path on the host
    std::string subpath;        // relative; a regular file or directory of the volume, which must exist. Empty: all of it
    std::string target;         // absolute, in the box; made if it is missing
    bool read_only = false;     // the guest then sees the ids that are stored
    bool no_exec = false;
    bool no_suid = false;
    std::uint64_t size_bytes = 0;  // of a volume that is made for this: its limit. 0: none
};

struct TmpfsOption {
    std::string path;  // absolute, in the box
    std::uint64_t size_bytes = 0;
    std::uint32_t mode = 01777;
    bool executable = false;
};

// Copied into the root disk of a new box, as root's, before its command runs: as `caisson cp` does it, into `target` if
// that is a directory of the image, else as `target`, whose parent must be there.
struct CopyOption {
    std::string source;  // on the host, read as the calling user
    std::string target;  // absolute, in the box; not below one of its mounts
    // For programs started as root: `source`, opened by HostCopy::pack() before leave_root(). It serves one box. Null:
    // `source` is opened by the call that makes the box, with the rights that the process has then.
    std::shared_ptr<HostCopy> opened;
};

// What the options -v, --mount and --copy say, for programs that take them as caisson's command line does (docs/cli.md).
// kUsage says what is wrong and how it is to be written. A path of the host instead of a volume's name is refused with the
// commands that copy it into a volume; it is looked at only to word them. Nothing is made.
CAISSON_API Result<MountOption> parse_volume_option(std::string_view text);
CAISSON_API Result<std::variant<MountOption, TmpfsOption>> parse_mount_option(std::string_view text);
CAISSON_API Result<CopyOption> parse_copy_option(std::string_view text);

struct VolumeOptions {
    std::string name;             // empty: drawn
    std::string type = "directory";  // or "disk": ext4 on a device of its own, for one box at a time
    std::uint64_t size_bytes = 0; // a hard limit; 0: none, which a disk must not have
    std::map<std::string, std::string> labels;
};

struct VolumeInfo {
    std::string name;        // of anonymous ones their id
    std::string type;        // "directory" or "disk"
    bool anonymous = false;
    std::int64_t created_ms = 0;       // Unix time; 0: not known
    std::uint64_t size_bytes = 0;      // its limit; 0: none
    std::optional<std::uint64_t> used_bytes;  // on the host's disk; not counted for a list, or it changed too fast
    std::string path;                  // on the host
    std::map<std::string, std::string> labels;
    std::vector<std::string> boxes;    // names of those that use it, whether they run or not
};

struct PrunedVolumes {
    std::vector<std::string> volumes;  // names that went away, and ids of anonymous ones that no box had any more
    std::uint64_t freed_bytes = 0;
};

// What is mounted in a box.
struct MountInfo {
    std::string type;    // "volume" or "tmpfs"
    std::string volume;  // its name or id
    bool anonymous = false;
    std::string subpath, target;
    bool read_only = false, no_exec = false, no_suid = false;
    bool attached = false;  // while it ran, and not when it was made
};

}  // namespace caisson
