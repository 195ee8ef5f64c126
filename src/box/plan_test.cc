#include "box/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace caisson::box {
namespace {

using testing::HasSubstr;

constexpr const char* kBoxId = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

TEST(Plan, ProcessesAreLimitedOnlyIfAsked) {
    EXPECT_EQ(plan_configure({.image = "i"}, kBoxId, "m").pids_limit(), 0U);
}

TEST(Plan, TheContainersInitDoesNotCountAsAProcess) {
    EXPECT_EQ(plan_configure({.image = "i", .pids_limit = 7}, kBoxId, "m").pids_limit(), 8U);
    EXPECT_EQ(plan_configure({.image = "i", .pids_limit = 4194304}, kBoxId, "m").pids_limit(), 4194304U);
}

TEST(Plan, TheKernelsLargestProcessLimitIsTheLargest) {
    EXPECT_TRUE(validate({.image = "i", .pids_limit = 4194304}));
    auto refused = validate({.image = "i", .pids_limit = 4194305});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::kUsage);
    EXPECT_THAT(refused.error().to_string(), HasSubstr("--pids-limit 4194305"));
}

}  // namespace
}  // namespace caisson::box
