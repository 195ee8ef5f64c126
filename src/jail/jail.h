// Jail descriptions and their executor.
//
// A Description says everything that one kind of process may touch; command() renders it for bubblewrap. What a
// description does not list does not exist inside: no file of the host, no environment, no descriptor, no network,
// no capability. All namespaces (user, mount, PID, IPC, UTS, cgroup, network) are always the jail's own.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "os/process.h"

namespace caisson::jail {

struct Mount {
    enum class Kind { kReadOnly, kReadWrite, kTmpfs };
    Kind kind = Kind::kReadOnly;
    std::string source;  // host path; unused for kTmpfs
    std::string target;  // absolute path inside
};

struct Description {
    std::string name;             // process kind, for messages and --dry-run: "vmm", "unpacker"
    std::string root;             // host directory shown read-only as /; empty: an empty tmpfs
    std::vector<Mount> mounts;    // applied in order, over the root
    bool proc = false;            // own /proc
    bool minimal_dev = false;     // /dev with null, zero, full, random, urandom, tty only
    std::vector<std::string> environment;                  // complete; "NAME=value"
    std::vector<std::string> arguments;                    // argv inside the jail; argv[0] is a path inside
    std::vector<os::Command::Descriptor> descriptors;      // the only ones that stay open
    std::vector<os::Command::ResourceLimit> resource_limits;
    // The jail dies when the process that spawned it does. Only single-threaded programs of ours may set this:
    // the kernel sends the signal when the spawning *thread* ends.
    bool die_with_parent = true;
};

// bubblewrap's path on this host; kHostMissing with the command that installs it.
Result<std::string> find_bwrap();

// Pure: the complete bwrap command line for `description`, `bwrap` being its path.
std::vector<std::string> bwrap_arguments(const Description& description, const std::string& bwrap);

// The command to os::spawn(). Errors: kHostMissing (no bwrap).
Result<os::Command> command(const Description& description);

// Can this process make the namespaces that a jail needs? Errors: kHostMissing, naming what refuses and the fix.
Result<> preflight();

// For people: one line per rule.
std::string describe(const Description& description);

}  // namespace caisson::jail
