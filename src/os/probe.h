// What this host lets a process do, found out by a child that does it and ends.
#pragma once

namespace caisson::os {

// 0, or the errno that making a user namespace came to. Makes one child, which is reaped; async-signal-safe, and safe in
// multi-threaded callers.
int try_user_namespace();

}  // namespace caisson::os
