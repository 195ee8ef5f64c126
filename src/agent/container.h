// The container: the root disk, the namespaces and PID 1 of it. Made by Configure, once in the life of a guest.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <memory>

#include "agent/cgroup.h"
#include "agent/clone.h"
#include "base/result.h"
#include "os/fd.h"
#include "wire/agent.pb.h"

namespace caisson::agent {

class Container {
  public:
    // Mounts the root disk and starts the container's init; container processes can be forked afterwards. Blocks for
    // as long as the disk takes to appear (kDiskDeadline at most). Fills the parts of `timings` that it knows.
    static Result<std::unique_ptr<Container>> create(const wire::Configure& configure, const BoxCgroup& cgroup,
                                                     wire::Configured& timings);
    ~Container();

    // A child of the agent in the container's pid namespace and cgroup; it joins the rest with enter().
    Result<Child> fork() const { return fork_into(cgroup_, 0); }
    // For that child: the container's mount, IPC, UTS and cgroup namespaces, its root directory included.
    Result<> enter() const;

    // Terminals: the container's own devpts.
    struct Terminal {
        os::Fd master;  // non-blocking
        os::Fd slave;
    };
    Result<Terminal> open_terminal() const;

    // To every process of the container but its init.
    Result<> signal_all(int signal) const;
    // Ends every process of the container; returns at once. Nothing can be forked into it afterwards.
    void kill();
    bool killed() const { return killed_; }
    // Waits for the init to be gone and takes the root disk down: nothing of it is left unwritten.
    Result<> unmount(std::chrono::milliseconds deadline);

  private:
    Container(Child init, const BoxCgroup& cgroup) : init_(std::move(init)), cgroup_(cgroup.fd()) {}
    Child init_;
    const os::Fd& cgroup_;
    os::Fd terminals_;  // directory of the container's devpts
    bool killed_ = false;
};

// "vda" of "/dev/vda"; kUsage for anything that is not a plain device name.
Result<std::string> disk_name(const std::string& device);

}  // namespace caisson::agent
