// The launcher's end of the socket, without a machine: verbs, what is none, and what it finds in the box's directory.
#include "box/launcher.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "box/limits.h"
#include "box/network_request.h"
#include "os/file.h"

namespace caisson::box {
namespace {

using Kind = LauncherNews::Kind;

TEST(LauncherNews, ArriveAsTheyWereSent) {
    auto sockets = os::make_socketpair(SOCK_SEQPACKET).value();
    LauncherNews news{.kind = Kind::kStarted, .number = 4711};
    for (int i = 0; i < 3; ++i) news.descriptors.push_back(os::make_pipe().value().first);
    ASSERT_TRUE(send_news(sockets.first.get(), news));
    LauncherNews failed{.kind = Kind::kFailed};
    failed.error.code = Errc::kHostMissing;
    failed.error.sys_errno = ENOENT;
    failed.error.message = "no bwrap";
    failed.error.hint = "install it";
    ASSERT_TRUE(send_news(sockets.first.get(), failed));
    ASSERT_TRUE(send_news(sockets.first.get(), LauncherNews{.kind = Kind::kExited, .signalled = true, .number = 9}));
    auto got = receive_news(sockets.second.get()).value();
    EXPECT_EQ(got->kind, Kind::kStarted);
    EXPECT_EQ(got->number, 4711);
    EXPECT_EQ(got->descriptors.size(), 3u);
    got = receive_news(sockets.second.get()).value();
    EXPECT_EQ(got->error.code, Errc::kHostMissing);
    EXPECT_EQ(got->error.message, "no bwrap");
    EXPECT_EQ(got->error.hint, "install it");
    EXPECT_EQ(got->error.sys_errno, ENOENT);
    got = receive_news(sockets.second.get()).value();
    EXPECT_TRUE(got->signalled);
    EXPECT_EQ(got->number, 9);
    ASSERT_TRUE(os::set_nonblocking(sockets.second.get(), true));
    EXPECT_FALSE(receive_news(sockets.second.get()).value());
    sockets.first.reset();
    EXPECT_EQ(receive_news(sockets.second.get()).error().code, Errc::kIo);
}

TEST(LauncherNews, LongMessagesAreCut) {
    auto sockets = os::make_socketpair(SOCK_SEQPACKET).value();
    LauncherNews failed{.kind = Kind::kFailed};
    failed.error.message = std::string(10 * kMostLauncherText, 'm');
    failed.error.hint = std::string(10 * kMostLauncherText, 'h');
    ASSERT_TRUE(send_news(sockets.first.get(), failed));
    auto got = receive_news(sockets.second.get()).value();
    EXPECT_EQ(got->error.message.size(), kMostLauncherText / 2 - 1);
    EXPECT_EQ(got->error.hint.size(), kMostLauncherText / 2 - 1);
}

TEST(LauncherNews, WhatIsNoneIsRefused) {
    auto sockets = os::make_socketpair(SOCK_SEQPACKET).value();
    for (const std::string& bytes : {std::string("x"), std::string(20, '\xff'), std::string(20, '\0'), std::string("\2") + std::string(19, '\0')}) {
        ASSERT_EQ(::send(sockets.first.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
        EXPECT_FALSE(receive_news(sockets.second.get()).has_value()) << "a start without its descriptors, or no packet";
    }
}

TEST(LauncherRequest, HoldsNothingThatIsTheGuestsBusiness) {
    wire::Launch launch;
    launch.set_box_directory("/home/boxes/one");
    launch.set_database("/home/caisson.db");
    launch.mutable_spec()->set_disk_bytes(1 << 30);
    launch.mutable_spec()->mutable_exec()->add_environment("PASSWORD=secret");
    launch.mutable_spec()->mutable_configure()->set_hostname("name");
    const auto text = launcher_request(launch).SerializeAsString();
    EXPECT_EQ(text.find("secret"), std::string::npos);
    EXPECT_EQ(text.find("caisson.db"), std::string::npos);
    EXPECT_NE(text.find("/home/boxes/one"), std::string::npos);
}

// A launcher on a thread; its box cannot be started for want of a disk.
class LauncherTest : public testing::Test {
  protected:
    LauncherTest() {
        place_.emplace(os::TemporaryDirectory::create("/var/tmp", "caisson-launcher-test-").value());
        directory_ = place_->path() + "/box";
        EXPECT_TRUE(os::make_directories(directory_, 0700));
        EXPECT_TRUE(os::write_file_atomic(directory_ + "/lock", ""));
        auto sockets = os::make_socketpair(SOCK_SEQPACKET).value();
        shim_ = std::move(sockets.first);
        wire::Launch launch;
        launch.set_box_directory(directory_);
        launch.set_overlay_path(directory_ + "/disk.qcow2");
        launch.set_template_directory(place_->path() + "/template");
        const auto request = launch.SerializeAsString();
        EXPECT_GT(::send(shim_.get(), request.data(), request.size(), 0), 0);
        launcher_ = std::thread([this, socket = std::move(sockets.second)]() mutable { code_ = serve_as_launcher(std::move(socket)); });
    }
    ~LauncherTest() override {
        if (launcher_.joinable()) end();
    }
    void say(const std::string& packet) const { EXPECT_EQ(::send(shim_.get(), packet.data(), packet.size(), MSG_NOSIGNAL), static_cast<ssize_t>(packet.size())); }
    Result<LauncherNews> answer() const {
        auto news = receive_news(shim_.get());
        if (!news) return base::failure(news.error());
        return std::move(**news);
    }
    int end() {
        ::shutdown(shim_.get(), SHUT_WR);
        launcher_.join();
        return code_;
    }

    std::optional<os::TemporaryDirectory> place_;
    std::string directory_;
    os::Fd shim_;
    std::thread launcher_;
    int code_ = -1;
};

TEST_F(LauncherTest, AStartThatFailsSaysWhy) {
    for (int i = 0; i < 2; ++i) {
        say("s");
        auto failed = answer().value();
        EXPECT_EQ(failed.kind, Kind::kFailed);
        EXPECT_EQ(failed.error.code, Errc::kNotFound);
        EXPECT_NE(failed.error.message.find("disk.qcow2"), std::string::npos) << failed.error.message;
    }
    EXPECT_EQ(end(), 0);
}

TEST_F(LauncherTest, ALinkIsNoDisk) {
    ASSERT_TRUE(os::write_file_atomic(place_->path() + "/secret", "secret"));
    ASSERT_EQ(::symlink((place_->path() + "/secret").c_str(), (directory_ + "/disk.qcow2").c_str()), 0);
    say("s");
    EXPECT_EQ(answer().value().error.code, Errc::kCorrupt);
    ASSERT_EQ(::unlink((directory_ + "/disk.qcow2").c_str()), 0);
    ASSERT_EQ(::link((place_->path() + "/secret").c_str(), (directory_ + "/disk.qcow2").c_str()), 0);
    say("s");
    EXPECT_EQ(answer().value().error.code, Errc::kCorrupt) << "it has another name elsewhere";
}

TEST_F(LauncherTest, NothingIsAttachedToAMachineThatDoesNotRun) {
    say("a");
    auto refused = answer().value();
    EXPECT_EQ(refused.kind, Kind::kFailed);
    EXPECT_EQ(refused.error.code, Errc::kInUse);
}

TEST_F(LauncherTest, AMachineThatDoesNotRunHasNoNetworkToChange) {
    wire::NetworkSpec wanted;
    wanted.set_policy("{}");
    auto request = NetworkRequest::hold(directory_).value();
    ASSERT_TRUE(request.write(wanted));
    for (const char* verb : {"n", "r"}) {
        say(verb);
        auto refused = answer().value();
        EXPECT_EQ(refused.kind, Kind::kNetworkChanged);
        EXPECT_EQ(refused.error.code, Errc::kInUse);
    }
}

TEST_F(LauncherTest, AnEndRemovesADirectoryOnlyIfItIsEmpty) {
    say("e");
    EXPECT_EQ(answer().value().kind, Kind::kGone);
    EXPECT_TRUE(os::exists(directory_ + "/lock"));
    ASSERT_TRUE(os::empty_directory(directory_));
    say("e");
    EXPECT_EQ(answer().value().kind, Kind::kGone);
    EXPECT_FALSE(os::exists(directory_));
}

// It takes no paths, no arguments, nothing but a letter; whoever says more has been taken over.
TEST_F(LauncherTest, AVerbHasNoParameters) {
    say("s/etc/passwd");
    EXPECT_FALSE(answer().has_value());
    EXPECT_EQ(end(), 1);
}

TEST_F(LauncherTest, OtherLettersAreItsEnd) {
    say("x");
    EXPECT_FALSE(answer().has_value());
    EXPECT_EQ(end(), 1);
}

TEST_F(LauncherTest, EndsWithItsSupervisor) { EXPECT_EQ(end(), 0); }

}  // namespace
}  // namespace caisson::box
