// Carries FUSE messages between the guest's kernel and the share server of the host, through a virtio-serial port. What
// the server promised is answered here (share_cache.h). A process of its own: whoever touches a share waits in the kernel
// for what this process carries, and the agent touches shares, too.
#pragma once

#include "base/result.h"
#include "os/fd.h"

namespace caisson::agent {

// Until one of the two ends: {} if the file system was unmounted, an error if the host hung up or sent nonsense. Both
// descriptors are made non-blocking. `window_device`: see ShareWindow. Closing `fuse` afterwards fails whatever still waits (ENOTCONN).
Result<> pump_share(int fuse, int port, os::Fd window_device);

}  // namespace caisson::agent
