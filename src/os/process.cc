#include "os/process.h"
#include "os/probe.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/keyctl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/text.h"
#include "os/file.h"

namespace caisson::os {

using base::failure;
using base::failure_errno;

namespace {

// What failed in the child before its exec; sent through a close-on-exec pipe.
struct ChildFailure {
    int step;
    int error_number;
};
constexpr const char* kSteps[] = {"arranging file descriptors", "starting a session", "tying its life to its parent",
                                  "setting its user", "entering its working directory", "executing it",
                                  "limiting its resources", "entering its control group",
                                  "giving it an empty keyring; see the limits in /proc/sys/kernel/keys"};

struct ChildPlan {
    const Command* command;
    char* const* argv;
    char* const* envp;
    int report_fd;
    int null_fd;
    pid_t parent;
    const sigset_t* original_mask;
};

[[noreturn]] void child_fail(const ChildPlan& plan, int step) {
    ChildFailure failed{step, errno};
    ssize_t ignored = ::write(plan.report_fd, &failed, sizeof failed);
    static_cast<void>(ignored);
    ::_exit(127);
}

// Only async-signal-safe calls from here on.
[[noreturn]] void run_child(ChildPlan plan) {
    const Command& command = *plan.command;
    // A handler of the parent must not run in the child; dispositions other than "ignored" reset at exec anyway.
    struct sigaction standard {};
    standard.sa_handler = SIG_DFL;
    for (int signal = 1; signal < NSIG; ++signal) ::sigaction(signal, &standard, nullptr);
    ::sigprocmask(SIG_SETMASK, plan.original_mask, nullptr);

    // Before it changes its user: a group is open to who opened its file, and to nobody else.
    for (int procs : command.groups.procs)
        if (::write(procs, "0", 1) != 1) child_fail(plan, 7);

    // First everything that is passed on moves above all target numbers, then down to its place.
    int highest = 2;
    for (const auto& descriptor : command.descriptors) highest = std::max(highest, descriptor.target);
    int moved_report = ::fcntl(plan.report_fd, F_DUPFD_CLOEXEC, highest + 1);
    if (moved_report < 0) child_fail(plan, 0);
    plan.report_fd = moved_report;
    int moved_null = ::fcntl(plan.null_fd, F_DUPFD_CLOEXEC, highest + 1);
    if (moved_null < 0) child_fail(plan, 0);
    int moved_program = -1;
    if (command.program_fd >= 0) {
        moved_program = ::fcntl(command.program_fd, F_DUPFD_CLOEXEC, highest + 1);
        if (moved_program < 0) child_fail(plan, 0);
    }
    constexpr std::size_t kMaxDescriptors = 320;
    int moved[kMaxDescriptors];
    if (command.descriptors.size() > kMaxDescriptors) {
        errno = EMFILE;
        child_fail(plan, 0);
    }
    for (std::size_t i = 0; i < command.descriptors.size(); ++i) {
        moved[i] = ::fcntl(command.descriptors[i].source, F_DUPFD_CLOEXEC, highest + 1);
        if (moved[i] < 0) child_fail(plan, 0);
    }
    for (int standard_fd = 0; standard_fd <= 2; ++standard_fd)
        if (::dup2(moved_null, standard_fd) < 0) child_fail(plan, 0);
    for (std::size_t i = 0; i < command.descriptors.size(); ++i)
        if (::dup2(moved[i], command.descriptors[i].target) < 0) child_fail(plan, 0);
    // Whatever an embedding application left open without close-on-exec must not leak into the child.
    if (::syscall(SYS_close_range, highest + 1, ~0U, 4U /* CLOSE_RANGE_CLOEXEC */) != 0) child_fail(plan, 0);
    for (int fd = 3; fd <= highest; ++fd) {
        bool wanted = false;
        for (const auto& descriptor : command.descriptors) wanted = wanted || descriptor.target == fd;
        if (!wanted) ::close(fd);
    }

    if (command.new_session && ::setsid() < 0) child_fail(plan, 1);
    // A kernel without keys, or a filter that forbids them: then the child has no use of them either.
    if (command.new_keyring && ::syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, nullptr) < 0 && errno != ENOSYS && errno != EPERM)
        child_fail(plan, 8);
    for (const auto& limit : command.resource_limits) {
        struct rlimit value {limit.value, limit.value};
        if (::setrlimit(static_cast<__rlimit_resource_t>(limit.resource), &value) != 0) child_fail(plan, 6);
    }
    if (command.die_with_parent) {
        if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) child_fail(plan, 2);
        if (::getppid() != plan.parent) {
            errno = ESRCH;
            child_fail(plan, 2);
        }
    }
    if (command.user || command.group) {
        uid_t user = command.user.value_or(::getuid());
        gid_t group = command.group.value_or(::getgid());
        // Not the C library's calls: they would wait for the caller's other threads to do the same, which are not here.
        if (::syscall(SYS_setgroups, 0, nullptr) != 0) child_fail(plan, 3);
        if (::syscall(SYS_setresgid, group, group, group) != 0) child_fail(plan, 3);
        if (::syscall(SYS_setresuid, user, user, user) != 0) child_fail(plan, 3);
        // A change of credentials clears the parent-death signal.
        if (command.die_with_parent) {
            if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) child_fail(plan, 2);
            if (::getppid() != plan.parent) {
                errno = ESRCH;
                child_fail(plan, 2);
            }
        }
    }
    if (::chdir(command.working_directory.c_str()) != 0) child_fail(plan, 4);
    if (moved_program >= 0)
        ::syscall(SYS_execveat, moved_program, "", plan.argv, plan.envp, AT_EMPTY_PATH);
    else
        ::execve(plan.argv[0], plan.argv, plan.envp);
    child_fail(plan, 5);
}

