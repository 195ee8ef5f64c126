#include "net/relay/pump.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <optional>

#include "net/relay/limits.h"

namespace caisson::net::relay {
namespace {

class PumpTest : public testing::Test {
  protected:
    void SetUp() override {
        loop_.emplace(std::move(*os::Loop::create()));
        auto inside = os::make_socketpair(SOCK_STREAM), outside = os::make_socketpair(SOCK_STREAM);
        ASSERT_TRUE(inside && outside);
        guest_ = std::move(inside->first);
        server_ = std::move(outside->first);
        options_.inside = std::move(inside->second);
        options_.outside = std::move(outside->second);
        for (const auto* fd : {&guest_, &server_, &options_.inside, &options_.outside}) ASSERT_TRUE(os::set_nonblocking(fd->get(), true));
        options_.rates[0] = options_.rates[1] = &rate_;
        options_.scratch = &scratch_;
    }
    void start() {
        pump_.emplace(*loop_, std::move(options_), [this](int error) { error_ = error; });
        ASSERT_TRUE(pump_->start());
    }
    // Runs until `size` bytes have come out of `fd`, or nothing happens any more.
    std::string read(const os::Fd& fd, std::size_t size) {
        std::string text;
        for (int idle = 0; text.size() < size && idle < 20;) {
            EXPECT_TRUE(loop_->step(std::chrono::milliseconds(10)));
            char piece[65536];
            const auto got = ::read(fd.get(), piece, sizeof piece);
            if (got > 0) text.append(piece, static_cast<std::size_t>(got)), idle = 0;
            else if (got == 0) break;
            else ++idle;
        }
        return text;
    }
    void step(int times = 5) {
        for (int i = 0; i < times; ++i) EXPECT_TRUE(loop_->step(std::chrono::milliseconds(5)));
    }

    std::optional<os::Loop> loop_;
    os::Fd guest_, server_;
    Rate rate_;
    base::Bytes scratch_;
    Pump::Options options_;
    std::optional<Pump> pump_;
    std::optional<int> error_;
};

TEST_F(PumpTest, PassesBytesBothWaysAndCountsThem) {
    start();
    ASSERT_EQ(::write(guest_.get(), "question", 8), 8);
    EXPECT_EQ(read(server_, 8), "question");
    ASSERT_EQ(::write(server_.get(), "answer", 6), 6);
    EXPECT_EQ(read(guest_, 6), "answer");
    EXPECT_EQ(pump_->bytes(Way::kOut), 8u);
    EXPECT_EQ(pump_->bytes(Way::kIn), 6u);
}

TEST_F(PumpTest, WhatWasReadAlreadyComesFirst) {
    options_.first = base::Bytes{'a', 'b'};
    start();
    ASSERT_EQ(::write(guest_.get(), "c", 1), 1);
    EXPECT_EQ(read(server_, 3), "abc");
}

TEST_F(PumpTest, OneSideMayEndBeforeTheOther) {
    start();
    ASSERT_EQ(::write(guest_.get(), "all", 3), 3);
    ::shutdown(guest_.get(), SHUT_WR);
    EXPECT_EQ(read(server_, 4), "all");
    EXPECT_FALSE(error_);
    ASSERT_EQ(::write(server_.get(), "late", 4), 4);
    server_.reset();
    EXPECT_EQ(read(guest_, 5), "late");
    EXPECT_EQ(error_, 0);
}

TEST_F(PumpTest, ASlowReaderHoldsUpTheOtherSideAndLosesNothing) {
    start();
    std::string sent, got;
    // Until nobody takes any more.
    for (int idle = 0; idle < 5;) {
        const std::string piece(10000, static_cast<char>('a' + sent.size() / 10000 % 26));
        const auto wrote = ::write(guest_.get(), piece.data(), piece.size());
        if (wrote > 0) sent.append(piece, 0, static_cast<std::size_t>(wrote)), idle = 0;
        else ++idle;
        step(1);
    }
    EXPECT_LT(sent.size(), 8 * kBufferBytes);
    EXPECT_EQ(read(server_, sent.size()), sent);
}

TEST_F(PumpTest, ARateIsKept) {
    rate_ = Rate(100'000, 10'000);
    start();
    const std::string data(30'000, 'x');
    ASSERT_EQ(::write(guest_.get(), data.data(), data.size()), 30'000);
    const auto begun = std::chrono::steady_clock::now();
    std::string text;
    while (text.size() < data.size()) text += read(server_, 1);
    EXPECT_GE(std::chrono::steady_clock::now() - begun, std::chrono::milliseconds(180));
}

struct Upper : Stage {
    Result<> pass(Way way, base::Bytes& bytes, bool) override {
        if (way == Way::kIn) return {};
        for (auto& byte : bytes) {
            if (byte == '!') return base::failure(Errc::kProtocol, "no");
            if (byte >= 'a') byte = static_cast<std::uint8_t>(byte - 32);
        }
        return {};
    }
};

TEST_F(PumpTest, StagesChangeWhatPasses) {
    options_.stages.push_back(std::make_unique<Upper>());
    start();
    ASSERT_EQ(::write(guest_.get(), "abc", 3), 3);
    EXPECT_EQ(read(server_, 3), "ABC");
    ASSERT_EQ(::write(server_.get(), "abc", 3), 3);
    EXPECT_EQ(read(guest_, 3), "abc");
    ASSERT_EQ(::write(guest_.get(), "!", 1), 1);
    step();
    ASSERT_TRUE(error_);
    EXPECT_NE(*error_, 0);
}

}  // namespace
}  // namespace caisson::net::relay
