// The box's network card: its addresses and its way out, as the host says.
#pragma once

#include "base/result.h"
#include "wire/agent.pb.h"

namespace caisson::agent {

// Once, after Configure and before anything of the user's runs: it opens inet sockets, whose seeds must not be those of
// the template. Errors name the card or the address.
Result<> bring_up_network(const wire::NetworkLink& link);

}  // namespace caisson::agent
