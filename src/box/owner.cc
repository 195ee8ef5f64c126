#include "box/owner.h"

#include <unistd.h>

#include "os/file.h"
#include "os/host.h"
#include "os/process.h"
#include "store/check.h"

namespace caisson::box {

Result<store::ProcessIdentity> this_process() {
    store::ProcessIdentity self;
    self.pid = ::getpid();
    self.start_time = static_cast<std::int64_t>(CAISSON_TRY(os::process_start_time(::getpid())));
    self.boot_id = CAISSON_TRY(os::boot_id());
    return self;
}

bool owner_lives(const store::ProcessIdentity& owner, const std::string& boot_id) {
    if (owner.boot_id != boot_id) return false;
    auto start = os::process_start_time(static_cast<pid_t>(owner.pid));
    return start && static_cast<std::int64_t>(*start) == owner.start_time;
}

bool is_answered_for(const store::Home& home, const store::BoxRecord& record, const std::string& boot_id) {
    if (!store::is_live(record.state) || !owner_lives(record.owner, boot_id)) return false;
    const auto lock = home.box(record.id) + "/lock";
    return record.state == store::BoxState::kCreating || !os::exists(lock) || store::is_held(lock);
}

}  // namespace caisson::box
