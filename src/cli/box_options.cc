#include "cli/box_options.h"

#include <CLI/CLI.hpp>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>

#include "base/text.h"
#include "os/file.h"

namespace caisson::cli {

using base::failure;

namespace {

constexpr std::size_t kMaxEnvironmentFile = 1 << 20;

// "NAME=value", or "NAME" for the caller's own value (nothing if it has none), as in Docker.
Result<> add_variable(std::vector<std::pair<std::string, std::string>>& environment, const std::string& text) {
    auto equals = text.find('=');
    auto name = text.substr(0, equals);
    if (name.empty()) return failure(Errc::kUsage, "-e '" + base::printable(text, 100) + "' names no variable", "write NAME=value");
    if (equals != std::string::npos) {
        environment.emplace_back(name, text.substr(equals + 1));
        return {};
    }
    if (const char* value = std::getenv(name.c_str())) environment.emplace_back(name, value);
    return {};
}

Result<> add_environment_file(std::vector<std::pair<std::string, std::string>>& environment, const std::string& path) {
    auto text = CAISSON_TRY_CTX(os::read_file(path, kMaxEnvironmentFile), "--env-file");
    std::size_t number = 0;
    for (const auto& line : base::split(text, '\n')) {
        ++number;
        std::string_view content = line;
        if (!content.empty() && content.back() == '\r') content.remove_suffix(1);
        auto start = content.find_first_not_of(" \t");
        if (start == std::string_view::npos || content[start] == '#') continue;
        content.remove_prefix(start);
        if (content[0] == '=')
            return failure(Errc::kUsage, path + ", line " + std::to_string(number) + ": no name before '='");
        CAISSON_TRY(add_variable(environment, std::string(content)));
    }
    return {};
}

// PATH[:option,...] with size=, mode=, exec, noexec.
Result<TmpfsOption> parse_tmpfs(const std::string& text) {
    TmpfsOption tmpfs;
    auto colon = text.find(':');
    tmpfs.path = text.substr(0, colon);
    if (colon == std::string::npos) return tmpfs;
    for (const auto& part : base::split(std::string_view(text).substr(colon + 1), ',')) {
        if (base::starts_with(part, "size=")) {
            tmpfs.size_bytes = CAISSON_TRY_CTX(base::parse_size(std::string_view(part).substr(5)), "--tmpfs " + tmpfs.path);
        } else if (base::starts_with(part, "mode=")) {
            auto digits = std::string_view(part).substr(5);
            unsigned mode = 0;
            auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), mode, 8);
            if (digits.empty() || error != std::errc{} || end != digits.data() + digits.size() || mode > 07777)
                return failure(Errc::kUsage, "--tmpfs " + tmpfs.path + ": mode '" + base::printable(digits, 32) + "' is not octal");
            tmpfs.mode = mode;
        } else if (part == "exec" || part == "noexec") {
            tmpfs.executable = part == "exec";
        } else if (part != "rw" && part != "nosuid" && part != "nodev") {
            return failure(Errc::kUsage, "--tmpfs " + tmpfs.path + ": unknown option '" + base::printable(part, 64) + "'",
                           "known are size=, mode=, exec and noexec");
        }
    }
    return tmpfs;
}

// OPTION=VALUE, in Docker's older spelling OPTION:VALUE. What switches off a wall that is not there is taken as it is; what
// asks for one is refused.
Result<> parse_security(BoxOptions& options, const std::string& text) {
    const auto separator = text.find_first_of("=:");
    const auto name = text.substr(0, separator);
    const auto value = separator == std::string::npos ? std::string() : text.substr(separator + 1);
    const auto shown = "--security-opt '" + base::printable(text, 100) + "'";
    if (name == "no-new-privileges") {
        if (separator != std::string::npos && value != "true" && value != "false")
            return failure(Errc::kUsage, shown + " is neither true nor false", "write no-new-privileges or no-new-privileges=false");
        options.no_new_privileges = value != "false";
        return {};
    }
    if ((name == "seccomp" || name == "apparmor") && value == "unconfined") return {};
    if (name == "label" && value == "disable") return {};
    return failure(Errc::kUnsupported, shown + " is not available",
                   "in the box there are no-new-privileges, and no profiles of seccomp, AppArmor or SELinux");
}

