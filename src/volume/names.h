// What volumes, places in them and places in a box may be called. Pure.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace caisson::volume {

inline constexpr std::size_t kMaxNameBytes = 64;
inline constexpr std::size_t kMaxPathBytes = 4095;

// A letter or digit, then letters, digits, "_", "." and "-". Errors: kUsage, with what is allowed.
Result<> check_name(std::string_view name);

// Absolute, not "/", no empty part, no "." or "..": where something is mounted in a box. kUsage names the path.
Result<> check_target(std::string_view path);

// Relative, otherwise the same: a file or directory in a volume.
Result<> check_subpath(std::string_view path);

// A name for a volume that is to hold what is at `path` on the host: made of its last part; "data" if nothing is left.
std::string name_for(std::string_view path);

}  // namespace caisson::volume
