// From the kernel's first instruction in user space to an agent that listens: what happens once, before the template
// is saved. Nothing here draws random numbers, opens an inet socket, reads boot_id or forks: such seeds would be the
// same in every box of the template.
#pragma once

#include <string>
#include <string_view>

#include "agent/stage.h"
#include "base/result.h"
#include "os/fd.h"

namespace caisson::agent {

struct BootedGuest {
    os::Fd port;  // the virtio-serial port named "agent", non-blocking
    Stage stage;
};

Result<BootedGuest> boot();

// The device of the virtio-serial port that the host gave this name; empty: there is none.
std::string find_port(std::string_view wanted);

// Ends the guest at once, without another word. Never returns.
[[noreturn]] void power_off();

}  // namespace caisson::agent
