// Control frames: the messages of agent.proto, packed and unpacked. The one door through which a peer's messages
// come in; what a hostile guest could put into a field is checked here.
#pragma once

#include "base/bytes.h"
#include "base/result.h"
#include "wire/agent.pb.h"

namespace caisson::wire {

// Appends a whole control frame. kLimit if the message is larger than kMaxControlBytes.
Result<> append_control(base::Bytes& out, const ToAgent& message);
Result<> append_control(base::Bytes& out, const FromAgent& message);

// The payload of a control frame. kProtocol if it is not a message, or one that this version does not know.
Result<ToAgent> parse_to_agent(base::ByteView payload);
// The same for the guest's side, which is hostile: codes and signals are in their ranges afterwards, kinds are known
// ones, texts at most kMaxTextBytes. Texts may still hold any bytes: base::printable() before they reach a terminal.
Result<FromAgent> parse_from_agent(base::ByteView payload);

inline constexpr std::size_t kMaxTextBytes = 4096;

}  // namespace caisson::wire
