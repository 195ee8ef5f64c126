#include "agent/users.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace caisson::agent {
namespace {

constexpr char kPasswd[] =
    "root:x:0:0:root:/root:/bin/bash\n"
    "# a comment\n"
    "\n"
    "broken line\n"
    "evil:x:99999999999:0::/:\n"
    "daemon:x:1:1::/usr/sbin:/usr/sbin/nologin\n"
    "app:x:1000:1000:App:/home/app:/bin/sh\n"
    "twin:x:1000:1001::/home/twin:/bin/sh\n"
    "1001:x:2000:2000::/home/number:/bin/sh\n"
    "homeless:x:3000:3000:::";
constexpr char kGroup[] =
    "root:x:0:\n"
    "audio:x:29:app,daemon\n"
    "video:x:44: daemon , app\n"
    "app:x:1000:\n"
    "apple:x:1002:application\n"
    "huge:x:4294967296:app\n"
    "7:x:70:\n";

Result<UserIdentity> resolve(std::string_view specification) { return resolve_user(specification, kPasswd, kGroup); }

TEST(Users, NothingIsRoot) {
    auto user = resolve("").value();
    EXPECT_EQ(user.uid, 0u);
    EXPECT_EQ(user.gid, 0u);
    EXPECT_EQ(user.home, "/root");
    EXPECT_TRUE(user.groups.empty());
    auto bare = resolve_user("", "", "").value();
    EXPECT_EQ(bare.uid, 0u);
    EXPECT_EQ(bare.home, "/");
}

TEST(Users, ANameBringsItsGroups) {
    auto user = resolve("app").value();
    EXPECT_EQ(user.uid, 1000u);
    EXPECT_EQ(user.gid, 1000u);
    EXPECT_EQ(user.home, "/home/app");
    EXPECT_EQ(user.groups, (std::vector<gid_t>{29, 44}));
}

TEST(Users, ANamedGroupReplacesAllOthers) {
    auto user = resolve("app:audio").value();
    EXPECT_EQ(user.gid, 29u);
    EXPECT_TRUE(user.groups.empty());
    EXPECT_EQ(resolve("app:4711").value().gid, 4711u);
    EXPECT_EQ(resolve("app:7").value().gid, 70u);  // a group that is called 7
}

TEST(Users, NumbersNeedNoEntry) {
    auto user = resolve("4242").value();
    EXPECT_EQ(user.uid, 4242u);
    EXPECT_EQ(user.gid, 0u);
    EXPECT_EQ(user.home, "/");
    auto both = resolve("4242:17").value();
    EXPECT_EQ(both.uid, 4242u);
    EXPECT_EQ(both.gid, 17u);
}

TEST(Users, ANumberWithAnEntryIsThatAccount) {
    auto user = resolve("1000").value();
    EXPECT_EQ(user.gid, 1000u);
    EXPECT_EQ(user.home, "/home/app");
    EXPECT_EQ(user.groups, (std::vector<gid_t>{29, 44}));
    // A name made of digits is a name.
    EXPECT_EQ(resolve("1001").value().uid, 2000u);
}

TEST(Users, UnknownNamesAreRefused) {
    EXPECT_EQ(resolve("nobody").error().code, Errc::kNotFound);
    EXPECT_EQ(resolve("app:nobody").error().code, Errc::kNotFound);
    EXPECT_EQ(resolve("evil").error().code, Errc::kNotFound);
    EXPECT_EQ(resolve("-1").error().code, Errc::kNotFound);
}

TEST(Users, IdsBeyondTheLimitAreRefused) {
    EXPECT_EQ(resolve("2147483647").value().uid, 2147483647u);
    EXPECT_EQ(resolve("2147483648").error().code, Errc::kUsage);
    EXPECT_EQ(resolve("4294967295").error().code, Errc::kUsage);
    EXPECT_EQ(resolve("0:4294967296").error().code, Errc::kUsage);
    EXPECT_EQ(resolve(std::string(kMaxUserSpecBytes + 1, 'a')).error().code, Errc::kUsage);
}

TEST(Users, AMissingHomeIsTheRootDirectory) { EXPECT_EQ(resolve("homeless").value().home, "/"); }

TEST(Users, TooManyGroupsAreRefused) {
    std::string groups;
    for (std::size_t i = 0; i < kMaxGroups; ++i) groups += "g:x:" + std::to_string(i) + ":app\n";
    EXPECT_EQ(resolve_user("app", kPasswd, groups).value().groups.size(), kMaxGroups);
    EXPECT_EQ(resolve_user("app", kPasswd, groups + "g:x:5000:app\n").error().code, Errc::kLimit);
}

RC_GTEST_PROP(Users, ArbitraryFilesNeverBreakIt, (const std::string& who, const std::string& one, const std::string& two)) {
    auto user = resolve_user(who, one, two);
    if (user) RC_ASSERT(user->uid <= 0x7fffffffu && user->gid <= 0x7fffffffu);
}

}  // namespace
}  // namespace caisson::agent