// Mounts of all three spellings, and copies.
Result<> add_files(BoxOptions& options, const BoxArguments& arguments) {
    for (const auto& text : arguments.tmpfs) options.tmpfs.push_back(CAISSON_TRY(parse_tmpfs(text)));
    for (const auto& text : arguments.volumes) options.mounts.push_back(CAISSON_TRY(parse_volume_option(text)));
    for (const auto& text : arguments.mounts) {
        auto mount = CAISSON_TRY(parse_mount_option(text));
        if (auto* volume = std::get_if<MountOption>(&mount)) options.mounts.push_back(std::move(*volume));
        else options.tmpfs.push_back(std::get<TmpfsOption>(std::move(mount)));
    }
    for (const auto& text : arguments.copies) options.copies.push_back(CAISSON_TRY(parse_copy_option(text)));
    return {};
}

Result<> parse_time(std::optional<std::chrono::milliseconds>& time, const char* option, const std::string& text) {
    if (!text.empty()) time = CAISSON_TRY_CTX(base::parse_duration(text), option);
    return {};
}

Result<> add_health(BoxOptions& options, const BoxArguments& arguments) {
    options.no_health_check = arguments.no_health_check;
    if (arguments.health_command.empty()) {
        if (!arguments.health_interval.empty() || !arguments.health_timeout.empty() || !arguments.health_start_period.empty())
            return failure(Errc::kUsage, "there is no health check that this option could be for", "add --health-cmd");
        return {};
    }
    HealthCheck health;
    health.command = {"/bin/sh", "-c", arguments.health_command};
    std::optional<std::chrono::milliseconds> interval, timeout, start_period;
    CAISSON_TRY(parse_time(interval, "--health-interval", arguments.health_interval));
    CAISSON_TRY(parse_time(timeout, "--health-timeout", arguments.health_timeout));
    CAISSON_TRY(parse_time(start_period, "--health-start-period", arguments.health_start_period));
    health.interval = interval.value_or(health.interval);
    health.timeout = timeout.value_or(health.timeout);
    health.start_period = start_period.value_or(health.start_period);
    health.retries = arguments.health_retries;
    options.health = health;
    return {};
}

Result<> add_life(BoxOptions& options, const BoxArguments& arguments) {
    options.labels = CAISSON_TRY(parse_labels(arguments.labels));
    const auto restart = CAISSON_TRY(parse_restart(arguments.restart));
    options.restart = restart.policy;
    options.restart_limit = restart.limit;
    CAISSON_TRY(parse_time(options.max_duration, "--max-duration", arguments.max_duration));
    CAISSON_TRY(parse_time(options.idle_timeout, "--idle-timeout", arguments.idle_timeout));
    options.stop_timeout = CAISSON_TRY_CTX(base::parse_duration(arguments.stop_timeout), "--stop-timeout");
    if (!arguments.stop_signal.empty()) options.stop_signal = CAISSON_TRY_CTX(parse_signal(arguments.stop_signal), "--stop-signal");
    options.replace = arguments.replace;
    options.require_limits = arguments.require_limits;
    return add_health(options, arguments);
}

// Operands behind options are no options to the parser: everything from the first on is left as it is.
class UsageWithOperands : public CLI::Formatter {
  public:
    explicit UsageWithOperands(std::string operands) : operands_(std::move(operands)) {}
    std::string make_usage(const CLI::App* app, std::string name) const override {
        auto usage = Formatter::make_usage(app, std::move(name));
        return usage.insert(usage.find_last_not_of('\n') + 1, " " + operands_);
    }

  private:
    std::string operands_;
};

}  // namespace

Result<std::uint32_t> parse_cpus(const std::string& text) {
    double cpus = 0;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), cpus, std::chars_format::fixed);
    if (text.empty() || error != std::errc{} || end != text.data() + text.size() || !(cpus > 0) || cpus > 1000)
        return failure(Errc::kUsage, "--cpus '" + base::printable(text, 64) + "' is not a number of CPUs", "write for example 1 or 0.5");
    return static_cast<std::uint32_t>(std::lround(cpus * 1000));
}

// 0 and -1 mean no limit, as in Docker and podman.
Result<std::uint32_t> parse_pids_limit(const std::string& text) {
    std::int64_t pids = 0;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), pids);
    if (text.empty() || error != std::errc{} || end != text.data() + text.size() || pids < -1 ||
        pids > std::numeric_limits<std::uint32_t>::max())
        return failure(Errc::kUsage, "--pids-limit '" + base::printable(text, 64) + "' is not a number of processes",
                       "write for example 100; 0 or -1 for no limit");
    return static_cast<std::uint32_t>(std::max<std::int64_t>(pids, 0));
}

