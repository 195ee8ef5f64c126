// Waiting for the kernel to notice a device.
#pragma once

#include <chrono>
#include <functional>

#include "base/result.h"

namespace caisson::agent {

// Until `ready` says true, asked again at every uevent of the kernel (a netlink socket of its own, opened only if the
// answer is no at first). kTimeout after `deadline`: "`what` did not appear".
Result<> wait_for_device(const std::function<bool()>& ready, std::chrono::milliseconds deadline, const char* what);

}  // namespace caisson::agent
