// What is left to a supervisor that a guest has taken over. Each attempt runs in a process of its own, under the very
// rules of the shim.
#include "box/shim_lock.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <linux/openat2.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <optional>

#include "box/log.h"
#include "box/limits.h"
#include "os/file.h"
#include "os/loop.h"
#include "os/process.h"
#include "store/database.h"

namespace caisson::box {
namespace {

// A home with two boxes, as the shim of "one" finds it.
class ShimLockDeathTest : public testing::Test {
  protected:
    ShimLockDeathTest() {
        auto made = os::TemporaryDirectory::create("/var/tmp", "caisson-shim-test-");
        if (made) place_.emplace(std::move(*made));
        for (const char* box : {"boxes/one", "boxes/other", "boxes/none", "audit/home", "audit/boxes/one", "audit/boxes/other", "audit/networks/one", "audit/networks/other"}) EXPECT_TRUE(os::make_directories(path(box), 0700));
        for (const char* file : {"boxes/one/disk.qcow2", "boxes/other/disk.qcow2", "secret", "audit/home/1.jsonl", "audit/boxes/one/1.jsonl", "audit/boxes/other/1.jsonl", "audit/networks/one/1.jsonl", "audit/networks/other/1.jsonl"})
            EXPECT_TRUE(os::write_file_atomic(path(file), "content"));
        EXPECT_EQ(::symlink(path("secret").c_str(), path("boxes/one/link").c_str()), 0);
    }
    std::string path(const std::string& name) const { return place_->path() + "/" + name; }
    std::string box(const std::string& name) const { return path("boxes/one/" + name); }
    bool lock() const { return lock_shim(path("boxes/one"), {path("audit/boxes/one"), path("audit/networks/one")}).has_value(); }

    // `attempt` returns less than 0 and sets errno.
    template <typename Attempt>
    void gives(int expected, const Attempt& attempt) const {
        EXPECT_EXIT(
            {
                if (!lock()) ::_exit(99);
                errno = 0;
                ::_exit(attempt() < 0 ? errno : 0);
            },
            testing::ExitedWithCode(expected), "");
    }
    template <typename Attempt>
    void dies(const Attempt& attempt) const {
        EXPECT_EXIT(
            {
                if (!lock()) ::_exit(99);
                attempt();
                ::_exit(0);
            },
            testing::KilledBySignal(SIGSYS), "");
    }
    static int open(const std::string& name, int flags) { return ::open(name.c_str(), flags | O_CLOEXEC, 0600); }

