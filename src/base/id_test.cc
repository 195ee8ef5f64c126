#include "base/id.h"

#include <gtest/gtest.h>

namespace caisson::base {
namespace {

TEST(Ulid, MatchesTheSpecificationsExampleTime) {
    // 1469918176385 ms is the specification's "01ARYZ6S41".
    const std::uint8_t random[10] = {};
    std::chrono::system_clock::time_point now{std::chrono::milliseconds(1469918176385)};
    EXPECT_EQ(make_ulid(now, random), "01aryz6s410000000000000000");
}

TEST(Ulid, RandomPartFillsTheTail) {
    const std::uint8_t random[10] = {255, 255, 255, 255, 255, 255, 255, 255, 255, 255};
    EXPECT_EQ(make_ulid({}, random), "0000000000zzzzzzzzzzzzzzzz");
}

TEST(Ulid, RecognisesItself) {
    EXPECT_TRUE(is_ulid("01aryz6s410000000000000000"));
    EXPECT_FALSE(is_ulid("01aryz6s41000000000000000"));
    EXPECT_FALSE(is_ulid("81aryz6s410000000000000000"));
    EXPECT_FALSE(is_ulid("01ARYZ6S410000000000000000"));
    EXPECT_FALSE(is_ulid("../../etc/passwd0000000000"));
}

}  // namespace
}  // namespace caisson::base