struct Clone {
    pid_t pid = -1;  // 0: this is the child
    Fd pidfd;
    int error_number = 0;
};

// As fork(2), with a descriptor of the child, which is born in the control group `cgroup` if that is a directory's. In the
// child all signals stay blocked, so that no handler of ours runs there.
Clone clone_child(int cgroup) {
    sigset_t all;
    sigset_t original;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &original);
    int pidfd_number = -1;
    struct clone_args arguments {};
    arguments.flags = CLONE_PIDFD;
    arguments.pidfd = reinterpret_cast<std::uint64_t>(&pidfd_number);
    arguments.exit_signal = SIGCHLD;
    if (cgroup >= 0) {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = static_cast<std::uint64_t>(cgroup);
    }
    Clone child;
    child.pid = static_cast<pid_t>(::syscall(SYS_clone3, &arguments, sizeof arguments));
    child.error_number = errno;
    if (child.pid == 0) return child;
    if (child.pid > 0) child.pidfd = Fd(pidfd_number);
    ::pthread_sigmask(SIG_SETMASK, &original, nullptr);
    return child;
}

}  // namespace

Process::Process(Process&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), pidfd_(std::move(other.pidfd_)) {}

Process& Process::operator=(Process&& other) noexcept {
    if (this != &other) {
        Process old(std::move(*this));
        pid_ = std::exchange(other.pid_, -1);
        pidfd_ = std::move(other.pidfd_);
    }
    return *this;
}

Process::~Process() {
    if (pid_ <= 0) return;
    static_cast<void>(send_signal(SIGKILL));
    static_cast<void>(wait());
}

void Process::release() {
    pid_ = -1;
    pidfd_.reset();
}

Result<> Process::send_signal(int signal) const {
    if (pid_ <= 0) return {};
    if (::syscall(SYS_pidfd_send_signal, pidfd_.get(), signal, nullptr, 0) != 0 && errno != ESRCH)
        return failure_errno("cannot signal process " + std::to_string(pid_));
    return {};
}

Result<ExitStatus> Process::wait(std::optional<std::chrono::milliseconds> deadline) {
    if (pid_ <= 0) return failure(Errc::kInternal, "waiting for a process that was reaped before");
    if (deadline) {
        auto end = std::chrono::steady_clock::now() + *deadline;
        for (;;) {
            auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
            struct pollfd poll_entry {pidfd_.get(), POLLIN, 0};
            int ready = ::poll(&poll_entry, 1, static_cast<int>(std::max<long long>(0, left.count())));
            if (ready > 0) break;
            if (ready == 0)
                return failure(Errc::kTimeout, "process " + std::to_string(pid_) + " is still running");
            if (errno != EINTR) return failure_errno("cannot wait for process " + std::to_string(pid_));
        }
    }
    int status = 0;
    for (;;) {
        pid_t got = ::waitpid(pid_, &status, __WALL);
        if (got == pid_) break;
        if (errno == EINTR) continue;
        pid_ = -1;
        return failure_errno("cannot reap a process");
    }
    pid_ = -1;
    pidfd_.reset();
    if (WIFSIGNALED(status)) return ExitStatus{true, WTERMSIG(status)};
    return ExitStatus{false, WEXITSTATUS(status)};
}

