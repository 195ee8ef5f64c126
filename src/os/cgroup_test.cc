#include "os/cgroup.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <map>

#include "base/text.h"
#include "os/file.h"

namespace caisson::os {
namespace {

using Strings = std::vector<std::string>;

std::vector<CgroupMount> parse(std::string_view mountinfo, std::string_view membership, const std::string& controllers = "") {
    return parse_cgroup_mounts(mountinfo, membership, [&](const std::string& path) {
        return path.ends_with("/cgroup.controllers") ? controllers : std::string();
    });
}

TEST(CgroupMounts, VersionTwo) {
    auto mounts = parse("25 1 0:23 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
                        "26 1 8:1 / /home rw - ext4 /dev/sda rw\n",
                        "0::/user.slice/user-1000.slice/session-3.scope\n", "cpuset cpu io memory pids\n");
    ASSERT_EQ(mounts.size(), 1u);
    EXPECT_EQ(mounts[0].version, 2);
    EXPECT_EQ(mounts[0].directory, "/sys/fs/cgroup");
    EXPECT_EQ(mounts[0].own, "/sys/fs/cgroup/user.slice/user-1000.slice/session-3.scope");
    EXPECT_TRUE(mounts[0].has("memory") && mounts[0].has("pids") && !mounts[0].has("mem"));
    EXPECT_FALSE(mounts[0].read_only);
}

TEST(CgroupMounts, VersionOne) {
    auto mounts = parse("33 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
                        "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
                        "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n",
                        "4:memory:/a\\040b\n3:cpu,cpuacct:/\n1:name=systemd:/init\n");
    ASSERT_EQ(mounts.size(), 2u);  // one that only has a name limits nothing
    EXPECT_EQ(mounts[0].controllers, (Strings{"cpu", "cpuacct"}));
    EXPECT_EQ(mounts[0].own, "/sys/fs/cgroup/cpu,cpuacct");
    EXPECT_EQ(mounts[1].version, 1);
    EXPECT_EQ(mounts[1].own, "/sys/fs/cgroup/memory/a\\040b");  // the kernel escapes nothing there
}

TEST(CgroupMounts, BothAtOnce) {
    auto mounts = parse("35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
                        "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
                        "4:memory:/m\n0::/u\n", "hugetlb\n");
    ASSERT_EQ(mounts.size(), 2u);
    EXPECT_EQ(mounts[0].own, "/sys/fs/cgroup/memory/m");
    EXPECT_EQ(mounts[1].own, "/sys/fs/cgroup/unified/u");
    EXPECT_FALSE(mounts[1].has("memory"));
}

TEST(CgroupMounts, NoneAndNonsense) {
    EXPECT_TRUE(parse("", "").empty());
    EXPECT_TRUE(parse("26 1 8:1 / /home rw - ext4 /dev/sda rw\n", "0::/\n").empty());
    EXPECT_TRUE(parse("- cgroup2\n1 2 3 - cgroup2\nx - cgroup cgroup rw,memory\n", ":::\n\n7\n").empty());
}

TEST(CgroupMounts, ReadOnlyByEitherOption) {
    EXPECT_TRUE(parse("25 1 0:23 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n", "0::/\n", "memory")[0].read_only);
    EXPECT_TRUE(parse("25 1 0:23 / /sys/fs/cgroup rw - cgroup2 cgroup ro\n", "0::/\n", "memory")[0].read_only);
}

TEST(CgroupMounts, TheOwnGroupIsSeenThroughTheMountsRoot) {
    const std::string mount = "25 1 0:23 /docker/1 /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
    EXPECT_EQ(parse(mount, "0::/docker/1/x\n")[0].own, "/sys/fs/cgroup/x");
    EXPECT_EQ(parse(mount, "0::/docker/1\n")[0].own, "/sys/fs/cgroup");
    EXPECT_EQ(parse(mount, "0::/docker/12\n")[0].own, "");
    EXPECT_EQ(parse(mount, "0::/../elsewhere\n")[0].own, "");
    EXPECT_EQ(parse("25 1 0:23 / /sys/fs/a\\040b rw - cgroup2 cgroup rw\n", "0::/x\n")[0].own, "/sys/fs/a b/x");
}

// ---- on this host's own hierarchies, where they can be written ----

class CgroupLive : public testing::Test {
  protected:
    void SetUp() override {
        for (const auto& mount : cgroup_mounts()) {
            if (mount.read_only || !(mount.has("pids") || mount.has("memory"))) continue;
            const auto directory = mount.directory + "/caisson-os-test-" + std::to_string(::getpid());
            const bool usable = ::mkdir(directory.c_str(), 0755) == 0 &&
                                (mount.version == 1 || exists(directory + "/pids.max"));
            ::rmdir(directory.c_str());
            if (!usable) continue;
            CgroupPlan::Group group{mount.version, directory, {}};
            if (mount.has("pids")) group.settings.push_back({"pids.max", "4"});
            if (mount.has("memory") && mount.version == 1) group.settings.push_back({"memory.limit_in_bytes", "67108864"});
            if (mount.has("memory") && mount.version == 2) group.settings.push_back({"memory.max", "67108864"});
            plan_.groups.push_back(std::move(group));
        }
        if (plan_.groups.empty()) GTEST_SKIP() << "this user may make no control groups on this host";
    }
    void TearDown() override {
        for (const auto& group : plan_.groups) EXPECT_FALSE(exists(group.directory)) << group.directory;
    }
    static Command shell(const Cgroup& group, const std::string& script) {
        Command command;
        command.arguments = {"/bin/sh", "-c", script};
        command.groups = group.entry();
        return command;
    }
    CgroupPlan plan_;
};

TEST_F(CgroupLive, AChildIsInItFromTheStart) {
    auto group = Cgroup::create(plan_);
    ASSERT_TRUE(group.has_value()) << group.error().to_string();
    auto pipe = make_pipe().value();
    auto command = shell(*group, "cat /proc/self/cgroup");
    command.descriptors = {{pipe.second.get(), 1}};
    auto child = spawn(command);
    ASSERT_TRUE(child.has_value()) << child.error().to_string();
    pipe.second.reset();
    auto said = read_fd(pipe.first.get(), 1 << 16, "pipe").value();
    std::size_t seen = 0;
    const auto name = "/caisson-os-test-" + std::to_string(::getpid()) + "\n";
    for (auto at = said.find(name); at != std::string::npos; at = said.find(name, at + 1)) ++seen;
    EXPECT_EQ(seen, plan_.groups.size()) << said;
    EXPECT_EQ(child->wait()->code, 0);
    EXPECT_TRUE(group->remove().has_value());
}

TEST_F(CgroupLive, AChildThatCannotEnterIsNotStarted) {
    Command command;
    command.arguments = {"/bin/true"};
    auto nowhere = open_file("/dev/null", O_RDONLY).value();
    command.groups.procs = {nowhere.get()};
    auto child = spawn(command);
    ASSERT_FALSE(child.has_value());
    EXPECT_NE(child.error().to_string().find("entering its control group"), std::string::npos);
}

TEST_F(CgroupLive, AKeeperIsInItUntilItsTimeIsOverAndHoldsNothingElse) {
    auto group = Cgroup::create(plan_);
    ASSERT_TRUE(group.has_value());
    auto procs = open_file(plan_.groups[0].directory + "/cgroup.procs", O_WRONLY).value();
    auto pipe = make_pipe().value();
    auto keeper = spawn_group_keeper(procs.get(), std::chrono::milliseconds(100));
    ASSERT_TRUE(keeper.has_value());
    pipe.second.reset();
    EXPECT_EQ(read_fd(pipe.first.get(), 1, "pipe").value(), "");  // returns while it lives
    auto ended = keeper->wait(std::chrono::seconds(20));
    ASSERT_TRUE(ended.has_value());
    EXPECT_TRUE(!ended->signalled && ended->code == 0);
}

TEST_F(CgroupLive, RemovingItKillsWhatMultipliesInIt) {
    auto group = Cgroup::create(plan_);
    ASSERT_TRUE(group.has_value());
    auto child = spawn(shell(*group, "trap '' TERM; while :; do sleep 100 & done 2>/dev/null"));
    ASSERT_TRUE(child.has_value()) << child.error().to_string();
    EXPECT_TRUE(group->remove().has_value());
    auto ended = child->wait(std::chrono::seconds(5));
    ASSERT_TRUE(ended.has_value());
    EXPECT_TRUE(ended->signalled || ended->code != 0);
}

TEST_F(CgroupLive, TooManyProcessesAreRefusedAndCounted) {
    auto group = Cgroup::create(plan_);
    ASSERT_TRUE(group.has_value());
    auto child = spawn(shell(*group, "for i in 1 2 3 4 5 6; do sleep 100 & done; wait"));
    ASSERT_TRUE(child.has_value());
    EXPECT_NE(child->wait(std::chrono::seconds(20))->code, 0);
    EXPECT_GT(group->refused_processes(), 0u);
    EXPECT_EQ(group->memory_kills(), 0u);
}

TEST_F(CgroupLive, AMemoryEaterIsKilledAndCounted) {
    auto group = Cgroup::create(plan_);
    ASSERT_TRUE(group.has_value());
    auto child = spawn(shell(*group, "exec dd if=/dev/zero of=/dev/null bs=512M count=1"));
    ASSERT_TRUE(child.has_value());
    auto ended = child->wait(std::chrono::seconds(30));
    ASSERT_TRUE(ended.has_value());
    EXPECT_TRUE(ended->signalled && ended->code == SIGKILL);
    EXPECT_GT(group->memory_kills(), 0u);
}

TEST_F(CgroupLive, WhatAnEarlierLifeLeftIsTakenOver) {
    auto first = Cgroup::create(plan_);
    ASSERT_TRUE(first.has_value());
    auto child = spawn(shell(*first, "exec sleep 100"));
    ASSERT_TRUE(child.has_value());
    auto second = Cgroup::create(plan_);
    ASSERT_TRUE(second.has_value()) << second.error().to_string();
    EXPECT_TRUE(child->wait(std::chrono::seconds(5))->signalled);
}

TEST(Cgroup, NothingStaysIfOneGroupCannotBeMade) {
    auto place = TemporaryDirectory::create("/tmp", "cgroup").value();
    CgroupPlan plan;
    plan.groups.push_back({2, place.path() + "/one", {{"no.such.file", "1", true}}});
    plan.groups.push_back({1, place.path() + "/missing/two", {}});
    auto made = Cgroup::create(plan);
    ASSERT_FALSE(made.has_value());
    EXPECT_NE(made.error().to_string().find("missing/two"), std::string::npos);
    EXPECT_FALSE(exists(place.path() + "/one"));
}

}  // namespace
}  // namespace caisson::os
