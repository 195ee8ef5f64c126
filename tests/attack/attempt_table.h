// What a taken-over process may try, which layer below the system call filter refuses it, and what exactly it then gets,
// for each kind of process that bubblewrap jails. Data only: attempts.cc makes the attempts, attempt_table_test.cc
// compares, prints the table and compares it with docs/security.md.
//
// Each description runs three times: whole; without Landlock; without Landlock and without its filter. Control groups are
// no part of it: they are the host's and not always to be had.
#pragma once

#include <array>
#include <string>
#include <vector>

namespace caisson::attack {

enum Kind { kVmm, kUnpacker, kFetch, kShare, kNetd, kKinds };

// Names of errno, "ok" (it succeeds), names of signals; several with " or " between them where kernels and settings of
// hosts differ. Empty: does not apply to this kind.
struct Expected {
    // What namespaces, mounts, capabilities and limits answer by themselves: the description without its system call
    // filter and without Landlock.
    std::string alone;
    std::string filtered;    // with the filter; empty: the same
    std::string landlocked;  // with both, where the kernel's Landlock has this version or a newer one; empty: the same
    int landlock_version = 0;
};

class Row {
  public:
    Row(const char* in_group, const char* with_id, const char* what, const char* denied_by)
        : group(in_group), id(with_id), attempt(what), layer(denied_by) {}
    // For all kinds, then for one.
    Row&& alone(const char* all) && {
        for (auto& each : expected) each.alone = all;
        return std::move(*this);
    }
    Row&& alone(Kind kind, const char* what) && {
        expected[kind].alone = what;
        return std::move(*this);
    }
    Row&& filtered(const char* all) && {
        for (auto& each : expected) each.filtered = all;
        return std::move(*this);
    }
    Row&& filtered(Kind kind, const char* what) && {
        expected[kind].filtered = what;
        return std::move(*this);
    }
    Row&& landlocked(int from_version, const char* all) && {
        for (auto& each : expected) each.landlocked = all, each.landlock_version = from_version;
        return std::move(*this);
    }
    Row&& landlocked(int from_version, Kind kind, const char* what) && {
        expected[kind].landlocked = what;
        expected[kind].landlock_version = from_version;
        return std::move(*this);
    }

