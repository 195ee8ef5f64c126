#include "box/stats.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "base/text.h"
#include "box/host_limits.h"
#include "box/jail_view.h"
#include "box/lifecycle.h"
#include "os/file.h"
#include "os/host.h"

namespace caisson::box {

namespace {

std::optional<std::uint64_t> number_in(const std::optional<std::string>& text) {
    if (!text) return std::nullopt;
    auto number = base::parse_u64(base::trim(*text));
    return number ? std::optional<std::uint64_t>(*number) : std::nullopt;
}

// Of a line "NAME NUMBER" or "NAME:   NUMBER kB".
std::optional<std::uint64_t> number_after(const std::optional<std::string>& text, std::string_view name) {
    if (!text) return std::nullopt;
    for (const auto& line : base::split(*text, '\n')) {
        if (!base::starts_with(line, name) || line.size() == name.size() || (line[name.size()] != ' ' && line[name.size()] != ':')) continue;
        auto rest = base::trim(std::string_view(line).substr(name.size() + 1));
        return number_in(std::string(rest.substr(0, rest.find(' '))));
    }
    return std::nullopt;
}

}  // namespace

std::optional<std::uint64_t> group_cpu(const StatsGroup& group, const ReadText& read) {
    if (group.version == 2) return number_after(read(group.directory + "/cpu.stat"), "usage_usec");
    auto nanoseconds = number_in(read(group.directory + "/cpuacct.usage"));
    return nanoseconds ? std::optional(*nanoseconds / 1000) : std::nullopt;
}

std::optional<std::uint64_t> group_memory(const StatsGroup& group, const ReadText& read) {
    const bool unified = group.version == 2;
    auto used = number_in(read(group.directory + (unified ? "/memory.current" : "/memory.usage_in_bytes")));
    if (!used) return std::nullopt;
    const auto idle = number_after(read(group.directory + "/memory.stat"), unified ? "inactive_file" : "total_inactive_file");
    return *used - std::min(*used, idle.value_or(0));
}

std::optional<std::vector<std::uint64_t>> group_processes(const StatsGroup& group, const ReadText& read) {
    auto text = read(group.directory + "/cgroup.procs");
    if (!text) return std::nullopt;
    std::vector<std::uint64_t> pids;
    for (const auto& line : base::split(*text, '\n'))
        if (auto pid = base::parse_u64(line); pid && *pid != 0) pids.push_back(*pid);
    return pids;
}

std::optional<std::uint64_t> process_cpu(std::uint64_t pid, std::uint64_t ticks, const ReadText& read) {
    auto text = read("/proc/" + std::to_string(pid) + "/stat");
    if (!text || ticks == 0) return std::nullopt;
    // A name may hold anything, also brackets and blanks; what follows the last bracket is proc(5)'s third field on.
    const auto end = text->rfind(')');
    if (end == std::string::npos) return std::nullopt;
    const auto fields = base::split(base::trim(std::string_view(*text).substr(end + 1)), ' ');
    constexpr std::size_t kUserTime = 14 - 3, kSystemTime = 15 - 3;
    if (fields.size() <= kSystemTime) return std::nullopt;
    auto user = base::parse_u64(fields[kUserTime]), system = base::parse_u64(fields[kSystemTime]);
    if (!user || !system) return std::nullopt;
    return (*user + *system) * 1'000'000 / ticks;
}

std::optional<std::uint64_t> process_memory(std::uint64_t pid, std::uint64_t page_bytes, const ReadText& read) {
    const auto process = "/proc/" + std::to_string(pid);
    if (auto share = number_after(read(process + "/smaps_rollup"), "Pss")) return *share * 1024;
    auto text = read(process + "/statm");
    if (!text) return std::nullopt;
    const auto fields = base::split(*text, ' ');
    auto pages = fields.size() > 1 ? number_in(fields[1]) : std::nullopt;
    return pages ? std::optional(*pages * page_bytes) : std::nullopt;
}

std::optional<CardTraffic> card_traffic(std::uint64_t pid, const ReadText& read) {
    auto text = read("/proc/" + std::to_string(pid) + "/net/dev");
    if (!text) return std::nullopt;
    for (const auto& line : base::split(*text, '\n')) {
        const auto words = base::trim(line);
        constexpr std::string_view kTap = "tap0:";
        if (!base::starts_with(words, kTap)) continue;
        std::vector<std::string> fields;
        for (auto& field : base::split(words.substr(kTap.size()), ' '))
            if (!field.empty()) fields.push_back(std::move(field));
        // proc_pid_net(5); what the tap receives the box has sent.
        constexpr std::size_t kReceived = 0, kSent = 8;
        if (fields.size() <= kSent) return std::nullopt;
        const auto received = base::parse_u64(fields[kReceived]), sent = base::parse_u64(fields[kSent]);
        if (!received || !sent) return std::nullopt;
        return CardTraffic{.received = *sent, .sent = *received};
    }
    return std::nullopt;
}

namespace {

std::optional<std::string> read_text(const std::string& path) {
    auto text = os::read_file(path, 1 << 20);
    return text ? std::optional(std::move(*text)) : std::nullopt;
}

// Where the box's groups are if it has any. Not as its directory says: its supervisor can write there.
std::vector<StatsGroup> groups_of(const GroupPlace& place, const std::string& box_id) {
    std::vector<StatsGroup> groups;
    for (const auto& base : place.bases) {
        StatsGroup group{base.version, base.directory + "/" + box_id};
        if (os::exists(group.directory)) groups.push_back(std::move(group));
    }
    return groups;
}

// Of the first group that tells.
template <typename Look>
auto first_of(const std::vector<StatsGroup>& groups, Look look) {
    for (const auto& group : groups)
        if (auto found = look(group, read_text)) return found;
    return decltype(look(groups.front(), read_text))();
}

// Not the supervisor's: it is in no group of the box either, and costs the same whatever the box does. Without groups all of
// /proc is looked through, so only if somebody asks, and once.
class Processes {
  public:
    Processes(const std::vector<StatsGroup>& groups, std::string box_directory, std::int64_t supervisor)
        : groups_(groups), box_directory_(std::move(box_directory)), supervisor_(supervisor) {}
    const std::vector<std::uint64_t>& pids() {
        if (!pids_) pids_ = look();
        return *pids_;
    }

