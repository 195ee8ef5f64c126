// Who we are: caisson never works as root. Started as root it drops to a service identity; everything that needs
// root is opened before that.
#pragma once

#include <sys/types.h>

#include "base/result.h"

namespace caisson::os {

struct Identity {
    uid_t user;
    gid_t group;
};

// The numeric identity used when there is no user named "caisson" in /etc/passwd. It lies in the range that systemd
// reserves for service users it makes on the fly, where no distribution assigns fixed accounts.
inline constexpr uid_t kServiceUid = 61777;

// User "caisson" of /etc/passwd if there is one that is not root, else kServiceUid for both halves.
Identity service_identity();

// setgroups([]), setresgid, setresuid for the calling process; verifies that root cannot be taken back.
// Call it while single-threaded.
Result<> drop_to(Identity identity);

}  // namespace caisson::os
