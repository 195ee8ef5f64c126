#include "os/process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>

#include <thread>

#include "os/file.h"

namespace caisson::os {
namespace {

using std::chrono::milliseconds;

// Runs `script` with /bin/sh and returns what it wrote to descriptor 1.
std::string output_of(Command command, ExitStatus* status = nullptr) {
    auto pipe = make_pipe().value();
    command.descriptors.push_back({pipe.second.get(), 1});
    auto process = spawn(command);
    EXPECT_TRUE(process.has_value());
    pipe.second.reset();
    auto text = read_fd(pipe.first.get(), 1 << 20, "pipe").value();
    auto ended = process->wait();
    EXPECT_TRUE(ended.has_value());
    if (status) *status = *ended;
    return text;
}

TEST(Process, ReportsExitCodeAndSignal) {
    ExitStatus status;
    output_of({.arguments = {"/bin/sh", "-c", "exit 7"}}, &status);
    EXPECT_FALSE(status.signalled);
    EXPECT_EQ(status.code, 7);
    output_of({.arguments = {"/bin/sh", "-c", "kill -9 $$"}}, &status);
    EXPECT_TRUE(status.signalled);
    EXPECT_EQ(status.code, 9);
}

TEST(Process, AnotherUserFromAProcessWithThreads) {
    if (::geteuid() != 0) GTEST_SKIP() << "only root can start a process as another user";
    auto wait = make_pipe().value();
    std::thread other([&] {
        char byte;
        static_cast<void>(!::read(wait.first.get(), &byte, 1));
    });
    EXPECT_EQ(output_of({.arguments = {"/usr/bin/id", "-u"}, .user = 65534, .group = 65534}), "65534\n");
    wait.second.reset();
    other.join();
}

TEST(Process, MissingProgramIsAnErrorOfSpawn) {
    auto process = spawn({.arguments = {"/no/such/program"}});
    ASSERT_FALSE(process.has_value());
    EXPECT_EQ(process.error().code, Errc::kNotFound);
    EXPECT_NE(process.error().message.find("/no/such/program"), std::string::npos);
}

TEST(Process, EnvironmentIsBuiltFromEmpty) {
    ::setenv("CAISSON_TEST_LEAK", "1", 1);
    EXPECT_EQ(output_of({.arguments = {"/usr/bin/env"}, .environment = {"A=b"}}), "A=b\n");
}

TEST(Process, OnlyListedDescriptorsStayOpen) {
    int leaked = ::open("/dev/null", O_RDONLY);  // on purpose without O_CLOEXEC
    ASSERT_GE(leaked, 3);
    auto text = output_of({.arguments = {"/bin/sh", "-c", "cd /proc/self/fd; echo *"}});
    ::close(leaked);
    // sh itself opens the directory while it expands the pattern: one number above 2 at the most.
    EXPECT_TRUE(text == "0 1 2\n" || text == "0 1 2 3\n") << text;
}

TEST(Process, DescriptorsMayTradePlaces) {
    auto first = make_pipe().value();
    auto second = make_pipe().value();
    int a = first.second.get();
    int b = second.second.get();
    auto process = spawn({.arguments = {"/bin/sh", "-c",
                                        "echo one >&" + std::to_string(b) + "; echo two >&" + std::to_string(a)},
                          .descriptors = {{a, b}, {b, a}}});
    ASSERT_TRUE(process.has_value());
    first.second.reset();
    second.second.reset();
    EXPECT_EQ(read_fd(first.first.get(), 100, "pipe").value(), "one\n");
    EXPECT_EQ(read_fd(second.first.get(), 100, "pipe").value(), "two\n");
}

TEST(Process, WaitHasADeadlineAndStopEscalates) {
    auto pipe = make_pipe().value();
    auto process = spawn({.arguments = {"/bin/sh", "-c", "trap '' TERM; echo ready; sleep 1000 & wait; sleep 1000"},
                          .descriptors = {{pipe.second.get(), 1}}});
    ASSERT_TRUE(process.has_value());
    char byte;
    ASSERT_EQ(::read(pipe.first.get(), &byte, 1), 1);
    auto waited = process->wait(milliseconds(20));
    ASSERT_FALSE(waited.has_value());
    EXPECT_EQ(waited.error().code, Errc::kTimeout);
    auto ended = process->stop(milliseconds(50)).value();
    EXPECT_TRUE(ended.signalled);
    EXPECT_EQ(ended.code, SIGKILL);
}

TEST(Process, DestructorLeavesNoZombie) {
    pid_t pid = 0;
    {
        auto process = spawn({.arguments = {"/bin/sleep", "1000"}}).value();
        pid = process.pid();
    }
    EXPECT_EQ(::kill(pid, 0), -1);
    EXPECT_EQ(errno, ESRCH);
}

TEST(Process, StartTimeTellsProcessesApart) {
    EXPECT_GT(process_start_time(::getpid()).value(), 0u);
    EXPECT_FALSE(process_start_time(0x3fffffff).has_value());
}

TEST(Process, AZombieIsNotAlive) {
    auto process = spawn({.arguments = {"/bin/true"}}).value();
    struct pollfd ended {process.pidfd().get(), POLLIN, 0};
    ASSERT_EQ(::poll(&ended, 1, 10000), 1);
    EXPECT_FALSE(process_start_time(process.pid()).has_value());
    EXPECT_TRUE(process.wait().has_value());
}

}  // namespace
}  // namespace caisson::os
