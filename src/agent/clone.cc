#include "agent/clone.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "agent/paths.h"
#include "os/file.h"

namespace caisson::agent {

Result<Child> fork_into(const os::Fd& cgroup, std::uint64_t namespaces) {
    int pidfd = -1;
    clone_args arguments{};
    arguments.flags = CLONE_PIDFD | CLONE_INTO_CGROUP | namespaces;
    arguments.pidfd = reinterpret_cast<__u64>(&pidfd);
    arguments.exit_signal = SIGCHLD;
    arguments.cgroup = static_cast<__u64>(cgroup.get());
    long pid = ::syscall(SYS_clone3, &arguments, sizeof arguments);
    if (pid < 0) return base::failure_errno("cannot make a process");
    Child child;
    child.pid = static_cast<pid_t>(pid);
    if (pid > 0) child.pidfd = os::Fd(pidfd);
    return child;
}

Result<Child> fork_beside() {
    const std::string namespaces = std::string(kProc) + "/self/ns/";
    auto own = CAISSON_TRY(os::open_file(namespaces + "pid", O_RDONLY));
    auto container = CAISSON_TRY(os::open_file(namespaces + "pid_for_children", O_RDONLY));
    if (::setns(own.get(), CLONE_NEWPID) != 0) return base::failure_errno("cannot leave the container's pid namespace");
    int pidfd = -1;
    clone_args arguments{};
    arguments.flags = CLONE_PIDFD;
    arguments.pidfd = reinterpret_cast<__u64>(&pidfd);
    arguments.exit_signal = SIGCHLD;
    const long pid = ::syscall(SYS_clone3, &arguments, sizeof arguments);
    const int error = errno;
    if (pid == 0) return Child();
    // A container process must never be born among the guest's own.
    CAISSON_CHECK(::setns(container.get(), CLONE_NEWPID) == 0);
    if (pid < 0) return base::failure_errno("cannot make a process", error);
    Child child;
    child.pid = static_cast<pid_t>(pid);
    child.pidfd = os::Fd(pidfd);
    return child;
}

void dispose(Child& child) {
    if (child.pid == 0 || !child.pidfd) return;
    ::syscall(SYS_pidfd_send_signal, child.pidfd.get(), SIGKILL, nullptr, 0);
    pollfd ended{child.pidfd.get(), POLLIN, 0};
    ::poll(&ended, 1, kReapPatienceMilliseconds);
    ::waitpid(child.pid, nullptr, WNOHANG);
    child = Child();
}

void settle_memory() {
    // Locking populates: readable pages are mapped, writable private ones are copied. Nothing has to stay locked.
    if (::mlockall(MCL_CURRENT) == 0) ::munlockall();
}

}  // namespace caisson::agent
