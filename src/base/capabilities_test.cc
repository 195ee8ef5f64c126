#include "base/capabilities.h"

#include <gtest/gtest.h>
#include <linux/capability.h>

namespace caisson::base {
namespace {

using Names = std::vector<std::string>;

std::uint64_t bit(int capability) { return std::uint64_t{1} << capability; }

std::uint64_t set_of(const Names& add, const Names& drop, bool privileged = false) {
    return capability_set(capability_names("--cap-add", add).value(), capability_names("--cap-drop", drop).value(), privileged);
}

TEST(Capabilities, TheDefaultSetIsDockers) { EXPECT_EQ(default_capabilities(), 0xa80425fbU); }

TEST(Capabilities, NamesAreKnownInAnySpelling) {
    for (const char* name : {"NET_ADMIN", "net_admin", "CAP_NET_ADMIN", "cap_Net_admin"}) EXPECT_EQ(capability_number(name), CAP_NET_ADMIN) << name;
    for (const char* name : {"", "CAP_", "NET", "NET_ADMIN ", "CAP_CAP_NET_ADMIN", "ALL", "12"}) EXPECT_FALSE(capability_number(name)) << name;
    EXPECT_EQ(capability_number("chown"), 0);
    EXPECT_EQ(capability_number("CHECKPOINT_RESTORE"), CAP_LAST_CAP);
}

TEST(Capabilities, NamesAreKeptOnceAndAsDockerWritesThem) {
    EXPECT_EQ(capability_names("--cap-add", {"net_admin", "CAP_NET_ADMIN", "all", "Cap_All", "chown"}).value(),
              (Names{"CAP_NET_ADMIN", "ALL", "CAP_CHOWN"}));
}

TEST(Capabilities, AnUnknownOneIsRefusedWithTheNearest) {
    auto refused = capability_names("--cap-drop", {"chown", "NET_ADMN"});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::kUsage);
    EXPECT_NE(refused.error().message.find("--cap-drop 'NET_ADMN'"), std::string::npos);
    EXPECT_NE(refused.error().hint.find("NET_ADMIN"), std::string::npos);
    EXPECT_EQ(nearest_capability("cap_sys_ptrac"), "SYS_PTRACE");
    EXPECT_FALSE(nearest_capability("").empty());
    EXPECT_FALSE(nearest_capability(std::string(100000, 'x')).empty());
    EXPECT_FALSE(capability_names("--cap-add", {""}));
}

TEST(Capabilities, SetsFollowDockersRules) {
    EXPECT_EQ(set_of({}, {}), default_capabilities());
    EXPECT_EQ(set_of({}, {"ALL"}), 0U);
    EXPECT_EQ(set_of({"NET_ADMIN"}, {"ALL"}), bit(CAP_NET_ADMIN));
    EXPECT_EQ(set_of({"NET_ADMIN"}, {}), default_capabilities() | bit(CAP_NET_ADMIN));
    EXPECT_EQ(set_of({}, {"CHOWN"}), default_capabilities() & ~bit(CAP_CHOWN));
    EXPECT_EQ(set_of({"CHOWN"}, {"CHOWN"}), default_capabilities());
    EXPECT_EQ(set_of({"ALL"}, {}), all_capabilities());
    EXPECT_EQ(set_of({"ALL"}, {"SYS_ADMIN"}), all_capabilities() & ~bit(CAP_SYS_ADMIN));
    EXPECT_EQ(set_of({"ALL"}, {"ALL"}), all_capabilities());
}

TEST(Capabilities, SetsHaveNames) {
    EXPECT_TRUE(names_of_capabilities(0).empty());
    EXPECT_EQ(names_of_capabilities(bit(CAP_CHOWN) | bit(CAP_BPF)), (Names{"CAP_CHOWN", "CAP_BPF"}));
    EXPECT_EQ(names_of_capabilities(all_capabilities()).size(), 41U);
}

TEST(Capabilities, PrivilegedKeepsWhatIsDroppedAway) {
    EXPECT_EQ(set_of({}, {}, true), all_capabilities());
    EXPECT_EQ(set_of({}, {"SYS_MODULE"}, true), all_capabilities() & ~bit(CAP_SYS_MODULE));
    EXPECT_EQ(set_of({"CHOWN"}, {"ALL"}, true), bit(CAP_CHOWN));
}

}  // namespace
}  // namespace caisson::base
