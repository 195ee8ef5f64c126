// Each attempt runs in a process of its own: nothing takes the rules back.
#include "os/landlock.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <optional>

#include "os/file.h"

namespace caisson::os {
namespace {

class LandlockDeathTest : public testing::Test {
  protected:
    void SetUp() override {
        if (landlock_version() == 0) GTEST_SKIP() << "this kernel has no Landlock";
        auto made = TemporaryDirectory::create("/var/tmp", "caisson-landlock-test-");
        ASSERT_TRUE(made) << made.error().to_string();
        place_.emplace(std::move(*made));
        ASSERT_TRUE(make_directories(path("in"), 0755));
        ASSERT_TRUE(write_file_atomic(path("in/f"), "inside"));
        ASSERT_TRUE(write_file_atomic(path("secret"), "secret"));
    }
    std::string path(const std::string& name) const { return place_->path() + "/" + name; }
    // What `attempt` returns under the rules: an error number, 0 for success.
    template <typename Attempt>
    void gives(int expected, const Landlock& rules, const Attempt& attempt) const {
        EXPECT_EXIT(
            {
                auto applied = restrict_self(rules);
                if (!applied || *applied != landlock_version()) ::_exit(99);
                ::_exit(attempt());
            },
            testing::ExitedWithCode(expected), "");
    }
    static int opening(const std::string& name, int flags) { return ::open(name.c_str(), flags | O_CLOEXEC) < 0 ? errno : 0; }

  private:
    std::optional<TemporaryDirectory> place_;
};

TEST_F(LandlockDeathTest, OnlyTheListedPathsCanBeUsedAndAsListed) {
    const Landlock rules{.rules = {{path("in"), -1, landlock::kReadFile | landlock::kReadDirectory}}};
    gives(0, rules, [&] { return opening(path("in/f"), O_RDONLY); });
    gives(EACCES, rules, [&] { return opening(path("in/f"), O_WRONLY); });
    gives(EACCES, rules, [&] { return opening(path("secret"), O_RDONLY); });
    gives(EACCES, rules, [&] { return opening("/etc/passwd", O_RDONLY); });
}

TEST_F(LandlockDeathTest, AFileTakesTheRightsThatFilesHave) {
    const Landlock rules{.rules = {{path("in/f"), -1, ~std::uint64_t{0} >> 1}}};
    gives(0, rules, [&] { return opening(path("in/f"), O_RDWR); });
    gives(EACCES, rules, [&] { return opening(path("in"), O_RDONLY | O_DIRECTORY); });
}

TEST_F(LandlockDeathTest, APathThatIsMissingIsAnErrorThatNamesIt) {
    auto applied = restrict_self({.rules = {{path("missing"), -1, landlock::kReadFile}}});
    ASSERT_FALSE(applied);
    EXPECT_NE(applied.error().to_string().find(path("missing")), std::string::npos);
    EXPECT_EQ(opening(path("secret"), O_RDONLY), 0) << "half of the rules hold";
}

TEST_F(LandlockDeathTest, TcpIsForbiddenUnlessAllowed) {
    if (landlock_version() < 4) GTEST_SKIP() << "needs version 4 of Landlock (Linux 6.7)";
    auto connecting = [] {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address.sin_port = htons(1);
        const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        return ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) < 0 ? errno : 0;
    };
    gives(EACCES, {}, connecting);
    gives(ECONNREFUSED, {.forbid_tcp = false}, connecting);
}

TEST_F(LandlockDeathTest, SignalsAndAbstractSocketsOfOthersAreOutOfReachUnlessAllowed) {
    if (landlock_version() < 6) GTEST_SKIP() << "needs version 6 of Landlock (Linux 6.12)";
    auto signalling = [] { return ::kill(::getppid(), 0) < 0 ? errno : 0; };
    gives(EPERM, {}, signalling);
    gives(0, {.scope_signals = false}, signalling);
    Fd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string name = "caisson-landlock-" + std::to_string(::getpid());
    name.copy(address.sun_path + 1, sizeof address.sun_path - 1);
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
    ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
    ASSERT_EQ(::listen(listener.get(), 8), 0);
    auto connecting = [&] {
        const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        return ::connect(fd, reinterpret_cast<sockaddr*>(&address), length) < 0 ? errno : 0;
    };
    gives(EPERM, {}, connecting);
    gives(0, {.scope_abstract_sockets = false}, connecting);
}

TEST_F(LandlockDeathTest, PrivilegesCannotBeGainedAfterwards) {
    gives(1, {}, [] { return ::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); });
}

}  // namespace
}  // namespace caisson::os
