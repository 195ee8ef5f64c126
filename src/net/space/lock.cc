#include "net/space/lock.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "net/space/limits.h"

namespace caisson::net {

using base::failure_errno;
using jail::CallRule;
using jail::calls;
using jail::operator+;

namespace {

constexpr std::uint64_t kInt = 0xffffffff;

CallRule when(std::string call, unsigned argument, std::uint64_t value, std::uint64_t mask = kInt) {
    return {std::move(call), {{argument, mask, value}}};
}

std::vector<CallRule> socket_calls() {
    constexpr std::uint64_t kTypeWithoutFlags = 0xf;
    std::vector<CallRule> rules = calls({"bind", "connect", "sendmsg", "recvmsg", "sendto", "recvfrom"});
    for (std::uint64_t family : {AF_INET, AF_INET6})
        for (std::uint64_t type : {SOCK_STREAM, SOCK_DGRAM})
            rules.push_back({"socket", {{0, kInt, family}, {1, kTypeWithoutFlags, type}, {2, kInt, 0}}});
    const auto option = [&](std::uint64_t level, std::uint64_t name) { rules.push_back({"setsockopt", {{1, kInt, level}, {2, kInt, name}}}); };
    option(SOL_IP, IP_TRANSPARENT);
    option(SOL_IPV6, IPV6_TRANSPARENT);
    option(SOL_SOCKET, SO_REUSEADDR);
    option(SOL_SOCKET, SO_RCVBUF);
    return rules;
}

std::vector<CallRule> descriptor_calls() {
    return calls({"read", "write", "writev", "close", "fstat", "poll", "ppoll", "epoll_ctl", "epoll_wait", "epoll_pwait"}) +
           std::vector<CallRule>{when("fcntl", 1, F_GETFL), when("fcntl", 1, F_SETFL)};
}

std::vector<CallRule> memory_and_time_calls() {
    return calls({"brk", "munmap", "mremap", "madvise", "futex", "getrandom", "clock_gettime", "gettimeofday", "rt_sigprocmask",
                  "rt_sigreturn", "restart_syscall", "getpid", "gettid", "exit", "exit_group"}) +
           // abort(3), and nobody else.
           std::vector<CallRule>{when("mmap", 2, 0, PROT_EXEC), when("mprotect", 2, 0, PROT_EXEC),
                                 when("tgkill", 0, static_cast<std::uint64_t>(::getpid()))};
}

// What it has no honest use for, beside what nobody has.
std::vector<CallRule> deadly_calls() {
    return calls({"execve", "execveat", "fork", "vfork", "clone", "kill", "tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "socketpair",
                  "listen", "accept", "accept4", "symlink", "symlinkat", "link", "linkat", "memfd_create"}) +
           std::vector<CallRule>{when("mmap", 2, PROT_EXEC, PROT_EXEC), when("mprotect", 2, PROT_EXEC, PROT_EXEC)};
}

Result<> limit(__rlimit_resource_t resource, rlim_t most) {
    struct rlimit now {};
    if (::getrlimit(resource, &now) != 0) return failure_errno("cannot look at the limits of the box's network");
    now.rlim_max = std::min(now.rlim_max, most);
    now.rlim_cur = now.rlim_max;
    if (::setrlimit(resource, &now) != 0) return failure_errno("cannot limit the box's network");
    return {};
}

// One capability of its own user namespace, and no way to another.
Result<> keep_net_admin() {
    for (int capability = 0; capability <= CAP_LAST_CAP; ++capability)
        if (::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 && errno != EINVAL) return failure_errno("cannot give up capabilities");
    if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0) return failure_errno("cannot give up capabilities");
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3]{};
    sets[0].effective = sets[0].permitted = 1u << CAP_NET_ADMIN;
    if (::syscall(SYS_capset, &header, sets) != 0) return failure_errno("cannot give up capabilities");
    return {};
}

}  // namespace

os::Landlock netns_files() {
    os::Landlock landlock;
    landlock.forbid_tcp = false;
    // The signal that comes when the launcher dies would be held back as well; the filter lets none out.
    landlock.scope_signals = false;
#ifdef CAISSON_NETNS_SANITIZED
    landlock.rules.push_back({"/proc", -1, os::landlock::kReadFile | os::landlock::kReadDirectory});
#endif
    return landlock;
}

jail::Filter netns_calls() {
    auto filter = jail::allow_list("netns", descriptor_calls() + socket_calls() + memory_and_time_calls());
    std::erase_if(filter.killed, [](const CallRule& rule) { return rule.call == "clone"; });  // here it is never made
    filter.killed = std::move(filter.killed) + deadly_calls();
    return filter;
}

Result<> lock_netns() {
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || ::prctl(PR_SET_DUMPABLE, 0) != 0 || ::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        return failure_errno("cannot give up privileges");
    CAISSON_TRY(limit(RLIMIT_CORE, 0));
    // What it says may go to a file. A larger write fails instead of ending the process.
    ::signal(SIGXFSZ, SIG_IGN);
    CAISSON_TRY(limit(RLIMIT_FSIZE, kMostNetnsFileBytes));
    CAISSON_TRY(limit(RLIMIT_NOFILE, kMostNetnsDescriptors));
    CAISSON_TRY(keep_net_admin());
    CAISSON_TRY(os::restrict_self(netns_files()));
#ifndef CAISSON_NETNS_SANITIZED
    CAISSON_TRY(limit(RLIMIT_AS, kMostNetnsMemoryBytes));
    CAISSON_TRY(jail::lock_self(netns_calls()));
#endif
    return {};
}

}  // namespace caisson::net
