// The jail of caisson-share. In an empty root, with no network and no process but its own, it has what it was handed: its
// orders, the guest's messages, and each volume as a mount of its own that leads nowhere else.
#pragma once

#include <string>

#include "jail/jail.h"
#include "jail/sandbox.h"

namespace caisson::volume {

// Descriptor numbers inside.
inline constexpr int kShareOrdersFd = 0;
inline constexpr int kSharePortFd = 3;
inline constexpr int kShareWindowFd = 4;

// `program`: host path of caisson-share. Under jail::no_jail() the same without what needs a jail.
jail::Description share_jail(const std::string& program, const jail::Sandbox& sandbox);

}  // namespace caisson::volume
