// What a privileged box has beyond its capabilities: all of the guest's devices, and the kernel's files as they are.
// The container is no wall then; the machine is.
#pragma once

#include <set>
#include <string>

#include "agent/mounts.h"

namespace caisson::agent {

// Takes the masks and read-only views away again, and makes /sys and its control groups writable. With the paths of the
// container; pure.
MountPlan uncovered_mounts();

// A node in the container's /dev for each device that the guest's kernel shows below `devices`, with the kernel's modes.
// Left out are the agent's ports and the box's own `disks` that are mounted already ("vda"), which a slip of the hand would break; a
// privileged process can make these nodes itself. To be called in the agent's own mount namespace.
Result<MountPlan> device_nodes(const std::string& devices, const std::set<std::string>& disks);

}  // namespace caisson::agent
