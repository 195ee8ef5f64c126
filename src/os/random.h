// Random bytes from the kernel.
#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <string>

#include "base/bytes.h"
#include "base/id.h"
#include "base/result.h"

namespace caisson::os {
// getrandom(2), blocking until the pool is ready; fills all of `out`.
Result<> fill_random(std::span<std::uint8_t> out);

// So many of them as hexadecimal digits.
inline Result<std::string> random_hex(std::size_t bytes) {
    base::Bytes random(bytes);
    CAISSON_TRY(fill_random(random));
    return base::to_hex(random);
}

// A new identity, of this moment; see base/id.h.
inline Result<std::string> new_ulid() {
    std::uint8_t random[10];
    CAISSON_TRY(fill_random(random));
    return base::make_ulid(std::chrono::system_clock::now(), random);
}
}  // namespace caisson::os
