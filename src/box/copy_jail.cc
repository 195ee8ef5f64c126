#include "box/copy_jail.h"

#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "os/landlock.h"

namespace caisson::box {

using base::failure_errno;

namespace {

// ---- files

Result<> restrict_files(CopyKind kind, int directory, bool removes) {
    namespace right = os::landlock;
    std::uint64_t rights = right::kReadFile | right::kReadDirectory;
    if (kind != CopyKind::kPack)
        rights = right::kReadDirectory | right::kWriteFile | right::kTruncate | right::kRemoveFile | right::kMakeFile |
                 right::kMakeDirectory | right::kMakeLink | right::kMakePipe | right::kRefer | (removes ? right::kRemoveDirectory : 0);
    // Where the kernel has no Landlock the rest has to do.
    CAISSON_TRY_CTX(os::restrict_self({.rules = {{"", directory, rights}}}), "restricting the copy's files");
    return {};
}

// ---- capabilities

Result<> keep_capabilities(CopyKind kind, bool root) {
    std::uint64_t kept = 0;
    auto keep = [&kept](int capability) { kept |= 1ULL << capability; };
    if (root && kind == CopyKind::kPack) keep(CAP_DAC_READ_SEARCH);
    if (root && kind != CopyKind::kPack) {
        keep(CAP_DAC_OVERRIDE);
        keep(CAP_FOWNER);
    }
    if (root && kind == CopyKind::kExtractWithOwners) {
        keep(CAP_CHOWN);
        keep(CAP_FSETID);
    }
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2]{};
    // Root in a container may have less than all.
    if (::syscall(SYS_capget, &header, data) != 0) return failure_errno("cannot look at capabilities");
    data[0].effective = data[0].permitted = static_cast<__u32>(kept) & data[0].permitted;
    data[1].effective = data[1].permitted = static_cast<__u32>(kept >> 32) & data[1].permitted;
    data[0].inheritable = data[1].inheritable = 0;
    if (::syscall(SYS_capset, &header, data) != 0) return failure_errno("cannot drop capabilities");
    return {};
}

// ---- system calls

#ifdef CAISSON_COPY_FILTER
#if defined(__x86_64__)
constexpr std::uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr std::uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#endif

// What reading and making files takes, and what the C library needs to end. Nothing that makes or replaces a process,
// maps code, or reaches another process or machine.
constexpr int kAllowed[] = {
    SYS_read, SYS_write, SYS_pread64, SYS_pwrite64, SYS_lseek, SYS_close, SYS_openat, SYS_openat2, SYS_fcntl, SYS_dup,
    SYS_fstat, SYS_newfstatat, SYS_statx, SYS_fstatfs, SYS_getdents64, SYS_readlinkat, SYS_mkdirat, SYS_unlinkat, SYS_linkat, SYS_renameat,
    SYS_symlinkat, SYS_mknodat, SYS_ftruncate, SYS_fchmod, SYS_fchown, SYS_fchownat, SYS_utimensat, SYS_umask, SYS_munmap,
    SYS_renameat2, SYS_fchmodat, SYS_fgetxattr, SYS_fsetxattr, SYS_inotify_init1, SYS_inotify_add_watch, SYS_ppoll,
    SYS_mremap, SYS_brk, SYS_madvise, SYS_futex, SYS_getrandom, SYS_getpid, SYS_gettid, SYS_rt_sigreturn, SYS_exit, SYS_exit_group};

Result<> filter_calls() {
    std::vector<sock_filter> program;
    auto load = [&](std::size_t offset) {
        program.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<__u32>(offset)));
    };
    auto unless = [&](std::uint32_t value) { program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 1, 0)); };
    auto answer = [&](std::uint32_t value) { program.push_back(BPF_STMT(BPF_RET | BPF_K, value)); };
    load(offsetof(seccomp_data, arch));
    unless(kArchitecture);
    answer(SECCOMP_RET_KILL_PROCESS);
    load(offsetof(seccomp_data, nr));
    for (int call : kAllowed) {
        program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<__u32>(call), 0, 1));
        answer(SECCOMP_RET_ALLOW);
    }
    // Memory, but none that can be executed. PROT_EXEC is in the lower half of the third argument.
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 1, 0));
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mprotect, 0, 3));
    load(offsetof(seccomp_data, args[2]));
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 4 /* PROT_EXEC */, 1, 0));
    answer(SECCOMP_RET_ALLOW);
    answer(SECCOMP_RET_KILL_PROCESS);
    const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
    if (::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) return failure_errno("cannot filter the copy's system calls");
    return {};
}
#else
Result<> filter_calls() { return {}; }  // sanitizers make calls of their own
#endif

}  // namespace

Result<> enter_copy_jail(CopyKind kind, int directory, bool removes) {
    const bool root = ::geteuid() == 0;
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || ::prctl(PR_SET_DUMPABLE, 0) != 0)
        return failure_errno("cannot give up privileges");
    // Absolute paths end here, too. Only who may change its root can leave it again, and that goes below.
    if (root && (::fchdir(directory) != 0 || ::chroot(".") != 0) && errno != EPERM)
        return failure_errno("cannot enter the copy's directory");
    CAISSON_TRY(restrict_files(kind, directory, removes));
    CAISSON_TRY(keep_capabilities(kind, root));
    return filter_calls();
}

}  // namespace caisson::box
