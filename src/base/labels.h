// Labels of boxes and volumes, as lists are narrowed by them. Pure.
#pragma once

#include <algorithm>
#include <map>
#include <string>

namespace caisson::base {

// All that are wanted; an empty value fits any.
inline bool has_labels(const std::map<std::string, std::string>& labels, const std::map<std::string, std::string>& wanted) {
    return std::all_of(wanted.begin(), wanted.end(), [&labels](const auto& label) {
        auto found = labels.find(label.first);
        return found != labels.end() && (label.second.empty() || found->second == label.second);
    });
}

}  // namespace caisson::base
