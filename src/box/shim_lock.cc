#include "box/shim_lock.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "box/limits.h"

namespace caisson::box {

using base::failure_errno;
using jail::CallRule;
using jail::calls;
using jail::operator+;

namespace {

CallRule when(std::string call, unsigned argument, std::uint64_t value, std::uint64_t mask = 0xffffffff) {
    return {std::move(call), {{argument, mask, value}}};
}

// Descriptors and what is read and written through them.
std::vector<CallRule> descriptor_calls() {
    return calls({"read", "write", "readv", "writev", "pread64", "pwrite64", "lseek", "close", "fstat", "fsync", "fdatasync",
                  "ftruncate", "fallocate", "flock", "poll", "ppoll", "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait",
                  "timerfd_create", "timerfd_settime", "signalfd4", "accept4", "recvmsg", "recvfrom", "sendto", "sendmsg"}) +
           // Not F_SETOWN and F_SETSIG: they send signals. Not SO_PEERPIDFD: a client could be killed through it.
           std::vector<CallRule>{when("getsockopt", 2, SO_PEERCRED), when("getsockopt", 2, SO_ERROR), when("fcntl", 1, F_GETFD), when("fcntl", 1, F_SETFD), when("fcntl", 1, F_GETFL),
                                 when("fcntl", 1, F_SETFL), when("fcntl", 1, F_DUPFD_CLOEXEC), when("fcntl", 1, F_GETLK),
                                 when("fcntl", 1, F_SETLK), when("fcntl", 1, F_SETLKW)};
}

// Names, which Landlock limits to the box's directory. stat(2) and access(2) it leaves open, and changing modes by name,
// so that is not allowed; nor is opening a file neither to read nor to write it (access mode 3), which needs no right and
// can truncate it all the same where Landlock is older than version 3. The flags of openat2(2) no filter can see.
std::vector<CallRule> file_calls() {
    std::vector<CallRule> opening;
    for (std::uint64_t mode : {O_RDONLY, O_WRONLY, O_RDWR}) opening.push_back(when("openat", 2, mode, O_ACCMODE));
    return opening + calls({"newfstatat", "fstatat64", "stat", "lstat", "statx", "access", "faccessat", "faccessat2",
                  "getdents64", "unlink", "unlinkat", "rmdir", "renameat", "renameat2", "fchmod", "fstatfs"});
}

std::vector<CallRule> memory_and_time_calls() {
    return calls({"brk", "munmap", "mremap", "madvise", "futex", "getrandom", "clock_gettime", "clock_nanosleep", "nanosleep",
                  "gettimeofday", "rt_sigprocmask", "rt_sigreturn", "rt_sigaction", "restart_syscall", "getpid", "gettid",
                  "getuid", "geteuid", "exit", "exit_group", "wait4", "waitid"}) +
           // Memory, but none that can be executed.
           std::vector<CallRule>{when("mmap", 2, 0, PROT_EXEC), when("mprotect", 2, 0, PROT_EXEC)};
}

// What a shim has no honest use for, beside what nobody has.
std::vector<CallRule> deadly_calls() {
    return calls({"execve", "execveat", "fork", "vfork", "kill", "tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "socket",
                  "socketpair", "connect", "bind", "listen", "symlink", "symlinkat", "link", "linkat", "memfd_create", "clone"}) +
           std::vector<CallRule>{when("mmap", 2, PROT_EXEC, PROT_EXEC), when("mprotect", 2, PROT_EXEC, PROT_EXEC)};
}

Result<> limit(__rlimit_resource_t resource, rlim_t most) {
    struct rlimit now {};
    if (::getrlimit(resource, &now) != 0) return failure_errno("cannot look at the supervisor's limits");
    now.rlim_max = std::min(now.rlim_max, most);
    now.rlim_cur = now.rlim_max;
    if (::setrlimit(resource, &now) != 0) return failure_errno("cannot limit the supervisor");
    return {};
}

}  // namespace

os::Landlock shim_files(const std::string& box_directory, const std::vector<std::string>& journals) {
    using namespace os::landlock;
    os::Landlock landlock;
    if (!box_directory.empty())
        landlock.rules = {{box_directory, -1,
                           kReadFile | kWriteFile | kTruncate | kReadDirectory | kRemoveFile | kRemoveDirectory | kMakeFile}};
    for (const auto& journal : journals)
        landlock.rules.push_back({journal, -1, kReadFile | kWriteFile | kTruncate | kReadDirectory | kRemoveFile | kMakeFile});
#ifndef CAISSON_SHIM_FILTER
    landlock.rules.push_back({"/proc", -1, kReadFile | kReadDirectory});  // sanitizers look at their own process
#endif
    // The signal that the launcher gets when the shim dies would be one of those that the kernel then holds back, and the
    // filter lets none pass but SIGKILL to what the launcher has handed over.
    landlock.scope_signals = false;
    return landlock;
}

jail::Filter shim_calls() {
    auto own = when("pidfd_send_signal", 1, SIGKILL);
    // abort(3), and nobody else.
    auto abort = when("tgkill", 0, static_cast<std::uint64_t>(::getpid()));
    auto filter = jail::allow_list("shim", descriptor_calls() + file_calls() + memory_and_time_calls() + std::vector<CallRule>{own, abort});
    std::erase_if(filter.killed, [](const CallRule& rule) { return rule.call == "clone"; });  // here it is never made
    filter.killed = std::move(filter.killed) + deadly_calls();
    return filter;
}

std::string describe_lock(const std::string& box_directory, const std::vector<std::string>& journals) {
    const auto files = shim_files(box_directory, journals);
    std::string text = "lock of supervisor\n  namespaces   none of its own\n";
    for (const auto& rule : files.rules) text += "  files        " + rule.path + (rule.path != box_directory ? " (a chain of its own of the journal)\n" : " (no links, sockets or devices are made there)\n");
#ifdef CAISSON_SHIM_FILTER
    text += "  calls        those of the list '" + shim_calls().name + "'\n";
#else
    text += "  calls        not filtered\n";
#endif
    return text + "  landlock     where the kernel has it: these files, no TCP, nobody else's abstract sockets\n"
                  "  capabilities none, no_new_privs, no core dumps, at most " +
           std::to_string(limits::kMostSupervisorDescriptors) + " descriptors\n";
}

Result<> lock_shim(const std::string& box_directory, const std::vector<std::string>& journals) {
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || ::prctl(PR_SET_DUMPABLE, 0) != 0)
        return failure_errno("cannot give up privileges");
    CAISSON_TRY(limit(RLIMIT_CORE, 0));
    CAISSON_TRY(limit(RLIMIT_NOFILE, limits::kMostSupervisorDescriptors));
    // A larger write fails instead of ending the process.
    ::signal(SIGXFSZ, SIG_IGN);
    CAISSON_TRY(limit(RLIMIT_FSIZE, limits::kMostSupervisorFileBytes));
    CAISSON_TRY(os::restrict_self(shim_files(box_directory, journals)));
#ifdef CAISSON_SHIM_FILTER
    CAISSON_TRY(jail::lock_self(shim_calls()));
#endif
    return {};
}

}  // namespace caisson::box
