#include "net/relay/dial.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace caisson::net::relay {
namespace {

// What a proxy says to each thing that it hears, and whether it closes after the last.
struct Script {
    std::vector<std::string> answers;
    bool closes = false;
};

class DialTest : public testing::Test {
  protected:
    static Endpoint listen(os::Fd& socket) {
        socket = os::Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        auto place = to_socket({Address::v4(0x7f000001), 0});
        EXPECT_EQ(::bind(socket.get(), place.get(), place.length), 0) << std::strerror(errno);
        EXPECT_EQ(::listen(socket.get(), 8), 0);
        EXPECT_EQ(::getsockname(socket.get(), place.get(), &place.length), 0);
        return *from_socket(place.get(), place.length);
    }
    // Plays the proxy's part for every connection that comes, until the dial has ended.
    Dial::End dial(std::vector<Route> routes, const Script& script) {
        std::optional<Dial::End> ended;
        auto dial = Dial::start(loop_, std::move(routes), [&ended](Dial::End end) { ended = std::move(end); });
        std::size_t said = 0;
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(5);
        while (!ended && std::chrono::steady_clock::now() < until) {
            EXPECT_TRUE(loop_.step(std::chrono::milliseconds(5)));
            if (os::Fd came(::accept4(proxy_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)); came) {
                served_ = std::move(came);
                ++accepted_;
                said = 0;
            }
            char text[512];
            const auto got = served_ ? ::recv(served_.get(), text, sizeof text, 0) : -1;
            if (got <= 0) continue;
            heard_.emplace_back(text, static_cast<std::size_t>(got));
            if (said >= script.answers.size()) continue;
            const auto& answer = script.answers[said++];
            // An answer comes in any pieces: here byte by byte, and its end together with what belongs to the connection.
            constexpr std::size_t kTogether = 12;
            for (std::size_t at = 0, piece = 0; at < answer.size() && !ended; at += piece) {
                piece = answer.size() - at > kTogether ? 1 : kTogether;
                piece = std::min(piece, answer.size() - at);
                EXPECT_EQ(::send(served_.get(), answer.data() + at, piece, MSG_NOSIGNAL), static_cast<ssize_t>(piece));
                EXPECT_TRUE(loop_.step(std::chrono::milliseconds(5)));
            }
            if (script.closes && said == script.answers.size()) served_.reset();
        }
        EXPECT_TRUE(ended) << "it has not ended";
        return ended ? std::move(*ended) : Dial::End{};
    }
    Route through(Proxy::Kind kind, const char* address) { return {{*Address::parse(address), 443}, Proxy{kind, at_}}; }
    std::string rest(const os::Fd& socket) {
        char text[64];
        const auto got = ::recv(socket.get(), text, sizeof text, MSG_DONTWAIT);
        return got > 0 ? std::string(text, static_cast<std::size_t>(got)) : std::string();
    }

    os::Loop loop_ = std::move(*os::Loop::create());
    os::Fd proxy_, served_;
    Endpoint at_ = listen(proxy_);
    std::vector<std::string> heard_;
    int accepted_ = 0;
};

TEST_F(DialTest, AProxyOfHttpIsAskedAndTheRestOfItsAnswerStays) {
    auto end = dial({through(Proxy::Kind::kHttp, "93.184.216.34")}, {.answers = {"HTTP/1.1 200 Yes\r\nA: b\r\n\r\n220 hello"}});
    ASSERT_EQ(end.error, 0) << end.why;
    EXPECT_EQ(end.route.place.to_string(), "93.184.216.34:443");
    ASSERT_EQ(heard_.size(), 1u);
    EXPECT_EQ(heard_[0], "CONNECT 93.184.216.34:443 HTTP/1.1\r\nHost: 93.184.216.34:443\r\n\r\n");
    EXPECT_EQ(rest(end.socket), "220 hello");
}

TEST_F(DialTest, AProxyOfSocksIsAskedAndTheRestOfItsAnswerStays) {
    auto end = dial({through(Proxy::Kind::kSocks5, "93.184.216.34")}, {.answers = {std::string("\5\0", 2), std::string("\5\0\0\1\0\0\0\0\0\0hello", 15)}});
    ASSERT_EQ(end.error, 0) << end.why;
    EXPECT_EQ(heard_, (std::vector<std::string>{std::string("\5\1\0", 3), std::string("\5\1\0\1\x5d\xb8\xd8\x22\1\xbb", 10)}));
    EXPECT_EQ(rest(end.socket), "hello");
}

TEST_F(DialTest, AnAddressThatTheProxyRefusesIsFollowedByTheNext) {
    auto end = dial({through(Proxy::Kind::kHttp, "93.184.216.34"), through(Proxy::Kind::kHttp, "93.184.216.35")}, {.answers = {"HTTP/1.1 403 No\r\n\r\n"}});
    EXPECT_EQ(end.error, ECONNREFUSED);
    EXPECT_EQ(end.why, "the proxy answered 403");
    EXPECT_FALSE(end.socket);
    ASSERT_EQ(heard_.size(), 2u);
    EXPECT_NE(heard_[1].find("CONNECT 93.184.216.35:443 "), std::string::npos);
}

TEST_F(DialTest, AProxyThatSaysNothingOfUseIsNone) {
    EXPECT_EQ(dial({through(Proxy::Kind::kHttp, "93.184.216.34")}, {.answers = {"SSH-2.0-x\r\n"}}).error, EHOSTUNREACH);
    EXPECT_EQ(dial({through(Proxy::Kind::kHttp, "93.184.216.34")}, {.answers = {std::string("\5\0", 2)}}).error, EHOSTUNREACH);
    const auto closed = dial({through(Proxy::Kind::kHttp, "93.184.216.34")}, {.answers = {"HTTP/1.1 200 Yes\r\n"}, .closes = true});
    EXPECT_EQ(closed.error, EHOSTUNREACH);
    EXPECT_EQ(closed.why, "the proxy closed the connection without an answer");
}

// The place itself listens: what is connected without the proxy would succeed.
TEST_F(DialTest, WhereTheProxyIsNotReachedNothingElseIsTried) {
    os::Fd target, gone;
    const auto place = listen(target);
    const auto nobody = listen(gone);
    gone.reset();
    const Route route{place, Proxy{Proxy::Kind::kHttp, nobody}};
    const auto end = dial({route, route}, {});
    EXPECT_EQ(end.error, ECONNREFUSED);
    EXPECT_EQ(end.why, "the proxy is not reached: Connection refused");
    EXPECT_LT(::accept(target.get(), nullptr, nullptr), 0) << "it was dialled without the proxy";
    EXPECT_EQ(dial({{place, std::nullopt}}, {}).error, 0);
}

}  // namespace
}  // namespace caisson::net::relay
