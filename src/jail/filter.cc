#include "jail/filter.h"

#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "os/file.h"

namespace caisson::jail {

using base::failure;
using base::failure_errno;

namespace {

// A program cannot be longer than the kernel takes (BPF_MAXINSNS).
constexpr std::size_t kMaxProgramBytes = 4096 * sizeof(sock_filter);

constexpr std::uint64_t kNamespaceFlags[] = {CLONE_NEWNS,  CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC,
                                             CLONE_NEWUSER, CLONE_NEWPID,   CLONE_NEWNET};
// The kernel looks at the lower half of an ioctl's number only; so must who forbids one.
constexpr std::uint64_t kIoctlBits = 0xffffffff;

const std::vector<std::string>& dangerous_names() {
    static const std::vector<std::string> names{
        // other processes
        "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "process_mrelease", "pidfd_open",
        "pidfd_getfd", "pidfd_send_signal", "kcmp", "move_pages", "migrate_pages",
        // mounts, roots and namespaces
        "mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "fsopen", "fsconfig", "fsmount", "fspick",
        "mount_setattr", "setns", "unshare", "open_by_handle_at", "name_to_handle_at",
        // the kernel itself
        "bpf", "perf_event_open", "userfaultfd", "init_module", "finit_module", "delete_module", "kexec_load",
        "kexec_file_load", "reboot", "syslog", "iopl", "ioperm", "modify_ldt", "vm86", "vm86old", "lookup_dcookie",
        "_sysctl", "nfsservctl", "uselib", "vhangup", "personality",
        // work that no filter sees
        "io_uring_setup", "io_uring_enter", "io_uring_register", "io_setup", "io_submit", "vmsplice",
        // keys
        "add_key", "request_key", "keyctl",
        // the host as a whole
        "acct", "swapon", "swapoff", "quotactl", "quotactl_fd", "sethostname", "setdomainname", "settimeofday",
        "clock_settime", "clock_adjtime", "adjtimex", "fanotify_init",
        // other users
        "setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups", "setfsuid", "setfsgid",
        "capset"};
    return names;
}

bool names_call(const std::vector<CallRule>& rules, const std::string& call) {
    return std::any_of(rules.begin(), rules.end(), [&](const CallRule& rule) { return rule.call == call; });
}

// libseccomp's filter under construction.
class Context {
  public:
    static Result<Context> create() {
        Context context;
        context.handle_.reset(seccomp_init(SCMP_ACT_ERRNO(ENOSYS)));
        if (!context.handle_) return failure(Errc::kInternal, "libseccomp has no filter for this machine");
        constexpr std::uint32_t kBinaryTree = 2;
        CAISSON_TRY(context.checked(seccomp_attr_set(context.get(), SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS), "bad architectures"));
        CAISSON_TRY(context.checked(seccomp_attr_set(context.get(), SCMP_FLTATR_CTL_OPTIMIZE, kBinaryTree), "the binary tree"));
        return context;
    }

    Result<> add(const CallRule& rule, std::uint32_t action) {
        const int number = seccomp_syscall_resolve_name(rule.call.c_str());
        if (number == __NR_SCMP_ERROR)
            return failure(Errc::kInternal, "libseccomp does not know the system call " + rule.call);
        if (number < 0) return {};  // another architecture's
        std::vector<scmp_arg_cmp> compared;
        for (const auto& condition : rule.where)
            compared.push_back({condition.argument, SCMP_CMP_MASKED_EQ, condition.mask, condition.value});
        return checked(seccomp_rule_add_array(get(), action, number, static_cast<unsigned>(compared.size()), compared.data()),
                       rule.call);
    }

    Result<os::Fd> program() const {
        os::Fd file(::memfd_create("caisson-filter", MFD_CLOEXEC));
        if (!file) return failure_errno("cannot make a file for a system call filter");
        CAISSON_TRY(checked(seccomp_export_bpf(get(), file.get()), "its program"));
        if (::lseek(file.get(), 0, SEEK_SET) != 0) return failure_errno("cannot rewind a system call filter");
        return file;
    }