Result<ExitStatus> Process::stop(std::chrono::milliseconds grace) {
    CAISSON_TRY(send_signal(SIGTERM));
    auto ended = wait(grace);
    if (ended || ended.error().code != Errc::kTimeout) return ended;
    CAISSON_TRY(send_signal(SIGKILL));
    return wait();
}

Result<Process> spawn(const Command& command) {
    if (command.arguments.empty()) return failure(Errc::kInternal, "spawning an empty command");
    std::vector<char*> argv;
    for (const auto& argument : command.arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    std::vector<char*> envp;
    for (const auto& variable : command.environment) envp.push_back(const_cast<char*>(variable.c_str()));
    envp.push_back(nullptr);

    auto report = CAISSON_TRY(make_pipe());
    auto null_fd = CAISSON_TRY(open_file("/dev/null", O_RDWR));

    sigset_t empty;
    ::sigemptyset(&empty);
    const pid_t parent = ::getpid();
    auto child = clone_child(command.groups.directory);
    if (child.pid == 0)
        run_child({&command, argv.data(), envp.data(), report.second.get(), null_fd.get(), parent, &empty});
    if (child.pid < 0) return failure_errno("cannot start " + command.arguments[0], child.error_number);

    Process process;
    process.pid_ = child.pid;
    process.pidfd_ = std::move(child.pidfd);
    report.second.reset();
    ChildFailure failed{};
    for (;;) {
        ssize_t got = ::read(report.first.get(), &failed, sizeof failed);
        if (got < 0 && errno == EINTR) continue;
        if (got == static_cast<ssize_t>(sizeof failed)) {
            static_cast<void>(process.wait());
            return failure_errno("cannot start " + command.arguments[0] + " (" + kSteps[failed.step] + ")",
                                 failed.error_number);
        }
        return process;
    }
}

Result<Process> spawn_group_keeper(int procs, std::chrono::milliseconds longest) {
    constexpr long kPeriodMs = 1;
    const pid_t parent = ::getpid();
    auto child = clone_child(-1);
    if (child.pid == 0) {
        // Only async-signal-safe calls; all signals but SIGKILL stay blocked. What the caller has open must not be
        // held open by this.
        if (procs > 0) ::syscall(SYS_close_range, 0, procs - 1, 0);
        ::syscall(SYS_close_range, procs + 1, ~0U, 0);
        const struct timespec period {0, kPeriodMs * 1000000};
        for (auto left = longest.count(); left > 0 && ::getppid() == parent; left -= kPeriodMs) {
            if (::write(procs, "0", 1) != 1) break;
            ::nanosleep(&period, nullptr);
        }
        ::_exit(0);
    }
    if (child.pid < 0) return failure_errno("cannot start a process", child.error_number);
    Process process;
    process.pid_ = child.pid;
    process.pidfd_ = std::move(child.pidfd);
    return process;
}

namespace {
// For a process with a new user namespace: the caller's user and group are what they were, and there are no others.
bool map_own_ids(uid_t user, gid_t group) {
    const std::pair<const char*, std::string> settings[] = {{"/proc/self/setgroups", "deny"},
                                                            {"/proc/self/uid_map", std::to_string(user) + " " + std::to_string(user) + " 1"},
                                                            {"/proc/self/gid_map", std::to_string(group) + " " + std::to_string(group) + " 1"}};
    for (const auto& [path, value] : settings) {
        Fd file(::open(path, O_WRONLY | O_CLOEXEC));
        if (!file || ::write(file.get(), value.data(), value.size()) != static_cast<ssize_t>(value.size())) return false;
    }
    return true;
}

Result<> enter_own_mount_namespace() {
    const auto user = ::geteuid();  // which is nobody in a namespace that knows no users yet
    const auto group = ::getegid();
    // The files of a process that is not dumpable are root's in /proc.
    if (::prctl(PR_SET_DUMPABLE, 1) == 0 && ::unshare(CLONE_NEWUSER) == 0 && map_own_ids(user, group) && ::unshare(CLONE_NEWNS) == 0) return {};
    Error error;
    error.code = Errc::kHostMissing;
    error.message = "this host refuses a user namespace with mounts of its own";
    error.sys_errno = errno;
    error.hint = "see what refuses it: caisson doctor";
    return tl::unexpected(error);
}

// An error on its way from a child to its parent: three lines, of which the last goes on to the end.
std::string as_text(const Error& error) {
    auto message = error.message;
    std::replace(message.begin(), message.end(), '\n', ' ');
    return std::to_string(static_cast<int>(error.code)) + " " + std::to_string(error.sys_errno) + "\n" + message + "\n" + error.hint;
}

Error error_from(const std::string& text) {
    Error error;
    error.code = Errc::kInternal;
    error.message = "a process in a namespace of its own died";
    int code = 0;
    int number = 0;
    if (std::sscanf(text.c_str(), "%d %d", &code, &number) != 2 || code < 0 || code > static_cast<int>(Errc::kInternal)) return error;
    const auto first = text.find('\n');
    const auto second = text.find('\n', first + 1);
    if (first == std::string::npos || second == std::string::npos) return error;
    error.code = static_cast<Errc>(code);
    error.sys_errno = number;
    error.message = text.substr(first + 1, second - first - 1);
    error.hint = text.substr(second + 1);
    return error;
}
}  // namespace

Result<> in_own_mount_namespace(const std::function<Result<>()>& body) {
    constexpr std::size_t kLongestError = 64 * 1024;
    auto report = CAISSON_TRY(make_pipe());
    const pid_t parent = ::getpid();
    auto child = clone_child(-1);
    if (child.pid == 0) {
        if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || ::getppid() != parent) ::_exit(1);
        auto done = enter_own_mount_namespace();
        if (done) done = body();
        if (!done) static_cast<void>(write_all(report.second.get(), as_text(done.error())));
        ::_exit(done ? 0 : 1);
    }
    if (child.pid < 0) return failure_errno("cannot start a process", child.error_number);
    Process process;
    process.pid_ = child.pid;
    process.pidfd_ = std::move(child.pidfd);
    report.second.reset();
    auto said = read_fd(report.first.get(), kLongestError, "what a child says");
    auto status = CAISSON_TRY(process.wait());
    if (!status.signalled && status.code == 0) return {};
    return tl::unexpected(error_from(said ? *said : ""));
}

