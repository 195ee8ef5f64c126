// Names of hosts, in the one spelling in which they are judged, asked for and recorded. Pure.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace caisson::net {

inline constexpr std::size_t kLongestName = 253;   // bytes, RFC 1035 2.3.4, without the dot at the end
inline constexpr std::size_t kLongestLabel = 63;

// Lower-case, without one dot at the end; labels of a-z, 0-9, '-' and '_' that neither begin nor end with '-'.
// nullopt: anything else, also what some program would take for an address ("1.2.3.4", "0x7f.1", "2130706433": a last
// label that is a number, as in the URL standard), so that no name means an address to whoever resolves it.
std::optional<std::string> canonical_name(std::string_view text);

// The host's own loopback, as the guest calls it. Reached only by a rule that says exactly this.
inline constexpr std::string_view kHostName = "host.caisson.internal";

// `name` lies below `suffix` and is not itself it; both as canonical_name() gives them.
bool is_below(std::string_view name, std::string_view suffix);

}  // namespace caisson::net
