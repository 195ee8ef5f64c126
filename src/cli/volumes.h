// The parts of `caisson volume` that have files of their own.
#pragma once

#include "cli/command.h"

namespace caisson::cli {

// Each adds its subcommand to the group.
void add_volume_attach(CLI::App& group, Action& action);
void add_volume_detach(CLI::App& group, Action& action);

}  // namespace caisson::cli
