// caisson stats: what boxes take of the host.
#include <poll.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cli/chosen.h"
#include "cli/command.h"
#include "cli/json_text.h"

namespace caisson::cli {

using base::failure;
using nlohmann::json;
using std::chrono::milliseconds;

namespace {

constexpr milliseconds kShortestInterval{100};

struct StatsArguments {
    bool all = false, watch = false, follow = false, once = false;
    std::string interval = "1s", format;
    std::uint64_t count = 0;
};

// A box, and how much of a CPU it used since it was last looked at.
struct Sample {
    BoxStats stats;
    std::optional<double> cpu;
};

template <typename Value>
json or_null(const std::optional<Value>& value) { return value ? json(*value) : json(nullptr); }
json or_null(const std::string& text) { return text.empty() ? json(nullptr) : json(text); }

json to_json(const Sample& sample) {
    const auto& box = sample.stats;
    return {{"id", box.id}, {"name", box.name}, {"state", box.state}, {"health", or_null(box.health)}, {"time_ms", box.time_ms},
            {"started_ms", box.started_ms == 0 ? json(nullptr) : json(box.started_ms)}, {"restarts", box.restarts},
            {"cpu_percent", or_null(sample.cpu)}, {"cpu_microseconds", or_null(box.cpu_microseconds)}, {"cpu_source", or_null(box.cpu_source)},
            {"cpu_limit_millis", box.cpu_limit_millis}, {"memory_used_bytes", or_null(box.memory_bytes)},
            {"memory_source", or_null(box.memory_source)}, {"memory_limit_bytes", box.memory_limit_bytes},
            {"disk_allocated_bytes", or_null(box.disk_bytes)}, {"disk_limit_bytes", box.disk_limit_bytes},
            {"network_received_bytes", or_null(box.network_received_bytes)}, {"network_sent_bytes", or_null(box.network_sent_bytes)}};
}

std::string shown_percent(const std::optional<double>& percent) {
    if (!percent) return "-";
    char text[32];
    std::snprintf(text, sizeof text, "%.1f%%", *percent);
    return text;
}

std::string shown_use(const std::optional<std::uint64_t>& used, std::uint64_t limit) {
    return (used ? base::format_size(*used) : "-") + " / " + (limit == 0 ? "-" : base::format_size(limit));
}

std::string shown_traffic(const BoxStats& box) {
    if (!box.network_received_bytes || !box.network_sent_bytes) return "-";
    return base::format_size(*box.network_received_bytes) + " / " + base::format_size(*box.network_sent_bytes);
}

std::string table_of(const std::vector<Sample>& samples) {
    std::vector<std::vector<std::string>> rows{{"NAME", "STATE", "CPU", "MEMORY / LIMIT", "DISK / LIMIT", "NET IN / OUT", "RESTARTS", "STARTED"}};
    for (const auto& [box, cpu] : samples)
        rows.push_back({box.name, box.state + (box.health.empty() ? "" : " (" + box.health + ")"), shown_percent(cpu),
                        shown_use(box.memory_bytes, box.memory_limit_bytes), shown_use(box.disk_bytes, box.disk_limit_bytes), shown_traffic(box),
                        std::to_string(box.restarts), box.started_ms == 0 ? "-" : format_age(box.started_ms / 1000)});
    return format_table(rows);
}

// Looks again and again at the same boxes, or at all that there are.
class Looker {
  public:
    Looker(Runtime& runtime, Chosen chosen, bool all) : runtime_(runtime), chosen_(std::move(chosen)), all_(all) {}

    Result<std::vector<Sample>> look() {
        std::vector<Sample> samples;
        std::map<std::string, BoxStats> seen;
        for (const auto& reference : CAISSON_TRY(references())) {
            auto stats = runtime_.stats({reference});
            // Removed while we look, or between two looks. What was never there is an error.
            if (!stats && stats.error().code == Errc::kNotFound && (looked_ || chosen_.names.empty())) continue;
            if (!stats) return base::failure(std::move(stats.error()));
            auto& box = stats->front();
            const auto before = before_.find(box.id);
            const auto cpu = before == before_.end() ? std::nullopt : cpu_percent(before->second, box);
            seen[box.id] = box;
            samples.push_back({std::move(box), cpu});
        }
        before_ = std::move(seen);
        if (!looked_ && !chosen_.names.empty()) {  // a name may be another box's the next time
            chosen_.names.clear();
            for (const auto& sample : samples) ids_.push_back(sample.stats.id);
        }
        looked_ = true;
        return samples;
    }
    // Those that were named are gone.
    bool over() const { return !ids_.empty() && before_.empty(); }

  private:
    Result<std::vector<std::string>> references() {
        if (!ids_.empty()) return ids_;
        auto fits = [this](const BoxInfo& box) { return all_ || is_live(box); };
        if (!chosen_.names.empty() || !chosen_.labels.empty()) return resolve(runtime_, chosen_, fits);
        std::vector<std::string> ids;
        for (const auto& box : CAISSON_TRY(runtime_.boxes()))
            if (fits(box)) ids.push_back(box.id);
        return ids;
    }

