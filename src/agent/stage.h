// What of the container can be made before the template is saved, so that no box has to wait for it: namespaces,
// /dev, /sys, its cgroup, places for its files, the plan of its mounts.
#pragma once

#include <vector>

#include "agent/cgroup.h"
#include "agent/mounts.h"
#include "base/result.h"
#include "os/fd.h"

namespace caisson::agent {

// A file of the agent's that can be bound into the container: a mount that is attached nowhere yet.
struct FileSlot {
    os::Fd file;  // for writing its content
    os::Fd tree;  // the detached mount
};

struct Stage {
    BoxCgroup cgroup;
    os::Fd guest_mounts;      // the agent's own mount namespace
    os::Fd container_mounts;  // the container's: the initial file system, /stage/dev and /stage/sys, and nothing else
    os::Fd terminals;         // directory of the container's devpts
    os::Fd null;              // the container's /dev/null, whatever it does to that name later
    os::Fd random;            // the random generator, to be reseeded
    std::vector<FileSlot> slots;
    MountPlan plan;           // fixed_container_mounts()

    // Also puts the calling process into the pid, IPC and UTS namespaces of the container-to-be: its first child
    // becomes the container's init, and every later one is born beside it.
    static Result<Stage> create();
};

// Slots that are ready beforehand. A box with more files makes the rest itself.
inline constexpr int kReadySlots = 6;
Result<FileSlot> make_slot(int number);

}  // namespace caisson::agent
