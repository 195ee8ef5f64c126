// Making boxes: `run` and `create`.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>

#include "base/text.h"
#include "cli/box_options.h"
#include "cli/command.h"
#include "cli/enter.h"

namespace caisson::cli {

using base::failure;

namespace {

struct RunArguments : BoxArguments {
    std::string detach_keys = kDetachKeys;
    bool detach = false, timings = false, dry_run = false, quiet = false;
};

void print_timings(const Box& box, std::chrono::microseconds before) {
    std::chrono::microseconds sum = before;
    std::fprintf(stderr, "\n  %-28s %9.1f ms\n", "prepare (until the shim)", static_cast<double>(before.count()) / 1000);
    for (const auto& stage : box.timings()) {
        std::fprintf(stderr, "  %-28s %9.1f ms\n", stage.name.c_str(), static_cast<double>(stage.duration.count()) / 1000);
        sum += stage.duration;
    }
    std::fprintf(stderr, "  %-28s %9.1f ms\n  %s\n", "sum", static_cast<double>(sum.count()) / 1000, box.engine().c_str());
}

Result<int> run(Context& context, const RunArguments& arguments) {
    using Clock = std::chrono::steady_clock;
    auto started = Clock::now();
    context.quiet = arguments.quiet;
    auto options = CAISSON_TRY(box_options(arguments));
    auto detach_keys = CAISSON_TRY_CTX(parse_detach_keys(arguments.detach_keys), "--detach-keys");
    if (arguments.detach && arguments.timings) return failure(Errc::kUsage, "--timings are of a box that is waited for", "leave out -d");
    options.terminal = arguments.terminal;
    if (arguments.terminal && !arguments.detach) {
        auto size = CAISSON_TRY(caller_terminal(arguments.interactive));
        options.terminal_rows = size.rows;
        options.terminal_columns = size.columns;
    }
    options.pull_options.on_layer = layer_progress(context, options.image);
    CAISSON_TRY(open_copies(options, arguments.quiet));
    auto runtime = CAISSON_TRY(open_runtime(context));
    if (arguments.dry_run) {
        auto plan = CAISSON_TRY(runtime.plan(options));
        std::fputs(plan.c_str(), stdout);
        return 0;
    }
    if (arguments.detach) {
        auto box = CAISSON_TRY(runtime.run_detached(options));
        clear_progress();
        std::printf("%s\n", box.id.c_str());
        return 0;
    }
    auto box = CAISSON_TRY(runtime.run(options));
    clear_progress();
    auto outcome = CAISSON_TRY(connect_caller(box.main(), {.interactive = arguments.interactive,
                                                           .terminal = arguments.terminal,
                                                           .detach_keys = detach_keys}));
    if (outcome.kind == Outcome::Kind::kDetached && !arguments.quiet) say_left(box.name());
    if (arguments.timings) {
        std::chrono::microseconds known{0};
        for (const auto& stage : box.timings()) known += stage.duration;
        auto total = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - started);
        print_timings(box, std::max(total - known, std::chrono::microseconds{0}));
    }
    if (!arguments.quiet) report_reason(outcome);
    return outcome.shell_code();
}

struct CreateArguments : BoxArguments {
    bool quiet = false;
};

Result<int> create(Context& context, const CreateArguments& arguments) {
    context.quiet = arguments.quiet;
    auto options = CAISSON_TRY(box_options(arguments));
    options.terminal = arguments.terminal;
    options.pull_options.on_layer = layer_progress(context, options.image);
    CAISSON_TRY(open_copies(options, arguments.quiet));
    auto runtime = CAISSON_TRY(open_runtime(context));
    auto box = CAISSON_TRY(runtime.create(options));
    clear_progress();
    std::printf("%s\n", box.id.c_str());
    return 0;
}

void add_create(CLI::App& app, Action& action) {
    auto* command = app.add_subcommand("create", "Make a box without starting it");
    auto arguments = std::make_shared<CreateArguments>();
    arguments->command_name = "create";
    command->footer("Example:\n  caisson create --name job caisson/base sleep 600\n  caisson start job");
    add_box_options(*command, arguments);
    command->add_flag("-q,--quiet", arguments->quiet, "No progress, no notices");
    command->callback([command, arguments, &action] {
        arguments->image_and_command = command->remaining();
        action = [arguments](Context& context) { return create(context, *arguments); };
    });
}

}  // namespace

void add_run(CLI::App& app, Action& action) {
    auto* command = app.add_subcommand("run", "Run a command in a new box");
    auto arguments = std::make_shared<RunArguments>();
    arguments->command_name = "run";
    command->footer(
        "Examples:\n"
        "  caisson run --rm caisson/base uname -r\n"
        "  echo 'print(6*7)' | caisson run --rm -i caisson/base python3 -\n"
        "  caisson run --rm -it caisson/base bash\n"
        "  caisson run -d --name web --restart on-failure caisson/base python3 -m http.server\n"
        "  caisson run --rm -v data:/data caisson/base sh -c 'date >> /data/log'     # kept in the volume 'data'\n"
        "  caisson run --rm -v data/app.conf:/etc/app.conf:ro -v /scratch --copy ./src:/work caisson/base sh\n"
        "  caisson run --rm --timeout 10s --memory 256M -e MODE=test caisson/base sh -c 'echo $MODE'\n"
        "  caisson run --rm --allow-net pypi.org --net-proxy http://192.0.2.1:3128 caisson/base pip download six\n"
        "\nExit code: the command's own; 128+N if signal N ended it; 124 after --timeout; 125 if caisson failed;\n"
        "126 if the command cannot be executed, 127 if it does not exist; 2 for a wrong command line.");
    add_box_options(*command, arguments);
    command->add_flag("-d,--detach", arguments->detach, "Leave the box to itself, print its id");
    command->add_option("--detach-keys", arguments->detach_keys, "Keys that leave the box to itself, with -it; '': none")
        ->type_name("KEYS")->capture_default_str();
    command->add_flag("--timings", arguments->timings, "Print where the time went, at the end");
    command->add_flag("--dry-run", arguments->dry_run, "Print what would be done, start nothing");
    command->add_flag("-q,--quiet", arguments->quiet, "No progress, no notices");
    command->callback([command, arguments, &action] {
        arguments->image_and_command = command->remaining();
        action = [arguments](Context& context) { return run(context, *arguments); };
    });
    add_create(app, action);
}

}  // namespace caisson::cli
