// Where the figures of BoxStats come from: the texts of control groups and of /proc. Pure.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace caisson::box {

// A group of one box, and how its files are read: nullopt where there is none.
struct StatsGroup {
    int version = 0;
    std::string directory;
};
using ReadText = std::function<std::optional<std::string>(const std::string& path)>;

// Time that whatever is or was in the group has run, in microseconds. Version 1 has it only where cpuacct is mounted with
// cpu.
std::optional<std::uint64_t> group_cpu(const StatsGroup& group, const ReadText& read);
// Bytes in use, without what was read from files and not used lately: the kernel takes that back before anybody suffers.
std::optional<std::uint64_t> group_memory(const StatsGroup& group, const ReadText& read);
// Who is in it.
std::optional<std::vector<std::uint64_t>> group_processes(const StatsGroup& group, const ReadText& read);

// Of one process; `ticks` is how many clock ticks a second has. nullopt: it is gone, or /proc hides it.
std::optional<std::uint64_t> process_cpu(std::uint64_t pid, std::uint64_t ticks, const ReadText& read);
// Its share of what it has in memory, or all of that where the kernel does not tell who shares it.
std::optional<std::uint64_t> process_memory(std::uint64_t pid, std::uint64_t page_bytes, const ReadText& read);

// Bytes through the box's card, as `pid`, its caisson-netns, has it.
struct CardTraffic {
    std::uint64_t received, sent;
};
std::optional<CardTraffic> card_traffic(std::uint64_t pid, const ReadText& read);

}  // namespace caisson::box
