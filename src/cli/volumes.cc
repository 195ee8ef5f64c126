// caisson volume: what there is, and making and removing it.
#include <algorithm>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/labels.h"
#include "base/text.h"
#include "cli/box_options.h"
#include "cli/command.h"
#include "cli/volumes.h"

namespace caisson::cli {

using base::failure;
using nlohmann::json;

namespace {

json optional_number(std::uint64_t number) { return number == 0 ? json(nullptr) : json(number); }

json to_json(const VolumeInfo& volume) {
    return {{"name", volume.name}, {"type", volume.type}, {"anonymous", volume.anonymous}, {"path", volume.path},
            {"created_ms", optional_number(static_cast<std::uint64_t>(volume.created_ms))}, {"size_bytes", optional_number(volume.size_bytes)},
            {"labels", json(volume.labels)}, {"boxes", volume.boxes}};
}
json with_space(const VolumeInfo& volume) {
    auto document = to_json(volume);
    document["used_bytes"] = volume.used_bytes ? json(*volume.used_bytes) : json(nullptr);
    return document;
}

std::string shown_size(std::uint64_t bytes) { return bytes == 0 ? "-" : base::format_size(bytes); }
std::string shown_used(const VolumeInfo& volume) { return volume.used_bytes ? base::format_size(*volume.used_bytes) : "changing"; }
std::string shown_type(const VolumeInfo& volume) { return volume.anonymous ? "anonymous" : volume.type; }
std::string shown_boxes(const VolumeInfo& volume) {
    return volume.boxes.empty() ? "-" : base::printable(base::join(volume.boxes, ", "), 200);
}

struct CreateArguments {
    VolumeOptions options;
    std::string size;
    std::vector<std::string> labels;
};

Result<int> create_volume(Context& context, const CreateArguments& arguments) {
    auto options = arguments.options;
    if (!arguments.size.empty()) {
        options.size_bytes = CAISSON_TRY_CTX(base::parse_size(arguments.size), "--size");
        if (options.size_bytes == 0) return failure(Errc::kUsage, "a volume of --size 0 holds nothing", "leave --size out for one without a limit");
    }
    options.labels = CAISSON_TRY(parse_labels(arguments.labels));
    auto runtime = CAISSON_TRY(open_runtime(context));
    auto volume = CAISSON_TRY(runtime.create_volume(options));
    std::printf("%s\n", volume.name.c_str());
    return 0;
}

struct ListArguments {
    bool quiet = false;
    std::vector<std::string> labels;
    std::string format;
};

Result<int> list_volumes(Context& context, const ListArguments& arguments) {
    const bool as_json = CAISSON_TRY(wants_json(arguments.format));
    const auto labels = CAISSON_TRY(parse_labels(arguments.labels));
    auto runtime = CAISSON_TRY(open_runtime(context));
    auto volumes = CAISSON_TRY(runtime.volumes());
    std::erase_if(volumes, [&](const VolumeInfo& volume) { return !base::has_labels(volume.labels, labels); });
    if (as_json) {
        json list = json::array();
        for (const auto& volume : volumes) list.push_back(to_json(volume));
        print(list);
        return 0;
    }
    std::vector<std::vector<std::string>> rows{{"NAME", "TYPE", "LIMIT", "BOXES", "CREATED"}};
    for (const auto& volume : volumes) {
        if (arguments.quiet) std::printf("%s\n", volume.name.c_str());
        rows.push_back({volume.name, shown_type(volume), shown_size(volume.size_bytes), shown_boxes(volume),
                        volume.created_ms == 0 ? "-" : format_age(volume.created_ms / 1000)});
    }
    if (!arguments.quiet) std::fputs(format_table(rows).c_str(), stdout);
    return 0;
}

void print_details(const VolumeInfo& volume) {
    auto line = [](const char* name, const std::string& text) { std::printf("%-12s %s\n", name, base::printable(text, 4096).c_str()); };
    line("name", volume.name);
    line("type", volume.type + (volume.anonymous ? ", anonymous: removed with its box" : ""));
    line("path", volume.path);
    if (volume.created_ms != 0) line("created", format_age(volume.created_ms / 1000));
    line("used", shown_used(volume));
    line("limit", volume.size_bytes == 0 ? "none" : base::format_size(volume.size_bytes));
    line("boxes", volume.boxes.empty() ? "none" : base::join(volume.boxes, ", "));
    for (const auto& [key, value] : volume.labels) line("label", key + (value.empty() ? "" : "=" + value));
}

Result<int> inspect_volumes(Context& context, const std::vector<std::string>& names, const std::string& format) {
    const bool as_json = CAISSON_TRY(wants_json(format));
    auto runtime = CAISSON_TRY(open_runtime(context));
    json list = json::array();
    std::vector<VolumeInfo> volumes;
    for (const auto& name : names) volumes.push_back(CAISSON_TRY(runtime.inspect_volume(name)));
    for (const auto& volume : volumes) {
        if (as_json) {
            list.push_back(with_space(volume));
            continue;
        }
        if (&volume != &volumes.front()) std::printf("\n");
        print_details(volume);
    }
    if (as_json) print(list);
    return 0;
}

// Does it for each, tells what failed and goes on; the first failure decides the exit code.
Result<int> remove_volumes(Context& context, const std::vector<std::string>& names, bool force) {
    auto runtime = CAISSON_TRY(open_runtime(context));
    int code = 0;
    for (const auto& name : names) {
        auto removed = runtime.remove_volume(name);
        if (!removed && force && removed.error().code == Errc::kNotFound) continue;
        if (!removed) {
            report(removed.error());
            if (code == 0) code = base::errc_info(removed.error().code).exit_code;
            continue;
        }
        std::printf("%s\n", name.c_str());
    }
    return code;
}

Result<int> prune_volumes(Context& context, const std::vector<std::string>& label_texts, const std::string& format) {
    const bool as_json = CAISSON_TRY(wants_json(format));
    const auto labels = CAISSON_TRY(parse_labels(label_texts));
    auto runtime = CAISSON_TRY(open_runtime(context));
    auto pruned = CAISSON_TRY(runtime.prune_volumes(labels));
    if (as_json) {
        print({{"volumes", pruned.volumes}, {"freed_bytes", pruned.freed_bytes}});
        return 0;
    }
    for (const auto& name : pruned.volumes) std::printf("%s\n", name.c_str());
    std::printf("freed %s\n", base::format_size(pruned.freed_bytes).c_str());
    return 0;
}

Result<int> show_space(Context& context, const std::string& format) {
    const bool as_json = CAISSON_TRY(wants_json(format));
    auto runtime = CAISSON_TRY(open_runtime(context));
    auto volumes = CAISSON_TRY(runtime.volumes(true));
    std::uint64_t used = 0;
    json list = json::array();
    std::vector<std::vector<std::string>> rows{{"NAME", "TYPE", "USED", "LIMIT", "BOXES"}};
    for (const auto& volume : volumes) {
        used += volume.used_bytes.value_or(0);
        list.push_back(with_space(volume));
        rows.push_back({volume.name, shown_type(volume), shown_used(volume), shown_size(volume.size_bytes), shown_boxes(volume)});
    }
    if (as_json) {
        print({{"volumes", list}, {"used_bytes", used}});
        return 0;
    }
    std::fputs(format_table(rows).c_str(), stdout);
    std::printf("%zu volume%s, %s\n", volumes.size(), volumes.size() == 1 ? "" : "s", base::format_size(used).c_str());
    return 0;
}

void add_format(CLI::App& command, std::string& format) { command.add_option("--format", format, "text or json")->type_name("FORMAT"); }

void add_create(CLI::App& group, Action& action) {
    auto arguments = std::make_shared<CreateArguments>();
    auto* command = group.add_subcommand("create", "Make an empty volume");
    command->footer("Examples:\n  caisson volume create data\n  caisson volume create --size 10M --label job=nightly scratch\n  caisson volume create --type disk --size 1G database");
    command->add_option("NAME", arguments->options.name, "Its name; drawn if not given");
    command->add_option("--size", arguments->size, "Most that it may hold; a box that writes more gets \"no space left\"")->type_name("SIZE");
    command->add_option("--type", arguments->options.type, "directory; or disk: an ext4 of --size on a device of its own, for one box at a time")->type_name("TYPE")->capture_default_str();
    command->add_option("-l,--label", arguments->labels, "Label it; see ls --label")->type_name("KEY[=VALUE]")->allow_extra_args(false)->take_all();
    command->callback([arguments, &action] { action = [arguments](Context& context) { return create_volume(context, *arguments); }; });
}

void add_list(CLI::App& group, Action& action) {
    auto arguments = std::make_shared<ListArguments>();
    auto* command = group.add_subcommand("ls", "List volumes");
    command->footer("Examples:\n  caisson volume ls\n  caisson volume ls -q --label job=nightly");
    command->add_flag("-q,--quiet", arguments->quiet, "Names only");
    command->add_option("-l,--label", arguments->labels, "Only those that have this label")
        ->type_name("KEY[=VALUE]")->allow_extra_args(false)->take_all();
    add_format(*command, arguments->format);
    command->callback([arguments, &action] { action = [arguments](Context& context) { return list_volumes(context, *arguments); }; });
}

void add_inspect(CLI::App& group, Action& action) {
    auto names = std::make_shared<std::vector<std::string>>();
    auto format = std::make_shared<std::string>();
    auto* command = group.add_subcommand("inspect", "Show all that is known about volumes");
    command->footer("Example:\n  caisson volume inspect --format json data");
    command->add_option("NAME", *names, "Names, or ids of anonymous ones")->required();
    add_format(*command, *format);
    command->callback([names, format, &action] {
        action = [names, format](Context& context) { return inspect_volumes(context, *names, *format); };
    });
}

void add_remove(CLI::App& group, Action& action) {
    auto names = std::make_shared<std::vector<std::string>>();
    auto force = std::make_shared<bool>(false);
    auto* command = group.add_subcommand("rm", "Remove volumes and all that is in them; not while a box has them");
    command->footer("Example:\n  caisson volume rm data");
    command->add_option("NAME", *names, "Names")->required();
    command->add_flag("-f,--force", *force, "One that is not there is no error");
    command->callback([names, force, &action] { action = [names, force](Context& context) { return remove_volumes(context, *names, *force); }; });
}

void add_prune(CLI::App& group, Action& action) {
    auto labels = std::make_shared<std::vector<std::string>>();
    auto format = std::make_shared<std::string>();
    auto* command = group.add_subcommand("prune", "Remove all volumes that no box has");
    command->footer("Example:\n  caisson volume prune --label job=nightly");
    command->add_option("-l,--label", *labels, "Only those that have this label")->type_name("KEY[=VALUE]")->allow_extra_args(false)->take_all();
    add_format(*command, *format);
    command->callback([labels, format, &action] {
        action = [labels, format](Context& context) { return prune_volumes(context, *labels, *format); };
    });
}

void add_space(CLI::App& group, Action& action) {
    auto format = std::make_shared<std::string>();
    auto* command = group.add_subcommand("df", "Show how much of the host's disk volumes take");
    command->footer("Example:\n  caisson volume df --format json");
    add_format(*command, *format);
    command->callback([format, &action] { action = [format](Context& context) { return show_space(context, *format); }; });
}

}  // namespace

void add_volume_commands(CLI::App& app, Action& action) {
    auto* group = app.add_subcommand("volume", "Directories that boxes share and that outlive them");
    group->require_subcommand(1);
    add_create(*group, action);
    add_list(*group, action);
    add_inspect(*group, action);
    add_remove(*group, action);
    add_prune(*group, action);
    add_space(*group, action);
    add_volume_attach(*group, action);
    add_volume_detach(*group, action);
    add_volume_file_commands(*group, action);
}

}  // namespace caisson::cli
