#include "volume/jail.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include "jail/golden_test.h"

namespace caisson::volume {
namespace {

jail::Description without_limit_of_host() {
    auto description = share_jail("/usr/libexec/caisson/caisson-share", jail::bubblewrap());
    for (auto& limit : description.resource_limits)
        if (limit.resource == RLIMIT_NOFILE) limit.value = 1024;  // that of whoever runs this
    return description;
}

TEST(ShareJail, IsTheOneThatWasReviewed) {
    auto description = without_limit_of_host();
    if (!description.filter) GTEST_SKIP() << "sanitized programs have a jail that shows more";
    jail::expect_golden("share.jail", jail::rendered(description));
}

TEST(ShareJail, HasNoNetworkAndNothingToWriteTo) {
    const auto description = without_limit_of_host();
    EXPECT_FALSE(description.share_network);
    EXPECT_TRUE(description.die_with_parent);
    for (const auto& mount : description.mounts) EXPECT_EQ(mount.kind, jail::Mount::Kind::kReadOnly) << mount.target;
}

TEST(ShareJail, WithoutOneNothingIsAskedForThatNeedsOne) {
    const auto description = share_jail("/x/caisson-share", jail::no_jail());
    EXPECT_TRUE(description.mounts.empty());
    EXPECT_FALSE(description.filter);
    EXPECT_EQ(description.arguments, std::vector<std::string>{"/x/caisson-share"});
}

}  // namespace
}  // namespace caisson::volume
