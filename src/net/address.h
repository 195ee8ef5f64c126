// Addresses of the internet protocol, as values. Pure.
#pragma once

#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace caisson::net {

// An IPv4 or IPv6 address. Both are kept as 16 bytes, IPv4 as ::ffff:a.b.c.d, so that no spelling of one address is
// another value: what a peer writes as a mapped address is the IPv4 address.
class Address {
  public:
    Address() = default;  // ::, the unspecified one
    static Address v4(std::uint32_t host_order);
    static Address v6(const std::array<std::uint8_t, 16>& bytes);
    // "192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"; nothing else: no brackets, zones, hexadecimal or short IPv4 forms.
    static std::optional<Address> parse(std::string_view text);

    bool is_v4() const;
    std::uint32_t v4_number() const;  // host order; of an IPv4 address only
    const std::array<std::uint8_t, 16>& bytes() const { return bytes_; }
    std::string to_string() const;
    // The first `bits` of both are the same; `bits` counts from the front of 16 bytes, so 96 + n for the first n of IPv4.
    bool shares_prefix(const Address& other, unsigned bits) const;

    auto operator<=>(const Address&) const = default;  // NOLINT(modernize-use-nullptr): clang-tidy 14 takes its 0 for a pointer

  private:
    std::array<std::uint8_t, 16> bytes_{};
};

struct Endpoint {
    Address address;
    std::uint16_t port = 0;
    // "192.0.2.1:80", "[2001:db8::1]:80"
    std::string to_string() const;
    auto operator<=>(const Endpoint&) const = default;
};

// For the calls of sockets. `dual`: IPv4 as a mapped address, for sockets of AF_INET6 that take both.
struct SocketAddress {
    sockaddr_storage storage{};
    socklen_t length = 0;
    const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
    sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};
SocketAddress to_socket(const Endpoint& endpoint, bool dual = false);
// nullopt: of another family, or cut off.
std::optional<Endpoint> from_socket(const sockaddr* address, socklen_t length);

enum class Protocol : std::uint8_t { kTcp = 6, kUdp = 17 };
const char* to_string(Protocol protocol);

}  // namespace caisson::net
