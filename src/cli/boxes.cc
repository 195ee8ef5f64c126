// Boxes that exist: listing, starting, ending, removing.
#include <signal.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/labels.h"
#include "base/text.h"
#include "cli/box_options.h"
#include "cli/chosen.h"
#include "cli/command.h"
#include "cli/enter.h"

namespace caisson::cli {

using base::failure;
using nlohmann::json;

namespace {

json optional_text(const std::string& text) { return text.empty() ? json(nullptr) : json(text); }
json optional_number(std::int64_t number) { return number == 0 ? json(nullptr) : json(number); }

json to_json(const BoxInfo& box) {
    return {{"id", box.id}, {"name", box.name}, {"image", box.image},
            {"command", json::parse(box.command, nullptr, false)}, {"state", box.state}, {"reason", box.reason},
            {"outcome", optional_text(box.outcome)}, {"exit_code", box.exit_code ? json(*box.exit_code) : json(nullptr)},
            {"health", optional_text(box.health)}, {"security", box.security}, {"restarts", box.restarts}, {"labels", json(box.labels)},
            {"created_ms", box.created_ms}, {"started_ms", box.started_ms}, {"finished_ms", box.finished_ms}};
}

json to_json(const ExecutionInfo& execution) {
    return {{"id", execution.id}, {"command", json::parse(execution.command, nullptr, false)}, {"state", execution.state},
            {"detached", execution.detached}, {"started_ms", execution.started_ms},
            {"finished_ms", optional_number(execution.finished_ms)}, {"outcome", optional_text(execution.outcome)},
            {"exit_code", execution.exit_code ? json(*execution.exit_code) : json(nullptr)}, {"reason", execution.reason}};
}

json to_json(const HostLimits& limits) {
    return {{"applied", limits.applied}, {"reason", optional_text(limits.reason)},
            {"memory_bytes", optional_number(static_cast<std::int64_t>(limits.memory_bytes))},
            {"cpus", limits.cpu_millis > 0 ? json(limits.cpu_millis / 1000.0) : json(nullptr)},
            {"pids", optional_number(limits.pids)}, {"cgroup_version", optional_number(limits.cgroup_version)},
            {"groups", limits.groups}};
}

std::string shown_limits(const HostLimits& limits) {
    if (!limits.applied) return "none (" + limits.reason + ")";
    std::vector<std::string> parts;
    if (limits.memory_bytes > 0) parts.push_back("memory " + base::format_size(limits.memory_bytes));
    if (limits.cpu_millis > 0) parts.push_back("cpus " + std::to_string(limits.cpu_millis) + "/1000");
    if (limits.pids > 0) parts.push_back("processes " + std::to_string(limits.pids));
    return base::join(parts, ", ") + (limits.reason.empty() ? "" : " (" + limits.reason + ")");
}

json to_json(const JailedProcess& process) {
    return {{"kind", process.kind}, {"pid", process.pid}, {"user", process.user}, {"namespaces", process.namespaces},
            {"mounts", process.mounts}, {"descriptors", process.descriptors}, {"capabilities", process.capabilities},
            {"no_new_privileges", process.no_new_privileges}, {"call_filters", process.call_filters},
            {"filter", optional_text(process.filter)},
            {"landlock", optional_text(process.landlock)}};
}

json to_json(const BoxDetails& box) {
    auto object = to_json(box.info);
    json tmpfs = json::array();
    for (const auto& mount : box.tmpfs)
        tmpfs.push_back({{"path", mount.path}, {"size_bytes", mount.size_bytes}, {"mode", mount.mode}, {"executable", mount.executable}});
    json mounts = json::array();
    for (const auto& mount : box.mounts)
        mounts.push_back({{"type", mount.type}, {"volume", optional_text(mount.volume)}, {"anonymous", mount.anonymous},
                          {"subpath", optional_text(mount.subpath)}, {"target", mount.target}, {"read_only", mount.read_only},
                          {"no_exec", mount.no_exec}, {"no_suid", mount.no_suid}, {"attached", mount.attached}});
    json ports = json::array();
    for (const auto& port : box.ports)
        ports.push_back({{"address", port.address}, {"host_port", port.host_port}, {"guest_port", port.guest_port}, {"protocol", port.udp ? "udp" : "tcp"}});
    json executions = json::array();
    for (const auto& execution : box.executions) executions.push_back(to_json(execution));
    object.update({{"image_digest", box.image_digest}, {"engine", optional_text(box.engine)}, {"hostname", box.hostname},
                   {"working_directory", box.working_directory}, {"user", box.user}, {"environment", box.environment},
                   {"auto_remove", box.auto_remove}, {"read_only", box.read_only},
                   {"privileged", box.privileged}, {"no_new_privileges", box.no_new_privileges}, {"cap_add", box.cap_add},
                   {"cap_drop", box.cap_drop}, {"terminal", box.terminal},
                   {"open_stdin", box.open_stdin}, {"cpu_millis", box.cpu_millis}, {"memory_bytes", box.memory_bytes},
                   {"disk_bytes", box.disk_bytes}, {"disk_used_bytes", box.disk_used_bytes}, {"pids_limit", box.pids_limit},
                   {"limits", to_json(box.host_limits)}, {"tmpfs", tmpfs}, {"mounts", mounts}, {"network", box.network},
                   {"network_policy", box.network_policy.empty() ? json(nullptr) : json::parse(box.network_policy, nullptr, false)}, {"network_learn", box.network_learn}, {"network_proxy", optional_text(box.network_proxy)}, {"ports", ports}, {"restart", box.restart}, {"timeout_ms", box.timeout_ms},
                   {"max_duration_ms", box.max_duration_ms}, {"idle_timeout_ms", box.idle_timeout_ms},
                   {"stop_timeout_ms", box.stop_timeout_ms}, {"stop_signal", box.stop_signal},
                   {"supervisor_pid", optional_number(box.supervisor_pid)}, {"vmm_pid", optional_number(box.vmm_pid)},
                   {"executions", executions}});
    object["jail"] = json::array();
    for (const auto& process : box.jail) object["jail"].push_back(to_json(process));
    object["health_check"] = nullptr;
    if (box.health_check)
        object["health_check"] = {{"command", box.health_check->command}, {"interval_ms", box.health_check->interval.count()},
                                  {"timeout_ms", box.health_check->timeout.count()}, {"retries", box.health_check->retries},
                                  {"start_period_ms", box.health_check->start_period.count()}};
    return object;
}

std::string port_text(const PublishedPort& port) {
    const auto host = port.address.find(':') == std::string::npos ? port.address : "[" + port.address + "]";
    return host + ":" + std::to_string(port.host_port) + " -> " + std::to_string(port.guest_port) + (port.udp ? "/udp" : "/tcp");
}

std::string shown_command(const std::string& command) {
    auto words = json::parse(command, nullptr, false);
    std::string text;
    if (words.is_array())
        for (const auto& word : words)
            if (word.is_string()) text += (text.empty() ? "" : " ") + base::shell_quote(word.get<std::string>());
    return base::printable(text, 60);
}

// A box without a jail is to be seen at a glance.
std::string shown_state(const BoxInfo& box) {
    std::vector<std::string> marks;
    // It runs, and lacks something.
    if (box.state == "running" && !box.reason.empty()) marks.push_back(base::printable(box.reason, 60));
    if (!box.health.empty()) marks.push_back(box.health);
    if (box.security == "none") marks.push_back("no jail");
    return box.state + (marks.empty() ? "" : " (" + base::join(marks, ", ") + ")");
}

struct ListArguments {
    bool all = false, quiet = false;
    std::vector<std::string> labels;
    std::string format;
};

Result<int> list_boxes(Context& context, const ListArguments& arguments) {
    const bool as_json = CAISSON_TRY(wants_json(arguments.format));
    const auto labels = CAISSON_TRY(parse_labels(arguments.labels));
    auto runtime = CAISSON_TRY(open_runtime(context));
    auto boxes = CAISSON_TRY(runtime.boxes());
    std::erase_if(boxes, [&](const BoxInfo& box) { return (!arguments.all && !is_live(box)) || !base::has_labels(box.labels, labels); });
    if (as_json) {
        json list = json::array();
        for (const auto& box : boxes) list.push_back(to_json(box));
        print(list);
        return 0;
    }
    if (arguments.quiet) {
        for (const auto& box : boxes) std::printf("%s\n", box.id.c_str());
        return 0;
    }
    std::vector<std::vector<std::string>> rows{{"ID", "NAME", "IMAGE", "COMMAND", "STATE", "EXIT", "CREATED"}};
    for (const auto& box : boxes)
        rows.push_back({box.id, box.name, base::printable(box.image, 60), shown_command(box.command),
                        shown_state(box),
                        box.exit_code ? std::to_string(*box.exit_code) : "-", format_age(box.created_ms / 1000)});
    std::fputs(format_table(rows).c_str(), stdout);
    return 0;
}

// Nothing for Docker's defaults.
std::string privileges_text(const BoxDetails& box) {
    std::vector<std::string> parts;
    if (box.privileged) parts.push_back("privileged");
    if (box.no_new_privileges) parts.push_back("no new privileges");
    for (const auto& name : box.cap_add) parts.push_back("+" + name);
    for (const auto& name : box.cap_drop) parts.push_back("-" + name);
    return base::join(parts, ", ");
}

std::string shown_jail(const JailedProcess& process) {
    return process.kind + " " + std::to_string(process.pid) + ": user " + process.user + ", " +
           (process.namespaces.empty() ? "no namespaces of its own" : "namespaces " + base::join(process.namespaces, " ")) +
           (process.capabilities.find_first_not_of('0') == std::string::npos ? ", no capabilities" : ", capabilities " + process.capabilities) +
           (process.no_new_privileges ? ", no new privileges" : "") +
           (process.call_filters > 0 ? ", system calls filtered" + (process.filter.empty() ? std::string() : " (list '" + process.filter + "')")
                                     : std::string(", system calls not filtered")) +
           (process.landlock.empty() ? "" : ", Landlock " + process.landlock);
}

std::string shown_mount(const MountInfo& mount) {
    std::string text = mount.target + ": ";
    if (mount.type != "volume") text += mount.type;
    else text += (mount.anonymous ? "a volume of its own (" + mount.volume + ")" : "volume " + mount.volume) + (mount.subpath.empty() ? "" : ", " + mount.subpath + " of it");
    if (mount.read_only) text += ", read-only";
    if (mount.no_exec) text += ", noexec";
    if (mount.no_suid) text += ", nosuid";
    if (mount.attached) text += ", attached";
    return text;
}

void print_text(const BoxDetails& box) {
    const auto& info = box.info;
    auto line = [](const char* name, const std::string& text) {
        if (!text.empty()) std::printf("%-12s %s\n", name, base::printable(text, 2000).c_str());
    };
    line("id", info.id);
    line("name", info.name);
    line("state", info.state + (info.reason.empty() ? "" : ": " + info.reason.substr(0, info.reason.find('\n'))));
    if (info.exit_code) line("exit code", std::to_string(*info.exit_code) + (info.outcome.empty() ? "" : " (" + info.outcome + ")"));
    line("health", info.health);
    line("image", info.image + " (" + box.image_digest + ")");
    line("command", shown_command(info.command));
    line("user", box.user.empty() ? "root" : box.user);
    line("directory", box.working_directory);
    line("hostname", box.hostname);
    line("engine", box.engine);
    line("size", "cpus " + std::to_string(box.cpu_millis) + "/1000, memory " + base::format_size(box.memory_bytes) +
                       (box.pids_limit > 0 ? ", processes " + std::to_string(box.pids_limit) : ""));
    line("privileges", privileges_text(box));
    line("security", info.security == "none" ? "none: its VMM has no jail" : info.security);
    line("limits", shown_limits(box.host_limits));
    line("disk", base::format_size(box.disk_bytes) + ", " + base::format_size(box.disk_used_bytes) + " used");
    for (const auto& mount : box.mounts) line("mount", shown_mount(mount));
    line("network", box.network + (box.network_learn ? ", learns" : "") + (box.network_proxy.empty() ? "" : ", through " + box.network_proxy));
    for (const auto& port : box.ports) line("port", port_text(port));
    line("restart", box.restart + (info.restarts > 0 ? ", " + std::to_string(info.restarts) + " times so far" : ""));
    for (const auto& [key, value] : info.labels) line("label", key + (value.empty() ? "" : "=" + value));
    if (box.supervisor_pid > 0) line("processes", "supervisor " + std::to_string(box.supervisor_pid) + ", VMM " + std::to_string(box.vmm_pid));
    for (const auto& process : box.jail) line("jail", shown_jail(process));
    line("created", format_age(info.created_ms / 1000));
    if (info.started_ms > 0) line("started", format_age(info.started_ms / 1000));
    if (info.finished_ms > 0) line("finished", format_age(info.finished_ms / 1000));
    for (const auto& execution : box.executions)
        line("execution", execution.id + "  " + execution.state +
                              (execution.exit_code ? " " + std::to_string(*execution.exit_code) : "") + "  " + shown_command(execution.command));
}

Result<int> inspect_boxes(Context& context, const std::vector<std::string>& names, const std::string& format) {
    const bool as_json = CAISSON_TRY(wants_json(format));
    auto runtime = CAISSON_TRY(open_runtime(context));
    json list = json::array();
    for (const auto& name : names) {
        auto details = CAISSON_TRY(runtime.inspect(name));
        if (as_json) {
            list.push_back(to_json(details));
            continue;
        }
        if (&name != &names.front()) std::printf("\n");
        print_text(details);
    }
    if (as_json) print(list);
    return 0;
}

Result<int> show_info(Context& context, const std::string& format) {
    const bool as_json = CAISSON_TRY(wants_json(format));
    auto runtime = CAISSON_TRY(open_runtime(context));
    auto info = CAISSON_TRY(runtime.info());
    if (as_json) {
        print({{"version", info.version}, {"home", info.home}, {"engine", info.engine}, {"boxes", info.boxes},
               {"running", info.running}, {"paused", info.paused}, {"images", info.images}, {"templates", info.templates},
               {"home_bytes", info.home_bytes}});
        return 0;
    }
    std::printf("version    %s\nhome       %s, %s\nengine     %s\nboxes      %zu, %zu running, %zu paused\nimages     %zu\ntemplates  %zu\n",
                info.version.c_str(), base::printable(info.home).c_str(), base::format_size(info.home_bytes).c_str(),
                base::printable(info.engine).c_str(), info.boxes, info.running, info.paused, info.images, info.templates);
    return 0;
}

}  // namespace

// ---- commands for one or many boxes ----

bool is_live(const BoxInfo& box) { return box.state != "created" && box.state != "stopped" && box.state != "failed"; }

void add_chosen(CLI::App& command, const std::shared_ptr<Chosen>& chosen) {
    command.add_option("BOX", chosen->names, "Names, ids or unique beginnings of ids");
    command.add_option("-l,--label", chosen->labels, "All boxes that have this label")
        ->type_name("KEY[=VALUE]")->allow_extra_args(false)->take_all();
}

Result<std::vector<std::string>> resolve(Runtime& runtime, const Chosen& chosen, const std::function<bool(const BoxInfo&)>& fits) {
    if (chosen.names.empty() && chosen.labels.empty()) return failure(Errc::kUsage, "no BOX is given", "name one, or use --label");
    if (chosen.labels.empty()) return chosen.names;
    if (!chosen.names.empty()) return failure(Errc::kUsage, "boxes are given by name and by --label", "use one of the two");
    const auto labels = CAISSON_TRY(parse_labels(chosen.labels));
    std::vector<std::string> ids;
    for (const auto& box : CAISSON_TRY(runtime.boxes()))
        if (base::has_labels(box.labels, labels) && fits(box)) ids.push_back(box.id);
    return ids;
}

namespace {

// Does it for each, tells what failed and goes on; the first failure decides the exit code.
Result<int> for_each_box(Context& context, const Chosen& chosen, const std::function<bool(const BoxInfo&)>& fits,
                         const std::function<Result<>(Runtime&, const std::string&)>& work) {
    auto runtime = CAISSON_TRY(open_runtime(context));
    int code = 0;
    for (const auto& name : CAISSON_TRY(resolve(runtime, chosen, fits))) {
        auto done = work(runtime, name);
        if (!done) {
            report(done.error());
            if (code == 0) code = base::errc_info(done.error().code).exit_code;
            continue;
        }
        std::printf("%s\n", name.c_str());
        std::fflush(stdout);
    }
    return code;
}

using Work = std::function<Result<>(Runtime&, const std::string&)>;

// A command that does one thing to each box and has no options beyond which ones.
void add_simple(CLI::App& app, Action& action, const char* name, const char* description, const char* example,
                const std::function<bool(const BoxInfo&)>& fits, const Work& work) {
    auto chosen = std::make_shared<Chosen>();
    auto* command = app.add_subcommand(name, description);
    command->footer(std::string("Examples:\n  ") + example + "\n  caisson " + name + " --label job=nightly");
    add_chosen(*command, chosen);
    command->callback([chosen, fits, work, &action] {
        action = [chosen, fits, work](Context& context) { return for_each_box(context, *chosen, fits, work); };
    });
}

Result<std::optional<std::chrono::milliseconds>> grace_of(const std::string& text) {
    if (text.empty()) return std::optional<std::chrono::milliseconds>();
    return std::optional(CAISSON_TRY_CTX(base::parse_duration(text), "--timeout"));
}

void add_stopping(CLI::App& app, Action& action, const char* name, const char* description, bool again) {
    auto chosen = std::make_shared<Chosen>();
    auto timeout = std::make_shared<std::string>();
    auto* command = app.add_subcommand(name, description);
    command->footer(std::string("Examples:\n  caisson ") + name + " web\n  caisson " + name + " -t 2s --label job=nightly");
    add_chosen(*command, chosen);
    command->add_option("-t,--timeout", *timeout, "Time between the stop signal and the kill; the box's own if not given")->type_name("TIME");
    command->callback([chosen, timeout, again, &action] {
        action = [chosen, timeout, again](Context& context) -> Result<int> {
            const auto grace = CAISSON_TRY(grace_of(*timeout));
            return for_each_box(context, *chosen, is_live, [&](Runtime& runtime, const std::string& box) -> Result<> {
                if (!again) return runtime.stop(box, grace);
                CAISSON_TRY(runtime.restart(box, grace));
                return {};
            });
        };
    });
}

struct StartArguments {
    bool by_policy = false, attach = false;
    std::string detach_keys = kDetachKeys;
};

Result<int> start_boxes(Context& context, const Chosen& chosen, const StartArguments& arguments) {
    if (arguments.by_policy) {
        if (!chosen.names.empty() || !chosen.labels.empty()) return failure(Errc::kUsage, "--by-policy chooses the boxes itself");
        auto runtime = CAISSON_TRY(open_runtime(context));
        int code = 0;
        auto started = CAISSON_TRY(runtime.start_by_policy([&code](const BoxInfo& box, const Error& error) {
            auto told = error;
            report(std::move(told).with_context("starting box " + box.name));
            code = base::errc_info(error.code).exit_code;
        }));
        for (const auto& box : started) std::printf("%s\n", box.name.c_str());
        return code;
    }
    if (!arguments.attach)
        return for_each_box(context, chosen, [](const BoxInfo& box) { return !is_live(box); },
                            [](Runtime& runtime, const std::string& box) -> Result<> {
                                CAISSON_TRY(runtime.start(box));
                                return {};
                            });
    if (chosen.names.size() != 1) return failure(Errc::kUsage, "one box can be attached to", "name it");
    auto detach_keys = CAISSON_TRY_CTX(parse_detach_keys(arguments.detach_keys), "--detach-keys");
    auto runtime = CAISSON_TRY(open_runtime(context));
    auto box = CAISSON_TRY(runtime.start(chosen.names[0]));
    clear_progress();
    // What it wrote until we were there is in its log; and it may be over by now.
    auto execution = runtime.attach(box.id, {});
    if (!execution && execution.error().code != Errc::kInUse) return base::failure(std::move(execution.error()));
    CAISSON_TRY(print_history(runtime, box.id, {}, execution ? execution->log_position() : UINT64_MAX, box.started_ms));
    auto outcome = execution ? CAISSON_TRY(connect_caller(*execution, {.interactive = execution->input(),
                                                                       .terminal = execution->terminal(),
                                                                       .detach_keys = detach_keys}))
                             : CAISSON_TRY(runtime.wait(box.id));
    if (outcome.kind == Outcome::Kind::kDetached) say_left(box.name);
    else report_reason(outcome);
    return outcome.shell_code();
}

void add_starting(CLI::App& app, Action& action) {
    auto chosen = std::make_shared<Chosen>();
    auto arguments = std::make_shared<StartArguments>();
    auto* command = app.add_subcommand("start", "Start boxes that were created or have ended");
    command->footer("Examples:\n  caisson start job\n  caisson start -a job\n  caisson start --by-policy");
    add_chosen(*command, chosen);
    command->add_flag("-a,--attach", arguments->attach, "Join its command");
    command->add_option("--detach-keys", arguments->detach_keys, "Keys that leave it to itself then; '': none")->type_name("KEYS")->capture_default_str();
    command->add_flag("--by-policy", arguments->by_policy, "Those whose --restart asks for it and that nobody is left to start");
    command->callback([chosen, arguments, &action] {
        action = [chosen, arguments](Context& context) { return start_boxes(context, *chosen, *arguments); };
    });
}

void add_killing(CLI::App& app, Action& action) {
    auto chosen = std::make_shared<Chosen>();
    auto signal = std::make_shared<std::string>("KILL");
    auto execution = std::make_shared<std::string>();
    auto* command = app.add_subcommand("kill", "Send a signal to the command of boxes");
    command->footer("Examples:\n  caisson kill web\n  caisson kill -s HUP web\n  caisson kill --execution 01k3 web");
    add_chosen(*command, chosen);
    command->add_option("-s,--signal", *signal, "Name or number")->type_name("SIGNAL")->capture_default_str();
    command->add_option("--execution", *execution, "To a detached execution instead")->type_name("ID");
    command->callback([chosen, signal, execution, &action] {
        action = [chosen, signal, execution](Context& context) -> Result<int> {
            const int number = CAISSON_TRY_CTX(parse_signal(*signal), "--signal");
            return for_each_box(context, *chosen, is_live, [&](Runtime& runtime, const std::string& box) {
                return runtime.kill(box, number, *execution);
            });
        };
    });
}

void add_removing(CLI::App& app, Action& action) {
    auto chosen = std::make_shared<Chosen>();
    auto force = std::make_shared<bool>(false);
    auto* remove = app.add_subcommand("rm", "Remove boxes");
    remove->footer("Examples:\n  caisson rm keen-otter-41\n  caisson rm --force keen-otter-41\n  caisson rm --label job=nightly");
    add_chosen(*remove, chosen);
    remove->add_flag("-f,--force", *force, "Kill a box that runs, then remove it");
    remove->callback([chosen, force, &action] {
        action = [chosen, force](Context& context) {
            auto fits = [force](const BoxInfo& box) { return *force || !is_live(box); };
            return for_each_box(context, *chosen, fits,
                                [&](Runtime& runtime, const std::string& box) { return runtime.remove_box(box, *force); });
        };
    });

    auto labels = std::make_shared<std::vector<std::string>>();
    auto format = std::make_shared<std::string>();
    auto* prune = app.add_subcommand("prune", "Remove all boxes that do not run");
    prune->footer("Example:\n  caisson prune --label job=nightly");
    prune->add_option("-l,--label", *labels, "Only those that have this label")->type_name("KEY[=VALUE]")->allow_extra_args(false)->take_all();
    prune->add_option("--format", *format, "text or json")->type_name("FORMAT");
    prune->callback([labels, format, &action] {
        action = [labels, format](Context& context) -> Result<int> {
            const bool as_json = CAISSON_TRY(wants_json(*format));
            const auto wanted = CAISSON_TRY(parse_labels(*labels));
            auto runtime = CAISSON_TRY(open_runtime(context));
            json list = json::array();
            for (const auto& box : CAISSON_TRY(runtime.prune_boxes(wanted))) {
                if (as_json) list.push_back(to_json(box));
                else std::printf("%s\n", box.name.c_str());
            }
            if (as_json) print(list);
            return 0;
        };
    });
}

void add_waiting(CLI::App& app, Action& action) {
    auto names = std::make_shared<std::vector<std::string>>();
    auto execution = std::make_shared<std::string>();
    auto* wait = app.add_subcommand("wait", "Wait until boxes have ended, print their exit codes");
    wait->footer("Examples:\n  caisson wait job\n  caisson wait --execution 01k3 web");
    wait->add_option("BOX", *names, "Names, ids or unique beginnings of ids")->required();
    wait->add_option("--execution", *execution, "For a detached execution instead")->type_name("ID");
    wait->callback([names, execution, &action] {
        action = [names, execution](Context& context) -> Result<int> {
            auto runtime = CAISSON_TRY(open_runtime(context));
            for (const auto& name : *names) {
                auto outcome = CAISSON_TRY(runtime.wait(name, *execution));
                std::printf("%d\n", outcome.shell_code());
                std::fflush(stdout);
            }
            return 0;
        };
    });
}

}  // namespace

void add_box_commands(CLI::App& app, Action& action) {
    auto listing = std::make_shared<ListArguments>();
    auto* list = app.add_subcommand("ls", "List boxes that run")->alias("ps");
    list->footer("Examples:\n  caisson ls --all\n  caisson ls --all --label job=nightly --format json");
    list->add_flag("-a,--all", listing->all, "Also those that do not run");
    list->add_option("-l,--label", listing->labels, "Only those that have this label")->type_name("KEY[=VALUE]")->allow_extra_args(false)->take_all();
    list->add_flag("-q,--quiet", listing->quiet, "Only ids");
    list->add_option("--format", listing->format, "text or json")->type_name("FORMAT");
    list->callback([listing, &action] { action = [listing](Context& context) { return list_boxes(context, *listing); }; });

    auto inspected = std::make_shared<std::vector<std::string>>();
    auto format = std::make_shared<std::string>();
    auto* inspect = app.add_subcommand("inspect", "Show all that is known about boxes");
    inspect->footer("Example:\n  caisson inspect --format json web");
    inspect->add_option("BOX", *inspected, "Names, ids or unique beginnings of ids")->required();
    inspect->add_option("--format", *format, "text or json")->type_name("FORMAT");
    inspect->callback([inspected, format, &action] {
        action = [inspected, format](Context& context) { return inspect_boxes(context, *inspected, *format); };
    });

    add_starting(app, action);
    add_stopping(app, action, "stop", "Ask the commands of boxes to end, then kill them", false);
    add_stopping(app, action, "restart", "Stop boxes and start them again", true);
    add_killing(app, action);
    add_simple(app, action, "pause", "Freeze boxes", "caisson pause web", [](const BoxInfo& box) { return box.state == "running"; },
               [](Runtime& runtime, const std::string& box) { return runtime.pause(box); });
    add_simple(app, action, "resume", "Let paused boxes go on", "caisson resume web", [](const BoxInfo& box) { return box.state == "paused"; },
               [](Runtime& runtime, const std::string& box) { return runtime.resume(box); });
    add_waiting(app, action);

    auto names = std::make_shared<std::pair<std::string, std::string>>();
    auto* rename = app.add_subcommand("rename", "Give a box another name");
    rename->footer("Example:\n  caisson rename keen-otter-41 web");
    rename->add_option("BOX", names->first, "Name, id or unique beginning of an id")->required();
    rename->add_option("NAME", names->second, "The new name")->required();
    rename->callback([names, &action] {
        action = [names](Context& context) -> Result<int> {
            auto runtime = CAISSON_TRY(open_runtime(context));
            CAISSON_TRY(runtime.rename(names->first, names->second));
            return 0;
        };
    });
    add_removing(app, action);

    auto info_format = std::make_shared<std::string>();
    auto* info = app.add_subcommand("info", "Show what this caisson and its home are");
    info->footer("Example:\n  caisson info --format json");
    info->add_option("--format", *info_format, "text or json")->type_name("FORMAT");
    info->callback([info_format, &action] { action = [info_format](Context& context) { return show_info(context, *info_format); }; });
}

}  // namespace caisson::cli
