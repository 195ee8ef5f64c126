// What the agent says on the guest's console: failures only, since each character costs a device exit.
#pragma once

#include <string_view>

namespace caisson::agent {
void log_failure(std::string_view text);
}  // namespace caisson::agent