// POLICY: no, on-failure, on-failure:N, always.
Result<RestartChoice> parse_restart(const std::string& text) {
    RestartChoice choice;
    const auto colon = text.find(':');
    const auto policy = text.substr(0, colon);
    if (policy == "no") choice.policy = RestartPolicy::kNo;
    else if (policy == "always" || policy == "unless-stopped") choice.policy = RestartPolicy::kAlways;
    else if (policy == "on-failure") choice.policy = RestartPolicy::kOnFailure;
    else return failure(Errc::kUsage, "--restart '" + base::printable(text, 64) + "' is unknown", "use no, on-failure, on-failure:N or always");
    if (colon == std::string::npos) return choice;
    auto limit = base::parse_u64(std::string_view(text).substr(colon + 1));
    if (policy != "on-failure" || !limit || *limit == 0 || *limit > 1000000)
        return failure(Errc::kUsage, "--restart '" + base::printable(text, 64) + "' is unknown", "use no, on-failure, on-failure:N or always");
    choice.limit = static_cast<std::uint32_t>(*limit);
    return choice;
}

Result<> open_copies(BoxOptions& options, bool quiet) {
    for (auto& copy : options.copies) {
        HostCopyOptions host;
        if (!quiet) host.on_notice = [](const std::string& text) { std::fprintf(stderr, "caisson: %s\n", base::printable(text).c_str()); };
        auto opened = HostCopy::pack(copy.source, host);
        if (!opened) return base::failure(std::move(opened.error()).with_context("--copy " + base::printable(copy.source, 200)));
        copy.opened = std::make_shared<HostCopy>(std::move(*opened));
    }
    return {};
}

void show_operands(CLI::App& command, const std::string& operands) {
    auto formatter = std::make_shared<UsageWithOperands>(operands);
    formatter->column_width(command.get_formatter()->get_column_width());
    command.formatter(formatter);
}

Result<std::vector<std::pair<std::string, std::string>>> parse_environment(const std::vector<std::string>& files,
                                                                           const std::vector<std::string>& variables) {
    std::vector<std::pair<std::string, std::string>> environment;
    for (const auto& path : files) CAISSON_TRY(add_environment_file(environment, path));
    for (const auto& text : variables) CAISSON_TRY(add_variable(environment, text));
    return environment;
}

Result<std::map<std::string, std::string>> parse_labels(const std::vector<std::string>& labels) {
    std::map<std::string, std::string> parsed;
    for (const auto& text : labels) {
        const auto equals = text.find('=');
        const auto key = text.substr(0, equals);
        if (key.empty()) return failure(Errc::kUsage, "--label '" + base::printable(text, 100) + "' has no name", "write KEY or KEY=VALUE");
        parsed[key] = equals == std::string::npos ? std::string() : text.substr(equals + 1);
    }
    return parsed;
}

Result<> add_network(BoxOptions& options, const BoxArguments& arguments) {
    auto wanted = *arguments.net;
    options.network_learn = arguments.net_learn;
    options.network_proxy = arguments.net_proxy;
    if (arguments.net_learn && !wanted.given()) wanted.net = net::to_string(net::Mode::kPublic);
    const auto choice = CAISSON_TRY(net_choice(wanted));
    options.network = choice.mode;
    options.network_policy = choice.policy;
    for (const auto& text : arguments.ports)
        for (auto& port : CAISSON_TRY(parse_ports(text))) options.ports.push_back(std::move(port));
    options.name_servers = arguments.servers;
    for (const auto& text : arguments.net_limits) CAISSON_TRY(parse_net_limit(text, options.network_limits));
    for (const auto& text : arguments.hosts) {
        const auto colon = text.find(':');
        if (colon == std::string::npos) return failure(Errc::kUsage, "--add-host '" + base::printable(text, 100) + "' names no address", "write NAME:IP");
        options.hosts.emplace_back(text.substr(0, colon), text.substr(colon + 1));
    }
    return {};
}

