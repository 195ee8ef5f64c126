// Each attempt runs in a process of its own: nothing takes a filter back.
#include "jail/filter.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <thread>

namespace caisson::jail {
namespace {

#ifndef CAISSON_TEST_SANITIZED  // sanitizers make calls of their own

// What a test program needs to end and to be waited for.
std::vector<CallRule> ending() {
    return calls({"exit", "exit_group", "write", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "futex", "close", "munmap",
                  "mmap", "mprotect", "brk", "wait4", "getpid", "gettid", "madvise", "set_robust_list", "rseq"});
}

template <typename Attempt>
void gives(int expected, const Filter& filter, const Attempt& attempt) {
    EXPECT_EXIT(
        {
            if (!lock_self(filter)) ::_exit(99);
            errno = 0;
            ::_exit(attempt() < 0 ? errno : 0);
        },
        testing::ExitedWithCode(expected), "");
}

template <typename Attempt>
void dies(const Filter& filter, const Attempt& attempt) {
    EXPECT_EXIT(
        {
            if (!lock_self(filter)) ::_exit(99);
            attempt();
            ::_exit(0);
        },
        testing::KilledBySignal(SIGSYS), "");
}

TEST(FilterDeathTest, HasThreeAnswers) {
    const auto filter = allow_list("test", ending());
    gives(0, filter, [] { return ::syscall(SYS_getpid); });
    gives(ENOSYS, filter, [] { return ::syscall(SYS_getuid); });
    gives(ENOSYS, filter, [] { return ::syscall(9999); });
    dies(filter, [] { ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr); });
    dies(filter, [] { ::unshare(CLONE_NEWUSER); });
}

TEST(FilterDeathTest, NewerWaysToAskForTheSameAreUnknown) {
    const auto filter = allow_list("test", ending() + std::vector{clone_without_namespaces()});
    gives(ENOSYS, filter, [] { return ::syscall(SYS_clone3, nullptr, 0); });
}

TEST(FilterDeathTest, CloneMakesNoNamespace) {
    const auto filter = allow_list("test", ending() + std::vector{clone_without_namespaces()});
    gives(0, filter, [] { return ::syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, nullptr); });
    for (long flag : {CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET})
        dies(filter, [&] { ::syscall(SYS_clone, SIGCHLD | flag, nullptr, nullptr, nullptr, nullptr); });
}

TEST(FilterDeathTest, ConditionsLookAtTheMaskedBits) {
    const auto filter = allow_list("test", ending() + std::vector<CallRule>{{"ioctl", {{1, 0xffffffff, TIOCGWINSZ}}}});
    gives(EBADF, filter, [] { return ::ioctl(-1, TIOCGWINSZ, nullptr); });
    gives(ENOSYS, filter, [] { return ::ioctl(-1, TCGETS, nullptr); });
    dies(filter, [] { ::ioctl(-1, TIOCSTI, nullptr); });
    // The kernel looks at the lower half only.
    dies(filter, [] { ::ioctl(-1, TIOCSTI | 0x100000000UL, nullptr); });
}

TEST(FilterDeathTest, OtherArchitecturesAreKilled) {
#if defined(__x86_64__)
    const auto filter = allow_list("test", ending());
    dies(filter, [] { ::syscall(0x40000000 | SYS_getpid); });  // x32
    dies(filter, [] {
        long result = 20;  // getpid of 32-bit programs
        asm volatile("int $0x80" : "+a"(result) : : "memory");
    });
#endif
}

TEST(FilterDeathTest, HoldsForAllThreadsAndForGood) {
    const auto filter = allow_list("test", ending() + calls({"prctl", "seccomp"}));
    gives(ENOSYS, filter, [] { return ::syscall(SYS_getuid); });
    gives(1, filter, [] { return ::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ? (errno = 1, -1) : 0; });
    EXPECT_EXIT(
        {
            int before[2];
            int after[2];
            if (::pipe(before) != 0 || ::pipe(after) != 0) ::_exit(98);
            long seen = 0;
            std::thread other([&] {
                char byte = 0;
                while (::read(before[0], &byte, 1) < 0 && errno == EINTR) {}
                seen = ::syscall(SYS_getuid) < 0 ? errno : 0;
                static_cast<void>(!::write(after[1], &byte, 1));
                for (;;) ::pause();
            });
            if (!lock_self(allow_list("test", ending() + calls({"read", "pause"})))) ::_exit(99);
            char byte = 0;
            static_cast<void>(!::write(before[1], &byte, 1));
            static_cast<void>(!::read(after[0], &byte, 1));
            ::_exit(static_cast<int>(seen));
        },
        testing::ExitedWithCode(ENOSYS), "");
}

#endif

TEST(Filter, AllowedCallsAreNotKilled) {
    const auto filter = allow_list("test", calls({"pidfd_open", "read"}));
    for (const auto& rule : filter.killed) EXPECT_NE(rule.call, "pidfd_open");
    EXPECT_NE(to_text(filter).find("allow pidfd_open\n"), std::string::npos);
    EXPECT_NE(to_text(filter).find("kill  ioctl if argument 1 & 0xffffffff is 0x5412\n"), std::string::npos);
}

TEST(Filter, ANameThatNobodyKnowsIsOurBug) {
    auto program = to_program(allow_list("test", calls({"reed"})));
    ASSERT_FALSE(program);
    EXPECT_NE(program.error().to_string().find("reed"), std::string::npos);
}

TEST(Filter, AFileHoldsTheProgramFromItsBeginning) {
    const auto filter = allow_list("test", calls({"read"}));
    const auto program = to_program(filter).value();
    EXPECT_EQ(program.size() % sizeof(sock_filter), 0U);
    auto file = to_file(filter).value();
    EXPECT_EQ(::lseek(file.get(), 0, SEEK_CUR), 0);
    EXPECT_EQ(::lseek(file.get(), 0, SEEK_END), static_cast<off_t>(program.size()));
}

}  // namespace
}  // namespace caisson::jail
