#include "net/space/packet.h"

#include <netinet/in.h>

#include <algorithm>

namespace caisson::net {

namespace {

constexpr std::size_t kTcpHeader = 20;
constexpr std::size_t kHeader4 = 20, kHeader6 = 40;

std::uint16_t load_be16(base::ByteView bytes, std::size_t at) {
    return static_cast<std::uint16_t>(bytes[at] << 8 | bytes[at + 1]);
}

Address address6(base::ByteView bytes, std::size_t at) {
    std::array<std::uint8_t, 16> value;
    std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), value.size(), value.begin());
    return Address::v6(value);
}

// Where the TCP header begins; 0: there is none.
std::size_t parse_v4(base::ByteView packet, Beginning& beginning) {
    if (packet.size() < kHeader4) return 0;
    constexpr std::uint16_t kMoreAndOffset = 0x3fff;
    const std::size_t header = (packet[0] & 0xfu) * 4u;
    if (header < kHeader4 || (load_be16(packet, 6) & kMoreAndOffset) != 0 || packet[9] != IPPROTO_TCP) return 0;
    beginning.guest.address = Address::v4(base::load_be32(packet.data() + 12));
    beginning.outside.address = Address::v4(base::load_be32(packet.data() + 16));
    return header;
}

std::size_t parse_v6(base::ByteView packet, Beginning& beginning) {
    if (packet.size() < kHeader6 || packet[6] != IPPROTO_TCP) return 0;
    beginning.guest.address = address6(packet, 8);
    beginning.outside.address = address6(packet, 24);
    // An IPv4 address in IPv6's clothes is no destination on a wire, and would be taken for the IPv4 address.
    return beginning.guest.address.is_v4() || beginning.outside.address.is_v4() ? 0 : kHeader6;
}

}  // namespace

std::optional<Beginning> parse_beginning(base::ByteView packet) {
    if (packet.empty()) return std::nullopt;
    Beginning beginning;
    const unsigned version = packet[0] >> 4;
    const std::size_t at = version == 4 ? parse_v4(packet, beginning) : version == 6 ? parse_v6(packet, beginning) : 0;
    if (at == 0 || packet.size() < at + kTcpHeader) return std::nullopt;
    constexpr std::uint8_t kSyn = 0x02, kRst = 0x04, kAck = 0x10;
    if ((packet[at + 13] & (kSyn | kRst | kAck)) != kSyn || (packet[at + 12] >> 4) * 4u < kTcpHeader) return std::nullopt;
    beginning.guest.port = load_be16(packet, at);
    beginning.outside.port = load_be16(packet, at + 2);
    beginning.sequence = base::load_be32(packet.data() + at + 4);
    if (beginning.guest.port == 0 || beginning.outside.port == 0) return std::nullopt;
    return beginning;
}

}  // namespace caisson::net
