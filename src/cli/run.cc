#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <limits>

#include "base/text.h"
#include "cli/command.h"
#include "cli/terminal.h"
#include "os/file.h"

namespace caisson::cli {

using base::failure;

namespace {

constexpr std::size_t kMaxEnvironmentFile = 1 << 20;

struct Arguments {
    std::vector<std::string> environment;
    std::vector<std::string> environment_files;
    std::vector<std::string> tmpfs;
    std::string name, hostname, working_directory, user, cpus = "1", memory = "512M", disk_size = "10G", pids_limit = "0", timeout;
    std::string detach_keys = "ctrl-p,ctrl-q";
    std::string entrypoint, network = "none", pull = "missing", authorities_file;
    bool plain_http = false;
    bool has_entrypoint = false;
    bool remove = false, interactive = false, terminal = false, read_only = false, cold = false;
    bool timings = false, dry_run = false, quiet = false;
    std::vector<std::string> image_and_command;
};

// "NAME=value", or "NAME" for the caller's own value (nothing if it has none), as in Docker.
Result<> add_variable(BoxOptions& options, const std::string& text) {
    auto equals = text.find('=');
    auto name = text.substr(0, equals);
    if (name.empty()) return failure(Errc::kUsage, "-e '" + base::printable(text, 100) + "' names no variable", "write NAME=value");
    if (equals != std::string::npos) {
        options.environment.emplace_back(name, text.substr(equals + 1));
        return {};
    }
    if (const char* value = std::getenv(name.c_str())) options.environment.emplace_back(name, value);
    return {};
}

Result<> add_environment_file(BoxOptions& options, const std::string& path) {
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
        CAISSON_TRY(add_variable(options, std::string(content)));
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

Result<BoxOptions> box_options(const Arguments& arguments) {
    BoxOptions options;
    if (arguments.image_and_command.empty())
        return failure(Errc::kUsage, "no image is given", "write: caisson run [options] IMAGE [COMMAND...]");
    options.image = arguments.image_and_command[0];
    if (options.image[0] == '-')
        return failure(Errc::kUsage, "unknown option " + base::printable(options.image, 64), "see: caisson run --help");
    auto command = arguments.image_and_command.begin() + 1;
    if (command != arguments.image_and_command.end() && *command == "--") ++command;
    options.command.assign(command, arguments.image_and_command.end());

    for (const auto& path : arguments.environment_files) CAISSON_TRY(add_environment_file(options, path));
    for (const auto& text : arguments.environment) CAISSON_TRY(add_variable(options, text));
    for (const auto& text : arguments.tmpfs) options.tmpfs.push_back(CAISSON_TRY(parse_tmpfs(text)));
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
    options.read_only = arguments.read_only;
    options.open_stdin = arguments.interactive;
    options.auto_remove = arguments.remove;
    options.cold = arguments.cold;
    options.network = arguments.network;
    if (arguments.pull == "always") options.pull = PullPolicy::kAlways;
    else if (arguments.pull == "never") options.pull = PullPolicy::kNever;
    else if (arguments.pull != "missing")
        return failure(Errc::kUsage, "--pull '" + base::printable(arguments.pull, 64) + "' is unknown", "use always, missing or never");
    options.pull_options.plain_http = arguments.plain_http;
    if (options.pull != PullPolicy::kNever)
        options.pull_options.access = CAISSON_TRY(caller_access({.authorities_file = arguments.authorities_file, .image = options.image}));
    return options;
}

void print_timings(const Box& box, std::chrono::microseconds before) {
    std::chrono::microseconds sum = before;
    std::fprintf(stderr, "\n  %-28s %9.1f ms\n", "prepare (until the shim)", static_cast<double>(before.count()) / 1000);
    for (const auto& stage : box.timings()) {
        std::fprintf(stderr, "  %-28s %9.1f ms\n", stage.name.c_str(), static_cast<double>(stage.duration.count()) / 1000);
        sum += stage.duration;
    }
    std::fprintf(stderr, "  %-28s %9.1f ms\n  %s\n", "sum", static_cast<double>(sum.count()) / 1000, box.engine().c_str());
}

Result<> use_terminal(BoxOptions& options, bool interactive) {
    const int fd = interactive ? STDIN_FILENO : STDOUT_FILENO;
    if (::isatty(fd) != 1)
        return failure(Errc::kUsage, std::string("-t needs a terminal, and standard ") + (interactive ? "input" : "output") + " is none",
                       interactive ? "leave -t out to pass a file or a pipe on" : "leave -t out to write to a file or a pipe");
    auto size = terminal_size(fd);
    options.terminal = true;
    options.terminal_rows = size.rows;
    options.terminal_columns = size.columns;
    return {};
}

Result<int> run(Context& context, const Arguments& arguments) {
    using Clock = std::chrono::steady_clock;
    auto started = Clock::now();
    context.quiet = arguments.quiet;
    auto options = CAISSON_TRY(box_options(arguments));
    auto detach_keys = CAISSON_TRY_CTX(parse_detach_keys(arguments.detach_keys), "--detach-keys");
    if (arguments.terminal) CAISSON_TRY(use_terminal(options, arguments.interactive));
    options.pull_options.on_layer = layer_progress(context, options.image);
    auto runtime = CAISSON_TRY(open_runtime(context));
    if (arguments.dry_run) {
        auto plan = CAISSON_TRY(runtime.plan(options));
        std::fputs(plan.c_str(), stdout);
        return 0;
    }
    auto box = CAISSON_TRY(runtime.run(options));
    clear_progress();
    std::optional<RawTerminal> raw;
    if (arguments.terminal && arguments.interactive) raw.emplace(CAISSON_TRY(RawTerminal::enter(STDIN_FILENO)));
    StreamOptions streams;
    streams.stdin_fd = arguments.interactive ? STDIN_FILENO : -1;
    streams.stdout_fd = STDOUT_FILENO;
    streams.stderr_fd = STDERR_FILENO;
    if (raw) streams.detach_keys = detach_keys;
    if (arguments.terminal) streams.terminal_fd = arguments.interactive ? STDIN_FILENO : STDOUT_FILENO;
    streams.forward_signals = true;
    auto outcome = CAISSON_TRY(box.main().wait(streams));
    raw.reset();
    if (outcome.kind == Outcome::Kind::kDetached && !arguments.quiet)
        std::fprintf(stderr, "\ncaisson: left %s, which goes on\n  to end it: caisson rm --force %s\n", box.name().c_str(),
                     box.name().c_str());
    if (arguments.timings) {
        std::chrono::microseconds known{0};
        for (const auto& stage : box.timings()) known += stage.duration;
        auto total = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - started);
        print_timings(box, std::max(total - known, std::chrono::microseconds{0}));
    }
    if (!outcome.reason.empty() && !arguments.quiet) {
        Error error;
        error.message = outcome.reason.substr(0, outcome.reason.find('\n'));
        if (auto newline = outcome.reason.find('\n'); newline != std::string::npos) error.hint = outcome.reason.substr(newline + 1);
        report(error);
    }
    return outcome.shell_code();
}

// IMAGE and COMMAND are no options to the parser: everything from IMAGE on is left as it is.
class UsageOfRun : public CLI::Formatter {
  public:
    std::string make_usage(const CLI::App* app, std::string name) const override {
        auto usage = Formatter::make_usage(app, std::move(name));
        return usage.insert(usage.find_last_not_of('\n') + 1, " IMAGE [COMMAND...]");
    }
};

}  // namespace

void add_run(CLI::App& app, Action& action) {
    auto* command = app.add_subcommand("run", "Run a command in a new box");
    auto formatter = std::make_shared<UsageOfRun>();
    formatter->column_width(command->get_formatter()->get_column_width());
    command->formatter(formatter);
    auto arguments = std::make_shared<Arguments>();
    command->footer(
        "Examples:\n"
        "  caisson run --rm caisson/base uname -r\n"
        "  echo 'print(6*7)' | caisson run --rm -i caisson/base python3 -\n"
        "  caisson run --rm -it caisson/base bash\n"
        "  caisson run --rm --timeout 10s --memory 256M -e MODE=test caisson/base sh -c 'echo $MODE'\n"
        "\nExit code: the command's own; 128+N if signal N ended it; 124 after --timeout; 125 if caisson failed;\n"
        "126 if the command cannot be executed, 127 if it does not exist; 2 for a wrong command line.");
    command->prefix_command();
    command->add_flag("--rm", arguments->remove, "Remove the box when its command has ended");
    command->add_option("--name", arguments->name, "Name of the box; drawn if not given")->type_name("NAME");
    command->add_option("--hostname", arguments->hostname, "Host name inside the box")->type_name("NAME");
    command->add_flag("-i,--interactive", arguments->interactive, "Pass this command's input on to the box");
    command->add_flag("-t,--tty", arguments->terminal, "Give the command a terminal; with -i it is yours");
    command->add_option("--detach-keys", arguments->detach_keys, "Keys that leave the box to itself, with -it; '': none")
        ->type_name("KEYS")->capture_default_str();
    command->add_option("-e,--env", arguments->environment, "Set an environment variable; NAME alone takes yours")
        ->type_name("NAME[=VALUE]")->allow_extra_args(false)->take_all();
    command->add_option("--env-file", arguments->environment_files, "Read variables from a file, one a line")
        ->type_name("FILE")->allow_extra_args(false)->take_all();
    command->add_option("-w,--workdir", arguments->working_directory, "Working directory inside the box")->type_name("PATH");
    command->add_option("-u,--user", arguments->user, "User (and group) inside the box, by name or number")->type_name("USER[:GROUP]");
    command->add_option("--entrypoint", arguments->entrypoint, "Replace the image's entrypoint")->type_name("PROGRAM")
        ->each([arguments](const std::string&) { arguments->has_entrypoint = true; });
    command->add_option("--cpus", arguments->cpus, "CPUs, fractions allowed")->type_name("N")->capture_default_str();
    command->add_option("-m,--memory", arguments->memory, "Memory")->type_name("SIZE")->capture_default_str();
    command->add_option("--disk-size", arguments->disk_size, "Size of the root disk (sparse)")->type_name("SIZE")->capture_default_str();
    command->add_option("--pids-limit", arguments->pids_limit, "Most processes and threads; 0 or -1: no limit")
        ->type_name("N")->capture_default_str();
    command->add_option("--tmpfs", arguments->tmpfs, "Mount a tmpfs: PATH[:size=64M,mode=1777,exec]")
        ->type_name("PATH")->allow_extra_args(false)->take_all();
    command->add_flag("--read-only", arguments->read_only, "Make the root disk read-only inside the box");
    command->add_option("--net", arguments->network, "Network; this version has only none")->type_name("MODE")->capture_default_str();
    command->add_option("--pull", arguments->pull, "Ask a registry for the image: always, missing or never")->type_name("WHEN")->capture_default_str();
    command->add_option("--tls-ca", arguments->authorities_file, "Trust these certificate authorities when pulling, too")->type_name("FILE");
    command->add_flag("--plain-http", arguments->plain_http, "Pull without TLS");
    command->add_option("--timeout", arguments->timeout, "Kill the command after this time, exit with 124")->type_name("TIME");
    command->add_flag("--cold", arguments->cold, "Boot the box's own kernel instead of restoring a template");
    command->add_flag("--timings", arguments->timings, "Print where the time went, at the end");
    command->add_flag("--dry-run", arguments->dry_run, "Print what would be done, start nothing");
    command->add_flag("-q,--quiet", arguments->quiet, "No progress, no notices");
    command->callback([command, arguments, &action] {
        arguments->image_and_command = command->remaining();
        action = [arguments](Context& context) { return run(context, *arguments); };
    });
}

}  // namespace caisson::cli
