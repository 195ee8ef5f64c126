// Entering boxes: `exec` and `attach`, and what `run` shares with them.
#include "cli/enter.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <optional>

#include "base/text.h"
#include "cli/box_options.h"
#include "cli/command.h"

namespace caisson::cli {

using base::failure;

Result<TerminalSize> caller_terminal(bool interactive) {
    const int fd = interactive ? STDIN_FILENO : STDOUT_FILENO;
    if (::isatty(fd) != 1)
        return failure(Errc::kUsage, std::string("-t needs a terminal, and standard ") + (interactive ? "input" : "output") + " is none",
                       interactive ? "leave -t out to pass a file or a pipe on" : "leave -t out to write to a file or a pipe");
    return terminal_size(fd);
}

Result<Outcome> connect_caller(Execution& execution, const CallerStreams& caller) {
    std::optional<RawTerminal> raw;
    if (caller.terminal && caller.interactive && ::isatty(STDIN_FILENO) == 1)
        raw.emplace(CAISSON_TRY(RawTerminal::enter(STDIN_FILENO)));
    StreamOptions streams;
    streams.stdin_fd = caller.interactive ? STDIN_FILENO : -1;
    streams.stdout_fd = STDOUT_FILENO;
    streams.stderr_fd = STDERR_FILENO;
    if (raw) streams.detach_keys = caller.detach_keys;
    if (caller.terminal) streams.terminal_fd = caller.interactive ? STDIN_FILENO : STDOUT_FILENO;
    streams.forward_signals = true;
    return execution.wait(streams);
}

void report_reason(const Outcome& outcome) {
    if (outcome.reason.empty()) return;
    Error error;
    error.message = outcome.reason.substr(0, outcome.reason.find('\n'));
    if (auto newline = outcome.reason.find('\n'); newline != std::string::npos) error.hint = outcome.reason.substr(newline + 1);
    // The record keeps words only.
    for (const char* full : {"No space left on device", "Disk quota exceeded", "the host's disk is full", "host disk full"})
        if (outcome.reason.find(full) != std::string::npos) error.code = Errc::kNoSpace;
    report(error);
}

void say_left(const std::string& box) {
    std::fprintf(stderr, "\ncaisson: left %s, which goes on\n  to come back: caisson attach %s\n  to end it: caisson stop %s\n",
                 box.c_str(), box.c_str(), box.c_str());
}

namespace {

struct ExecArguments {
    std::vector<std::string> environment, environment_files;
    std::string working_directory, user, timeout, detach_keys = kDetachKeys;
    bool interactive = false, terminal = false, detach = false, quiet = false, privileged = false;
    std::vector<std::string> box_and_command;
};

Result<int> exec(Context& context, const ExecArguments& arguments) {
    context.quiet = arguments.quiet;
    if (arguments.box_and_command.size() < 2)
        return failure(Errc::kUsage, arguments.box_and_command.empty() ? "no box is given" : "no command is given",
                       "write: caisson exec [options] BOX COMMAND...");
    const auto& box = arguments.box_and_command[0];
    if (box[0] == '-') return failure(Errc::kUsage, "unknown option " + base::printable(box, 64), "see: caisson exec --help");
    ExecOptions options;
    auto command = arguments.box_and_command.begin() + 1;
    if (*command == "--" && command + 1 != arguments.box_and_command.end()) ++command;
    options.command.assign(command, arguments.box_and_command.end());
    options.environment = CAISSON_TRY(parse_environment(arguments.environment_files, arguments.environment));
    options.working_directory = arguments.working_directory;
    options.user = arguments.user;
    options.privileged = arguments.privileged;
    options.open_stdin = arguments.interactive;
    options.terminal = arguments.terminal;
    if (!arguments.timeout.empty()) options.timeout = CAISSON_TRY_CTX(base::parse_duration(arguments.timeout), "--timeout");
    auto detach_keys = CAISSON_TRY_CTX(parse_detach_keys(arguments.detach_keys), "--detach-keys");
    if (arguments.terminal && !arguments.detach) {
        auto size = CAISSON_TRY(caller_terminal(arguments.interactive));
        options.terminal_rows = size.rows;
        options.terminal_columns = size.columns;
    }
    auto runtime = CAISSON_TRY(open_runtime(context));
    if (arguments.detach) {
        auto execution = CAISSON_TRY(runtime.exec_detached(box, options));
        std::printf("%s\n", execution.id.c_str());
        return 0;
    }
    auto execution = CAISSON_TRY(runtime.exec(box, options));
    auto outcome = CAISSON_TRY(connect_caller(
        execution, {.interactive = arguments.interactive, .terminal = arguments.terminal, .detach_keys = detach_keys}));
    if (outcome.kind == Outcome::Kind::kDetached) {
        if (!arguments.quiet)
            std::fprintf(stderr, "\ncaisson: left the command, which goes on; see: caisson inspect %s\n", base::printable(box).c_str());
    } else if (!arguments.quiet) {
        report_reason(outcome);
    }
    return outcome.shell_code();
}

struct AttachArguments {
    std::string box, execution, detach_keys = kDetachKeys;
    bool no_stdin = false, quiet = false, logs = false;
};

Result<int> attach(Context& context, const AttachArguments& arguments) {
    context.quiet = arguments.quiet;
    auto detach_keys = CAISSON_TRY_CTX(parse_detach_keys(arguments.detach_keys), "--detach-keys");
    auto runtime = CAISSON_TRY(open_runtime(context));
    auto execution = CAISSON_TRY(runtime.attach(arguments.box, {.execution = arguments.execution, .input = !arguments.no_stdin}));
    if (arguments.logs) CAISSON_TRY(print_history(runtime, arguments.box, arguments.execution, execution.log_position()));
    auto outcome = CAISSON_TRY(connect_caller(
        execution, {.interactive = execution.input(), .terminal = execution.terminal(), .detach_keys = detach_keys}));
    if (outcome.kind == Outcome::Kind::kDetached && !arguments.quiet) say_left(base::printable(arguments.box));
    if (outcome.kind != Outcome::Kind::kDetached && !arguments.quiet) report_reason(outcome);
    return outcome.shell_code();
}

}  // namespace

void add_enter_commands(CLI::App& app, Action& action) {
    auto* command = app.add_subcommand("exec", "Run a further command in a box that runs");
    auto arguments = std::make_shared<ExecArguments>();
    show_operands(*command, "BOX COMMAND...");
    command->footer(
        "Examples:\n"
        "  caisson exec web ps\n"
        "  caisson exec -it web sh\n"
        "  caisson exec -d web sh -c 'make > /tmp/log 2>&1'\n"
        "\nExit code: as that of run. The command ends with this one, unless it is detached.");
    command->prefix_command();
    command->add_flag("-i,--interactive", arguments->interactive, "Pass this command's input on to it");
    command->add_flag("-t,--tty", arguments->terminal, "Give it a terminal; with -i it is yours");
    command->add_flag("-d,--detach", arguments->detach, "Leave it to itself, print its id: see logs, wait and attach with --execution");
    command->add_option("-e,--env", arguments->environment, "Set an environment variable; NAME alone takes yours")
        ->type_name("NAME[=VALUE]")->allow_extra_args(false)->take_all();
    command->add_option("--env-file", arguments->environment_files, "Read variables from a file, one a line")
        ->type_name("FILE")->allow_extra_args(false)->take_all();
    command->add_option("-w,--workdir", arguments->working_directory, "Working directory inside the box")->type_name("PATH");
    command->add_option("-u,--user", arguments->user, "User (and group) inside the box, by name or number")->type_name("USER[:GROUP]");
    command->add_flag("--privileged", arguments->privileged, "Give it all capabilities of Linux in the box");
    command->add_option("--timeout", arguments->timeout, "Kill it after this time, exit with 124")->type_name("TIME");
    command->add_option("--detach-keys", arguments->detach_keys, "Keys that leave it to itself, with -it; '': none")
        ->type_name("KEYS")->capture_default_str();
    command->add_flag("-q,--quiet", arguments->quiet, "No notices");
    command->callback([command, arguments, &action] {
        arguments->box_and_command = command->remaining();
        action = [arguments](Context& context) { return exec(context, *arguments); };
    });

    auto* join = app.add_subcommand("attach", "Join the command of a box, or an execution in it");
    auto joined = std::make_shared<AttachArguments>();
    join->footer("Examples:\n  caisson attach web\n  caisson attach --logs --execution 01k3 web\n"
                 "\nExit code: as that of run; 0 if left by the detach keys.");
    join->add_option("BOX", joined->box, "Name, id or unique beginning of an id")->required();
    join->add_option("--execution", joined->execution, "Id of a detached execution; the box's own command if not given")->type_name("ID");
    join->add_flag("--logs", joined->logs, "Print what its log keeps first");
    join->add_flag("--no-stdin", joined->no_stdin, "Leave its input alone");
    join->add_option("--detach-keys", joined->detach_keys, "Keys that leave it to itself; '': none")->type_name("KEYS")->capture_default_str();
    join->add_flag("-q,--quiet", joined->quiet, "No notices");
    join->callback([joined, &action] { action = [joined](Context& context) { return attach(context, *joined); }; });
}

}  // namespace caisson::cli
