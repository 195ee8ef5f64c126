// For tests: the real program with a guest at its tap. Each test runs as the caller and, if that is root, as an ordinary user.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <memory>

#include "net/space/test_guest.h"

namespace caisson::net {

using namespace testing_space;
using Clock = std::chrono::steady_clock;
using Kind = NetnsMessage::Kind;
using Verdict = NetnsMessage::Verdict;

inline Endpoint endpoint(const char* address, std::uint16_t port) { return {Address::parse(address).value(), port}; }
inline const Endpoint kOutside[] = {endpoint("192.0.2.7", 443), endpoint("2001:db8::7", 443)};

inline constexpr uid_t kOrdinary = 65534;

// The parameter: as an ordinary user, and not as the caller.
class SpaceUserns : public testing::TestWithParam<bool> {
  protected:
    void SetUp() override {
        if (GetParam() && ::geteuid() != 0) GTEST_SKIP() << "only root can start it as another user";
        auto box = Box::start(user());
        if (!box && box.error().code == Errc::kPermission) GTEST_SKIP() << box.error().to_string() << "; " << box.error().hint;
        ASSERT_TRUE(box) << box.error().to_string();
        box_ = std::move(*box);
        auto guest = Guest::create(box_.host.tap);
        ASSERT_TRUE(guest) << guest.error().to_string();
        guest_ = std::move(*guest);
    }

    static uid_t user() { return GetParam() ? kOrdinary : ::geteuid(); }

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

}  // namespace caisson::net