int try_user_namespace() {
    // clone and not clone3: a filter that looks at the flags can only see those of clone.
    long pid = ::syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, nullptr, nullptr, nullptr, nullptr);
    if (pid == 0) ::_exit(0);
    if (pid < 0) return errno;
    while (::waitpid(static_cast<pid_t>(pid), nullptr, 0) < 0 && errno == EINTR) {}
    return 0;
}

namespace {
// The fields of /proc/PID/stat from the third, the state, on.
Result<std::vector<std::string>> stat_fields(pid_t pid) {
    auto text = CAISSON_TRY(read_file("/proc/" + std::to_string(pid) + "/stat", 4096));
    // The second field is the program's name in parentheses and may hold anything, so count from the last ')'.
    auto close = text.rfind(')');
    if (close == std::string::npos) return failure(Errc::kIo, "unexpected content of /proc/PID/stat");
    auto fields = base::split(std::string_view(text).substr(close + 2), ' ');
    if (fields.size() < 20) return failure(Errc::kIo, "unexpected content of /proc/PID/stat");
    return fields;
}
}  // namespace

Result<Fd> open_child_of(pid_t parent, pid_t pid) {
    // Opened first and looked at then: what was looked at cannot be another process any more.
    Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    if (!pidfd) return failure(Errc::kNotFound, "there is no process " + std::to_string(pid));
    auto fields = CAISSON_TRY(stat_fields(pid));
    if (fields[1] != std::to_string(parent))
        return failure(Errc::kNotFound, "process " + std::to_string(pid) + " is no child of " + std::to_string(parent));
    return pidfd;
}

Result<unsigned long long> process_start_time(pid_t pid) {
    auto fields = CAISSON_TRY(stat_fields(pid));
    // A zombie that nobody has reaped yet is as dead as one that is gone.
    if (fields[0] == "Z" || fields[0] == "X") return failure(Errc::kNotFound, "the process has ended");
    return base::parse_u64(fields[19]);
}

}  // namespace caisson::os
