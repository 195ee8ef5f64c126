// What is mounted where in a container, as data: built by pure functions, tested as text, applied by a small
// executor. The lists follow Docker's defaults (moby oci/defaults.go) where nothing else is said.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/result.h"
#include "wire/agent.pb.h"

namespace caisson::agent {

struct MountStep {
    enum class Kind {
        kDirectory,  // mkdir -p target
        kMount,      // mount(source, target, type, flags, options)
        kReadOnly,   // target becomes a read-only view of itself; skipped if it is missing
        kMask,       // target is hidden: /dev/null (`source`) over a file, an empty directory over a directory; ditto
        kNode,       // device `major`:`minor`; `mode` says which kind and who may use it; one that is there stays
        kLink,       // symbolic link at target, pointing to source
        kUncover,    // what is mounted at target is taken away; skipped if nothing is
        kWritable,   // the mount at target may be written to
    };
    Kind kind;
    std::string target;
    std::string source = {};
    std::string type = {};
    unsigned long flags = 0;
    std::string options = {};
    unsigned mode = 0755;
    unsigned major = 0;
    unsigned minor = 0;
};
using MountPlan = std::vector<MountStep>;

// The agent's own file systems, mounted at boot.
MountPlan guest_mounts();
// A container's /dev and /sys and the place of its files: made before the template is saved, below /stage.
MountPlan staged_mounts();
// What is left for Configure, with the paths of the container (after its root became "/"): the same for every box,
MountPlan fixed_container_mounts();
// and what this box asks for. kUsage for a path that is not absolute or holds "..", kLimit beyond kMaxMounts.
Result<MountPlan> wanted_mounts(const wire::Configure& configure);
inline constexpr int kMaxMounts = 64;

// Hidden below /sys.
inline constexpr const char* kHiddenInSys[] = {"/firmware", "/devices/virtual/powercap"};

// Absolute, normal, not "/" itself.
Result<> check_mount_path(const std::string& path);

// One line for each step, for golden tests and for reading.
std::string describe(const MountPlan& plan);

// Applies a plan in the calling process's mount namespace. Stops at the first failure, which names the target.
Result<> apply(const MountPlan& plan);

}  // namespace caisson::agent
