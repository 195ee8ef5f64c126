#include "agent/command_path.h"

namespace caisson::agent {

const char* environment_value(const std::vector<std::string>& environment, std::string_view name) {
    const char* value = nullptr;
    for (const auto& entry : environment)
        if (entry.size() > name.size() && entry[name.size()] == '=' && entry.compare(0, name.size(), name) == 0)
            value = entry.c_str() + name.size() + 1;
    return value;
}

std::vector<std::string> program_candidates(const std::string& name, const char* path) {
    if (name.empty()) return {};
    if (name.find('/') != std::string::npos) return {name};
    std::vector<std::string> candidates;
    std::string_view rest = path == nullptr ? kDefaultPath : std::string_view(path);
    while (candidates.size() < kMaxCandidates) {
        auto end = rest.find(':');
        std::string directory(rest.substr(0, end));
        candidates.push_back((directory.empty() ? "." : directory) + "/" + name);
        if (end == std::string_view::npos) break;
        rest.remove_prefix(end + 1);
    }
    return candidates;
}

}  // namespace caisson::agent