  private:
    struct Release {
        void operator()(void* context) const { seccomp_release(context); }
    };
    scmp_filter_ctx get() const { return handle_.get(); }
    // libseccomp returns negative errno values.
    Result<> checked(int code, const std::string& what) const {
        if (code == 0) return {};
        return failure_errno("cannot make a system call filter (" + what + ")", -code);
    }
    std::unique_ptr<void, Release> handle_;
};

std::string hex(std::uint64_t value) {
    char text[32];
    std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
    return text;
}

std::string rule_text(const CallRule& rule) {
    std::string text = rule.call;
    for (const auto& condition : rule.where) {
        text += (&condition == &rule.where.front() ? " if " : " and ");
        text += "argument " + std::to_string(condition.argument);
        if (condition.mask != ~std::uint64_t{0}) text += " & " + hex(condition.mask);
        text += " is " + hex(condition.value);
    }
    return text;
}

}  // namespace

std::vector<CallRule> calls(const std::vector<std::string>& names) {
    std::vector<CallRule> rules;
    for (const auto& name : names) rules.push_back({name, {}});
    return rules;
}

std::vector<CallRule> operator+(std::vector<CallRule> left, const std::vector<CallRule>& right) {
    left.insert(left.end(), right.begin(), right.end());
    return left;
}

CallRule clone_without_namespaces() {
    std::uint64_t all = 0;
    for (auto flag : kNamespaceFlags) all |= flag;
    return {"clone", {{0, all, 0}}};
}

std::vector<CallRule> dangerous_calls(const std::vector<CallRule>& allowed) {
    std::vector<CallRule> dangerous;
    for (const auto& name : dangerous_names())
        if (!names_call(allowed, name)) dangerous.push_back({name, {}});
    // Rules hold when all of their bits are set: one for each flag.
    for (auto flag : kNamespaceFlags) dangerous.push_back({"clone", {{0, flag, flag}}});
    for (std::uint64_t request : {TIOCSTI, TIOCLINUX}) dangerous.push_back({"ioctl", {{1, kIoctlBits, request}}});
    return dangerous;
}

Filter allow_list(std::string name, std::vector<CallRule> allowed) {
    auto killed = dangerous_calls(allowed);
    return {std::move(name), std::move(allowed), std::move(killed)};
}

Result<os::Fd> to_file(const Filter& filter) {
    auto context = CAISSON_TRY(Context::create());
    for (const auto& rule : filter.allowed) CAISSON_TRY(context.add(rule, SCMP_ACT_ALLOW));
    for (const auto& rule : filter.killed) CAISSON_TRY(context.add(rule, SCMP_ACT_KILL_PROCESS));
    return context.program();
}

Result<std::string> to_program(const Filter& filter) {
    auto file = CAISSON_TRY(to_file(filter));
    return os::read_fd(file.get(), kMaxProgramBytes, "the system call filter of " + filter.name);
}

Result<> lock_self(const Filter& filter) {
    auto program = CAISSON_TRY(to_program(filter));
    const sock_fprog prepared{static_cast<unsigned short>(program.size() / sizeof(sock_filter)),
                              reinterpret_cast<sock_filter*>(program.data())};
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return failure_errno("cannot give up new privileges");
    const long done = ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &prepared);
    if (done == 0) return {};
    std::string why = done > 0 ? "a thread has another filter already" : "";
    auto error = done > 0 ? failure(Errc::kHostMissing, "cannot filter the system calls of " + filter.name + ": " + why)
                          : failure_errno("cannot filter the system calls of " + filter.name);
    error.value().code = Errc::kHostMissing;
    error.value().hint = "the kernel needs CONFIG_SECCOMP_FILTER, and whatever started caisson must not forbid seccomp(2)";
    return error;
}

std::string to_text(const Filter& filter) {
    std::string text;
    for (const auto& rule : filter.allowed) text += "allow " + rule_text(rule) + "\n";
    for (const auto& rule : filter.killed) text += "kill  " + rule_text(rule) + "\n";
    return text + "else  ENOSYS; calls of another architecture: kill\n";
}

}  // namespace caisson::jail
