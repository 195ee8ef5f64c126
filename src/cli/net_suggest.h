// From a box's journal to what its policy would have to allow.
#pragma once

#include "caisson/audit.h"
#include "net/policy/suggest.h"

namespace caisson::cli {

// What an entry tells of the box's wishes; how many entries it says were left out. `learns`: the box was run with --net-learn,
// so its connections were read for the names that they show.
std::int64_t add_network_entry(net::Wishes& wishes, const AuditEvent& event, bool learns);

}  // namespace caisson::cli
