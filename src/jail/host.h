// What a host has that jails need, and what is in their way. The facts are collected here; what they mean is decided by
// pure functions, so that hosts that nobody has at hand can be tested.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace caisson::jail {

struct HostJailFacts {
    std::string bwrap;                   // path; empty: not installed
    bool bwrap_set_user_id = false;
    bool can_forbid_user_namespaces = true;  // see jail.h
    // What a user namespace in a child of this process came to: 0, or the errno.
    int user_namespace_errno = 0;
    // Settings of the host; nullopt where it does not have them.
    std::optional<std::string> unprivileged_userns_clone;  // Debian's, Ubuntu's
    std::optional<std::string> apparmor_restriction;       // kernel.apparmor_restrict_unprivileged_userns
    std::string apparmor_label;                            // of this process, "unconfined" if none; empty without AppArmor
    std::string apparmor_profile;                          // the file that was installed for it, if there is one
    std::vector<std::string> exhausted;                    // names of user.max_*_namespaces that are 0
    // This process may run as another program's child in somebody else's container.
    std::string container;  // "Docker", "Podman", "a container"; empty: not in one
    bool filtered = false;  // a system call filter is on this process already
    std::optional<unsigned long long> process_limit;       // RLIMIT_NPROC; nullopt: none
    std::vector<std::string> missing_calls;                // see missing_calls()
    std::string kernel;                                    // release
};

// Costs about a millisecond, for the child that tries a user namespace.
HostJailFacts collect_host_facts();

// Of the system calls that Linux 6.1 has and caisson cannot do without, those that this kernel lacks or that a filter
// refuses. Each is asked for in a way that does nothing. Microseconds.
std::vector<std::string> missing_calls();

// Pure: why no jail can be made, and the exact command that mends it. `said` is what bubblewrap had to say (one line);
// empty: it was not asked. nullopt: nothing is known to be in the way. Always kHostMissing.
std::optional<Error> refusal(const HostJailFacts& facts, const std::string& said);

// To be called before anything is made for a box. Looks at what costs microseconds; only where that gives reason to
// doubt (AppArmor's restriction, a container, no namespaces left) it makes a jail to find out. Errors: kHostMissing,
// naming what refuses and the fix.
Result<> ready();

}  // namespace caisson::jail
