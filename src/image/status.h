// What caisson's helper programs (caisson-unpack, caisson-fetch) say to their caller, and the request that they read
// from it (see image/protocol.h). Only those programs use it.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/result.h"
#include "caisson/secret.h"

namespace caisson::image {

// One line from standard input, followed by as many bytes as its "secret_bytes" says, if the request may have any.
// From then on the process ends as soon as standard input does: with its caller.
Result<nlohmann::json> read_request(Secret* secrets = nullptr);
void report_progress(const nlohmann::json& progress);
void report_progress(const std::string& step, std::uint64_t done, std::uint64_t total);
// Both return the exit code.
int report_result(const nlohmann::json& result);
int report_error(const base::Error& error);

}  // namespace caisson::image
