// Random bytes from the kernel.
#pragma once

#include <cstdint>
#include <span>

#include "base/result.h"

namespace caisson::os {
// getrandom(2), blocking until the pool is ready; fills all of `out`.
Result<> fill_random(std::span<std::uint8_t> out);
}  // namespace caisson::os
