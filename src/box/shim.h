// The shim: supervisor of one box, or maker of one template. A single-threaded process of its own, tied to its
// client by a socket: when that closes, the box ends.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "os/fd.h"

namespace caisson::box {

// Serves exactly one request that arrives on `client`; returns when everything of it is gone.
Result<> serve(os::Fd client);

// The command that a box is started with; its streams have this number between client and shim, and shim and agent.
inline constexpr std::uint32_t kMainExecution = 1;

// Descriptor numbers that a shim is started with.
inline constexpr int kShimClientFd = 3;
inline constexpr int kShimLockFd = 4;  // the box's lock, held as long as the shim lives
inline constexpr int kShimKvmFd = 5;   // /dev/kvm, for the machine

}  // namespace caisson::box