    std::string group, id, attempt, layer;
    std::array<Expected, kKinds> expected;
};

inline std::vector<Row> attempt_table() {
    std::vector<Row> rows;
    auto add = [&rows](const char* group, const char* id, const char* attempt, const char* layer) -> Row& {
        return rows.emplace_back(group, id, attempt, layer);
    };
    // clang-format off
#define DENIED(group, id, attempt, layer, all) std::move(add(group, id, attempt, layer)).alone(all)
// caisson-netd may open nothing at all.
#define OPENED(group, id, attempt, layer, all) DENIED(group, id, attempt, layer, all).filtered(kNetd, "ENOSYS")
    const char* group = "Files";
    OPENED(group, "host_file", "a file of the host that everybody may read", "mount namespace", "ENOENT");
    OPENED(group, "host_write", "writing to a file of the same user", "mount namespace", "ENOENT");
    DENIED(group, "host_remove", "removing it", "mount namespace", "ENOENT").filtered("ENOSYS").filtered(kFetch, "ENOENT").filtered(kShare, "ENOENT");
    OPENED(group, "shadow", "/etc/shadow", "mount namespace", "ENOENT");
    OPENED(group, "passwd", "/etc/passwd", "mount namespace", "ENOENT");
    OPENED(group, "home", "the home", "mount namespace", "ENOENT");
    OPENED(group, "database", "the database", "mount namespace", "ENOENT");
    OPENED(group, "other_box", "another box's disk", "mount namespace", "ENOENT");
    OPENED(group, "other_socket", "another box's socket", "mount namespace", "ENOENT");
    OPENED(group, "secret", "a secret of the user", "mount namespace", "ENOENT");
    OPENED(group, "climb", "`..` forty times, then etc/shadow", "mount namespace", "ENOENT");
    DENIED(group, "leave_root_directory", "the chroot(2) trick", "capabilities", "EPERM").filtered("SIGSYS");
    OPENED(group, "create_file", "a new file in /", "read-only mount", "EROFS");
    DENIED(group, "make_device", "a device node of its own", "capabilities", "EROFS or EPERM").filtered("ENOSYS");
    OPENED(group, "devices", "mem, kvm, net/tun, fuse, vhost-net, tty, disks in /dev", "mount namespace", "ENOENT");
    OPENED(group, "proc", "/proc: itself, process 1, another process, kcore, sysctl, sysrq", "mount namespace", "ENOENT").alone(kShare, "");
    OPENED(group, "sys", "/sys/kernel", "mount namespace", "ENOENT");

    group = "Descriptors";
    DENIED(group, "inherited_descriptor", "a descriptor that the starting program left open", "list of descriptors", "EBADF");
    OPENED(group, "reopen_descriptor", "its descriptors again, through /proc/self/fd and /dev/fd", "mount namespace", "ENOENT").alone(kShare, "");
    DENIED(group, "directory_descriptor", "`..` of a descriptor that it holds", "list of descriptors", "ENOTDIR");
    DENIED(group, "by_handle", "a file by its handle (open_by_handle_at)", "capabilities", "EPERM").filtered("SIGSYS");

    group = "Sockets";
    DENIED(group, "loopback", "a TCP service on the host's loopback", "network namespace", "ECONNREFUSED").alone(kFetch, "ok").alone(kNetd, "ok").filtered("ENOSYS")
        .filtered(kFetch, "ok").filtered(kNetd, "ok");
    DENIED(group, "outside", "an address outside", "network namespace", "ENETUNREACH").alone(kFetch, "ok or ENETUNREACH").alone(kNetd, "ok or ENETUNREACH").filtered("ENOSYS")
        .filtered(kFetch, "ok or ENETUNREACH").filtered(kNetd, "ok or ENETUNREACH");
    DENIED(group, "abstract_socket", "an abstract socket of the host", "network namespace; system call filter", "ECONNREFUSED").alone(kFetch, "ok").alone(kNetd, "ok")
        .filtered("ENOSYS");
    DENIED(group, "path_socket", "a socket in the host's file system", "mount namespace", "ENOENT").filtered("ENOSYS");
    DENIED(group, "netlink_change", "taking an interface down by netlink", "capabilities", "EPERM").filtered("ENOSYS").filtered(kFetch, "EPERM");
    DENIED(group, "raw_socket", "a raw IP socket", "capabilities", "EPERM").filtered("ENOSYS");
    DENIED(group, "packet_socket", "a packet socket", "capabilities", "EPERM").filtered("ENOSYS");
    DENIED(group, "vsock", "a vsock socket", "system call filter only", "ok or EAFNOSUPPORT").filtered("ENOSYS");

    group = "Other processes";
    DENIED(group, "kill_other", "SIGKILL to a process of the same user", "PID namespace", "ESRCH").filtered("ENOSYS");
    DENIED(group, "pidfd_other", "its pidfd", "PID namespace", "ESRCH").filtered("SIGSYS");
    DENIED(group, "ptrace_other", "ptrace of it", "PID namespace", "ESRCH").filtered("SIGSYS");
    DENIED(group, "read_other", "reading its memory", "PID namespace", "ESRCH").filtered("SIGSYS");
    DENIED(group, "slow_other", "changing its priority", "PID namespace", "ESRCH").filtered("ENOSYS");
    DENIED(group, "shared_memory", "the host's System V shared memory", "IPC namespace", "ENOENT").filtered("ENOSYS");
    DENIED(group, "message_queue", "the host's POSIX message queues", "IPC namespace", "ENOENT").filtered("ENOSYS");
    DENIED(group, "push_input", "input for a terminal (TIOCSTI)", "list of descriptors, own session", "ENOTTY").filtered("SIGSYS");

    group = "Namespaces and mounts";
    DENIED(group, "unshare_user", "unshare of a user namespace", "limit of user namespaces", "ENOSPC").filtered("SIGSYS");
    DENIED(group, "unshare_others", "unshare of each other namespace", "capabilities", "EPERM").filtered("SIGSYS");
    DENIED(group, "clone_user", "clone with a user namespace", "limit of user namespaces", "ENOSPC").filtered("SIGSYS");
    DENIED(group, "clone3_user", "clone3 with a user namespace", "limit of user namespaces", "ENOSPC").filtered("ENOSYS");
    DENIED(group, "clone3_others", "clone3 with each other namespace", "capabilities", "EPERM").filtered("ENOSYS");
    DENIED(group, "enter_namespace", "setns", "capabilities", "EPERM").filtered("SIGSYS").filtered(kShare, "ENOSYS").filtered(kNetd, "ENOSYS");
    DENIED(group, "mount_tmpfs", "mount", "capabilities", "EPERM").filtered("SIGSYS");
    DENIED(group, "mount_again", "mounting / again, writable", "capabilities", "EPERM").filtered("SIGSYS");
    DENIED(group, "unmount_root", "umount of /", "capabilities", "EPERM").filtered("SIGSYS");
    DENIED(group, "pivot_root", "pivot_root", "capabilities", "EPERM").filtered("SIGSYS");
    DENIED(group, "new_mount_calls", "open_tree, fsopen", "capabilities", "EPERM").filtered("SIGSYS");

    group = "Kernel";
    DENIED(group, "bpf", "BPF programs", "capabilities", "EPERM").filtered("SIGSYS");
    DENIED(group, "perf", "performance events of all processes", "capabilities", "EACCES or EPERM or ENOENT").filtered("SIGSYS");
    DENIED(group, "userfaultfd", "userfaultfd of kernel faults", "the host's setting, capabilities", "EPERM").filtered("SIGSYS");
    DENIED(group, "io_uring", "io_uring", "system call filter only", "ok or EPERM or ENOSYS").filtered("SIGSYS").filtered(kVmm, "ENOSYS");
    DENIED(group, "keyring", "a key of its own", "system call filter only", "ok or ENOSYS").filtered("SIGSYS");
    DENIED(group, "session_keys", "keys in the session keyring of whoever started it", "keyring", "ENOKEY or ENOSYS").filtered("SIGSYS");
    DENIED(group, "kexec", "kexec", "capabilities", "EPERM or ENOSYS").filtered("SIGSYS");
    DENIED(group, "modules", "loading and removing kernel modules", "capabilities", "EPERM or ENOSYS").filtered("SIGSYS");
    DENIED(group, "reboot_host", "reboot", "capabilities", "EPERM").filtered("SIGSYS");
    DENIED(group, "swap", "swapon", "capabilities", "EPERM").filtered("SIGSYS");
    DENIED(group, "set_clock", "setting the clock", "capabilities", "EPERM").filtered("SIGSYS");
    DENIED(group, "set_host_name", "setting the host name", "capabilities", "EPERM").filtered("SIGSYS");
    DENIED(group, "kernel_log", "clearing the kernel's log", "capabilities", "EPERM").filtered("SIGSYS");
    DENIED(group, "ports", "I/O ports", "capabilities", "EPERM or ENOSYS").filtered("SIGSYS");

    group = "Identity and limits";
    DENIED(group, "become_root", "user id 0", "user namespace", "EINVAL").filtered("SIGSYS");
    DENIED(group, "drop_groups", "other groups", "capabilities", "EPERM").filtered("SIGSYS");
    DENIED(group, "take_capability", "a capability", "capabilities", "EPERM").filtered("SIGSYS");
    DENIED(group, "more_files", "a higher limit of open files", "capabilities", "EPERM");
    DENIED(group, "core_dumps", "core dumps", "resource limit", "EPERM");
    DENIED(group, "first_in_line", "a higher priority", "capabilities", "EACCES").filtered("ENOSYS");

#define SHARED(id, attempt, layer, result) std::move(add("The template", id, attempt, layer)).alone(kVmm, result)
    SHARED("shared_write", "opening the template's memory for writing", "its mode, read-only mount", "EACCES");
    SHARED("shared_truncate", "truncating it", "its mode, read-only mount", "EACCES").filtered(kVmm, "ENOSYS");
    SHARED("shared_mode", "changing its mode", "read-only mount", "EROFS").filtered(kVmm, "ENOSYS");
    SHARED("shared_reopen", "its descriptor again for writing, through /proc/self/fd", "mount namespace", "ENOENT");
    SHARED("shared_map", "a shared writable mapping", "read-only descriptor", "EACCES");
    SHARED("shared_protect", "making a shared mapping writable", "read-only descriptor", "EACCES");
    SHARED("shared_punch", "punching a hole", "read-only descriptor", "EBADF");
    SHARED("shared_remove", "MADV_REMOVE in a private mapping", "private mapping", "EINVAL or EACCES");
#undef SHARED

#define VOLUME(id, attempt, layer, result) std::move(add("Volumes", id, attempt, layer)).alone(kShare, result)
    VOLUME("volume_climb", "`..` from a volume: another volume, the database, a secret of the user, a box's disk", "detached mount", "ENOENT");
    VOLUME("volume_link", "links in a volume that lead out of it", "detached mount, mount namespace", "ENOENT");
    VOLUME("volume_sibling", "a file beside a single file, by `..`, by name, through /proc/self/fd", "detached mount", "ENOTDIR");
    VOLUME("volume_place", "where on the host a volume lies", "detached mount", "ENOENT");
    VOLUME("volume_handle", "a file of a volume by its handle", "capabilities", "EPERM").filtered(kShare, "SIGSYS");
    VOLUME("volume_mounted_again", "mounting a read-only one again, for writing, elsewhere, or unmounting it", "capabilities", "EPERM").filtered(kShare, "SIGSYS");
    VOLUME("volume_write", "16 ways to change a read-only one", "read-only mount", "EROFS");
    VOLUME("volume_write_contents", "writing to a file of it that was opened for reading", "read-only descriptor", "EBADF");
    VOLUME("volume_map", "a shared writable mapping of it", "read-only descriptor", "EACCES");
    VOLUME("volume_edge", "linking and moving a file from one volume into another", "detached mount", "EXDEV");
    VOLUME("volume_mode", "chmod of a file in a writable one", "system call filter only", "ok").filtered(kShare, "ENOSYS");
    VOLUME("volume_owner", "chown of it", "user namespace", "EINVAL").filtered(kShare, "ENOSYS");
    VOLUME("volume_new_set_user_id", "a new set-user-id file", "system call filter only", "ok").filtered(kShare, "ENOSYS");
    VOLUME("volume_new_open_to_all", "a new file, file without a name, directory that is open to everybody", "system call filter only", "ok").filtered(kShare, "ENOSYS");
    VOLUME("volume_capability", "the attributes security.capability, trusted.*, security.*", "capabilities", "EPERM");
    VOLUME("volume_access_list", "an access list that opens a file to everybody", "none; the directory above is its owner's", "ok or EOPNOTSUPP");
    VOLUME("volume_device", "a device node in it", "capabilities", "EPERM").filtered(kShare, "ENOSYS");
    VOLUME("volume_pipe", "a named pipe in it", "system call filter only", "ok").filtered(kShare, "ENOSYS");
    VOLUME("volume_program", "executing a file of a volume", "noexec of the mount", "EACCES");
    VOLUME("volume_library", "mapping a file of a volume as code", "noexec of the mount", "EPERM");
    VOLUME("volume_reopen", "its other descriptors again, for more than they were opened for, through /proc/self/fd", "list of descriptors", "ENXIO");
    VOLUME("volume_proc_of_others", "files, memory and environment of a process outside, through /proc", "PID namespace", "ENOENT");
    VOLUME("volume_proc_settings", "settings and memory of the kernel, through /proc", "capabilities, read-only mounts", "EACCES");
    VOLUME("volume_proc_first", "the host's files, through /proc/1", "mount namespace", "ENOENT");
#undef VOLUME

#define NETWORK(id, attempt, layer, result) std::move(add("The network", id, attempt, layer)).alone(kNetd, result).filtered(kNetd, "ENOSYS")
    NETWORK("network_service", "a TCP service of its own on the host", "system call filter only", "ok");
    NETWORK("network_port", "a port of the host, for datagrams", "system call filter only", "ok");
    NETWORK("network_protocols", "protocols that load modules of the kernel: SCTP, DCCP, UDP-Lite, MPTCP, ICMP", "system call filter only",
            "ok or EPROTONOSUPPORT or EXFULL");
    NETWORK("network_families", "sockets of other families: netlink, Bluetooth, CAN, TIPC, ALG, XDP, SMC, RDS, Phonet", "system call filter only",
            "ok or EAFNOSUPPORT");
    NETWORK("network_mark", "marks, interfaces and foreign source addresses for its connections", "capabilities; system call filter", "ok or EPERM");
    NETWORK("network_program", "a BPF program for a socket", "system call filter only", "ok");
    NETWORK("network_held", "its local sockets, turned to an abstract socket of the host", "they are connected for good", "EISCONN").filtered(kNetd, "EISCONN");
#undef NETWORK

    group = "Using things up";
    DENIED(group, "many_descriptors", "descriptors", "resource limit", "EMFILE");
    DENIED(group, "much_address_space", "64 GiB of address space", "resource limit; for the VMM control groups, too", "ENOMEM").alone(kFetch, "ok");
    DENIED(group, "large_file", "a file of 1 TiB", "resource limit", "EFBIG").alone(kShare, "ok").alone(kNetd, "EROFS").filtered(kNetd, "ENOSYS");
    DENIED(group, "many_processes", "600 processes", "control groups, for the VMM where the host has them", "ok").filtered(kShare, "ENOSYS").filtered(kNetd, "ENOSYS");
#undef OPENED
#undef DENIED
    // clang-format on
    return rows;
}

}  // namespace caisson::attack
