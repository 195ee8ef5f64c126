#include "net/space/gate.h"

#include <gtest/gtest.h>

#include "net/space/limits.h"

namespace caisson::net {
namespace {

using What = Gate::Arrival::What;
using Verdict = NetnsMessage::Verdict;
using std::chrono::milliseconds;

constexpr Gate::Time kStart{};

Beginning from(unsigned port, std::uint32_t sequence = 1) {
    const auto number = static_cast<std::uint16_t>(port % 60000 + 1);
    return {{Address::v4(0x0a00020f), number}, {Address::v4(0xc0000207 + port / 60000), 443}, sequence};
}

TEST(Gate, ABeginningIsAskedAboutOnce) {
    Gate gate;
    const auto first = gate.arrive(100, from(1), kStart);
    EXPECT_EQ(first.what, What::kAsk);
    EXPECT_EQ(gate.arrive(101, from(1), kStart).what, What::kDrop);
    const auto other = gate.arrive(102, from(2), kStart);
    EXPECT_EQ(other.what, What::kAsk);
    EXPECT_NE(other.number, first.number);
    EXPECT_EQ(gate.decide(first.number, Verdict::kAccept, kStart), 100u);
    EXPECT_EQ(gate.decide(first.number, Verdict::kAccept, kStart), std::nullopt) << "it was let through twice";
    EXPECT_EQ(gate.decide(999, Verdict::kAccept, kStart), std::nullopt);
}

TEST(Gate, OneAttemptHasOneVerdict) {
    for (auto verdict : {Verdict::kAccept, Verdict::kSilence, Verdict::kRefuse}) {
        Gate gate;
        gate.decide(gate.arrive(100, from(1), kStart).number, verdict, kStart);
        const auto again = gate.arrive(101, from(1), kStart + milliseconds(kVerdictRememberedMs));
        EXPECT_EQ(again.what, What::kDecided);
        EXPECT_EQ(again.verdict, verdict);
        // Between the same ends, but another attempt.
        EXPECT_EQ(gate.arrive(102, from(1, 2), kStart).what, What::kAsk);
    }
}

TEST(Gate, AVerdictIsForgottenInTime) {
    Gate gate;
    gate.decide(gate.arrive(100, from(1), kStart).number, Verdict::kAccept, kStart);
    EXPECT_EQ(gate.arrive(101, from(1), kStart + milliseconds(kVerdictRememberedMs + 1)).what, What::kAsk);
}

TEST(Gate, AVerdictThatWasRenewedIsNotForgottenWithTheOldOne) {
    Gate gate;
    gate.decide(gate.arrive(100, from(1), kStart).number, Verdict::kRefuse, kStart);
    const auto later = kStart + milliseconds(kVerdictRememberedMs / 2);
    gate.decide(gate.arrive(101, from(1, 2), later).number, Verdict::kAccept, later);
    const auto again = gate.arrive(102, from(1, 2), kStart + milliseconds(kVerdictRememberedMs + 1));
    EXPECT_EQ(again.what, What::kDecided);
    EXPECT_EQ(again.verdict, Verdict::kAccept);
}

TEST(Gate, AnAttemptBegunAnewTakesTheOldOnesPlace) {
    Gate gate;
    const auto first = gate.arrive(100, from(1, 1), kStart);
    const auto second = gate.arrive(101, from(1, 2), kStart);
    EXPECT_EQ(second.what, What::kWait);
    EXPECT_EQ(second.replaced, 100u);
    EXPECT_EQ(gate.decide(first.number, Verdict::kAccept, kStart), 101u);
    EXPECT_EQ(gate.held(), 0u);
}

TEST(Gate, SoManyWaitAndNoMore) {
    Gate gate;
    for (unsigned i = 0; i < kMostHeldConnections; ++i) ASSERT_EQ(gate.arrive(i, from(i), kStart).what, What::kAsk);
    EXPECT_EQ(gate.arrive(1, from(kMostHeldConnections), kStart).what, What::kDrop);
    gate.decide(1, Verdict::kRefuse, kStart);
    EXPECT_EQ(gate.arrive(1, from(kMostHeldConnections), kStart).what, What::kAsk);
}

TEST(Gate, SoManyVerdictsAreRememberedAndNoMore) {
    Gate gate;
    for (unsigned i = 0; i <= kMostRememberedVerdicts; ++i) gate.decide(gate.arrive(i, from(i), kStart).number, Verdict::kAccept, kStart);
    EXPECT_EQ(gate.arrive(1, from(1), kStart).what, What::kDecided);
    EXPECT_EQ(gate.arrive(1, from(0), kStart).what, What::kAsk) << "the oldest one is still known";
}

TEST(Gate, WhatWaitsTooLongIsGivenUp) {
    Gate gate;
    gate.arrive(100, from(1), kStart);
    const auto late = gate.arrive(101, from(2), kStart + milliseconds(10));
    EXPECT_TRUE(gate.expire(kStart + milliseconds(kLongestHoldMs)).empty());
    EXPECT_EQ(gate.expire(kStart + milliseconds(kLongestHoldMs + 1)), std::vector<std::uint32_t>{100});
    EXPECT_EQ(gate.decide(late.number, Verdict::kAccept, kStart), 101u);
}

TEST(Gate, WithoutWhoWasAskedNothingIsLeft) {
    Gate gate;
    gate.arrive(100, from(1), kStart);
    gate.decide(gate.arrive(101, from(2), kStart).number, Verdict::kAccept, kStart);
    EXPECT_EQ(gate.give_up(), std::vector<std::uint32_t>{100});
    EXPECT_EQ(gate.held(), 0u);
    EXPECT_EQ(gate.arrive(102, from(2), kStart).what, What::kAsk);
}

}  // namespace
}  // namespace caisson::net
