#include "net/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>

namespace caisson::net {

namespace {
constexpr std::array<std::uint8_t, 12> kMapped{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
constexpr std::size_t kLongestText = INET6_ADDRSTRLEN;
}  // namespace

Address Address::v4(std::uint32_t host_order) {
    Address made;
    std::copy(kMapped.begin(), kMapped.end(), made.bytes_.begin());
    for (std::size_t i = 0; i < 4; ++i) made.bytes_[12 + i] = static_cast<std::uint8_t>(host_order >> (24 - 8 * i));
    return made;
}

Address Address::v6(const std::array<std::uint8_t, 16>& bytes) {
    Address made;
    made.bytes_ = bytes;
    return made;
}

std::optional<Address> Address::parse(std::string_view text) {
    if (text.empty() || text.size() >= kLongestText || text.find('\0') != std::string_view::npos) return std::nullopt;
    const std::string copy(text);
    in_addr four{};
    if (::inet_pton(AF_INET, copy.c_str(), &four) == 1) return v4(ntohl(four.s_addr));
    Address made;
    if (::inet_pton(AF_INET6, copy.c_str(), made.bytes_.data()) == 1) return made;
    return std::nullopt;
}

bool Address::is_v4() const { return std::equal(kMapped.begin(), kMapped.end(), bytes_.begin()); }

std::uint32_t Address::v4_number() const {
    return static_cast<std::uint32_t>(bytes_[12]) << 24 | static_cast<std::uint32_t>(bytes_[13]) << 16 |
           static_cast<std::uint32_t>(bytes_[14]) << 8 | static_cast<std::uint32_t>(bytes_[15]);
}

std::string Address::to_string() const {
    char text[kLongestText];
    if (is_v4()) return ::inet_ntop(AF_INET, bytes_.data() + 12, text, sizeof text);
    return ::inet_ntop(AF_INET6, bytes_.data(), text, sizeof text);
}

bool Address::shares_prefix(const Address& other, unsigned bits) const {
    const unsigned whole = std::min(bits, 128u) / 8, rest = std::min(bits, 128u) % 8;
    if (!std::equal(bytes_.begin(), bytes_.begin() + whole, other.bytes_.begin())) return false;
    return rest == 0 || (bytes_[whole] ^ other.bytes_[whole]) >> (8 - rest) == 0;
}

std::string Endpoint::to_string() const {
    const auto host = address.is_v4() ? address.to_string() : "[" + address.to_string() + "]";
    return host + ":" + std::to_string(port);
}

SocketAddress to_socket(const Endpoint& endpoint, bool dual) {
    SocketAddress made;
    if (endpoint.address.is_v4() && !dual) {
        sockaddr_in four{};
        four.sin_family = AF_INET;
        four.sin_port = htons(endpoint.port);
        four.sin_addr.s_addr = htonl(endpoint.address.v4_number());
        std::memcpy(&made.storage, &four, sizeof four);
        made.length = sizeof four;
        return made;
    }
    sockaddr_in6 six{};
    six.sin6_family = AF_INET6;
    six.sin6_port = htons(endpoint.port);
    std::copy(endpoint.address.bytes().begin(), endpoint.address.bytes().end(), six.sin6_addr.s6_addr);
    std::memcpy(&made.storage, &six, sizeof six);
    made.length = sizeof six;
    return made;
}

std::optional<Endpoint> from_socket(const sockaddr* address, socklen_t length) {
    if (address == nullptr || length < sizeof(sa_family_t)) return std::nullopt;
    if (address->sa_family == AF_INET && length >= sizeof(sockaddr_in)) {
        sockaddr_in four;
        std::memcpy(&four, address, sizeof four);
        return Endpoint{Address::v4(ntohl(four.sin_addr.s_addr)), ntohs(four.sin_port)};
    }
    if (address->sa_family == AF_INET6 && length >= sizeof(sockaddr_in6)) {
        sockaddr_in6 six;
        std::memcpy(&six, address, sizeof six);
        std::array<std::uint8_t, 16> bytes;
        std::copy(std::begin(six.sin6_addr.s6_addr), std::end(six.sin6_addr.s6_addr), bytes.begin());
        return Endpoint{Address::v6(bytes), ntohs(six.sin6_port)};
    }
    return std::nullopt;
}

const char* to_string(Protocol protocol) { return protocol == Protocol::kTcp ? "tcp" : "udp"; }

}  // namespace caisson::net
