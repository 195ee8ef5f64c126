#include "box/owner.h"

#include <unistd.h>

#include "os/host.h"
#include "os/process.h"

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

}  // namespace caisson::box
