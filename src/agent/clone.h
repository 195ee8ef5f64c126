// The one place of the agent that forks.
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "base/result.h"
#include "os/fd.h"

namespace caisson::agent {

struct Child {
    pid_t pid = 0;  // in the agent's pid namespace; 0 in the child itself
    os::Fd pidfd;   // in the agent only
};

// clone3(2) as fork, straight into `cgroup`; `namespaces` are CLONE_NEW* flags. The agent has one thread, so the child
// may do anything. It must end in exec or _exit.
Result<Child> fork_into(const os::Fd& cgroup, std::uint64_t namespaces);

// A process of the guest's, not of the container's: in the agent's own pid namespace, in no cgroup but the agent's.
Result<Child> fork_beside();

// Kills and reaps a child whose end nobody wants to know. One that cannot die within kReapPatienceMilliseconds (it hangs in a file
// system that the agent itself may have to serve) is left to its fate.
void dispose(Child& child);
inline constexpr int kReapPatienceMilliseconds = 2000;

// Brings all of the process's memory in, and makes what it still shares with a parent or child its own: page faults
// that happen before the template is saved do not happen in every box.
void settle_memory();

}  // namespace caisson::agent
