// JSON for a terminal: names from images and words of guests may hold any bytes, and terminals obey some of them. Pure.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace caisson::cli {

// ASCII without control characters (but the line breaks of an `indent` that is not negative): everything else is escaped,
// and what is no UTF-8 replaced by U+FFFD.
std::string json_text(const nlohmann::json& document, int indent = -1);
std::string json_text(const nlohmann::ordered_json& document, int indent = -1);

}  // namespace caisson::cli
