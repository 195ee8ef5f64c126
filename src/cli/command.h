// What the commands share: how they are declared, how they reach the runtime and how they speak to the user.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/result.h"
#include "caisson/runtime.h"

namespace CLI {
class App;
}

namespace caisson::cli {

// Set by main for all commands.
struct Context {
    bool quiet = false;
    unsigned umask = 077;  // the caller's; the process has 077 throughout
    bool terminal = false;  // stderr is one: progress may be drawn
};

// A command's work; what it returns is the exit code.
using Action = std::function<Result<int>(Context&)>;

// Declares the whole command line.
void add_everything(CLI::App& app, Action& action);
// Each declares one command (and its subcommands) and stores what to do when it was chosen.
void add_run(CLI::App& app, Action& action);
void add_box_commands(CLI::App& app, Action& action);
void add_stats(CLI::App& app, Action& action);
void add_update(CLI::App& app, Action& action);
void add_port(CLI::App& app, Action& action);
void add_net_commands(CLI::App& app, Action& action);
void add_enter_commands(CLI::App& app, Action& action);
void add_log_command(CLI::App& app, Action& action);
void add_copy(CLI::App& app, Action& action);
void add_image_commands(CLI::App& app, Action& action);
// Those of `caisson image` that have to do with registries and archives.
void add_image_transfer_commands(CLI::App& group, Action& action);
void add_volume_commands(CLI::App& app, Action& action);
// Those of `caisson volume` that bring files in and out.
void add_volume_file_commands(CLI::App& group, Action& action);
void add_registry_commands(CLI::App& app, Action& action);
// What happened: audit, events.
void add_network_log(CLI::App& group, Action& action);      // caisson net log
void add_network_suggest(CLI::App& group, Action& action);  // caisson net suggest
void add_audit_commands(CLI::App& app, Action& action);
void add_template_commands(CLI::App& app, Action& action);
void add_doctor(CLI::App& app, Action& action);
void add_check(CLI::App& app, Action& action);
// `df`, `gc` and `reserve-release`.
void add_space_commands(CLI::App& app, Action& action);

// Drops root if need be and opens the runtime, with progress drawn as the context says. Files that only the caller
// may read are opened before this.
Result<Runtime> open_runtime(Context& context);
RuntimeOptions runtime_options(const Context& context);

// Layers of a pull: a line each as they end, and a summary that is rewritten. Silent unless a terminal listens.
std::function<void(const LayerProgress&)> layer_progress(const Context& context, const std::string& image);

// What the log of a box (or of an execution) keeps, as `logs` prints it: entries before `position`, not older than
// `since_ms` (Unix time).
Result<> print_history(Runtime& runtime, const std::string& box, const std::string& execution, std::uint64_t position,
                       std::int64_t since_ms = 0);

// A JSON document on standard output, as json_text() writes it.
void print(const nlohmann::json& document);

// One line on a terminal, rewritten; nothing elsewhere. Cut to the terminal's width, and never coloured: there is
// nothing that NO_COLOR would have to switch off.
void draw_progress(const Progress& progress);
void clear_progress();

// "caisson: what failed" and the hint behind it, on stderr.
void report(const Error& error);
// Which home report() speaks of when a disk is full; before root is given up.
void remember_home();

// "text" or "json" of --format. kUsage otherwise.
Result<bool> wants_json(const std::string& format);

// Columns padded to the widest cell; the first row is the header.
std::string format_table(const std::vector<std::vector<std::string>>& rows);
// "3 minutes ago"
std::string format_age(std::int64_t unix_seconds);

}  // namespace caisson::cli
