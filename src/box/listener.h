// The listener: the process that listens to a machine while it is made into a template. The maker of a template puts
// files among those of others, so it cannot lock itself as the shim of a box does; instead it reads nothing that the
// machine says. A fresh copy of the shim does: it gets the machine's sockets and pidfd, locks itself with no file at all,
// and answers with one packet.
#pragma once

#include "vmm/template.h"

namespace caisson::box {

inline constexpr const char* kListenerName = "caisson-listener";

// vmm::listen_to_machine() in such a process. Single-threaded callers only.
tl::expected<void, vmm::BuildFailure> listen_in_own_process(vmm::Listening listening);

// The listener's end; returns the exit code. `wanted` is argv[1].
int serve_as_listener(os::Fd socket, std::string_view wanted);

}  // namespace caisson::box
