// What the library tells the journal of what it does. Pure.
#pragma once

#include <string>
#include <vector>

#include "audit/event.h"
#include "caisson/runtime.h"
#include "store/database.h"

namespace caisson::internal {

// Arguments yes, values of environments never: there may be secrets in them.
audit::Event created_event(const store::BoxRecord& record, const BoxOptions& options);
// "VOLUME[/SUBPATH]:TARGET[:ro]"
std::string mount_text(const MountOption& mount);
// What of these options lowers the walls around a box; empty: nothing.
std::vector<std::string> lowered_by(const BoxOptions& options);
audit::Event volume_event(const char* kind, const std::string& name);

}  // namespace caisson::internal
