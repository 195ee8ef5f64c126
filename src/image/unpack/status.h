// The status lines that caisson-unpack writes, and the request that it reads (see image/protocol.h).
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/result.h"

namespace caisson::image::unpack {

// One line from standard input. From then on the process ends as soon as standard input does: with its caller.
Result<nlohmann::json> read_request();
void report_progress(const std::string& step, std::uint64_t done, std::uint64_t total);
// Both return the exit code.
int report_result(const nlohmann::json& result);
int report_error(const base::Error& error);

}  // namespace caisson::image::unpack
