#include "agent/launch.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/openat2.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "agent/accounts.h"
#include "agent/command_path.h"
#include "agent/copy.h"
#include "agent/credentials.h"
#include "agent/paths.h"
#include "agent/users.h"
#include "base/capabilities.h"
#include "base/text.h"
#include "os/file.h"
#include "wire/frame.h"

namespace caisson::agent {

using base::failure;
using base::failure_errno;
using wire::StartFailed;

namespace {

// The pipes' numbers in the child; everything above them is closed.
constexpr int kReport = 3;
constexpr int kOrder = 4;
constexpr int kNull = 5;
// The first byte of an order.
constexpr char kAsRead = '.';
constexpr char kReadAgain = 'r';

void put_le32(std::string& out, std::uint32_t value) {
    std::uint8_t bytes[4];
    base::store_le32(bytes, value);
    out.append(reinterpret_cast<const char*>(bytes), sizeof bytes);
}

[[noreturn]] void fail(StartFailed::Kind kind, int error_number, const std::string& message) {
    std::string record;
    put_le32(record, static_cast<std::uint32_t>(kind));
    put_le32(record, static_cast<std::uint32_t>(error_number));
    record += message.substr(0, 1024);
    static_cast<void>(os::write_all(kReport, record));
    ::_exit(127);
}

[[noreturn]] void fail(StartFailed::Kind kind, const Error& error) { fail(kind, error.sys_errno, error.to_string()); }

Result<> join_container(const LaunchPlan& plan) {
    // The agent must never be chosen by the out-of-memory killer; its children may.
    auto score = CAISSON_TRY(os::open_file(std::string(kProc) + "/self/oom_score_adj", O_WRONLY));
    CAISSON_TRY(os::write_all(score.get(), "0"));
    score.reset();
    CAISSON_TRY(plan.container->enter());
    if (::setsid() < 0) return failure_errno("cannot start a session");
    // First out of the way, then to their places.
    int report = ::fcntl(plan.report, F_DUPFD_CLOEXEC, kNull + 1);
    int order = plan.order < 0 ? -1 : ::fcntl(plan.order, F_DUPFD_CLOEXEC, kNull + 1);
    int null = plan.order < 0 ? -1 : ::fcntl(plan.container->null().get(), F_DUPFD_CLOEXEC, kNull + 1);
    for (int i = 0; i < 3; ++i)
        if (::dup2(plan.standard[i], i) < 0) return failure_errno("cannot connect the standard streams");
    if (::dup3(report, kReport, O_CLOEXEC) < 0) return failure_errno("cannot keep the report pipe");
    if (order >= 0 && (::dup3(order, kOrder, O_CLOEXEC) < 0 || ::dup3(null, kNull, O_CLOEXEC) < 0))
        return failure_errno("cannot keep the order pipe");
    // Everything else goes before anything of the image's is looked at: a working directory such as
    // /proc/self/fd/7 would lead out of the container.
    int first = order >= 0 ? kNull + 1 : kReport + 1;
    if (::syscall(SYS_close_range, static_cast<unsigned>(first), ~0U, 0U) != 0)
        return failure_errno("cannot close descriptors");
    if (plan.terminal && ::ioctl(0, TIOCSCTTY, 0) != 0) return failure_errno("cannot take the terminal");
    return {};
}

Result<> enter_directory(const std::string& wanted, bool create) {
    const std::string path = wanted.empty() ? "/" : wanted;
    if (path[0] != '/') return failure(Errc::kUsage, "the working directory " + base::printable(path, 256) + " is not absolute");
    auto enter = [&path]() -> Result<> {
        open_how how{};
        how.flags = O_PATH | O_DIRECTORY | O_CLOEXEC;
        how.resolve = RESOLVE_NO_MAGICLINKS;
        os::Fd fd(static_cast<int>(::syscall(SYS_openat2, AT_FDCWD, path.c_str(), &how, sizeof how)));
        if (!fd || ::fchdir(fd.get()) != 0)
            return failure_errno("cannot enter the working directory " + base::printable(path, 256));
        return {};
    };
    if (path == "/") {  // every process of the agent's is there
        if (::chdir("/") != 0) return failure_errno("cannot enter the root directory");
        return {};
    }
    auto entered = enter();
    if (!entered && entered.error().sys_errno == ENOENT && create) {
        CAISSON_TRY(os::make_directories(path, 0755));
        entered = enter();
    }
    return entered;
}

// `has`: the capabilities that this process has already, as has its bounding set, of which `wanted` is a part.
Result<> become(const UserIdentity& user, const wire::Exec& exec, std::uint64_t has) {
    const std::uint64_t wanted = wanted_capabilities(exec);
    // While it may still be done: whatever is executed from now on, set-user-id programs too, has no more than these.
    if (wanted != has) CAISSON_TRY(limit_bounding_set(wanted));
    // A pipe opened again as /dev/stdout must work for this user, as a terminal's name must.
    if (user.uid != 0) {
        for (int fd = 0; fd <= 2; ++fd) {
            struct stat info {};
            if (::fstat(fd, &info) == 0 && (S_ISFIFO(info.st_mode) || ::isatty(fd) == 1))
                static_cast<void>(!::fchown(fd, user.uid, static_cast<gid_t>(-1)));
        }
    }
    // The agent itself is root, without further groups; what stays the same is not set again, since each kind of system
    // call costs a restored guest its translation.
    if (!user.groups.empty() && ::setgroups(user.groups.size(), user.groups.data()) != 0)
        return failure_errno("cannot set groups");
    if (user.gid != 0 && ::setresgid(user.gid, user.gid, user.gid) != 0) return failure_errno("cannot set the group id");
    if (user.uid != 0 && ::setresuid(user.uid, user.uid, user.uid) != 0) return failure_errno("cannot set the user id");
    // Root keeps what is wanted; anyone else has lost all with setresuid(2).
    if (user.uid == 0 && wanted != has && !set_capabilities(wanted)) return failure_errno("cannot limit capabilities");
    if (exec.privileges().no_new_privileges() && ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return failure_errno("cannot give up new privileges");
    return {};
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
    std::vector<char*> result;
    result.reserve(strings.size() + 1);
    for (auto& string : strings) result.push_back(string.data());
    result.push_back(nullptr);
    return result;
}

[[noreturn]] void execute(std::vector<std::string> arguments, std::vector<std::string> environment) {
    const std::string name = arguments[0];
    auto candidates = program_candidates(name, environment_value(environment, "PATH"));
    auto argv = pointers(arguments);
    auto envp = pointers(environment);
    const std::string shown = "'" + base::printable(name, 256) + "'";
    bool plain = name.find('/') == std::string::npos;
    int error = ENOENT;
    for (const auto& candidate : candidates) {
        ::execve(candidate.c_str(), argv.data(), envp.data());
        if (errno == ENOENT || errno == ENOTDIR) {
            // The file may be there and its interpreter not: worth knowing.
            if (::access(candidate.c_str(), F_OK) == 0)
                fail(StartFailed::NOT_FOUND, ENOENT, "cannot execute " + shown + ": its interpreter does not exist");
            continue;
        }
        error = errno;
        if (error != EACCES) break;  // a forbidden one may be followed by one that works
    }
    StartFailed::Kind kind = exec_failure_kind(error);
    if (kind == StartFailed::NOT_FOUND)
        fail(kind, error, shown + (plain ? ": command not found in $PATH" : ": no such file or directory"));
    fail(kind, error, "cannot execute " + shown + ": " + std::strerror(error));
}

}  // namespace

StartFailed::Kind exec_failure_kind(int error_number) {
    switch (error_number) {
        case ENOENT:
        case ENOTDIR: return StartFailed::NOT_FOUND;
        case ENOMEM:
        case EAGAIN: return StartFailed::OTHER;
        default: return StartFailed::NOT_EXECUTABLE;
    }
}

LaunchReport parse_launch_report(base::ByteView bytes) {
    LaunchReport report;
    if (bytes.size() >= 4) report.pid = static_cast<std::int32_t>(base::load_le32(bytes.data()));
    if (bytes.size() < 12) return report;
    report.failed = true;
    int kind = static_cast<int>(base::load_le32(bytes.data() + 4));
    if (StartFailed::Kind_IsValid(kind)) report.kind = static_cast<StartFailed::Kind>(kind);
    report.error_number = static_cast<int>(base::load_le32(bytes.data() + 8));
    report.message = std::string(base::as_text(bytes.subspan(12)));
    return report;
}

namespace {

void report_pid(int report) {
    std::string started;
    put_le32(started, static_cast<std::uint32_t>(::getpid()));
    static_cast<void>(os::write_all(report, started));
}

// Everything behind joining the container. `has`: see become().
[[noreturn]] void become_command(const wire::Exec& exec, const Accounts& accounts, std::uint64_t has) {
    auto user = find_user(exec.user(), accounts);
    if (!user) fail(StartFailed::UNKNOWN_USER, user.error());

    auto entered = enter_directory(exec.working_directory(), exec.create_working_directory());
    bool retry = !entered && (entered.error().sys_errno == EACCES || entered.error().sys_errno == EPERM);
    if (!entered && !retry) fail(StartFailed::BAD_WORKING_DIRECTORY, entered.error());
    if (auto became = become(*user, exec, has); !became) fail(StartFailed::OTHER, became.error());
    // A volume may let in its user and not root.
    if (retry) {
        entered = enter_directory(exec.working_directory(), false);
        if (!entered) fail(StartFailed::BAD_WORKING_DIRECTORY, entered.error());
    }

    std::vector<std::string> arguments(exec.arguments().begin(), exec.arguments().end());
    std::vector<std::string> environment(exec.environment().begin(), exec.environment().end());
    if (environment_value(environment, "HOME") == nullptr) environment.push_back("HOME=" + user->home);
    execute(std::move(arguments), std::move(environment));
}

// This process stays what the agent was, with its memory: the kernel shows it to nobody in the container, since the
// agent cannot be dumped (see boot.cc) and a fork inherits that until it executes something.
[[noreturn]] void become_copy(const wire::Copy& copy) {
    if (!set_capabilities(base::default_capabilities())) fail(StartFailed::OTHER, errno, "cannot limit capabilities");
    ::close(kReport);  // it has started
    ::umask(0);
    ::_exit(run_copy(copy, STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO));
}

}  // namespace

void launch(const LaunchPlan& plan, const wire::Exec& exec) {
    report_pid(plan.report);
    if (auto joined = join_container(plan); !joined) {
        // The report pipe may still be at its old number.
        ::dup2(plan.report, kReport);
        fail(StartFailed::OTHER, joined.error());
    }
    if (exec.has_copy()) become_copy(exec.copy());
    become_command(exec, read_accounts(), ~std::uint64_t{0});
}

bool fits_the_seat(const wire::Exec& exec) {
    return !exec.terminal() && (wanted_capabilities(exec) & ~base::default_capabilities()) == 0;
}

std::string launch_order(base::ByteView message, bool image_covered) {
    std::string order(1, image_covered ? kReadAgain : kAsRead);
    order += base::as_text(message);
    return order;
}

void launch_later(const LaunchPlan& plan) {
    if (!join_container(plan)) ::_exit(1);
    // A command of root's keeps these unless it is to have fewer, any other needs them until it is that user.
    const std::uint64_t usual = base::default_capabilities();
    if (!limit_bounding_set(usual) || !set_capabilities(usual)) ::_exit(1);
    auto accounts = read_accounts();
    settle_memory();
    report_pid(kReport);
    auto order = os::read_fd(kOrder, wire::kMaxControlBytes + 1, "the order pipe");
    wire::ToAgent message;
    if (!order || order->empty() || !message.ParseFromArray(order->data() + 1, static_cast<int>(order->size() - 1)) ||
        !message.has_exec())
        ::_exit(1);
    if ((*order)[0] == kReadAgain) accounts = read_accounts();
    const auto& exec = message.exec();
    if (!exec.stdin_open() && ::dup2(kNull, 0) < 0) fail(StartFailed::OTHER, errno, "cannot connect the standard streams");
    ::close(kOrder);
    ::close(kNull);
    become_command(exec, accounts, usual);
}

}  // namespace caisson::agent