Result<BoxOptions> box_options(const BoxArguments& arguments) {
    BoxOptions options;
    if (arguments.image_and_command.empty())
        return failure(Errc::kUsage, "no image is given", "write: caisson " + arguments.command_name + " [options] IMAGE [COMMAND...]");
    options.image = arguments.image_and_command[0];
    if (options.image[0] == '-')
        return failure(Errc::kUsage, "unknown option " + base::printable(options.image, 64), "see: caisson " + arguments.command_name + " --help");
    auto command = arguments.image_and_command.begin() + 1;
    if (command != arguments.image_and_command.end() && *command == "--") ++command;
    options.command.assign(command, arguments.image_and_command.end());

    options.environment = CAISSON_TRY(parse_environment(arguments.environment_files, arguments.environment));
    CAISSON_TRY(add_files(options, arguments));
    options.name = arguments.name;
    options.hostname = arguments.hostname;
    options.working_directory = arguments.working_directory;
    options.user = arguments.user;
    if (arguments.has_entrypoint) options.entrypoint = arguments.entrypoint;
    options.cpu_millis = CAISSON_TRY(parse_cpus(arguments.cpus));
    options.memory_bytes = CAISSON_TRY_CTX(base::parse_size(arguments.memory), "--memory");
    options.disk_bytes = CAISSON_TRY_CTX(base::parse_size(arguments.disk_size), "--disk-size");
    if (options.disk_bytes % 4096 != 0) options.disk_bytes = (options.disk_bytes / 4096 + 1) * 4096;
    options.pids_limit = CAISSON_TRY(parse_pids_limit(arguments.pids_limit));
    if (!arguments.timeout.empty())
        options.timeout = CAISSON_TRY_CTX(base::parse_duration(arguments.timeout), "--timeout");
    CAISSON_TRY(add_life(options, arguments));
    options.read_only = arguments.read_only;
    options.cap_add = arguments.cap_add;
    options.cap_drop = arguments.cap_drop;
    options.privileged = arguments.privileged;
    options.security = arguments.security;
    for (const auto& text : arguments.security_options) CAISSON_TRY(parse_security(options, text));
    options.open_stdin = arguments.interactive;
    options.auto_remove = arguments.remove;
    options.cold = arguments.cold;
    CAISSON_TRY(add_network(options, arguments));
    if (arguments.pull == "always") options.pull = PullPolicy::kAlways;
    else if (arguments.pull == "never") options.pull = PullPolicy::kNever;
    else if (arguments.pull != "missing")
        return failure(Errc::kUsage, "--pull '" + base::printable(arguments.pull, 64) + "' is unknown", "use always, missing or never");
    options.pull_options.plain_http = arguments.plain_http;
    if (options.pull != PullPolicy::kNever)
        options.pull_options.access = CAISSON_TRY(caller_access({.authorities_file = arguments.authorities_file, .image = options.image}));
    return options;
}

