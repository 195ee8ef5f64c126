// Capabilities of container processes.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "wire/agent.pb.h"

namespace caisson::agent {

// Effective and permitted become exactly `set`, inheritable empty. False with errno on failure.
bool set_capabilities(std::uint64_t set);

// Takes everything but `set` out of the calling process's bounding set, hence out of whatever it will execute.
Result<> limit_bounding_set(std::uint64_t set);

// The set of a command's root: as its privileges say, else Docker's.
std::uint64_t wanted_capabilities(const wire::Exec& exec);

}  // namespace caisson::agent
