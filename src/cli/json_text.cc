#include "cli/json_text.h"

#include <nlohmann/json.hpp>

namespace caisson::cli {

namespace {

template <typename Json>
std::string written(const Json& document, int indent) {
    const auto dumped = document.dump(indent, ' ', true, Json::error_handler_t::replace);
    std::string text;
    text.reserve(dumped.size());
    for (char c : dumped) {
        // JSON does not count DEL among the control characters. Outside of strings there is none.
        if (c == '\x7f') text += "\\u007f";
        else text += c;
    }
    return text;
}

}  // namespace

std::string json_text(const nlohmann::json& document, int indent) { return written(document, indent); }
std::string json_text(const nlohmann::ordered_json& document, int indent) { return written(document, indent); }

}  // namespace caisson::cli
