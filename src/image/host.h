// Two facts about the host that images are made with. Internal to src/image.
#pragma once

#include <chrono>
#include <string>

#include "base/result.h"
#include "image/oci_json.h"

namespace caisson::image {

// As OCI spells it: "amd64", "arm64".
std::string host_architecture();
// kUnsupported if the image's config names another system than linux, or another architecture.
Result<> check_platform(const ImageConfig& config, const std::string& architecture);
// RFC 3339 in UTC, whole seconds.
std::string format_time(std::chrono::system_clock::time_point when);

}  // namespace caisson::image
