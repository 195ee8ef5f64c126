// What caisson-netd does when it has no descriptor left.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "net/relay/connections.h"

namespace caisson::net::relay {
namespace {

using Clock = std::chrono::steady_clock;

// No further descriptor while it lives.
class NoDescriptors {
  public:
    NoDescriptors() {
        ::getrlimit(RLIMIT_NOFILE, &before_);
        os::Fd next(::dup(STDERR_FILENO));
        struct rlimit none = before_;
        none.rlim_cur = static_cast<rlim_t>(next.get());
        ::setrlimit(RLIMIT_NOFILE, &none);
    }
    ~NoDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }

  private:
    struct rlimit before_ {};
};

TEST(Exhausted, AListenerWaitsAndDoesNotKeepTheLoopBusy) {
    auto loop = std::move(*os::Loop::create());
    Records records{os::Fd()};
    Context context{.loop = loop, .records = records};
    os::Fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)), client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in place{};
    place.sin_family = AF_INET;
    place.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof place;
    ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&place), length), 0);
    ASSERT_EQ(::listen(listener.get(), 1), 0);
    ASSERT_EQ(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&place), &length), 0);
    Connections connections(context, {.listener = std::move(listener), .name_server = {}});
    ASSERT_TRUE(connections.start());
    ASSERT_EQ(::connect(client.get(), reinterpret_cast<sockaddr*>(&place), length), 0);
    int steps = 0;
    {
        const NoDescriptors none;
        for (const auto end = Clock::now() + 3 * kAcceptPause; Clock::now() < end; ++steps) ASSERT_TRUE(loop.step(kAcceptPause));
    }
    EXPECT_LE(steps, 20);
    // It is taken later; nobody has judged it, so that is its end.
    ASSERT_TRUE(os::set_nonblocking(client.get(), true));
    char byte;
    for (int i = 0; i < 20 && ::recv(client.get(), &byte, 1, 0) < 0 && errno == EAGAIN; ++i) ASSERT_TRUE(loop.step(kAcceptPause));
    EXPECT_EQ(errno, ECONNRESET);
}

TEST(Exhausted, ASocketThatFindsNoRoomIsAnErrorAndNotTheEnd) {
    auto loop = std::move(*os::Loop::create());
    auto sockets = os::make_socketpair(SOCK_SEQPACKET);
    ASSERT_TRUE(sockets);
    bool is_gone = false;
    Space space(loop, std::move(sockets->first), {.begins = {}, .gone = [&] { is_gone = true; }});
    ASSERT_TRUE(space.start());
    std::optional<int> told;
    space.dial({*Address::parse(kGuestAddress), 80}, Protocol::kTcp, [&](os::Fd, int error) { told = error; });
    NetnsMessage message;
    ASSERT_EQ(::recv(sockets->second.get(), &message, sizeof message, 0), static_cast<ssize_t>(sizeof message));
    message.kind = NetnsMessage::Kind::kMade;
    std::vector<os::Fd> made;
    made.push_back(os::Fd(::dup(STDERR_FILENO)));
    ASSERT_TRUE(os::send_packet(sockets->second.get(), base::as_text(base::bytes_of(message)), made));
    {
        const NoDescriptors none;
        ASSERT_TRUE(loop.step(std::chrono::milliseconds(1000)));
    }
    EXPECT_EQ(told, EMFILE);
    EXPECT_FALSE(is_gone);
}

TEST(Exhausted, NoVerdictIsLostWhileTheOtherSideIsSlow) {
    auto loop = std::move(*os::Loop::create());
    auto sockets = os::make_socketpair(SOCK_SEQPACKET);
    ASSERT_TRUE(sockets);
    const auto netns = std::move(sockets->second);
    Space space(loop, std::move(sockets->first), {.begins = {}, .gone = {}});
    ASSERT_TRUE(space.start());
    const Endpoint guest{*Address::parse(kGuestAddress), 1000}, outside{Address::v4(0x09090909), 53};
    for (int i = 0; i < 2000; ++i) space.refuse_udp(guest, outside);
    constexpr std::uint64_t kVerdicts = 1000;
    for (std::uint64_t number = 1; number <= kVerdicts; ++number) space.give_verdict(number, NetnsMessage::Verdict::kAccept);
    ASSERT_TRUE(os::set_nonblocking(netns.get(), true));
    std::uint64_t heard = 0;
    for (int i = 0; i < 4000 && heard < kVerdicts; ++i) {
        NetnsMessage message;
        if (::recv(netns.get(), &message, sizeof message, 0) < 0) {
            ASSERT_TRUE(loop.step(std::chrono::milliseconds(100)));
        } else if (message.kind == NetnsMessage::Kind::kVerdict) {
            EXPECT_EQ(message.number, ++heard);
        }
    }
    EXPECT_EQ(heard, kVerdicts);
    int steps = 0;
    for (const auto end = Clock::now() + std::chrono::milliseconds(100); Clock::now() < end; ++steps) ASSERT_TRUE(loop.step(std::chrono::milliseconds(50)));
    EXPECT_LE(steps, 4);
}

}  // namespace
}  // namespace caisson::net::relay
