// The beginning of a guest's TCP connection, out of its packet's first bytes. Pure; the bytes are a guest's.
// And the answer to datagrams that nobody takes. Sources: RFC 791, RFC 792, RFC 4443, RFC 8200, RFC 9293.
#pragma once

#include <cstdint>
#include <optional>

#include "base/bytes.h"
#include "net/address.h"

namespace caisson::net {

struct Beginning {
    Endpoint guest, outside;
    std::uint32_t sequence = 0;  // its first number: the same in what is sent again of one attempt
};

// nullopt: anything but IPv4 (options are passed over) or IPv6 (extension headers are not) with a whole fixed TCP header
// that has SYN and neither ACK nor RST; a fragment; a port 0.
std::optional<Beginning> parse_beginning(base::ByteView packet);

// An ICMP message, "port unreachable", about a datagram from `guest` to `outside`, which are of one family. Its checksum is
// there if that is IPv4; of IPv6 the kernel makes it.
base::Bytes port_unreachable(const Endpoint& guest, const Endpoint& outside);

}  // namespace caisson::net
