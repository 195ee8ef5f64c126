#include "net/space/packet.h"

#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>

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

void store_be16(std::uint8_t* at, std::size_t value) {
    at[0] = static_cast<std::uint8_t>(value >> 8);
    at[1] = static_cast<std::uint8_t>(value);
}

// RFC 1071, of an even number of bytes.
std::uint16_t checksum(base::ByteView bytes) {
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i < bytes.size(); i += 2) sum += load_be16(bytes, i);
    while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<std::uint16_t>(~sum);
}

constexpr std::size_t kUdpHeader = 8, kIcmpHeader = 8;

base::Bytes header4(const Endpoint& guest, const Endpoint& outside) {
    base::Bytes header{0x45, 0, 0, kHeader4 + kUdpHeader, 0, 0, 0, 0, 64, IPPROTO_UDP, 0, 0};
    for (const auto* end : {&guest, &outside}) base::append(header, base::ByteView(end->address.bytes()).subspan(12));
    store_be16(&header[10], checksum(header));
    return header;
}

base::Bytes header6(const Endpoint& guest, const Endpoint& outside) {
    base::Bytes header{0x60, 0, 0, 0, 0, kUdpHeader, IPPROTO_UDP, 64};
    for (const auto* end : {&guest, &outside}) base::append(header, end->address.bytes());
    return header;
}

}  // namespace

base::Bytes port_unreachable(const Endpoint& guest, const Endpoint& outside) {
    const bool four = guest.address.is_v4();
    base::Bytes message(kIcmpHeader);
    message[0] = four ? ICMP_DEST_UNREACH : ICMP6_DST_UNREACH;
    message[1] = four ? ICMP_PORT_UNREACH : ICMP6_DST_UNREACH_NOPORT;
    base::append(message, four ? header4(guest, outside) : header6(guest, outside));
    std::uint8_t udp[kUdpHeader]{};
    store_be16(udp, guest.port);
    store_be16(udp + 2, outside.port);
    store_be16(udp + 4, kUdpHeader);
    base::append(message, udp);
    if (four) store_be16(&message[2], checksum(message));
    return message;
}

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
