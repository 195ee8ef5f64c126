// The box's network card. All of it is made before a template is saved, since it is the same in every box: only what is
// random must not be, and nothing of that comes before the first packet of TCP or UDP.
#pragma once

#include "base/result.h"
#include "wire/agent.pb.h"

namespace caisson::agent {

// At boot: addresses, ways out, the gateway; nothing where there is no card. It opens no inet socket, and what it lets the
// kernel send (reports of its multicast groups) is sent before it returns, past everything that draws a seed. Errors name
// what the kernel refuses.
Result<> bring_up_network();

// At Configure: is the card there, and as the host has it? Errors: kGuest, naming what differs.
Result<> check_network(const wire::NetworkLink& link);

}  // namespace caisson::agent
