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

constexpr std::uint64_t kDockers = 0xa80425fb;

TEST(Plan, PrivilegesAreDockersUnlessAsked) {
    auto plain = plan_exec({.command = {"c"}}, {}).value();
    EXPECT_EQ(plain.privileges().capabilities(), kDockers);
    EXPECT_FALSE(plain.privileges().no_new_privileges() || plain.privileges().privileged());
    auto asked = plan_exec({.command = {"c"}, .cap_add = {"net_admin"}, .cap_drop = {"all"}, .no_new_privileges = true}, {}).value();
    EXPECT_EQ(asked.privileges().capabilities(), 1U << 12);
    EXPECT_TRUE(asked.privileges().no_new_privileges());
    EXPECT_EQ(asked.privileges().cap_add(0), "CAP_NET_ADMIN");
    EXPECT_EQ(asked.privileges().cap_drop(0), "ALL");
}

TEST(Plan, OnlyAPrivilegedBoxIsOpened) {
    EXPECT_FALSE(plan_configure({.image = "i", .cap_add = {"ALL"}}, kBoxId, "m").privileged());
    EXPECT_TRUE(plan_configure({.image = "i", .privileged = true}, kBoxId, "m").privileged());
    EXPECT_EQ(plan_exec({.command = {"c"}, .privileged = true}, {}).value().privileges().capabilities(), (1ULL << 41) - 1);
}

TEST(Plan, AFurtherCommandHasTheBoxsPrivileges) {
    wire::BoxSpec spec;
    *spec.mutable_exec() = plan_exec({.command = {"c"}, .cap_drop = {"ALL"}, .no_new_privileges = true}, {}).value();
    auto exec = plan_further_exec(spec, {.command = {"d"}}).value();
    EXPECT_EQ(exec.privileges().capabilities(), 0U);
    EXPECT_TRUE(exec.privileges().no_new_privileges());
    exec = plan_further_exec(spec, {.command = {"d"}, .privileged = true}).value();
    EXPECT_EQ(exec.privileges().capabilities(), (1ULL << 41) - 1);
    EXPECT_TRUE(exec.privileges().no_new_privileges());
    // Of a box that was made before there was a choice.
    EXPECT_FALSE(plan_further_exec(wire::BoxSpec(), {.command = {"d"}}).value().has_privileges());
}

TEST(Plan, UnknownCapabilitiesAreRefused) {
    EXPECT_EQ(validate({.image = "i", .cap_add = {"NET_ADMN"}}).error().code, Errc::kUsage);
    EXPECT_EQ(validate({.image = "i", .cap_drop = {""}}).error().code, Errc::kUsage);
    EXPECT_TRUE(validate({.image = "i", .cap_add = {"all"}, .cap_drop = {"CAP_chown"}}));
}

}  // namespace
}  // namespace caisson::box
