// Room in the home: what takes it (`df`), what gives it back (`gc`), and the way out of a full disk (`reserve-release`).
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cli/command.h"
#include "caisson/space.h"

namespace caisson::cli {

using nlohmann::json;

namespace {

Result<int> show_space(Context& context, const std::string& format) {
    const bool as_json = CAISSON_TRY(wants_json(format));
    auto runtime = CAISSON_TRY(open_runtime(context));
    const auto space = CAISSON_TRY(runtime.space());
    if (as_json) {
        json kinds = json::array();
        for (const auto& kind : space.kinds)
            kinds.push_back({{"kind", kind.kind}, {"count", kind.count}, {"bytes", kind.bytes}, {"shared_bytes", kind.shared_bytes},
                             {"reclaimable_bytes", kind.reclaimable_bytes}});
        print({{"kinds", kinds}, {"bytes", space.bytes}, {"total_bytes", space.total_bytes}, {"free_bytes", space.free_bytes},
               {"box_limit_bytes", space.box_limit_bytes}});
        return 0;
    }
    std::vector<std::vector<std::string>> rows{{"KIND", "COUNT", "SIZE", "SHARED", "RECLAIMABLE"}};
    auto shown = [](std::uint64_t bytes) { return bytes == 0 ? std::string("-") : base::format_size(bytes); };
    for (const auto& kind : space.kinds)
        rows.push_back({kind.kind, std::to_string(kind.count), base::format_size(kind.bytes), shown(kind.shared_bytes), shown(kind.reclaimable_bytes)});
    std::fputs(format_table(rows).c_str(), stdout);
    std::printf("%s; %s of %s are free, and boxes wait while less than %s are\n", base::format_size(space.bytes).c_str(),
                base::format_size(space.free_bytes).c_str(), base::format_size(space.total_bytes).c_str(),
                base::format_size(space.box_limit_bytes).c_str());
    return 0;
}

struct CollectArguments {
    bool dry_run = false;
    std::string grace = "10m", format;
};

Result<int> collect_garbage(Context& context, const CollectArguments& arguments) {
    const bool as_json = CAISSON_TRY(wants_json(arguments.format));
    GarbageOptions options;
    options.dry_run = arguments.dry_run;
    options.grace = std::chrono::duration_cast<std::chrono::seconds>(CAISSON_TRY_CTX(base::parse_duration(arguments.grace), "--grace"));
    auto runtime = CAISSON_TRY(open_runtime(context));
    const auto collected = CAISSON_TRY(runtime.collect_garbage(options));
    if (as_json) {
        json removed = json::array();
        for (const auto& garbage : collected.removed)
            removed.push_back({{"kind", garbage.kind}, {"name", garbage.name}, {"bytes", garbage.bytes}});
        json failed = json::array();
        for (const auto& error : collected.failed) failed.push_back(error.to_string());
        print({{"dry_run", options.dry_run}, {"removed", removed}, {"freed_bytes", collected.freed_bytes}, {"failed", failed}});
    } else {
        for (const auto& garbage : collected.removed)
            std::printf("%-10s %s  %s\n", garbage.kind.c_str(), base::printable(garbage.name, 300).c_str(), base::format_size(garbage.bytes).c_str());
        std::printf("%s %s\n", options.dry_run ? "would free" : "freed", base::format_size(collected.freed_bytes).c_str());
    }
    for (const auto& error : collected.failed) report(error);
    return collected.failed.empty() ? 0 : base::errc_info(collected.failed.front().code).exit_code;
}

// Without the runtime: the home may be one that cannot be opened just now.
Result<int> give_reserve_back(const std::string& format) {
    const bool as_json = CAISSON_TRY(wants_json(format));
    const auto freed = CAISSON_TRY(release_reserve());
    if (as_json) {
        print({{"freed_bytes", freed}});
        return 0;
    }
    std::printf("freed %s\n", base::format_size(freed).c_str());
    std::fprintf(stderr, "caisson: it is taken again when there is room; make some: caisson df shows what takes it; caisson gc, "
                         "caisson rm and caisson image rm remove\n");
    return 0;
}

}  // namespace

void add_space_commands(CLI::App& app, Action& action) {
    auto shown = std::make_shared<std::string>();
    auto* space = app.add_subcommand("df", "Show what takes room in the home");
    space->footer("Example:\n  caisson df --format json");
    space->add_option("--format", *shown, "text or json")->type_name("FORMAT");
    space->callback([shown, &action] { action = [shown](Context& context) { return show_space(context, *shown); }; });

    auto arguments = std::make_shared<CollectArguments>();
    auto* collect = app.add_subcommand("gc", "Remove what nothing needs: leftovers, unused base disks and templates, blobs of no image");
    collect->footer("Examples:\n  caisson gc --dry-run\n  caisson gc --grace 0s\n\nVolumes, images with a name and boxes are never removed.");
    collect->add_flag("--dry-run", arguments->dry_run, "Show what would be removed");
    collect->add_option("--grace", arguments->grace, "Keep what is younger, or was used since")->type_name("TIME")->capture_default_str();
    collect->add_option("--format", arguments->format, "text or json")->type_name("FORMAT");
    collect->callback([arguments, &action] { action = [arguments](Context& context) { return collect_garbage(context, *arguments); }; });

    auto released = std::make_shared<std::string>();
    auto* release = app.add_subcommand("reserve-release", "Give the reserve of the home back, when the disk is full");
    release->footer("Example:\n  caisson reserve-release && caisson gc\n\nIt works with nothing free, and is taken again when there is room.");
    release->add_option("--format", *released, "text or json")->type_name("FORMAT");
    release->callback([released, &action] { action = [released](Context&) { return give_reserve_back(*released); }; });
}

}  // namespace caisson::cli
