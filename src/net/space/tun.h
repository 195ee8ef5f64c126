// The tun device, for a process of another user.
#pragma once

#include <sys/types.h>

#include "base/result.h"
#include "os/fd.h"

namespace caisson::net {

// The tun device, open with O_PATH: `user` can open it anew through /proc/self/fd, and sees no more of /dev. The host's own
// node if that user may open it; else, if the caller is root, a node of that user's alone, which has no name any more when
// this returns. Errors: kHostMissing, there is no such device; kPermission; each says what would help.
Result<os::Fd> open_tun_node(uid_t user);

}  // namespace caisson::net