    Runtime& runtime_;
    Chosen chosen_;
    bool all_;
    bool looked_ = false;
    std::vector<std::string> ids_;
    std::map<std::string, BoxStats> before_;
};

// false: nobody reads any more.
bool wait_for(milliseconds time) {
    struct pollfd reader {STDOUT_FILENO, 0, 0};
    return ::poll(&reader, 1, static_cast<int>(time.count())) <= 0;
}

Result<bool> write_out(const std::string& text) {
    errno = 0;
    if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0) return true;
    if (errno == EPIPE) return false;
    return base::failure_errno("cannot write to standard output");
}

std::string text_of(const std::vector<Sample>& samples, const StatsArguments& arguments, bool as_json) {
    constexpr const char* kClearScreen = "\033[H\033[2J";
    if (!as_json) return (arguments.watch ? kClearScreen : "") + table_of(samples);
    json list = json::array();
    std::string lines;
    for (const auto& sample : samples) {
        if (arguments.follow) lines += json_text(to_json(sample)) + "\n";
        else list.push_back(to_json(sample));
    }
    return arguments.follow ? lines : json_text(list, 2) + "\n";
}

Result<> check(const StatsArguments& arguments, bool as_json, milliseconds interval) {
    if (int{arguments.watch} + int{arguments.follow} + int{arguments.once} > 1)
        return failure(Errc::kUsage, "--watch, --follow and --no-stream exclude each other", "use one of them");
    if (arguments.follow && !as_json)
        return failure(Errc::kUsage, "--follow writes JSON lines", "add --format json, or use --watch on a terminal");
    if (arguments.watch && as_json) return failure(Errc::kUsage, "--watch draws a table", "use --follow with --format json");
    if (arguments.watch && ::isatty(STDOUT_FILENO) != 1)
        return failure(Errc::kUsage, "--watch needs a terminal", "leave it out for one look, or use --follow --format json");
    if (arguments.count > 0 && !arguments.watch && !arguments.follow)
        return failure(Errc::kUsage, "--count is for --watch and --follow", "leave it out: without them it looks once");
    if (interval < kShortestInterval) return failure(Errc::kUsage, "--interval " + arguments.interval + " is too short", "give at least 100ms");
    return {};
}

Result<int> show_stats(Context& context, const Chosen& chosen, const StatsArguments& arguments) {
    const bool as_json = CAISSON_TRY(wants_json(arguments.format));
    const auto interval = CAISSON_TRY_CTX(base::parse_duration(arguments.interval), "--interval");
    CAISSON_TRY(check(arguments, as_json, interval));
    auto runtime = CAISSON_TRY(open_runtime(context));
    Looker looker(runtime, chosen, arguments.all);
    // A share of time takes two looks.
    auto samples = CAISSON_TRY(looker.look());
    const bool goes_on = arguments.watch || arguments.follow;
    for (std::uint64_t shown = 0; (goes_on && arguments.count == 0) || shown < std::max<std::uint64_t>(arguments.count, 1); ++shown) {
        if ((goes_on || !samples.empty()) && !wait_for(interval)) return 0;
        samples = CAISSON_TRY(looker.look());
        if (goes_on && looker.over()) return 0;
        if (!CAISSON_TRY(write_out(text_of(samples, arguments, as_json)))) return 0;
    }
    return 0;
}

}  // namespace

void add_stats(CLI::App& app, Action& action) {
    auto chosen = std::make_shared<Chosen>();
    auto arguments = std::make_shared<StatsArguments>();
    auto* command = app.add_subcommand("stats", "Show what boxes take of the host: CPU, memory, disk");
    command->footer("Examples:\n  caisson stats\n  caisson stats --watch web db\n  caisson stats --follow --format json | jq -c '[.name,.cpu_percent]'\n\n"
                    "Without BOX and --label: all that run. 100% is one CPU. What cannot be found out is shown as - (JSON: null).");
    add_chosen(*command, chosen);
    command->add_flag("-a,--all", arguments->all, "Also boxes that do not run");
    command->add_flag("-w,--watch", arguments->watch, "Draw it again and again on the terminal");
    command->add_flag("-f,--follow", arguments->follow, "Go on with a line of JSON a box and look, until the named boxes are gone");
    command->add_flag("--no-stream", arguments->once, "One look, which is the default");
    command->add_option("--interval", arguments->interval, "Time from one look to the next; over it CPU is counted")->type_name("TIME")->capture_default_str();
    command->add_option("-n,--count", arguments->count, "End after so many looks; 0: never")->type_name("N")->capture_default_str();
    command->add_option("--format", arguments->format, "text or json")->type_name("FORMAT");
    command->callback([chosen, arguments, &action] {
        action = [chosen, arguments](Context& context) { return show_stats(context, *chosen, *arguments); };
    });
}

}  // namespace caisson::cli