void add_box_options(CLI::App& command, const std::shared_ptr<BoxArguments>& arguments) {
    show_operands(command, "IMAGE [COMMAND...]");
    command.prefix_command();
    command.add_flag("--rm", arguments->remove, "Remove the box when its command has ended");
    command.add_option("--name", arguments->name, "Name of the box; drawn if not given")->type_name("NAME");
    command.add_option("--hostname", arguments->hostname, "Host name inside the box")->type_name("NAME");
    command.add_flag("-i,--interactive", arguments->interactive, "Pass this command's input on to the box");
    command.add_flag("-t,--tty", arguments->terminal, "Give the command a terminal; with -i it is yours");
    command.add_option("-e,--env", arguments->environment, "Set an environment variable; NAME alone takes yours")
        ->type_name("NAME[=VALUE]")->allow_extra_args(false)->take_all();
    command.add_option("--env-file", arguments->environment_files, "Read variables from a file, one a line")
        ->type_name("FILE")->allow_extra_args(false)->take_all();
    command.add_option("-w,--workdir", arguments->working_directory, "Working directory inside the box")->type_name("PATH");
    command.add_option("-u,--user", arguments->user, "User (and group) inside the box, by name or number")->type_name("USER[:GROUP]");
    command.add_option("--entrypoint", arguments->entrypoint, "Replace the image's entrypoint")->type_name("PROGRAM")
        ->each([arguments](const std::string&) { arguments->has_entrypoint = true; });
    command.add_option("--cpus", arguments->cpus, "CPUs, fractions allowed")->type_name("N")->capture_default_str();
    command.add_option("-m,--memory", arguments->memory, "Memory")->type_name("SIZE")->capture_default_str();
    command.add_option("--disk-size", arguments->disk_size, "Size of the root disk (sparse)")->type_name("SIZE")->capture_default_str();
    command.add_option("--pids-limit", arguments->pids_limit, "Most processes and threads; 0 or -1: no limit")
        ->type_name("N")->capture_default_str();
    command.add_flag("--require-limits", arguments->require_limits, "Fail where the host cannot limit memory, CPUs and processes");
    command.add_option("--tmpfs", arguments->tmpfs, "Mount a tmpfs: PATH[:size=64M,mode=1777,exec]")
        ->type_name("PATH")->allow_extra_args(false)->take_all();
    command.add_option("-v,--volume", arguments->volumes, "Mount a volume: /PATH (a new one), NAME:/PATH or NAME/PART:/PATH, each with :ro")
        ->type_name("[NAME[/PART]:]/PATH[:OPTIONS]")->allow_extra_args(false)->take_all();
    command.add_option("--mount", arguments->mounts, "The same in words: type=volume,src=NAME,subpath=PART,dst=/PATH,ro; or type=tmpfs")
        ->type_name("KEY=VALUE,...")->allow_extra_args(false)->take_all();
    command.add_option("--copy", arguments->copies, "Copy a file or directory of yours into the root disk of the new box")
        ->type_name("HOST:/PATH")->allow_extra_args(false)->take_all();
    command.add_flag("--read-only", arguments->read_only, "Make the root disk read-only inside the box");
    command.add_option("--cap-add", arguments->cap_add, "Give root of the box this capability of Linux; ALL: every one")
        ->type_name("CAPABILITY")->allow_extra_args(false)->take_all();
    command.add_option("--cap-drop", arguments->cap_drop, "Take this capability away; ALL: every one that is not added")
        ->type_name("CAPABILITY")->allow_extra_args(false)->take_all();
    command.add_flag("--privileged", arguments->privileged, "All capabilities and devices of the box's machine, nothing hidden");
    command.add_option("--security", arguments->security, "How the box's VMM is kept in: jailed; none: no jail at all (dangerous)")
        ->type_name("WORD")->capture_default_str();
    command.add_option("--security-opt", arguments->security_options, "no-new-privileges: set-user-id programs gain nothing")
        ->type_name("OPTION")->allow_extra_args(false)->take_all();
    add_net_options(command, arguments->net);
    add_publish_option(command, "-p,--publish", arguments->ports, "Lead a port of this host (of 127.0.0.1, if no address is given) to one of the box");
    add_net_limit_option(command, arguments->net_limits);
    command.add_option("--net-proxy", arguments->net_proxy, "Connect through this proxy, and never directly; UDP is refused: http://ADDRESS:PORT or socks5://ADDRESS:PORT")->type_name("URL");
    command.add_flag("--net-learn", arguments->net_learn, "Keep each target of the network in the journal, for caisson net suggest; alone: --net public");
    command.add_option("--dns", arguments->servers, "Ask this name server instead of the host's")->type_name("IP[:PORT]")->allow_extra_args(false)->take_all();
    command.add_option("--add-host", arguments->hosts, "Let a name stand for an address")->type_name("NAME:IP")->allow_extra_args(false)->take_all();
    command.add_option("--pull", arguments->pull, "Ask a registry for the image: always, missing or never")->type_name("WHEN")->capture_default_str();
    command.add_option("--tls-ca", arguments->authorities_file, "Trust these certificate authorities when pulling, too")->type_name("FILE");
    command.add_flag("--plain-http", arguments->plain_http, "Pull without TLS");
    command.add_option("--timeout", arguments->timeout, "Kill the command after this time, exit with 124")->type_name("TIME");
    command.add_flag("--cold", arguments->cold, "Boot the box's own kernel instead of restoring a template");
    command.add_option("-l,--label", arguments->labels, "Label the box; see ls --label")
        ->type_name("KEY[=VALUE]")->allow_extra_args(false)->take_all();
    command.add_flag("--replace", arguments->replace, "Remove, by force, a box that has the name");
    command.add_option("--restart", arguments->restart, "Start it again at its end: no, on-failure[:N] or always")
        ->type_name("POLICY")->capture_default_str();
    command.add_option("--max-duration", arguments->max_duration, "Stop the box after this time")->type_name("TIME");
    command.add_option("--idle-timeout", arguments->idle_timeout, "Stop it when nobody used it for this time: no exec, nobody attached")
        ->type_name("TIME");
    command.add_option("--stop-signal", arguments->stop_signal, "How it is asked to end; the image's, else TERM")->type_name("SIGNAL");
    command.add_option("--stop-timeout", arguments->stop_timeout, "Time until it is killed then")->type_name("TIME")->capture_default_str();
    command.add_option("--health-cmd", arguments->health_command, "Shell command that says whether the box does its work (the image's)")->type_name("COMMAND");
    command.add_option("--health-interval", arguments->health_interval, "Time between checks (30s)")->type_name("TIME");
    command.add_option("--health-timeout", arguments->health_timeout, "A check that takes longer has failed (30s)")->type_name("TIME");
    command.add_option("--health-retries", arguments->health_retries, "Failures in a row until it is unhealthy")->type_name("N")->capture_default_str();
    command.add_option("--health-start-period", arguments->health_start_period, "Failures this early do not count (0s)")->type_name("TIME");
    command.add_flag("--no-healthcheck", arguments->no_health_check, "Not even the image's");
}

}  // namespace caisson::cli
