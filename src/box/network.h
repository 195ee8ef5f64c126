// A box's network, from what was asked for to what its processes are told. Pure.
#pragma once

#include <optional>
#include <string>

#include "caisson/runtime.h"
#include "wire/agent.pb.h"
#include "wire/net.pb.h"

namespace caisson::box {

// nullopt: none. kUsage, naming the option.
Result<std::optional<wire::NetworkSpec>> network_of(const BoxOptions& options);
// The card's addresses, the same for every box.
wire::NetworkLink network_link();
void describe_network(const wire::NetworkSpec& spec, BoxDetails& details);

}  // namespace caisson::box
