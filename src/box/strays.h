// Processes of a box that lost their owner in a moment in which they were not tied to it yet.
#pragma once

#include <string>

namespace caisson::box {

// SIGKILL to every process of this user that was given files below `box_directory` (by its command line or its
// mounts), but not to the caller. Returns how many were found. Source: proc(5).
int kill_strays(const std::string& box_directory);

}  // namespace caisson::box
