// caisson update: other limits, labels, restart policies and networks for boxes that are there.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cli/box_options.h"
#include "cli/command.h"

namespace caisson::cli {

using base::failure;
using nlohmann::json;

namespace {

struct UpdateArguments {
    std::vector<std::string> boxes, labels, removed_labels, published, unpublished, net_limits;
    std::shared_ptr<NetArguments> net = std::make_shared<NetArguments>();
    bool net_restart = false;
    std::string cpus, memory, pids_limit, restart, format;
    bool dry_run = false;
};

Result<> add_network(BoxUpdate& update, const UpdateArguments& arguments) {
    if (arguments.net->given()) {
        const auto choice = CAISSON_TRY(net_choice(*arguments.net));
        update.network = choice.mode;
        update.network_policy = choice.policy;
    }
    if (!arguments.net_limits.empty()) update.network_limits.emplace();
    for (const auto& text : arguments.net_limits) CAISSON_TRY(parse_net_limit(text, *update.network_limits));
    for (const auto& text : arguments.published)
        for (auto& port : CAISSON_TRY(parse_ports(text))) update.published.push_back(std::move(port));
    for (const auto& text : arguments.unpublished)
        for (auto& port : CAISSON_TRY(parse_ports(text, "--unpublish"))) update.unpublished.push_back(std::move(port));
    update.restart_network = arguments.net_restart;
    return {};
}

bool changes_network(const UpdateArguments& arguments) {
    return arguments.net->given() || !arguments.net_limits.empty() || !arguments.published.empty() || !arguments.unpublished.empty() || arguments.net_restart;
}

Result<BoxUpdate> update_of(const UpdateArguments& arguments) {
    BoxUpdate update;
    if (!arguments.cpus.empty()) update.cpu_millis = CAISSON_TRY(parse_cpus(arguments.cpus));
    if (!arguments.memory.empty()) update.memory_bytes = CAISSON_TRY_CTX(base::parse_size(arguments.memory), "--memory");
    if (!arguments.pids_limit.empty()) update.pids_limit = CAISSON_TRY(parse_pids_limit(arguments.pids_limit));
    if (!arguments.restart.empty()) {
        const auto restart = CAISSON_TRY(parse_restart(arguments.restart));
        update.restart = restart.policy;
        update.restart_limit = restart.limit;
    }
    update.labels = CAISSON_TRY(parse_labels(arguments.labels));
    for (const auto& key : arguments.removed_labels) {
        if (update.labels.count(key) > 0)
            return failure(Errc::kUsage, "label '" + base::printable(key, 100) + "' is set and removed", "leave out --label or --label-rm");
        update.removed_labels.push_back(key);
    }
    CAISSON_TRY(add_network(update, arguments));
    update.dry_run = arguments.dry_run;
    const bool nothing = !update.cpu_millis && !update.memory_bytes && !update.pids_limit && !update.restart && update.labels.empty() &&
                         update.removed_labels.empty() && !changes_network(arguments);
    if (nothing) return failure(Errc::kUsage, "nothing to change is given", "see: caisson update --help");
    return update;
}

json to_json(const BoxUpdatePlan& plan, bool dry_run) {
    json changes = json::array();
    auto or_null = [](const std::string& text) { return text.empty() ? json(nullptr) : json(text); };
    for (const auto& change : plan.changes)
        changes.push_back({{"what", change.what}, {"from", or_null(change.from)}, {"to", or_null(change.to)},
                           {"takes_effect", change.now ? "now" : "next_start"}, {"reason", or_null(change.reason)}});
    return {{"id", plan.id}, {"name", plan.name}, {"dry_run", dry_run}, {"changes", changes}};
}

void add_rows(std::vector<std::vector<std::string>>& rows, const BoxUpdatePlan& plan) {
    auto shown = [](const std::string& text) { return text.empty() ? std::string("-") : base::printable(text, 60); };
    for (const auto& change : plan.changes)
        rows.push_back({plan.name, base::printable(change.what, 60), shown(change.from), shown(change.to),
                        change.now ? "now" : "at its next start: " + change.reason});
    if (plan.changes.empty()) rows.push_back({plan.name, "-", "-", "-", "nothing: it is so already"});
}

// Each box by itself: one that cannot be changed does not keep the others; the first failure decides the exit code.
Result<int> update_boxes(Context& context, const UpdateArguments& arguments) {
    const bool as_json = CAISSON_TRY(wants_json(arguments.format));
    const auto update = CAISSON_TRY(update_of(arguments));
    auto runtime = CAISSON_TRY(open_runtime(context));
    int code = 0;
    json list = json::array();
    std::vector<std::vector<std::string>> rows{{"BOX", "WHAT", "FROM", "TO", arguments.dry_run ? "WOULD TAKE EFFECT" : "TAKES EFFECT"}};
    for (const auto& box : arguments.boxes) {
        auto plan = runtime.update_box(box, update);
        if (!plan) {
            report(plan.error());
            if (code == 0) code = base::errc_info(plan.error().code).exit_code;
            continue;
        }
        list.push_back(to_json(*plan, arguments.dry_run));
        add_rows(rows, *plan);
    }
    if (as_json) print(list);
    else if (rows.size() > 1) std::fputs(format_table(rows).c_str(), stdout);
    return code;
}

}  // namespace

void add_update(CLI::App& app, Action& action) {
    auto arguments = std::make_shared<UpdateArguments>();
    auto* command = app.add_subcommand("update", "Change limits, labels, restart policy and network of boxes");
    command->footer("Examples:\n  caisson update --memory 300M --cpus 0.5 web\n  caisson update --restart on-failure:3 --label tier=front web\n"
                    "  caisson update --dry-run --memory 2G web\n"
                    "  caisson update --allow-net '*.example.com' --allow-net 10.1.2.3:5432 web\n"
                    "  caisson update --publish 8080:80 --unpublish 8081:80 web\n"
                    "  caisson update --net-restart web\n\n"
                    "What fits the machine of a box that runs takes effect at once, the rest when it is started next. A box that uses more\n"
                    "memory than it is to have is left as it is.\n\n"
                    "--net, --allow-net, --deny-net and --net-policy replace the policy as a whole, and --net-limit all limits of the\n"
                    "network. Connections that the new policy does not allow are cut. A box that runs keeps its network card, or its\n"
                    "having none. --net-restart is for a box whose network process died; where it runs, what is open ends.");
    command->add_option("BOX", arguments->boxes, "Names, ids or unique beginnings of ids")->required();
    command->add_option("--cpus", arguments->cpus, "CPUs, fractions allowed")->type_name("N");
    command->add_option("-m,--memory", arguments->memory, "Memory")->type_name("SIZE");
    command->add_option("--pids-limit", arguments->pids_limit, "Most processes and threads; 0 or -1: no limit")->type_name("N");
    command->add_option("--restart", arguments->restart, "Start it again at its end: no, on-failure[:N] or always")->type_name("POLICY");
    command->add_option("-l,--label", arguments->labels, "Set a label")->type_name("KEY[=VALUE]")->allow_extra_args(false)->take_all();
    command->add_option("--label-rm", arguments->removed_labels, "Remove a label")->type_name("KEY")->allow_extra_args(false)->take_all();
    add_net_options(*command, arguments->net);
    add_net_limit_option(*command, arguments->net_limits);
    add_publish_option(*command, "-p,--publish", arguments->published, "Lead another port of this host (of 127.0.0.1, if no address is given) to one of the box");
    add_publish_option(*command, "--unpublish", arguments->unpublished, "Lead this one there no more, and cut what came through it");
    command->add_flag("--net-restart", arguments->net_restart, "Give the box another network process; what is open through the old one ends");
    command->add_flag("--dry-run", arguments->dry_run, "Print what would change, change nothing");
    command->add_option("--format", arguments->format, "text or json")->type_name("FORMAT");
    command->callback([arguments, &action] { action = [arguments](Context& context) { return update_boxes(context, *arguments); }; });
}

}  // namespace caisson::cli
