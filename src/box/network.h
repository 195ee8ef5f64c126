// A box's network, from what was asked for to what its processes are told. Pure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "caisson/runtime.h"
#include "wire/agent.pb.h"
#include "wire/net.pb.h"
#include "wire/shim.pb.h"

namespace caisson::box {

// nullopt: none. kUsage, naming the option.
Result<std::optional<wire::NetworkSpec>> network_of(const BoxOptions& options);
// The card's addresses, the same for every box.
wire::NetworkLink network_link();
// What it comes to in a box's record, its guest included. nullopt: none.
void set_network(wire::BoxSpec& spec, const std::optional<wire::NetworkSpec>& network);
// /etc/resolv.conf of a box.
std::string resolver_file(bool connected);

// The network that a box is to have, where it was `before` (nullptr: none). `ports`: those of a machine that runs, as chosen.
// kUsage, as network_of(); kNotFound: a port that is to be published no more is not.
Result<std::optional<wire::NetworkSpec>> changed_network(const wire::NetworkSpec* before, const std::vector<wire::NetworkSpec::Port>& ports, const BoxUpdate& update);
// "127.0.0.1:8080:80/udp", as --publish takes it.
std::string port_text(const wire::NetworkSpec::Port& port);
// Of what a supervisor tells of its ports, whoever speaks for it: those that can be, addresses in their one spelling.
std::vector<wire::NetworkSpec::Port> sound_ports(const google::protobuf::RepeatedPtrField<wire::NetworkSpec::Port>& told);

void describe_network(const wire::NetworkSpec& spec, BoxDetails& details);

}  // namespace caisson::box
