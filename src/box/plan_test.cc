#include "box/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace caisson::box {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

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

std::vector<std::string> environment(const BoxOptions& options, const image::Config& config) {
    auto exec = plan_exec(options, config).value();
    add_hostname(exec, hostname_of(options, kBoxId));
    return {exec.environment().begin(), exec.environment().end()};
}

TEST(Plan, HostnameIsAVariableToo) {
    EXPECT_THAT(environment({.command = {"c"}}, {}), Contains("HOSTNAME=RRFFQ69G5FAV"));
    EXPECT_THAT(environment({.command = {"c"}, .hostname = "here"}, {}), Contains("HOSTNAME=here"));
    EXPECT_EQ(plan_configure({}, kBoxId, "m").hostname(), "RRFFQ69G5FAV");
}

TEST(Plan, ImageAndUserMaySetHostnameThemselves) {
    auto by_image = environment({.command = {"c"}}, {.env = {"HOSTNAME=image"}});
    EXPECT_THAT(by_image, Contains(StartsWith("HOSTNAME=")).Times(1));
    EXPECT_THAT(by_image, Contains("HOSTNAME=image"));
    auto by_user = environment({.command = {"c"}, .environment = {{"HOSTNAME", ""}}}, {.env = {"HOSTNAME=image"}});
    EXPECT_THAT(by_user, Contains("HOSTNAME="));
    EXPECT_THAT(by_user, Not(Contains("HOSTNAME=image")));
}

}  // namespace
}  // namespace caisson::box
