// Limits of policies, in one place. docs/limits.md lists them for users; a test compares the two.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace caisson::net::limits {

// ---- a policy ----
inline constexpr std::size_t kMostRules = 1024;            // of one policy, allow and deny together
inline constexpr std::size_t kLongestRule = 300;           // bytes of a rule's text
inline constexpr std::size_t kLargestPolicyBytes = 1048576;  // of a policy file

// ---- pins: which name had which addresses ----
inline constexpr std::size_t kMostPins = 8192;             // names with an address each, of one box; what expires first goes first
inline constexpr std::size_t kMostPinsOfName = 64;         // addresses of one name
inline constexpr std::chrono::seconds kShortestPin{60};    // an answer that lives shorter is kept so long
inline constexpr std::chrono::seconds kLongestPin{3600};

}  // namespace caisson::net::limits
