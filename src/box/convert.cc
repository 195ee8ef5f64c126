#include "box/convert.h"

#include <nlohmann/json.hpp>

namespace caisson::box {

std::string command_json(const std::vector<std::string>& words) {
    return nlohmann::json(words).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string network_policy_text(const wire::NetworkSpec& network) { return network.policy().empty() ? "none" : network.policy(); }

std::string network_limits_text(const wire::NetworkSpec::Limits& limits) {
    const std::pair<const char*, std::uint64_t> all[] = {{"connections", limits.connections()}, {"flows", limits.flows()}, {"connects", limits.connects_per_second()},
                                                         {"in", limits.bytes_per_second_in()}, {"out", limits.bytes_per_second_out()}, {"burst", limits.burst_bytes()}};
    std::string text;
    for (const auto& [name, number] : all)
        if (number != 0) text += std::string(text.empty() ? "" : " ") + name + "=" + std::to_string(number);
    return text.empty() ? "default" : text;
}

}  // namespace caisson::box
