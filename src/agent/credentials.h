// Capabilities of container processes.
#pragma once

#include <cstdint>

#include "base/result.h"

namespace caisson::agent {

// Docker's default set of 14 (moby oci/caps/defaults.go).
std::uint64_t default_capabilities();

// Effective and permitted become exactly `set`, inheritable empty. False with errno on failure.
bool set_capabilities(std::uint64_t set);

// Takes everything but `set` out of the calling process's bounding set, hence out of whatever it will fork.
Result<> limit_bounding_set(std::uint64_t set);

}  // namespace caisson::agent
