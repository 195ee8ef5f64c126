// System call filters as plain data. A Filter says which calls one kind of process may make; to_program() has libseccomp
// turn it into the kernel's BPF, bubblewrap loads it in front of a jailed program, and lock_self() puts it on the caller.
//
// Three answers, and no others:
//   allowed   the call is made;
//   killed    the process ends with SIGSYS: dangerous calls of Linux 6.1, the oldest kernel that is supported. No
//             honest program of that kind makes them, so whoever does has been taken over;
//   ENOSYS    everything else, above all what kernels newer than this list have. Programs ask for new calls and take
//             this answer as "older kernel"; that is what makes the C library use clone instead of clone3, whose flags
//             lie in memory where no filter can see them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "os/fd.h"

namespace caisson::jail {

// Holds if (argument & mask) == value; `argument` counts from 0.
struct Condition {
    unsigned argument = 0;
    std::uint64_t mask = ~std::uint64_t{0};
    std::uint64_t value = 0;
};

// A call under all of these conditions (each argument in one of them at most). Several rules may name the same call.
struct CallRule {
    std::string call;
    std::vector<Condition> where;
};

struct Filter {
    std::string name;  // the kind of process, for messages and --dry-run
    std::vector<CallRule> allowed;
    std::vector<CallRule> killed;
};

// What no kind of process here has a use for: tracing and reaching into other processes, mounts and namespaces, loading
// code into the kernel or replacing it, keys, io_uring and others whose inner work no filter sees, clocks, swap,
// accounting, reboot. With them the arguments that make harmless calls dangerous: namespaces asked from clone, input
// pushed into a terminal (TIOCSTI, TIOCLINUX). Calls that `allowed` names, under whatever conditions, are left out.
std::vector<CallRule> dangerous_calls(const std::vector<CallRule>& allowed);

// Threads, and processes, but no namespaces: the allowed half of clone, to be put into `allowed`.
CallRule clone_without_namespaces();

// A filter with these allowed calls, which kills at the dangerous ones.
Filter allow_list(std::string name, std::vector<CallRule> allowed);

// The names alone, as rules.
std::vector<CallRule> calls(const std::vector<std::string>& names);
std::vector<CallRule> operator+(std::vector<CallRule> left, const std::vector<CallRule>& right);

// BPF for this machine's architecture (an array of sock_filter), as a binary tree. Calls of other architectures (32 bits,
// x32) are killed. Calls that this architecture does not have are left out. kInternal: a name that libseccomp does not
// know, or conditions that contradict each other.
Result<std::string> to_program(const Filter& filter);
// The same in a file without a name, at its beginning: what bubblewrap's --add-seccomp-fd takes.
Result<os::Fd> to_file(const Filter& filter);

// Puts the filter on all threads of this process, for good, with no_new_privs. Nothing takes it back; a second one can
// only forbid more. Errors: kHostMissing if the kernel has no filters or refuses them.
Result<> lock_self(const Filter& filter);

// For people: one line a rule.
std::string to_text(const Filter& filter);

}  // namespace caisson::jail
