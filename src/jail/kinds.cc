#include "jail/kinds.h"

#include <asm/termbits.h>
#include <linux/if_tun.h>
#include <linux/prctl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

namespace caisson::jail {

namespace {

using Rules = std::vector<CallRule>;

// The lower half of an argument that is an int to the kernel.
constexpr std::uint64_t kInt = 0xffffffff;

CallRule argument_is(const std::string& call, unsigned argument, std::uint64_t value) {
    return {call, {{argument, kInt, value}}};
}

// To begin, to have memory, threads, signals, time and random numbers, and to end. wait4 is for bubblewrap's own process,
// which has the filter as well; execve for the one program that it starts (an empty file system holds no other).
Rules running() {
    return calls({"execve", "exit", "exit_group", "wait4", "brk", "mmap", "munmap", "mremap", "mprotect", "madvise", "arch_prctl",
                  "set_tid_address", "set_robust_list", "rseq", "futex", "membarrier", "restart_syscall", "rt_sigaction",
                  "rt_sigprocmask", "rt_sigreturn", "rt_sigsuspend", "rt_sigpending", "rt_sigtimedwait", "sigaltstack", "tgkill",
                  "getpid", "getppid", "gettid", "getuid", "geteuid", "getgid", "getegid", "getpgrp", "getsid", "uname", "sysinfo",
                  "getrlimit", "prlimit64", "getrusage", "times", "sched_yield", "sched_getaffinity", "getcpu", "getrandom",
                  "clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "time"}) +
           Rules{clone_without_namespaces()};
}

// Reading, writing and waiting, on what is open already or is opened inside of the jail. No call that changes names,
// owners or modes.
Rules files() {
    return calls({"read", "readv", "pread64", "preadv", "preadv2", "write", "writev", "pwrite64", "pwritev", "pwritev2", "lseek",
                  "close", "close_range", "open", "openat", "openat2", "access", "faccessat", "faccessat2", "stat", "lstat", "fstat",
                  "newfstatat", "statx", "statfs", "fstatfs", "readlink", "readlinkat", "getcwd", "getdents64", "fcntl", "dup",
                  "dup2", "dup3", "pipe", "pipe2", "poll", "ppoll", "select", "pselect6", "epoll_create1", "epoll_ctl",
                  "epoll_wait", "epoll_pwait", "epoll_pwait2", "eventfd2", "fsync", "fdatasync", "ftruncate", "fallocate",
                  "fadvise64"});
}

// ioctls that the C library and others ask of any descriptor: is it a terminal, how much is there to read, do not block.
Rules harmless_ioctls() {
    return {argument_is("ioctl", 1, TCGETS), argument_is("ioctl", 1, FIONREAD), argument_is("ioctl", 1, FIONBIO)};
}

Rules naming_threads() { return {argument_is("prctl", 0, PR_SET_NAME), argument_is("prctl", 0, PR_GET_NAME)}; }

// Talking over sockets that are open already.
Rules open_sockets() {
    return calls({"sendmsg", "recvmsg", "sendto", "recvfrom", "shutdown", "getsockopt", "setsockopt", "getsockname", "getpeername"});
}

}  // namespace

// Measured with strace: template, restore, cold start, work on the disk, discards, a disk that grows, pause, stop, a
// guest that reboots; QEMU 10.0. Beyond that: what QEMU's sources call on the paths that were not taken there (KVM, other
// C libraries). QEMU's own filter, which it loads once it has begun, comes on top.
Filter vmm_filter() {
    Rules allowed = running() + files() + harmless_ioctls() + naming_threads() + open_sockets();
    // All of KVM's ioctls have this type (linux/kvm.h). The descriptor comes from outside; the jail has no /dev.
    constexpr std::uint64_t kIoctlType = 0xff00;
    constexpr std::uint64_t kKvm = 0xae00;
    allowed.push_back({"ioctl", {{1, kIoctlType, kKvm}}});
    // What QEMU asks of the card's tap, and how it sets offloads as the guest's driver wants them. Nothing that makes a
    // device or moves one.
    for (std::uint64_t request : {TUNGETFEATURES, TUNGETIFF, TUNSETOFFLOAD, TUNGETVNETHDRSZ, TUNSETVNETHDRSZ, TUNSETVNETLE, TUNSETVNETBE, TUNSETSNDBUF})
        allowed.push_back(argument_is("ioctl", 1, request & kInt));
    // No new privileges, then QEMU's filter; how it wants to be told of broken memory; coarse timers.
    for (std::uint64_t option : {PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS, PR_SET_SECCOMP, PR_GET_SECCOMP, PR_MCE_KILL, PR_SET_TIMERSLACK})
        allowed.push_back(argument_is("prctl", 0, option));
    allowed = allowed +
              calls({"seccomp", "signalfd4", "timerfd_create", "timerfd_settime", "timerfd_gettime", "memfd_create", "msync", "mincore",
                     "get_mempolicy", "set_mempolicy", "sync_file_range", "copy_file_range",
                     // caisson-enter, before QEMU; it can only forbid more
                     "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"});
    auto filter = allow_list("vmm", std::move(allowed));
    // QEMU tries io_uring for its event loop and does without.
    std::erase_if(filter.killed, [](const CallRule& rule) { return rule.call.starts_with("io_uring_"); });
    return filter;
}

#ifdef CAISSON_JAIL_SANITIZED

std::optional<Filter> unpacker_filter() { return std::nullopt; }
std::optional<Filter> fetch_filter() { return std::nullopt; }
std::optional<Filter> share_filter() { return std::nullopt; }
std::optional<Filter> netd_filter() { return std::nullopt; }

#else

// Memory and threads to decompress with, and descriptors that it was given.
std::optional<Filter> unpacker_filter() {
    Rules allowed = running() + files() + harmless_ioctls() + naming_threads() + open_sockets();
    allowed = allowed + calls({"sync_file_range", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"});
    allowed.push_back(argument_is("prctl", 0, PR_SET_NO_NEW_PRIVS));
    return allow_list("unpacker", std::move(allowed));
}

// The unpacker's, and the network: name resolution by the C library (with netlink, to see which families there are; no
// local sockets, whose abstract ones it shares with the host), TCP to registries, and files in its download directory.
std::optional<Filter> fetch_filter() {
    Rules allowed = running() + files() + harmless_ioctls() + naming_threads() + open_sockets();
    for (std::uint64_t family : {AF_INET, AF_INET6})
        for (std::uint64_t type : {SOCK_STREAM, SOCK_DGRAM}) {
            constexpr std::uint64_t kTypeWithoutFlags = 0xf;
            allowed.push_back({"socket", {{0, kInt, family}, {1, kTypeWithoutFlags, type}}});
        }
    constexpr std::uint64_t kNetlinkRoute = 0;
    allowed.push_back({"socket", {{0, kInt, AF_NETLINK}, {2, kInt, kNetlinkRoute}}});
    for (std::uint64_t option : {PR_SET_NO_NEW_PRIVS, PR_SET_DUMPABLE}) allowed.push_back(argument_is("prctl", 0, option));
    allowed = allowed +
              calls({"connect", "bind", "socketpair", "sendmmsg", "recvmmsg", "flock", "rename", "renameat", "renameat2", "unlink", "unlinkat",
                     "chmod", "fchmod", "fchmodat", "umask", "utimensat", "mkdir", "mkdirat", "landlock_create_ruleset",
                     "landlock_add_rule", "landlock_restrict_self"});
    return allow_list("fetch", std::move(allowed));
}

// Names, contents, locks and extended attributes below the descriptors that it is handed. Owners and modes it never
// changes on the host: what a guest makes of them is kept in an attribute. So no chown, no device and no set-user-id file
// can come of it, whoever has taken it over: a new file is its owner's alone (openat2, whose mode no filter sees, is not
// to be had), and there is no second process or thread.
std::optional<Filter> share_filter() {
    Rules allowed = running() + files() + harmless_ioctls() + open_sockets();
    std::erase_if(allowed, [](const CallRule& rule) { return rule.call == "clone" || rule.call == "open" || rule.call.starts_with("openat"); });
    constexpr std::uint64_t kModeBits = 07777;
    constexpr std::uint64_t kOwnersFile = 0600;
    // Without O_CREAT the C library gives no mode, which is 0.
    for (std::uint64_t mode : {std::uint64_t{0}, kOwnersFile}) {
        allowed.push_back({"open", {{2, kModeBits, mode}}});
        allowed.push_back({"openat", {{3, kModeBits, mode}}});
    }
    constexpr std::uint64_t kOwnersDirectory = 0700;
    allowed.push_back({"mkdirat", {{2, kModeBits, kOwnersDirectory}}});
    allowed = allowed +
              calls({"flock", "unlinkat", "renameat", "renameat2", "linkat", "symlinkat", "utimensat", "truncate", "syncfs", "copy_file_range",
                     "setxattr", "fsetxattr", "getxattr", "lgetxattr", "fgetxattr", "listxattr", "removexattr",
                     // who else opens a volume's file
                     "inotify_init1", "inotify_add_watch"});
    return allow_list("share", std::move(allowed));
}

// Connections of TCP and datagrams to the outside, and the sockets that it is handed. It opens no file and makes no other
// kind of socket: a local one would reach the host's abstract ones, for it has the host's network namespace.
std::optional<Filter> netd_filter() {
    Rules allowed = running() + files() + harmless_ioctls() + open_sockets();
    std::erase_if(allowed, [](const CallRule& rule) {
        return rule.call == "clone" || rule.call == "open" || rule.call.starts_with("openat") || rule.call == "setsockopt";
    });
    // TCP and UDP as the family's own; another protocol would load modules of the host's kernel.
    for (std::uint64_t family : {AF_INET, AF_INET6})
        for (std::uint64_t type : {SOCK_STREAM, SOCK_DGRAM}) {
            constexpr std::uint64_t kTypeWithoutFlags = 0xf;
            allowed.push_back({"socket", {{0, kInt, family}, {1, kTypeWithoutFlags, type}, {2, kInt, 0}}});
        }
    const auto option = [&](std::uint64_t level, std::uint64_t name) { allowed.push_back({"setsockopt", {{1, kInt, level}, {2, kInt, name}}}); };
    option(SOL_SOCKET, SO_LINGER);
    option(SOL_SOCKET, SO_KEEPALIVE);
    option(IPPROTO_TCP, TCP_NODELAY);
    // Who hands descriptors over may hand over one whose close takes as long as he likes.
    std::erase_if(allowed, [](const CallRule& rule) { return rule.call == "sendmsg"; });
    allowed.push_back(argument_is("prctl", 0, PR_SET_DUMPABLE));
    return allow_list("netd", allowed + calls({"connect", "accept4"}));
}

#endif

}  // namespace caisson::jail
