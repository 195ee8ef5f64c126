// Processes: the only file of the tree that forks. A Command is plain data; spawn() turns it into a Process that
// is reaped by its owner.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "os/fd.h"

namespace caisson::os {

// The control groups that a child is in from its first instruction on; see os/cgroup.h. Nothing but descriptors, which
// stay the caller's.
struct GroupEntry {
    std::vector<int> procs;  // open cgroup.procs files: it writes itself into each before it does anything else
    int directory = -1;      // an open directory of version 2: it is born there (CLONE_INTO_CGROUP)
};

// What a child starts with. Everything that is not listed here it does not get: no environment, no descriptors.
struct Command {
    std::vector<std::string> arguments;  // argv[0] is also the program's path unless `program` is set
    int program_fd = -1;                 // executes this open file instead of a path (execveat)
    std::vector<std::string> environment;  // "NAME=value"
    struct Descriptor {
        int source;  // in the parent; stays the parent's
        int target;  // number in the child, without close-on-exec
    };
    std::vector<Descriptor> descriptors;  // 0, 1, 2 that are not listed become /dev/null
    std::string working_directory = "/";
    bool new_session = false;
    // An empty session keyring (keyrings(7)) in the place of the caller's, whose keys no namespace hides.
    bool new_keyring = false;
    // SIGKILL when the spawning *thread* ends (prctl PR_SET_PDEATHSIG): only for our own single-threaded programs.
    bool die_with_parent = false;
    std::optional<uid_t> user;   // with `group`: setgroups([]), setresgid, setresuid before the exec
    std::optional<gid_t> group;
    struct ResourceLimit {
        int resource;  // RLIMIT_CORE, ...
        unsigned long long value;  // soft and hard
    };
    std::vector<ResourceLimit> resource_limits;
    GroupEntry groups;  // a child that cannot enter one is not started
};

// How a process ended, as wait status halves.
struct ExitStatus {
    bool signalled = false;
    int code = 0;  // exit code, or the signal's number
};

// Owner of one child. The destructor kills (SIGKILL) and reaps it if that has not happened yet.
class Process {
  public:
    Process() = default;
    Process(Process&& other) noexcept;
    Process& operator=(Process&& other) noexcept;
    ~Process();

    pid_t pid() const { return pid_; }
    const Fd& pidfd() const { return pidfd_; }  // readable once the process has ended
    bool running() const { return pid_ > 0; }
    Result<> send_signal(int signal) const;
    // Waits and reaps; without a deadline for ever. kTimeout leaves it running.
    Result<ExitStatus> wait(std::optional<std::chrono::milliseconds> deadline = std::nullopt);
    // Lets it live on: neither killed nor reaped any more.
    void release();
    // SIGTERM, then after `grace` SIGKILL; reaps.
    Result<ExitStatus> stop(std::chrono::milliseconds grace);

  private:
    friend Result<Process> spawn(const Command& command);
    friend Result<Process> spawn_group_keeper(int procs, std::chrono::milliseconds longest);
    friend Result<> in_own_mount_namespace(const std::function<Result<>()>& body);
    pid_t pid_ = -1;
    Fd pidfd_;
};

// clone3(2) + execve(2). Errors of the child before its exec come back here (kNotFound, kPermission, ...).
// Safe in multi-threaded callers: the child makes only async-signal-safe calls.
Result<Process> spawn(const Command& command);

// A child that does nothing but enter the control group behind `procs` (its cgroup.procs, open for writing) every
// millisecond, for `longest`, or until its owner or the caller ends. While somebody does that, others enter groups at
// once; the first to do so waits for a grace period of the kernel, 5 to 40 ms (cgroup_threadgroup_rwsem). So whoever
// will start something in a group soon has the waiting done beside its other work. It holds no other descriptor.
Result<Process> spawn_group_keeper(int procs, std::chrono::milliseconds longest);

// Runs `body` in a child that has a user and a mount namespace of its own, in which it has all capabilities and no user
// but the caller's; the host's files it sees as the caller does. Returns once it has ended. Single-threaded callers only:
// `body` may do whatever it could do here. Errors: kHostMissing, such namespaces are refused; those of `body`.
Result<> in_own_mount_namespace(const std::function<Result<>()>& body);

// A pidfd of `pid`, if that is a child of `parent` (which must not be reaped meanwhile, or its number could be another's).
// kNotFound: there is no such process, or it is somebody else's child by now.
Result<Fd> open_child_of(pid_t parent, pid_t pid);

// Start time of a process in clock ticks since boot (/proc/PID/stat, field 22): tells a reused pid from the original.
// kNotFound if there is no such process, or only its zombie.
Result<unsigned long long> process_start_time(pid_t pid);

}  // namespace caisson::os
