// Jail descriptions and their executor.
//
// A Description says everything that one kind of process may touch; command() renders it for bubblewrap. What a
// description does not list does not exist inside: no file of the host, no environment, no descriptor, no network,
// no capability. All namespaces (user, mount, PID, IPC, UTS, cgroup, network) are the jail's own; only a description
// that says so keeps the host's network.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "jail/filter.h"
#include "os/process.h"

namespace caisson::jail {

struct Mount {
    enum class Kind { kReadOnly, kReadWrite, kTmpfs };
    Kind kind = Kind::kReadOnly;
    std::string source;  // host path; unused for kTmpfs
    std::string target;  // absolute path inside
    // A kTmpfs holds the mount points of those after it and is read-only once they are made.
};

struct Description {
    std::string name;             // process kind, for messages and --dry-run: "vmm", "unpacker"
    std::string root;             // host directory shown read-only as /; empty: an empty tmpfs
    std::vector<Mount> mounts;    // applied in order, over the root
    bool proc = false;            // own /proc
    bool minimal_dev = false;     // /dev with null, zero, full, random, urandom, tty only
    // Opens the host's network, abstract sockets included: for the one program that talks to registries.
    bool share_network = false;
    std::vector<std::string> environment;                  // complete; "NAME=value"
    std::vector<std::string> arguments;                    // argv inside the jail; argv[0] is a path inside
    std::vector<os::Command::Descriptor> descriptors;      // the only ones that stay open
    std::vector<os::Command::ResourceLimit> resource_limits;
    os::GroupEntry groups;  // control groups that bound what all of the jail takes together
    std::optional<Filter> filter;  // system calls of everything in the jail; nullopt: all
    // caisson-enter's path inside (one of the mounts), which puts Landlock's rules on before the program: read and execute
    // everything, write to the read-write mounts; no TCP (unless it shares the network), no signals and abstract sockets of others. Empty: no Landlock.
    std::string enter;
    // One of the descriptors' targets: a socket, which caisson-enter turns into what it receives over it. -1: none.
    int received = -1;
    // The jail dies when the process that spawned it does. Only single-threaded programs of ours may set this:
    // the kernel sends the signal when the spawning *thread* ends.
    bool die_with_parent = true;
    // Descriptor on which bubblewrap says which process is the jail's first (-1: not asked). start() sets it.
    int info_fd = -1;
};

// Lets `program` (host path of caisson-enter; empty: nothing happens) be the description's way in, at `target`.
void enter_by(Description& description, const std::string& program, const std::string& target);

// bubblewrap's path on this host; kHostMissing with the command that installs it.
Result<std::string> find_bwrap();

// Can the bubblewrap at this path keep a jail from making user namespaces of its own (--disable-userns)? From 0.8.0 on
// it can, unless it is installed set-user-id.
bool can_forbid_user_namespaces(const std::string& bwrap);

// The number of the filter's descriptor for bubblewrap: behind all others, since those may have any.
int filter_descriptor(const Description& description);

// Pure: the complete bwrap command line for `description`, `bwrap` being its path.
std::vector<std::string> bwrap_arguments(const Description& description, const std::string& bwrap,
                                         bool forbid_user_namespaces);

// sandbox.h has what makes a jail; these take bubblewrap.
// A command with what has to stay open until it is spawned.
struct JailCommand : os::Command {
    os::Fd filter;
};
// The command to os::spawn(). Errors: kHostMissing (no bwrap), a filter that cannot be made.
Result<JailCommand> command(const Description& description);

// The first process of a jail's process namespace. Its end is the end of everything in the jail: the kernel kills what
// is left there and no process can resist (pid_namespaces(7)). Killing bubblewrap's outer process is not enough, for
// what is behind it dies by a parent-death signal only, which every process may switch off.
//
// Which process it is, bubblewrap says through a pipe before anything else runs in the jail. It must be learnt while
// bubblewrap lives, so before the jailed program is given anything hostile to read; no start has to wait for it.
// The destructor kills, and waits until all is gone.
class Init {
  public:
    Init() = default;
    // `bwrap` is the outer process, `info` the pipe's reading end.
    Init(pid_t bwrap, os::Fd info) : bwrap_(bwrap), info_(std::move(info)) {}
    // One process that is known already, and that has nothing below it: without a jail.
    explicit Init(os::Fd pidfd) : pidfd_(std::move(pidfd)) {}
    Init(Init&& other) noexcept;
    Init& operator=(Init&& other) noexcept;
    ~Init();

    // Waits until bubblewrap has said it, which is a few milliseconds after its start; does nothing after that.
    void learn();
    // Kills everything in the jail, and does not wait for its end.
    void kill();
    // Open if the process is known; readable when the whole jail is gone.
    const os::Fd& pidfd() const { return pidfd_; }
    // If it is known: nothing of the jail runs any more. Else true.
    bool gone() const;
    // bubblewrap said which one it is, and it was still bubblewrap's child. If bubblewrap was killed before that, what
    // it had started has to be found in another way.
    bool known() const { return static_cast<bool>(pidfd_); }

  private:
    static constexpr std::chrono::milliseconds kInfoPatience{2000};
    static constexpr std::chrono::milliseconds kEndPatience{5000};
    pid_t bwrap_ = -1;
    os::Fd info_;
    os::Fd pidfd_;
};

// A process in its jail. Destroying it ends both: members are destroyed last to first.
struct Jailed {
    os::Process process;  // bubblewrap's outer process; ends with the jailed program, and as that ended
    Init init;
};
// Starts `description`. Errors: kHostMissing (no bwrap), those of os::spawn().
Result<Jailed> start(const Description& description);

// Did a system call filter end the jailed program? bubblewrap tells a death by signal N as exit code 128+N.
bool killed_by_filter(const os::ExitStatus& status);

// Can this process make the namespaces that a jail needs? Errors: kHostMissing, naming what refuses and the fix.
Result<> preflight();

// For people: one line per rule.
std::string describe(const Description& description);

}  // namespace caisson::jail
