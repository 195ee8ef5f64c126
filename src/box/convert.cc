#include "box/convert.h"

#include <nlohmann/json.hpp>

namespace caisson::box {

std::string command_json(const std::vector<std::string>& words) {
    return nlohmann::json(words).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace caisson::box
