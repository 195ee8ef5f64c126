// Two facts about the host that images are made with. Internal to src/image.
#pragma once

#include <chrono>
#include <string>

namespace caisson::image {

// As OCI spells it: "amd64", "arm64".
std::string host_architecture();
// RFC 3339 in UTC, whole seconds.
std::string format_time(std::chrono::system_clock::time_point when);

}  // namespace caisson::image
