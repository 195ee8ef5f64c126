#include "box/host_limits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "vmm/machine.h"

namespace caisson::box {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// A host by its texts: what is mounted, whose group this is, which directories this user may write to, what files say.
struct Host {
    std::string mountinfo, membership;
    std::vector<std::string> writable;           // directories, with their files
    std::map<std::string, std::string> files{};  // path: content
    bool enters_by_descriptor = false;

    GroupPlace choose() const {
        auto read = [this](const std::string& path) {
            auto found = files.find(path);
            return found == files.end() ? std::string() : found->second;
        };
        auto may_write = [this](const std::string& path) {
            return std::any_of(writable.begin(), writable.end(), [&](const auto& directory) {
                return path == directory || (path.rfind(directory + "/cgroup.", 0) == 0);
            });
        };
        return choose_place({os::parse_cgroup_mounts(mountinfo, membership, read), "0123", enters_by_descriptor, may_write, read});
    }
};

constexpr const char* kUnified = "25 1 0:23 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
constexpr const char* kVersionOne = "32 31 0:29 / /cg/cpu rw - cgroup cgroup rw,cpu\n35 31 0:32 / /cg/memory rw - cgroup cgroup rw,memory\n"
                                    "39 31 0:36 / /cg/pids rw - cgroup cgroup rw,pids\n41 31 0:38 / /cg/unified rw - cgroup2 cgroup2 rw\n";

TEST(GroupPlace, RootOnVersionOneHasOneGroupPerController) {
    auto place = Host{kVersionOne, "4:memory:/a\n2:pids:/\n1:cpu:/\n0::/\n",
                      {"/cg/cpu/caisson/0123", "/cg/memory/caisson/0123", "/cg/pids/caisson/0123"}}
                     .choose();
    ASSERT_EQ(place.bases.size(), 3u);
    EXPECT_TRUE(place.missing.empty() && place.reason.empty());
    auto plan = plan_groups(place, "ID", {1000, 1500, 129});
    ASSERT_EQ(plan.groups.size(), 3u);
    EXPECT_EQ(plan.groups[0].directory, "/cg/cpu/caisson/0123/ID");
    std::string written;
    for (const auto& group : plan.groups)
        for (const auto& setting : group.settings) written += setting.file + "=" + setting.value + (setting.optional ? "? " : " ");
    EXPECT_EQ(written, "cpu.cfs_period_us=100000 cpu.cfs_quota_us=150000 memory.limit_in_bytes=1000 memory.memsw.limit_in_bytes=1000? pids.max=129 ");
}

TEST(GroupPlace, OnVersionOneOthersHaveNoneAndHearWhy) {
    auto place = Host{kVersionOne, "0::/\n", {}}.choose();
    EXPECT_TRUE(place.bases.empty());
    EXPECT_THAT(place.missing, ElementsAre("memory", "cpu", "pids"));
    EXPECT_THAT(place.reason, HasSubstr("only root"));
    EXPECT_THAT(place.fix, HasSubstr("as root"));
}

TEST(GroupPlace, RootOnVersionTwoHasOneGroupForAll) {
    Host host{kUnified, "0::/user.slice/session-1.scope\n", {"/sys/fs/cgroup/caisson/0123"},
              {{"/sys/fs/cgroup/cgroup.controllers", "cpu io memory pids\n"},
               {"/sys/fs/cgroup/caisson/0123/cgroup.subtree_control", "cpu memory pids\n"}},
              true};
    auto place = host.choose();
    ASSERT_EQ(place.bases.size(), 1u);
    EXPECT_EQ(place.bases[0].directory, "/sys/fs/cgroup/caisson/0123");
    EXPECT_TRUE(place.missing.empty());
    auto plan = plan_groups(place, "ID", {1000, 1500, 129});
    std::string written;
    for (const auto& setting : plan.groups[0].settings) written += setting.file + "=" + setting.value + " ";
    EXPECT_EQ(written, "memory.max=1000 memory.swap.max=1000 memory.oom.group=1 cpu.max=150000 100000 pids.max=129 ");
    // Without root's descriptor a supervisor outside could not put anything into it.
    host.enters_by_descriptor = false;
    EXPECT_TRUE(host.choose().bases.empty());
    host.membership = "0::/caisson/0123/supervisors\n";
    EXPECT_EQ(host.choose().bases.size(), 1u);
}

TEST(GroupPlace, AUserOfSystemdHasTheTopOfWhatWasDelegated) {
    const std::string own = "/user.slice/user-7.slice/user@7.service";
    const std::string top = "/sys/fs/cgroup" + own;
    Host host{kUnified, "0::" + own + "/app.slice/term.scope\n", {top, top + "/app.slice", top + "/app.slice/term.scope"},
              {{"/sys/fs/cgroup/cgroup.controllers", "cpu io memory pids\n"},
               {top + "/cgroup.subtree_control", "memory pids\n"},
               {top + "/cgroup.controllers", "memory pids\n"}}};
    auto place = host.choose();
    ASSERT_EQ(place.bases.size(), 1u);
    EXPECT_EQ(place.bases[0].parent, top);
    EXPECT_EQ(place.bases[0].directory, top + "/caisson-0123");
    EXPECT_THAT(place.bases[0].controllers, ElementsAre("memory", "pids"));
    EXPECT_THAT(place.missing, ElementsAre("cpu"));
    EXPECT_THAT(place.reason, HasSubstr("hands on no limits for cpu"));
    EXPECT_THAT(place.fix, HasSubstr("Delegate="));
}

TEST(GroupPlace, AGroupThatHoldsProcessesHandsNothingOn) {
    Host host{kUnified, "0::/system.slice/mine.service\n", {"/sys/fs/cgroup/system.slice/mine.service"},
              {{"/sys/fs/cgroup/cgroup.controllers", "cpu memory pids\n"},
               {"/sys/fs/cgroup/system.slice/mine.service/cgroup.controllers", "cpu memory pids\n"},
               {"/sys/fs/cgroup/system.slice/mine.service/cgroup.procs", "77\n"}}};
    auto place = host.choose();
    EXPECT_TRUE(place.bases.empty());
    EXPECT_THAT(place.fix, HasSubstr("DelegateSubgroup"));
    host.files["/sys/fs/cgroup/system.slice/mine.service/cgroup.procs"] = "";
    EXPECT_EQ(host.choose().bases.size(), 1u);
}

TEST(GroupPlace, ASessionThatWasGivenNothingHearsWhatHelps) {
    auto place = Host{kUnified, "0::/user.slice/user-7.slice/session-3.scope\n", {},
                      {{"/sys/fs/cgroup/cgroup.controllers", "cpu memory pids\n"}}}
                     .choose();
    EXPECT_TRUE(place.bases.empty());
    EXPECT_THAT(place.fix, HasSubstr("systemd-run --user --scope"));
}

TEST(GroupPlace, AContainerWithoutWritableGroups) {
    auto read_only = Host{"25 1 0:23 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n", "0::/\n", {"/sys/fs/cgroup"},
                          {{"/sys/fs/cgroup/cgroup.controllers", "cpu memory pids\n"}}}
                         .choose();
    EXPECT_TRUE(read_only.bases.empty());
    EXPECT_THAT(read_only.reason, HasSubstr("read-only"));
    auto none = Host{"", "", {}}.choose();
    EXPECT_TRUE(none.bases.empty());
    EXPECT_THAT(none.reason, HasSubstr("no control groups are mounted"));
}

TEST(GroupPlace, OnAHostWithBothEachControllerIsUsedOnce) {
    auto place = Host{"35 31 0:32 / /cg/memory rw - cgroup cgroup rw,memory\n41 31 0:38 / /cg/unified rw - cgroup2 cgroup2 rw\n",
                      "4:memory:/\n0::/\n", {"/cg/memory/caisson/0123", "/cg/unified/caisson/0123"},
                      {{"/cg/unified/cgroup.controllers", "cpu pids"},
                       {"/cg/unified/caisson/0123/cgroup.subtree_control", "cpu pids"}},
                      true}
                     .choose();
    ASSERT_EQ(place.bases.size(), 2u);
    EXPECT_THAT(place.bases[0].controllers, ElementsAre("memory"));
    EXPECT_THAT(place.bases[1].controllers, ElementsAre("cpu", "pids"));
}

TEST(GroupPlace, RequiredLimitsAreAllOrAnError) {
    GroupPlace place;
    EXPECT_TRUE(check_required(place).has_value());
    place.missing = {"cpu"};
    place.reason = "not delegated";
    place.fix = "delegate it";
    auto refused = check_required(place);
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error().code, Errc::kHostMissing);
    EXPECT_THAT(refused.error().to_string(), HasSubstr("cpu of a box cannot be limited on this host: not delegated"));
    EXPECT_EQ(refused.error().hint, "delegate it");
}

TEST(HostFigures, HoldTheMachineAndWhatQemuNeeds) {
    constexpr std::uint64_t kMib = 1 << 20;
    auto kvm = host_figures({1, 512}, vmm::Accelerator::kKvm, 500, 0);
    EXPECT_EQ(kvm.memory_bytes, (512 + 128 + 16 + 16) * kMib);
    EXPECT_EQ(kvm.cpu_millis, 1000u);
    EXPECT_EQ(kvm.pids, 129u);
    auto emulated = host_figures({8, 8192}, vmm::Accelerator::kTcg, 8000, 10 * kMib);
    EXPECT_EQ(emulated.memory_bytes, (8192 + 128 + 8 * 16 + 256 + vmm::kTranslationMib + 10) * kMib);
    EXPECT_EQ(emulated.pids, 136u);
}

TEST(GroupTag, NamesAHome) {
    EXPECT_EQ(group_tag("/a").size(), 16u);
    EXPECT_EQ(group_tag("/a"), group_tag("/a"));
    EXPECT_NE(group_tag("/a"), group_tag("/b"));
}

}  // namespace
}  // namespace caisson::box
