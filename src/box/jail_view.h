// What the processes of a box run under, as the kernel tells it: not what was asked for.
#pragma once

#include <string>
#include <vector>

#include "caisson/runtime.h"

namespace caisson::box {

// Those of the box with this directory that run now: its supervisor (`supervisor`, 0: none) and its VMM, found by its
// mounts. What /proc does not show to this user is left out.
std::vector<JailedProcess> jail_of(const std::string& box_directory, std::int64_t supervisor);

}  // namespace caisson::box
