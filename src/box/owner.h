// Which process answers for a box: how its record names it, and whether it is still there.
#pragma once

#include "store/database.h"
#include "store/home.h"

namespace caisson::box {

// Why a box ended whose supervisor was not there to end it, or was itself told to leave: its restart policy may want
// it back.
inline constexpr const char* kHostRebooted = "host rebooted";
inline constexpr const char* kSupervisorDied = "supervisor died";
inline constexpr const char* kSupervisorStopped = "the box's supervisor was told to stop";

// The calling process, as the record of a box names its owner.
Result<store::ProcessIdentity> this_process();
// Whether that very process still lives, not merely one of its number. `boot_id` is that of this boot.
bool owner_lives(const store::ProcessIdentity& owner, const std::string& boot_id);

// Whether somebody answers for a box that is recorded to be live: that process, as long as the box's lock is held. While one is
// being made the process is enough, and so it is if there is no lock any more. In a copy of a home the records name the
// supervisors of the home that it was copied from.
bool is_answered_for(const store::Home& home, const store::BoxRecord& record, const std::string& boot_id);

}  // namespace caisson::box
