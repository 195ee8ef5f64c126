// Box identities: 26-character ULIDs (48 bits of milliseconds, 80 random bits, Crockford base 32, lower case).
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace caisson::base {

// `random` are ten random bytes; pure, so that tests can fix both. Source: the ULID specification.
std::string make_ulid(std::chrono::system_clock::time_point now, const std::uint8_t (&random)[10]);
bool is_ulid(std::string_view text);
// A readable name such as "keen-otter-41" from random bits, for boxes that were not named.
std::string make_box_name(std::uint64_t random);

}  // namespace caisson::base