  private:
    std::optional<os::TemporaryDirectory> place_;
};

TEST_F(ShimLockDeathTest, ItsOwnFilesAreLeftToIt) {
    gives(0, [&] { return open(box("disk.qcow2"), O_RDWR); });
    gives(0, [&] { return open(box("new"), O_RDWR | O_CREAT | O_EXCL); });
    gives(0, [&] { return ::unlink(box("disk.qcow2").c_str()); });
    gives(0, [&] { return os::empty_directory(box("")) && ::access(box("disk.qcow2").c_str(), F_OK) != 0 ? 0 : -1; });
}

TEST_F(ShimLockDeathTest, OtherFilesAreNot) {
    gives(EACCES, [] { return open("/etc/passwd", O_RDONLY); });
    gives(EACCES, [&] { return open(path("secret"), O_RDONLY); });
    gives(EACCES, [&] { return open(box("link"), O_RDONLY); });
    gives(EACCES, [&] { return open(path("boxes/other"), O_RDONLY | O_DIRECTORY); });
    gives(EACCES, [&] { return open(path("boxes/other/disk.qcow2"), O_RDWR); });
    gives(EACCES, [&] { return open(path("boxes/other/new"), O_RDWR | O_CREAT); });
    gives(EACCES, [&] { return ::unlink(path("boxes/other/disk.qcow2").c_str()); });
    gives(EACCES, [&] { return ::rmdir(path("boxes/none").c_str()); });
    // Into its own directory nothing comes from elsewhere, and out of it nothing goes.
    gives(EACCES, [&] { return ::syscall(SYS_renameat2, AT_FDCWD, path("boxes/other/disk.qcow2").c_str(), AT_FDCWD, box("d").c_str(), 0); });
    gives(EACCES, [&] { return ::syscall(SYS_renameat2, AT_FDCWD, box("disk.qcow2").c_str(), AT_FDCWD, path("boxes/other/d").c_str(), 0); });
}

// Of the journal it has the chains of its own box.
TEST_F(ShimLockDeathTest, NoOtherChainOfTheJournalIs) {
    gives(0, [&] { return open(path("audit/boxes/one/1.jsonl"), O_WRONLY | O_APPEND); });
    gives(0, [&] { return open(path("audit/boxes/one/2.jsonl"), O_WRONLY | O_CREAT); });
    gives(0, [&] { return ::unlink(path("audit/boxes/one/1.jsonl").c_str()); });
    gives(0, [&] { return open(path("audit/boxes/one"), O_RDONLY | O_DIRECTORY); });
    gives(0, [&] { return open(path("audit/networks/one/2.jsonl"), O_WRONLY | O_CREAT); });
    for (const char* other : {"audit/home", "audit/boxes/other", "audit/networks/other"}) {
        gives(EACCES, [&] { return open(path(other) + "/1.jsonl", O_WRONLY | O_APPEND); });
        gives(EACCES, [&] { return open(path(other) + "/1.jsonl", O_RDONLY); });
        gives(EACCES, [&] { return open(path(other) + "/2.jsonl", O_WRONLY | O_CREAT); });
        gives(EACCES, [&] { return ::unlink((path(other) + "/1.jsonl").c_str()); });
        gives(EACCES, [&] { return ::syscall(SYS_renameat2, AT_FDCWD, path("audit/boxes/one/2.jsonl").c_str(), AT_FDCWD, (path(other) + "/3.jsonl").c_str(), 0); });
    }
    for (const char* all : {"audit/boxes", "audit/networks"}) gives(EACCES, [&] { return open(path(all), O_RDONLY | O_DIRECTORY); });
}

// The rules of files hold without the filter, too.
TEST_F(ShimLockDeathTest, NoLinkStandsWhereTheLauncherLooks) {
    auto with_rules_only = [&](auto attempt) {
        EXPECT_EXIT(
            {
                if (os::restrict_self(shim_files(path("boxes/one"))).value_or(0) == 0) ::_exit(99);
                errno = 0;
                ::_exit(attempt() < 0 ? errno : 0);
            },
            testing::ExitedWithCode(EACCES), "");
    };
    with_rules_only([&] { return ::symlink("/etc", box("boot").c_str()); });
    with_rules_only([&] { return ::mkfifo(box("pipe").c_str(), 0600); });
    with_rules_only([&] {
        os::Fd made(::socket(AF_INET, SOCK_STREAM, 0));
        struct sockaddr_in address {};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address.sin_port = htons(9);
        return ::connect(made.get(), reinterpret_cast<const struct sockaddr*>(&address), sizeof address);
    });
}

#ifndef CAISSON_TEST_SANITIZED  // those have no filter

TEST_F(ShimLockDeathTest, WhatLandlockLeavesOpenTheFilterDoesNot) {
    gives(ENOSYS, [&] { return ::syscall(SYS_fchmodat, AT_FDCWD, path("secret").c_str(), 0777); });
    gives(ENOSYS, [&] { return ::syscall(SYS_chmod, path("secret").c_str(), 0777); });
    gives(ENOSYS, [&] { return ::syscall(SYS_openat, AT_FDCWD, path("secret").c_str(), O_ACCMODE | O_TRUNC, 0); });
    gives(ENOSYS, [&] {
        struct open_how how {};
        how.flags = O_ACCMODE | O_TRUNC;
        return ::syscall(SYS_openat2, AT_FDCWD, path("secret").c_str(), &how, sizeof how);
    });
    struct stat secret {};
    ASSERT_EQ(::stat(path("secret").c_str(), &secret), 0);
    EXPECT_GT(secret.st_size, 0);
}

TEST_F(ShimLockDeathTest, NoDescriptorOfAClientsProcess) {
    auto pair = os::make_socketpair(SOCK_STREAM).value();
    constexpr int kPeerPidfd = 77;  // SO_PEERPIDFD
    int number = -1;
    socklen_t size = sizeof number;
    gives(ENOSYS, [&] { return ::getsockopt(pair.first.get(), SOL_SOCKET, kPeerPidfd, &number, &size); });
    struct ucred peer {};
    socklen_t peer_size = sizeof peer;
    gives(0, [&] { return ::getsockopt(pair.first.get(), SOL_SOCKET, SO_PEERCRED, &peer, &peer_size); });
}

TEST_F(ShimLockDeathTest, NoFileThatFillsTheDisk) {
    gives(EFBIG, [&] {
        os::Fd file(open(box("new"), O_RDWR | O_CREAT));
        return ::ftruncate(file.get(), static_cast<off_t>(limits::kMostSupervisorFileBytes) + 1);
    });
}

TEST_F(ShimLockDeathTest, NoOtherProgramOrProcess) {
    dies([] { ::execl("/bin/true", "true", nullptr); });
    dies([] { static_cast<void>(!::fork()); });
    dies([] { ::syscall(SYS_clone, 0, nullptr, nullptr, nullptr, nullptr); });
    dies([] { ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr); });
    dies([] { ::kill(::getppid(), 0); });
    gives(ENOSYS, [] { return ::syscall(SYS_tgkill, 1, 1, 0); });
    dies([] { ::syscall(SYS_pidfd_open, ::getpid(), 0); });
    gives(ENOSYS, [] { return ::syscall(SYS_clone3, nullptr, 0); });
}

TEST_F(ShimLockDeathTest, ItSignalsOnlyWhatItWasGivenAndOnlyToKill) {
    os::Command sleep;
    sleep.arguments = {"/bin/sleep", "100"};
    auto process = os::spawn(sleep);
    ASSERT_TRUE(process.has_value());
    gives(0, [&] { return ::syscall(SYS_pidfd_send_signal, process->pidfd().get(), SIGKILL, nullptr, 0); });
    EXPECT_TRUE(process->wait(std::chrono::milliseconds(5000)).has_value());
    gives(ENOSYS, [] { return ::syscall(SYS_pidfd_send_signal, 0, 0, nullptr, 0); });
    // Nor by descriptors that send signals.
    gives(ENOSYS, [] { return ::fcntl(0, F_SETOWN, 1); });
}

TEST_F(ShimLockDeathTest, NoNewSocketLinkOrExecutableMemory) {
    dies([] { ::socket(AF_INET, SOCK_STREAM, 0); });
    dies([] { ::socket(AF_UNIX, SOCK_STREAM, 0); });
    dies([&] { static_cast<void>(!::symlink("/etc", box("boot").c_str())); });
    dies([&] { static_cast<void>(!::link(box("disk.qcow2").c_str(), box("again").c_str())); });
    dies([] { ::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); });
    dies([] { ::mount("", "/", nullptr, 0, nullptr); });
    dies([] { static_cast<void>(!::setuid(0)); });
}

