// What is left to a caisson-netns that was taken over. Each attempt runs in a process of its own, under the very lock.
#include "net/space/lock.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace caisson::net {
namespace {

// As the program is when it locks itself: alone in namespaces of its own.
bool lock() {
    return ::unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0 && lock_netns().has_value();
}

// `attempt` returns less than 0 and sets errno.
template <typename Attempt>
void gives(int expected, const Attempt& attempt) {
    EXPECT_EXIT(
        {
            if (!lock()) ::_exit(99);
            errno = 0;
            ::_exit(attempt() < 0 ? errno : 0);
        },
        testing::ExitedWithCode(expected), "");
}

template <typename Attempt>
void dies(const Attempt& attempt) {
    EXPECT_EXIT(
        {
            if (!lock()) ::_exit(99);
            attempt();
            ::_exit(0);
        },
        testing::KilledBySignal(SIGSYS), "");
}

int bind_transparent() {
    const int made = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;
    if (made < 0 || ::setsockopt(made, SOL_IP, IP_TRANSPARENT, &on, sizeof on) != 0) return -1;
    return ::setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
}

TEST(NetnsLockDeathTest, ItsSocketsAreLeftToIt) {
    gives(0, bind_transparent);
    gives(0, [] { return ::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0); });
}

TEST(NetnsLockDeathTest, NoOtherSocketIs) {
    gives(ENOSYS, [] { return ::socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER); });
    gives(ENOSYS, [] { return ::socket(AF_UNIX, SOCK_STREAM, 0); });
    gives(ENOSYS, [] { return ::socket(AF_PACKET, SOCK_RAW, 0); });
    gives(ENOSYS, [] { return ::socket(AF_INET, SOCK_RAW, IPPROTO_TCP); });
    gives(ENOSYS, [] { return ::socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP); });
    gives(ENOSYS, [] {
        const int on = 1, made = ::socket(AF_INET, SOCK_DGRAM, 0);
        return ::setsockopt(made, SOL_SOCKET, SO_RCVBUFFORCE, &on, sizeof on);
    });
}

TEST(NetnsLockDeathTest, NoFileIs) {
    gives(ENOSYS, [] { return ::open("/etc/passwd", O_RDONLY); });
    gives(ENOSYS, [] { return static_cast<int>(::syscall(SYS_openat2, AT_FDCWD, "/", nullptr, 0)); });
    gives(ENOSYS, [] { return ::unlink("/tmp/anything"); });
    EXPECT_EXIT(
        {
            if (os::restrict_self(netns_files()).value_or(0) == 0) ::_exit(99);
            ::_exit(::open("/etc/passwd", O_RDONLY) < 0 ? errno : 0);
        },
        testing::ExitedWithCode(EACCES), "");
}

TEST(NetnsLockDeathTest, NoOtherProcessIs) {
    dies([] { ::kill(::getppid(), SIGTERM); });
    dies([] { ::execl("/bin/true", "true", nullptr); });
    dies([] { return ::syscall(SYS_fork); });
    dies([] { ::ptrace(PTRACE_ATTACH, ::getppid(), nullptr, nullptr); });
    dies([] { ::unshare(CLONE_NEWUSER); });
    dies([] { ::mount("none", "/tmp", "tmpfs", 0, nullptr); });
    dies([] { return ::syscall(SYS_capset, nullptr, nullptr); });
    dies([] { return ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); });
}

}  // namespace
}  // namespace caisson::net
