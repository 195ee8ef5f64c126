#include "box/stream_rules.h"

#include <gtest/gtest.h>

namespace caisson::box {
namespace {

using wire::Channel;
using wire::FrameType;

constexpr std::uint32_t kExecution = 1;
constexpr std::uint32_t kIn = wire::stream_of(kExecution, Channel::kStdin);
constexpr std::uint32_t kOut = wire::stream_of(kExecution, Channel::kStdout);
constexpr std::uint32_t kError = wire::stream_of(kExecution, Channel::kStderr);

struct Frame {
    base::Bytes payload;
    wire::FrameView view;
    Frame(std::uint32_t stream, FrameType type, std::size_t size = 0) : payload(size) { view = {stream, type, payload}; }
};
Frame data(std::uint32_t stream, std::size_t size) { return {stream, FrameType::kData, size}; }
Frame eof(std::uint32_t stream) { return {stream, FrameType::kEof}; }
Frame credit(std::uint32_t stream, std::uint32_t bytes) {
    Frame frame(stream, FrameType::kCredit, 4);
    base::store_le32(frame.payload.data(), bytes);
    return frame;
}

class StreamRulesTest : public testing::Test {
  protected:
    bool guest(const Frame& frame) { return rules_.from_guest(frame.view).has_value(); }
    bool client(const Frame& frame) { return client(client_, frame); }
    bool client(ClientStreams& which, const Frame& frame) {
        const bool may = rules_.from_client(which, frame.view).has_value();
        grant();
        return may;
    }
    std::uint32_t grant() {
        std::vector<const ClientStreams*> clients;
        for (const auto* one : listening_) clients.push_back(one);
        return rules_.grant(Channel::kStdout, clients) + rules_.grant(Channel::kStderr, clients);
    }
    // Output of the guest in frames of the largest size; how many bytes passed.
    std::size_t flood_output() {
        std::size_t passed = 0;
        while (guest(data(kOut, wire::kMaxDataBytes))) passed += wire::kMaxDataBytes;
        return passed;
    }
    std::size_t flood_input() {
        std::size_t passed = 0;
        while (client(data(kIn, wire::kMaxDataBytes))) passed += wire::kMaxDataBytes;
        return passed;
    }
    StreamRules rules_{kExecution};
    ClientStreams client_ = rules_.join(true, true);
    std::vector<const ClientStreams*> listening_{&client_};
};

TEST_F(StreamRulesTest, OutputNeedsCredit) {
    EXPECT_EQ(flood_output(), wire::kInitialCredit);
    EXPECT_TRUE(client(credit(kOut, 64 * 1024)));
    EXPECT_EQ(flood_output(), 64u * 1024);
    EXPECT_TRUE(guest(data(kError, 1))) << "the other output has a window of its own";
}

TEST_F(StreamRulesTest, AnOutputEndsOnce) {
    EXPECT_TRUE(guest(data(kOut, 10)));
    EXPECT_TRUE(guest(eof(kOut)));
    EXPECT_FALSE(guest(eof(kOut)));
    EXPECT_FALSE(guest(data(kOut, 1)));
    EXPECT_TRUE(guest(data(kError, 1)));
}

TEST_F(StreamRulesTest, TheGuestGrantsCreditOnlyForInputThatItGot) {
    EXPECT_FALSE(guest(credit(kIn, 1))) << "nothing was sent yet";
    StreamRules fresh(kExecution);
    rules_ = fresh;
    client_ = rules_.join(true, true);
    EXPECT_EQ(flood_input(), wire::kInitialCredit);
    EXPECT_TRUE(guest(credit(kIn, wire::kInitialCredit)));
    EXPECT_EQ(flood_input(), wire::kInitialCredit);
    EXPECT_TRUE(guest(credit(kIn, wire::kInitialCredit)));
    EXPECT_FALSE(guest(credit(kIn, 1)));
}

TEST_F(StreamRulesTest, CreditIsForInputOfTheGuestAndOutputOfTheClient) {
    EXPECT_FALSE(guest(credit(kOut, 1)));
    EXPECT_FALSE(guest(data(kIn, 1)));
    EXPECT_FALSE(guest(eof(kIn)));
    EXPECT_FALSE(client(credit(kIn, 1)));
    EXPECT_FALSE(client(data(kOut, 1)));
}

TEST_F(StreamRulesTest, OnlyTheOneExecutionHasStreams) {
    EXPECT_FALSE(guest(data(wire::stream_of(2, Channel::kStdout), 1)));
    EXPECT_FALSE(client(data(wire::stream_of(2, Channel::kStdin), 1)));
    EXPECT_FALSE(guest(data(kOut + 2, 1))) << "the reserved channel";
    EXPECT_FALSE(client(data(kOut + 2, 1)));
}

TEST_F(StreamRulesTest, InputEndsOnce) {
    EXPECT_TRUE(client(eof(kIn)));
    EXPECT_FALSE(client(eof(kIn)));
    EXPECT_FALSE(client(data(kIn, 1)));
}

TEST_F(StreamRulesTest, AReaderLeavesOnce) {
    EXPECT_TRUE(client(eof(kOut)));
    EXPECT_FALSE(client(eof(kOut)));
    EXPECT_TRUE(guest(eof(kOut))) << "the guest's own end of it may be on its way";
}

TEST_F(StreamRulesTest, TheSlowestListenerSetsThePace) {
    auto second = rules_.join(true, false);
    listening_.push_back(&second);
    EXPECT_EQ(flood_output(), wire::kInitialCredit);
    EXPECT_TRUE(client(credit(kOut, 64 * 1024)));
    EXPECT_EQ(flood_output(), 0u) << "the second takes no more";
    EXPECT_TRUE(client(second, credit(kOut, 32 * 1024)));
    EXPECT_EQ(flood_output(), 32u * 1024);
    listening_.pop_back();
    EXPECT_EQ(grant(), 32u * 1024) << "it left, the first takes more";
}

TEST_F(StreamRulesTest, AListenerThatReadsNoMoreHoldsNobodyUp) {
    auto second = rules_.join(true, false);
    listening_.push_back(&second);
    EXPECT_EQ(flood_output(), wire::kInitialCredit);
    EXPECT_TRUE(client(credit(kOut, 64 * 1024)));
    EXPECT_TRUE(client(second, eof(kOut)));
    EXPECT_FALSE(second.takes(Channel::kStdout));
    EXPECT_EQ(flood_output(), 64u * 1024);
}

TEST_F(StreamRulesTest, WhoComesLaterHasAWholeWindow) {
    EXPECT_EQ(flood_output(), wire::kInitialCredit);
    auto late = rules_.join(true, false);
    listening_ = {&late};
    EXPECT_GT(grant(), 0u);
    EXPECT_EQ(flood_output(), wire::kInitialCredit);
}

TEST_F(StreamRulesTest, WithoutAListenerOutputIsTakenInHalfWindows) {
    listening_.clear();
    EXPECT_EQ(grant(), 0u) << "there is a whole window";
    EXPECT_TRUE(guest(data(kOut, wire::kMaxDataBytes)));
    EXPECT_EQ(grant(), 0u) << "few credit frames";
    EXPECT_EQ(flood_output(), wire::kInitialCredit - wire::kMaxDataBytes);
    EXPECT_EQ(grant(), wire::kInitialCredit);
}

TEST_F(StreamRulesTest, InputIsOneClients) {
    auto second = rules_.join(true, false);
    EXPECT_FALSE(client(second, data(kIn, 1)));
    EXPECT_FALSE(client(second, eof(kIn)));
    EXPECT_TRUE(client(data(kIn, 100)));
    EXPECT_EQ(rules_.input_credit(), wire::kInitialCredit - 100);
    auto next = rules_.join(true, true);
    std::size_t passed = 0;
    while (client(next, data(kIn, 100))) passed += 100;
    EXPECT_LE(passed, wire::kInitialCredit - 100) << "what its predecessor sent counts";
}

TEST_F(StreamRulesTest, WhoOnlyWaitsHasNoStreams) {
    auto waiter = rules_.join(false, false);
    EXPECT_FALSE(waiter.takes(Channel::kStdout));
    EXPECT_FALSE(client(waiter, credit(kOut, 1)));
    EXPECT_FALSE(client(waiter, eof(kOut)));
}

TEST_F(StreamRulesTest, CreditHasAnEnd) {
    EXPECT_TRUE(client(credit(kOut, wire::kMaxCredit - wire::kInitialCredit)));
    EXPECT_FALSE(client(credit(kOut, 1)));
}

}  // namespace
}  // namespace caisson::box
