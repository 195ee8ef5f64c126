// Where a command's program may be: the paths to try, in order. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace caisson::agent {

inline constexpr std::string_view kDefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
inline constexpr std::size_t kMaxCandidates = 256;

// The value of `name` in "NAME=value" strings (the last one counts, as in execvp's callers), or nullptr.
const char* environment_value(const std::vector<std::string>& environment, std::string_view name);

// A name with a slash is itself the only candidate; else one for each directory of `path` (nullptr: Docker's
// default), an empty directory being the working directory as POSIX has it. Empty for an empty name.
std::vector<std::string> program_candidates(const std::string& name, const char* path);

}  // namespace caisson::agent
