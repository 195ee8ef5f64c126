// How caisson-netns locks itself, once the namespace is made and before a packet of the guest is read: pure descriptions
// of what is left to it, and the function that applies them for good.
#pragma once

#include "base/result.h"
#include "jail/filter.h"
#include "os/landlock.h"

namespace caisson::net {

// No file at all. Connections it makes, in its own namespace.
os::Landlock netns_files();

// Opens: what an event loop over descriptors that are there calls, and making internet sockets. Not among them: opening
// files, starting or tracing processes, signals, netlink sockets, executable memory.
jail::Filter netns_calls();

// Applies them to this process, with no capability but CAP_NET_ADMIN over its own namespace (verdicts on packets, and
// transparent sockets), no core files, limits of memory and descriptors, and an end with its parent. On a kernel without Landlock the rest has to
// do. Errors: kHostMissing, a kernel that refuses.
Result<> lock_netns();

}  // namespace caisson::net
