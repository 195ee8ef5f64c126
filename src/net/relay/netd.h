// caisson-netd: the whole outside network of one box. One thread, one loop; jailed: it opens no file, and has the host's
// network, the sockets that it was given and nothing else.
#pragma once

#include <memory>
#include <string_view>

#include "base/result.h"
#include "os/fd.h"

namespace caisson::net::relay {

// Descriptor numbers of caisson-netd.
inline constexpr int kOrdersFd = 0;   // packets of wire::NetworkOrder from the launcher; it ends with the launcher
inline constexpr int kEventsFd = 3;   // packets of wire::NetworkEvent, to the supervisor
// What it answers to an order that asks for it.
inline constexpr std::string_view kConfirmation = "k";

// Serves until the orders' other end is gone, or caisson-netns is. Errors: what it was ordered cannot be done.
Result<> serve(os::Fd orders, os::Fd events);

}  // namespace caisson::net::relay