  private:
    std::vector<std::uint64_t> look() const {
        if (auto pids = first_of(groups_, group_processes)) return *pids;
        std::vector<std::uint64_t> pids;
        for (const auto& process : jail_of(box_directory_, supervisor_))
            if (process.pid != supervisor_) pids.push_back(static_cast<std::uint64_t>(process.pid));
        return pids;
    }

    const std::vector<StatsGroup>& groups_;
    std::string box_directory_;
    std::int64_t supervisor_;
    std::optional<std::vector<std::uint64_t>> pids_;
};

// Of those that tell; nullopt if none does.
template <typename Look>
std::optional<std::uint64_t> sum_of(const std::vector<std::uint64_t>& pids, Look look) {
    std::optional<std::uint64_t> sum;
    for (const auto pid : pids)
        if (auto one = look(pid)) sum = sum.value_or(0) + *one;
    return sum;
}

void look_at_machine(BoxStats& stats, const std::vector<StatsGroup>& groups, Processes& processes) {
    stats.cpu_microseconds = first_of(groups, group_cpu);
    stats.memory_bytes = first_of(groups, group_memory);
    if (stats.cpu_microseconds) stats.cpu_source = "cgroup";
    if (stats.memory_bytes) stats.memory_source = "cgroup";
    if (stats.cpu_microseconds && stats.memory_bytes) return;
    const auto& pids = processes.pids();
    const auto ticks = static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK)), page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    if (!stats.cpu_microseconds) {
        stats.cpu_microseconds = sum_of(pids, [&](std::uint64_t pid) { return process_cpu(pid, ticks, read_text); });
        if (stats.cpu_microseconds) stats.cpu_source = "processes";
    }
    if (!stats.memory_bytes) {
        stats.memory_bytes = sum_of(pids, [&](std::uint64_t pid) { return process_memory(pid, page, read_text); });
        if (stats.memory_bytes) stats.memory_source = "processes";
    }
}

// The box's tap is counted in its network's namespace, by the kernel.
void look_at_network(BoxStats& stats, Processes& processes) {
    for (const auto pid : processes.pids()) {
        const auto name = read_text("/proc/" + std::to_string(pid) + "/comm");
        if (!name || base::trim(*name) != "caisson-netns") continue;
        if (const auto traffic = card_traffic(pid, read_text)) {
            stats.network_received_bytes = traffic->received;
            stats.network_sent_bytes = traffic->sent;
        }
        return;
    }
}

std::optional<std::uint64_t> allocated_bytes(const std::string& path) {
    struct stat info {};
    if (::lstat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return std::nullopt;
    return static_cast<std::uint64_t>(info.st_blocks) * 512;
}

BoxStats look_at(const internal::RuntimeState& runtime, const GroupPlace& place, const store::BoxRecord& record) {
    BoxStats stats;
    stats.id = record.id;
    stats.name = record.name;
    stats.state = internal::shown_state(record.state);
    stats.health = record.health;
    stats.restarts = record.restarts;
    const auto directory = runtime.home.box(record.id);
    const auto groups = groups_of(place, record.id);
    Processes processes(groups, directory, record.owner.pid);
    const bool lives = store::is_live(record.state);
    if (lives) {
        stats.started_ms = record.started_ms;
        look_at_machine(stats, groups, processes);
    }
    stats.time_ms = os::unix_ms();
    stats.looked = std::chrono::steady_clock::now();
    stats.disk_bytes = allocated_bytes(directory + "/disk.qcow2");
    if (auto spec = internal::spec_of(record)) {
        if (lives && spec->has_network()) look_at_network(stats, processes);
        stats.cpu_limit_millis = spec->cpu_millis();
        stats.memory_limit_bytes = spec->memory_bytes();
        stats.disk_limit_bytes = spec->disk_bytes();
    }
    return stats;
}

}  // namespace

}  // namespace caisson::box

namespace caisson {

std::optional<double> cpu_percent(const BoxStats& before, const BoxStats& after) {
    const auto passed = std::chrono::duration<double, std::micro>(after.looked - before.looked).count();
    const bool same = before.id == after.id && before.started_ms == after.started_ms && before.cpu_source == after.cpu_source;
    if (!same || !before.cpu_microseconds || !after.cpu_microseconds || passed <= 0) return std::nullopt;
    if (*after.cpu_microseconds < *before.cpu_microseconds) return std::nullopt;
    return 100.0 * static_cast<double>(*after.cpu_microseconds - *before.cpu_microseconds) / passed;
}

Result<std::vector<BoxStats>> Runtime::stats(const std::vector<std::string>& references) const {
    std::vector<store::BoxRecord> records;
    {
        std::scoped_lock guard(state_->database_mutex);
        for (const auto& reference : references) records.push_back(CAISSON_TRY(state_->database->find_box(reference)));
        if (references.empty()) records = CAISSON_TRY(state_->database->live_boxes());
    }
    // Only looked at, so that nobody has to be able to enter a group.
    const auto place = box::choose_place(box::gather_group_facts(state_->home.root, 0));
    std::vector<BoxStats> found;
    for (const auto& record : records) found.push_back(box::look_at(*state_, place, record));
    return found;
}

}  // namespace caisson
