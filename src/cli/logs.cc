// caisson logs: what boxes wrote.
#include <time.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <memory>

#include "base/text.h"
#include "cli/command.h"
#include "cli/log_text.h"
#include "cli/text_output.h"

namespace caisson::cli {

using base::failure;

namespace {

struct LogArguments {
    std::string box, since, until, tail = "all", execution, format;
    std::vector<std::string> sources;
    bool follow = false, timestamps = false;
};

Result<LogOptions> options_of(const LogArguments& arguments) {
    LogOptions options;
    options.follow = arguments.follow;
    options.execution = arguments.execution;
    const auto now = now_ns();
    if (!arguments.since.empty())
        options.since_ns = CAISSON_TRY_CTX(parse_log_time(arguments.since, now), "--since");
    if (!arguments.until.empty())
        options.until_ns = CAISSON_TRY_CTX(parse_log_time(arguments.until, now), "--until");
    if (arguments.tail != "all") options.tail_lines = CAISSON_TRY_CTX(base::parse_u64(arguments.tail), "--tail");
    if (arguments.sources.empty()) return options;
    options.want_stdout = options.want_stderr = false;
    for (const auto& source : arguments.sources) {
        if (source == "stdout") options.want_stdout = true;
        else if (source == "stderr") options.want_stderr = true;
        else if (source == "console") options.console = true;
        else
            return failure(Errc::kUsage, "--source '" + base::printable(source, 64) + "' is unknown",
                           "use stdout, stderr or console");
    }
    if (options.console && (options.want_stdout || options.want_stderr))
        return failure(Errc::kUsage, "the console has a log of its own", "ask for it alone: --source console");
    return options;
}

Result<> write_logs(Runtime& runtime, const std::string& box, const LogOptions& options, bool as_json, bool timestamps) {
    Output output(options.follow);
    LinePrefixer prefixer;
    auto read = runtime.logs(box, options, [&](const LogEntry& entry) -> Result<bool> {
        if (as_json) return output.write(STDOUT_FILENO, log_json_line(entry));
        if (entry.kind != LogEntry::Kind::kBytes)
            return output.write(STDERR_FILENO, "caisson: " + base::printable(log_note(entry)) + "\n");
        const int fd = entry.source == LogEntry::Source::kStderr ? STDERR_FILENO : STDOUT_FILENO;
        return output.write(fd, timestamps ? prefixer.prefixed(entry) : std::string(entry.bytes));
    });
    // What came before the trouble is shown before it is told.
    CAISSON_TRY(output.flush());
    return read;
}

Result<int> show_logs(Context& context, const LogArguments& arguments) {
    const bool as_json = CAISSON_TRY(wants_json(arguments.format));
    const auto options = CAISSON_TRY(options_of(arguments));
    auto runtime = CAISSON_TRY(open_runtime(context));
    CAISSON_TRY(write_logs(runtime, arguments.box, options, as_json, arguments.timestamps));
    return 0;
}

}  // namespace

Result<> print_history(Runtime& runtime, const std::string& box, const std::string& execution, std::uint64_t position,
                       std::int64_t since_ms) {
    LogOptions options;
    options.execution = execution;
    options.before_sequence = position;
    if (since_ms > 0) options.since_ns = since_ms * 1'000'000;
    return write_logs(runtime, box, options, false, false);
}

void add_log_command(CLI::App& app, Action& action) {
    auto arguments = std::make_shared<LogArguments>();
    auto* command = app.add_subcommand("logs", "Show what a box wrote, also while it runs");
    command->footer(
        std::string("Examples:\n  caisson logs --follow --tail 10 keen-otter-41\n  caisson logs --since 10m --timestamps "
                    "keen-otter-41\n"
                    "  caisson logs --source stderr --format json keen-otter-41\n\n") +
        kTimeForms);
    command->add_option("BOX", arguments->box, "Name, id or unique beginning of an id")->required();
    command->add_flag("-f,--follow", arguments->follow, "Go on with what comes, until the box has ended");
    command->add_option("--since", arguments->since, "Only what came at or after this time")->type_name("TIME");
    command->add_option("--until", arguments->until, "Only what came until this time")->type_name("TIME");
    command->add_option("-n,--tail", arguments->tail, "Only the last N lines of what is there, or all")
        ->type_name("N")
        ->capture_default_str();
    command->add_flag("-t,--timestamps", arguments->timestamps, "Put the time at which it began before each line");
    command
        ->add_option("--source", arguments->sources, "Only stdout, or stderr; or what the guest's kernel said: console")
        ->type_name("STREAM")
        ->allow_extra_args(false)
        ->take_all();
    command->add_option("--execution", arguments->execution, "Of this execution, not of the box's own command")
        ->type_name("ID");
    command->add_option("--format", arguments->format, "text or json")->type_name("FORMAT");
    command->callback(
        [arguments, &action] { action = [arguments](Context& context) { return show_logs(context, *arguments); }; });
}

}  // namespace caisson::cli
