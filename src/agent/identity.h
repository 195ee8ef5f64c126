// What makes this guest different from every other one of the same template: randomness, the clock, the host name.
#pragma once

#include <chrono>

#include "base/result.h"
#include "os/fd.h"
#include "wire/agent.pb.h"

namespace caisson::agent {

inline constexpr int kMinEntropyBytes = 32;
inline constexpr int kMaxEntropyBytes = 4096;

// CLOCK_REALTIME becomes `nanoseconds` plus the time since `received`.
Result<> set_clock(std::int64_t nanoseconds, std::chrono::steady_clock::time_point received);

// `random` is /dev/urandom, `received` when the message arrived: the time since then is added to the host's clock. Wipes
// the entropy.
Result<> take_identity(wire::Configure& configure, const os::Fd& random, std::chrono::steady_clock::time_point received);

}  // namespace caisson::agent
