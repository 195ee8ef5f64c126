// Small facts of the host and of this process on it.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace caisson::os {

// Names this boot of the host; what was recorded under another one is gone. Source: random(4).
Result<std::string> boot_id();
// The directory of the running program, by /proc/self/exe; empty if it cannot be found out.
std::string program_directory();
// Wall clock, as records keep it: milliseconds since 1970.
std::int64_t unix_ms();
// The same in nanoseconds.
std::int64_t unix_ns();

}  // namespace caisson::os
