// What kind of address an address is: which are the internet, and which are something else that only looks like it. Pure.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "net/address.h"

namespace caisson::net {

// Lengths of ranges count from the front of 16 bytes; an IPv4 address stands behind so many of them.
inline constexpr unsigned kMappedBits = 96, kAllBits = 128;

// Who may be there, from harmless to not.
enum class Reach : std::uint8_t {
    kInternet,  // reached by every mode but `none`
    kPrivate,   // somebody's own network: mode `open`, or a rule that names it
    kSpecial,   // no place of the internet (multicast, documentation, ...): a rule that names it
    kHost,      // the host itself: a rule that names it
    kMetadata,  // gives out a cloud machine's credentials: a rule with just this address
};
const char* to_string(Reach reach);

// Part of the table that docs/network.md shows. A part of a range may be something else than the range: the longest counts.
struct SpecialRange {
    const char* text;  // "10.0.0.0/8"
    Reach reach;
    const char* what;  // "a private network"
    Address first;
    unsigned bits;  // of 16 bytes: 96 + n for IPv4
};
std::span<const SpecialRange> special_ranges();

// The range that an address lies in; nullptr: the internet.
const SpecialRange* special_range_of(const Address& address);

// The IPv4 addresses that an IPv6 address carries within (NAT64, 6to4, Teredo, ISATAP, IPv4-compatible and -translated):
// packets to it may arrive at these. Mapped addresses are IPv4 addresses here and carry nothing.
std::vector<Address> embedded_in(const Address& address);

}  // namespace caisson::net
