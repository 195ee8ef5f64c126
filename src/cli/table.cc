// The whole command line, as the parser, its help, the manual pages and the shells' completions know it.
#include <CLI/CLI.hpp>

#include "cli/command.h"

namespace caisson::cli {

namespace {

constexpr const char* kDescription =
    "caisson runs commands from OCI images, each in a micro-VM of its own.\n\n"
    "  caisson run --rm caisson/base uname -a\n"
    "  caisson run --rm -i caisson/base python3 - < script.py\n"
    "  caisson image pull debian:12\n"
    "  caisson doctor";

}  // namespace

void add_everything(CLI::App& app, Action& action) {
    app.description(kDescription);
    app.set_version_flag("--version", "caisson " + std::string(version()));
    app.require_subcommand(1);
    app.fallthrough(false);
    app.get_formatter()->column_width(34);
    add_run(app, action);
    add_enter_commands(app, action);
    add_copy(app, action);
    add_box_commands(app, action);
    add_stats(app, action);
    add_update(app, action);
    add_port(app, action);
    add_net_commands(app, action);
    add_log_command(app, action);
    add_audit_commands(app, action);
    add_image_commands(app, action);
    add_volume_commands(app, action);
    add_registry_commands(app, action);
    add_template_commands(app, action);
    add_check(app, action);
    add_space_commands(app, action);
    add_doctor(app, action);
}

}  // namespace caisson::cli
