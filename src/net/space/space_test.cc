// The real program, with a guest at its tap. Each test runs as the caller and, if that is root, as an ordinary user.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <signal.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <set>

#include "net/space/limits.h"
#include "net/space/test_guest.h"
#include "os/file.h"

namespace caisson::net {
namespace {

using namespace testing_space;
using Clock = std::chrono::steady_clock;
using Kind = NetnsMessage::Kind;
using Verdict = NetnsMessage::Verdict;

Endpoint endpoint(const char* address, std::uint16_t port) { return {Address::parse(address).value(), port}; }
const Endpoint kOutside[] = {endpoint("192.0.2.7", 443), endpoint("2001:db8::7", 443)};

constexpr uid_t kOrdinary = 65534;

class SpaceUserns : public testing::TestWithParam<uid_t> {
  protected:
    void SetUp() override {
        if (GetParam() != ::geteuid() && ::geteuid() != 0) GTEST_SKIP() << "only root can start it as another user";
        auto box = Box::start(GetParam());
        if (!box && box.error().code == Errc::kPermission) GTEST_SKIP() << box.error().to_string() << "; " << box.error().hint;
        ASSERT_TRUE(box) << box.error().to_string();
        box_ = std::move(*box);
        auto guest = Guest::create(box_.tap);
        ASSERT_TRUE(guest) << guest.error().to_string();
        guest_ = std::move(*guest);
    }

    // The question about a connection to `outside`, with a verdict.
    NetnsMessage answer(const Endpoint& outside, Verdict verdict) {
        auto question = box_.hear(2000);
        EXPECT_TRUE(question) << "nobody asked about " << outside.to_string();
        if (!question) return {};
        EXPECT_EQ(question->kind, Kind::kBegins);
        EXPECT_EQ(question->outside, outside) << question->outside.to_string();
        EXPECT_EQ(question->guest.address, guest_endpoint(!outside.address.is_v4(), 1).address);
        box_.judge(question->number, verdict);
        return *question;
    }

    Box box_;
    std::unique_ptr<Guest> guest_;
};

std::string name_of(const testing::TestParamInfo<uid_t>& info) { return info.param == kOrdinary ? "Ordinary" : "Caller"; }
// In builds for users the second is skipped, and counted.
INSTANTIATE_TEST_SUITE_P(As, SpaceUserns, testing::Values(::geteuid(), kOrdinary), name_of);

TEST_P(SpaceUserns, AnAcceptedConnectionArrivesWithItsTrueDestination) {
    for (const auto& outside : kOutside) {
        auto client = guest_->connect(outside);
        const auto question = answer(outside, Verdict::kAccept);
        EXPECT_EQ(outcome(client, 2000), 0);
        auto accepted = box_.accept(2000);
        ASSERT_TRUE(accepted);
        EXPECT_EQ(own_name(accepted), outside) << own_name(accepted).to_string();
        EXPECT_EQ(peer_name(accepted), question.guest);
        EXPECT_EQ(own_name(client), question.guest);
        ASSERT_EQ(::send(client.get(), "question", 8, 0), 8);
        char text[16];
        ASSERT_TRUE(readable(accepted, 2000));
        EXPECT_EQ(::recv(accepted.get(), text, sizeof text, 0), 8);
        ASSERT_EQ(::send(accepted.get(), "answer", 6, 0), 6);
        ASSERT_TRUE(readable(client, 2000));
        EXPECT_EQ(::recv(client.get(), text, sizeof text, 0), 6);
    }
}

TEST_P(SpaceUserns, EachVerdictIsAnErrorOfItsOwnToTheGuest) {
    const struct {
        Verdict verdict;
        int error4, error6;
    } rows[] = {{Verdict::kRefuse, ECONNREFUSED, ECONNREFUSED},
                {Verdict::kHostUnreachable, EHOSTUNREACH, EHOSTUNREACH},
                {Verdict::kNetUnreachable, ENETUNREACH, ENETUNREACH},
                {Verdict::kProhibited, EHOSTUNREACH, EACCES}};  // IPv4 has no code of which Linux makes EACCES
    // Twice in a row: errors are not rationed.
    for (int round = 0; round < 10; ++round)
        for (const auto& row : rows)
            for (const auto& outside : kOutside) {
                auto client = guest_->connect(outside);
                answer(outside, row.verdict);
                EXPECT_EQ(outcome(client, 2000), outside.address.is_v4() ? row.error4 : row.error6)
                    << outside.to_string() << " verdict " << static_cast<int>(row.verdict) << " round " << round;
            }
}

TEST_P(SpaceUserns, SilenceIsSilenceAndOneQuestion) {
    for (const auto& outside : kOutside) {
        auto client = guest_->connect(outside);
        answer(outside, Verdict::kSilence);
        // A second later the guest's kernel tries again by itself.
        EXPECT_FALSE(box_.hear(1300));
        EXPECT_EQ(outcome(client, 0), std::nullopt);
    }
}

TEST_P(SpaceUserns, AConnectTakesAsLongAsItsVerdict) {
    for (const auto& outside : kOutside) {
        const auto begun = Clock::now();
        auto client = guest_->connect(outside);
        auto question = box_.hear(2000);
        ASSERT_TRUE(question);
        EXPECT_EQ(outcome(client, 300), std::nullopt);
        box_.judge(question->number, Verdict::kAccept);
        EXPECT_EQ(outcome(client, 500), 0);
        const auto took = Clock::now() - begun;
        EXPECT_GE(took, std::chrono::milliseconds(300));
        EXPECT_LT(took, std::chrono::milliseconds(600));
    }
}

// The guest's kernel sends again what is not answered; it is one connection all the same.
TEST_P(SpaceUserns, WhatIsSentAgainIsNotAskedAgain) {
    auto client = guest_->connect(kOutside[0]);
    auto question = box_.hear(2000);
    ASSERT_TRUE(question);
    EXPECT_FALSE(box_.hear(1300));
    box_.judge(question->number, Verdict::kAccept);
    EXPECT_EQ(outcome(client, 1000), 0);
    EXPECT_TRUE(box_.accept(1000));
    EXPECT_FALSE(box_.accept(100));
}

TEST_P(SpaceUserns, WithoutAVerdictNothingArrives) {
    auto client = guest_->connect(kOutside[0]);
    ASSERT_TRUE(box_.hear(2000));
    EXPECT_FALSE(box_.accept(500));
    EXPECT_EQ(outcome(client, 0), std::nullopt);
}

}  // namespace
}  // namespace caisson::net