#endif

// An error in it ends it as anywhere else.
TEST_F(ShimLockDeathTest, ItCanAbort) {
    EXPECT_EXIT(
        {
            if (!lock()) ::_exit(99);
            ::abort();
        },
        testing::KilledBySignal(SIGABRT), "");
}

// What the shim does for the rest of its life.
TEST_F(ShimLockDeathTest, DatabaseLogsAndClientsWork) {
    EXPECT_EXIT(
        {
            auto database = store::Database::open(path("caisson.db"));
            store::BoxRecord record;
            record.id = "01j00000000000000000000000";
            record.name = "box";
            if (!database || !database->insert_box(record) || !lock()) ::_exit(99);
            const auto& id = record.id;
            for (int i = 0; i < 1200; ++i)  // beyond a checkpoint
                if (!database->set_box_state(id, store::BoxState::kRunning, std::string(3000, 'x'))) ::_exit(1);
            if (!database->set_stop_requested(id) || !database->restart_box(id, {"exited", 0, "", 1}) ||
                !database->insert_execution({"01j00000000000000000000001", id, "[]", true, 1, {}}) ||
                !database->finish_box(id, store::BoxState::kStopped, {"exited", 0, "", 1}) || !database->remove_box(id))
                ::_exit(2);
            auto log = LogWriter::open(path("boxes/one"), "exec-1", {kLeastLogFileBytes, 3});
            if (!log) ::_exit(3);
            for (int i = 0; i < 100; ++i) log->append(LogSource::kStdout, base::as_bytes(std::string(4096, 'y')), 1);
            if (log->lost_bytes() != 0) ::_exit(4);
            auto loop = os::Loop::create();
            if (!loop || !loop->step(std::chrono::milliseconds(1))) ::_exit(5);
            ::_exit(0);
        },
        testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace caisson::box
