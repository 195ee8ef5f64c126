// Names of hosts as everything about the network compares them. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace caisson::net {

// The host's own loopback, as the guest calls it. Reached only by a rule that says exactly this.
inline constexpr std::string_view kHostName = "host.caisson.internal";

// The name in lower case and without a dot at its end; nullopt: not a name. Labels are of letters, digits, '-' and '_', 1 to
// 63 of them, in all 253 bytes; a name whose last label is a number (decimal or 0x...) is a spelling of an address for many
// programs and no name here. A name from the wire goes through this before it is compared with anything.
std::optional<std::string> normal_name(std::string_view text);

// `name` lies below `suffix` and is not itself it; both as normal_name() gives them.
bool is_below(std::string_view name, std::string_view suffix);

}  // namespace caisson::net
