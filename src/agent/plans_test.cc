// The agent's pure parts that fit on a page each: mounts, command paths, reports, names.
#include <gtest/gtest.h>
#include <errno.h>
#include <linux/capability.h>

#include "agent/cgroup.h"
#include "agent/command_path.h"
#include "agent/container.h"
#include "agent/credentials.h"
#include "agent/launch.h"
#include "agent/mounts.h"
#include "agent/privileged.h"
#include "agent/shares.h"

namespace caisson::agent {
namespace {

TEST(Mounts, AContainerGetsDockersDefaults) {
    EXPECT_EQ(describe(fixed_container_mounts()),
              "mount proc /proc nosuid nodev noexec\n"
              "mask /proc/acpi\n"
              "mask /proc/asound\n"
              "mask /proc/interrupts\n"
              "mask /proc/kcore\n"
              "mask /proc/keys\n"
              "mask /proc/latency_stats\n"
              "mask /proc/sched_debug\n"
              "mask /proc/scsi\n"
              "mask /proc/timer_list\n"
              "mask /proc/timer_stats\n"
              "read-only /proc/bus\n"
              "read-only /proc/fs\n"
              "read-only /proc/irq\n"
              "read-only /proc/sys\n"
              "read-only /proc/sysrq-trigger\n"
              "mount mqueue /dev/mqueue nosuid nodev noexec\n"
              "mount cgroup2 /sys/fs/cgroup ro nosuid nodev noexec\n");
}

TEST(Mounts, APrivilegedContainerIsUncovered) {
    const std::string plan = describe(uncovered_mounts());
    for (const char* line : {"uncover /proc/kcore\n", "uncover /proc/sys\n", "uncover /proc/sysrq-trigger\n", "uncover /sys/firmware\n",
                             "writable /sys\n", "writable /sys/fs/cgroup\n"})
        EXPECT_NE(plan.find(line), std::string::npos) << line;
    EXPECT_EQ(plan.find(" /dev"), std::string::npos);
}

TEST(Mounts, DeviceNodesLeaveOutPortsAndTheRootDisk) {
    // Any directory with devices will do.
    auto plan = device_nodes("/dev", {"null"});
    ASSERT_TRUE(plan) << plan.error().to_string();
    const std::string text = describe(*plan);
    EXPECT_NE(text.find("node /dev/zero 1:5\n"), std::string::npos) << text;
    EXPECT_EQ(text.find("node /dev/null "), std::string::npos);
    EXPECT_EQ(text.find("vport"), std::string::npos);
}

TEST(Mounts, TmpfsComeParentsFirst) {
    wire::Configure configure;
    auto* inner = configure.add_tmpfs();
    inner->set_path("/run/inner");
    inner->set_size_bytes(4096);
    inner->set_mode(0700);
    inner->set_executable(true);
    configure.add_tmpfs()->set_path("/run");
    EXPECT_EQ(describe(wanted_mounts(configure).value()),
              "directory /run\n"
              "mount tmpfs /run nosuid nodev noexec mode=1777\n"
              "directory /run/inner\n"
              "mount tmpfs /run/inner nosuid nodev mode=0700,size=4096\n");
}

TEST(Mounts, StrangePathsAreRefused) {
    for (const char* path : {"", "/", "relative", "/a/../b", "/a/./b", "/a//b", "/a/", "/.."}) {
        wire::Configure configure;
        configure.add_tmpfs()->set_path(path);
        EXPECT_EQ(wanted_mounts(configure).error().code, Errc::kUsage) << path;
    }
    EXPECT_FALSE(check_mount_path(std::string("/a\0b", 4)).has_value());
    EXPECT_TRUE(check_mount_path("/..a").has_value());
}

TEST(Mounts, OneMoreThanTheLimitIsRefused) {
    wire::Configure configure;
    for (int i = 0; i < kMaxMounts; ++i) configure.add_tmpfs()->set_path("/t" + std::to_string(i));
    EXPECT_TRUE(wanted_mounts(configure).has_value());
    configure.add_files()->set_path("/etc/x");
    EXPECT_EQ(wanted_mounts(configure).error().code, Errc::kLimit);
}

TEST(CommandPath, ASlashMeansThePathItself) {
    EXPECT_EQ(program_candidates("/bin/true", nullptr), std::vector<std::string>{"/bin/true"});
    EXPECT_EQ(program_candidates("./x", "/bin"), std::vector<std::string>{"./x"});
    EXPECT_TRUE(program_candidates("", "/bin").empty());
}

TEST(CommandPath, ANameIsLookedForInOrder) {
    EXPECT_EQ(program_candidates("sh", "/bin:/usr/bin"), (std::vector<std::string>{"/bin/sh", "/usr/bin/sh"}));
    EXPECT_EQ(program_candidates("sh", ":/bin:"), (std::vector<std::string>{"./sh", "/bin/sh", "./sh"}));
    EXPECT_EQ(program_candidates("sh", nullptr).front(), "/usr/local/sbin/sh");
    EXPECT_EQ(program_candidates("sh", nullptr).size(), 6u);
    EXPECT_EQ(program_candidates("sh", std::string(10000, ':').c_str()).size(), kMaxCandidates);
}

TEST(CommandPath, TheLastOfSeveralValuesCounts) {
    std::vector<std::string> environment = {"PATHX=1", "PATH=a", "XPATH=2", "PATH=b", "PATH"};
    EXPECT_STREQ(environment_value(environment, "PATH"), "b");
    EXPECT_EQ(environment_value(environment, "HOME"), nullptr);
}

TEST(Launch, ReportsArePidThenFailure) {
    const std::uint8_t started[] = {7, 0, 0, 0};
    auto report = parse_launch_report(started);
    EXPECT_EQ(report.pid, 7);
    EXPECT_FALSE(report.failed);
    EXPECT_FALSE(parse_launch_report({}).failed);
    const std::uint8_t failed[] = {7, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 'n', 'o'};
    report = parse_launch_report(failed);
    EXPECT_TRUE(report.failed);
    EXPECT_EQ(report.kind, wire::StartFailed::NOT_FOUND);
    EXPECT_EQ(report.error_number, 2);
    EXPECT_EQ(report.message, "no");
    const std::uint8_t strange[] = {7, 0, 0, 0, 99, 0, 0, 0, 2, 0, 0, 0};
    EXPECT_EQ(parse_launch_report(strange).kind, wire::StartFailed::OTHER);
}

TEST(Launch, ExecErrorsHaveAShellsMeaning) {
    EXPECT_EQ(exec_failure_kind(ENOENT), wire::StartFailed::NOT_FOUND);
    EXPECT_EQ(exec_failure_kind(ENOTDIR), wire::StartFailed::NOT_FOUND);
    EXPECT_EQ(exec_failure_kind(EACCES), wire::StartFailed::NOT_EXECUTABLE);
    EXPECT_EQ(exec_failure_kind(ENOEXEC), wire::StartFailed::NOT_EXECUTABLE);
    EXPECT_EQ(exec_failure_kind(EISDIR), wire::StartFailed::NOT_EXECUTABLE);
    EXPECT_EQ(exec_failure_kind(E2BIG), wire::StartFailed::NOT_EXECUTABLE);
    EXPECT_EQ(exec_failure_kind(ENOMEM), wire::StartFailed::OTHER);
}

TEST(Container, OnlyPlainDevicesAreDisks) {
    EXPECT_EQ(disk_name("/dev/vda").value(), "vda");
    for (const char* device : {"", "vda", "/dev/", "/dev/../x", "/dev/a/b", "/dev/VDA", "/dev/v.a"})
        EXPECT_FALSE(disk_name(device).has_value()) << device;
}

TEST(Cgroup, FindsTheNumberOfKills) {
    EXPECT_EQ(parse_oom_kills("low 0\noom 3\noom_kill 2\noom_group_kill 0\n"), 2u);
    EXPECT_EQ(parse_oom_kills(""), 0u);
    EXPECT_EQ(parse_oom_kills("oom_kill x\n"), 0u);
}

TEST(Credentials, WithoutPrivilegesACommandHasDockersSet) {
    wire::Exec exec;
    EXPECT_EQ(wanted_capabilities(exec), 0xa80425fbU);
    exec.mutable_privileges()->set_no_new_privileges(true);
    EXPECT_EQ(wanted_capabilities(exec), 0U);
    exec.mutable_privileges()->set_capabilities(1);
    EXPECT_EQ(wanted_capabilities(exec), 1U);
}

TEST(Launch, TheSeatHasNothingBeyondDockersSet) {
    wire::Exec exec;
    EXPECT_TRUE(fits_the_seat(exec));
    exec.mutable_privileges()->set_capabilities(1);
    EXPECT_TRUE(fits_the_seat(exec));
    exec.mutable_privileges()->set_capabilities(1U << CAP_NET_ADMIN);
    EXPECT_FALSE(fits_the_seat(exec));
    wire::Exec terminal;
    terminal.set_terminal(true);
    EXPECT_FALSE(fits_the_seat(terminal));
}

TEST(Shares, OnlyAKernelThatIsKnownToDropThemWritesPastItsPages) {
    for (const char* release : {"6.12.64", "6.12.95+deb12-cloud-amd64", "6.12.100-1", "6.19.0", "6.19-rc5", "7.0.1", "10.1"})
        EXPECT_TRUE(drops_what_is_written_past(release)) << release;
    for (const char* release : {"6.12.63", "6.12", "6.12.9-64", "6.18.20", "6.13.80", "6.1.170", "5.19.99", "", "x", "6", "6.12.+95", "99999999999999999999.1.1"})
        EXPECT_FALSE(drops_what_is_written_past(release)) << release;
}

}  // namespace
}  // namespace caisson::agent
