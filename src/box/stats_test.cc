#include "box/stats.h"

#include <gtest/gtest.h>

#include <map>

#include "caisson/stats.h"

namespace caisson::box {
namespace {

ReadText files(std::map<std::string, std::string> texts) {
    return [texts = std::move(texts)](const std::string& path) -> std::optional<std::string> {
        auto found = texts.find(path);
        return found == texts.end() ? std::nullopt : std::optional(found->second);
    };
}

TEST(Stats, ReadsGroupsOfBothVersions) {
    const auto read = files({{"/1/cpuacct.usage", "2500000000\n"}, {"/1/memory.usage_in_bytes", "5000\n"},
                             {"/1/memory.stat", "inactive_file 1\ntotal_inactive_file 2000\n"},
                             {"/2/cpu.stat", "usage_usec 77\nuser_usec 70\n"}, {"/2/memory.current", "900\n"},
                             {"/2/memory.stat", "anon 1\ninactive_file 100\n"}, {"/2/cgroup.procs", "12\n0\n34\n"}});
    EXPECT_EQ(group_cpu({1, "/1"}, read), 2500000u);
    EXPECT_EQ(group_memory({1, "/1"}, read), 3000u);
    EXPECT_EQ(group_cpu({2, "/2"}, read), 77u);
    EXPECT_EQ(group_memory({2, "/2"}, read), 800u);
    // One of another pid namespace is shown as 0.
    EXPECT_EQ(group_processes({2, "/2"}, read), (std::vector<std::uint64_t>{12, 34}));
}

TEST(Stats, CountsWhatGoesThroughTheCardAsTheBoxSeesIt) {
    const std::string head = "Inter-|   Receive                                                |  Transmit\n"
                             " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n"
                             "    lo:       9       9    0    0    0     0          0         0        9       9    0    0    0     0       0          0\n";
    const auto read = files({{"/proc/5/net/dev", head + "  tap0:    1234      20    0    0    0     0          0         0   567890      30    0    0    0     0       0          0\n"},
                             {"/proc/6/net/dev", head}, {"/proc/7/net/dev", "tap0: 1 2 3\n"}, {"/proc/8/net/dev", "tap0: x 2 3 4 5 6 7 8 y 10\n"}});
    const auto traffic = card_traffic(5, read);
    ASSERT_TRUE(traffic);
    EXPECT_EQ(traffic->sent, 1234u);
    EXPECT_EQ(traffic->received, 567890u);
    for (const std::uint64_t pid : {4, 6, 7, 8}) EXPECT_FALSE(card_traffic(pid, read)) << pid;
}

TEST(Stats, DoesNotMakeUpWhatIsNotThere) {
    const auto none = files({});
    EXPECT_EQ(group_cpu({1, "/1"}, none), std::nullopt);
    EXPECT_EQ(group_memory({2, "/2"}, none), std::nullopt);
    EXPECT_EQ(group_processes({2, "/2"}, none), std::nullopt);
    EXPECT_EQ(process_cpu(7, 100, none), std::nullopt);
    EXPECT_EQ(process_memory(7, 4096, none), std::nullopt);
    const auto damaged = files({{"/1/cpuacct.usage", "many\n"}, {"/2/cpu.stat", "usage_usec\nusage_usecs 5\n"}, {"/2/memory.current", ""}, {"/proc/7/stat", "7 (x) S 1"},
                                {"/proc/7/statm", "12"}});
    EXPECT_EQ(group_cpu({1, "/1"}, damaged), std::nullopt);
    EXPECT_EQ(group_cpu({2, "/2"}, damaged), std::nullopt);
    EXPECT_EQ(group_memory({2, "/2"}, damaged), std::nullopt);
    EXPECT_EQ(process_cpu(7, 100, damaged), std::nullopt);
    EXPECT_EQ(process_memory(7, 4096, damaged), std::nullopt);
}

TEST(Stats, NeverTakesMoreCacheThanIsUsed) {
    const auto read = files({{"/2/memory.current", "100"}, {"/2/memory.stat", "inactive_file 200"}});
    EXPECT_EQ(group_memory({2, "/2"}, read), 0u);
}

TEST(Stats, ReadsProcessesWhoseNamesAreHostile) {
    const auto read = files({{"/proc/7/stat", "7 (a) R 9 9) S 1 7 7 0 -1 4194560 0 0 0 0 150 50 900 900 20 0 1 0 5\n"},
                             {"/proc/7/smaps_rollup", "0-1 ---p 0 00:00 0 [rollup]\nRss:  900 kB\nPss:      64 kB\nPss_Anon: 1 kB\n"},
                             {"/proc/8/statm", "100 25 3 1 0 9 0\n"}});
    EXPECT_EQ(process_cpu(7, 100, read), 2000000u);
    EXPECT_EQ(process_memory(7, 4096, read), 65536u);
    EXPECT_EQ(process_memory(8, 4096, read), 102400u);
}

BoxStats looked(std::int64_t second, std::uint64_t cpu_microseconds) {
    BoxStats stats;
    stats.id = "a";
    stats.started_ms = 5;
    stats.cpu_source = "cgroup";
    stats.looked = std::chrono::steady_clock::time_point(std::chrono::seconds(second));
    stats.cpu_microseconds = cpu_microseconds;
    return stats;
}

TEST(Stats, CountsProcessorTimeBetweenTwoLooks) {
    EXPECT_DOUBLE_EQ(cpu_percent(looked(10, 1000000), looked(12, 4000000)).value(), 150.0);
    EXPECT_DOUBLE_EQ(cpu_percent(looked(10, 1000000), looked(12, 1000000)).value(), 0.0);
}

TEST(Stats, KnowsNoPercentOfBoxesThatWereStartedAnew) {
    EXPECT_EQ(cpu_percent(looked(10, 5), looked(10, 6)), std::nullopt);  // no time has passed
    EXPECT_EQ(cpu_percent(looked(10, 5), looked(12, 4)), std::nullopt);
    auto again = looked(12, 9);
    again.started_ms = 6;
    EXPECT_EQ(cpu_percent(looked(10, 5), again), std::nullopt);
    auto told_otherwise = looked(12, 9);
    told_otherwise.cpu_source = "processes";
    EXPECT_EQ(cpu_percent(looked(10, 5), told_otherwise), std::nullopt);
    auto silent = looked(12, 9);
    silent.cpu_microseconds.reset();
    EXPECT_EQ(cpu_percent(looked(10, 5), silent), std::nullopt);
}

}  // namespace
}  // namespace caisson::box
