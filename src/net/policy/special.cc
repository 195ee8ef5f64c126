#include "net/policy/special.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>

#include "base/result.h"

namespace caisson::net {

namespace {

// The special-purpose registries of IANA for IPv4 (RFC 6890 and those that amend it) and IPv6, and what vendors of clouds
// document. Whatever of IPv6 lies outside 2000::/3 is not given out as addresses of hosts, so it is no internet either.
struct Row {
    const char* text;
    Reach reach;
    const char* what;
};
constexpr Row kRows[] = {
    {"0.0.0.0/8", Reach::kHost, "this host (Linux takes it for its own)"},
    {"10.0.0.0/8", Reach::kPrivate, "a private network"},
    {"100.64.0.0/10", Reach::kPrivate, "a carrier's network (CGNAT)"},
    {"127.0.0.0/8", Reach::kHost, "the host's loopback"},
    {"169.254.0.0/16", Reach::kSpecial, "link-local"},
    {"172.16.0.0/12", Reach::kPrivate, "a private network"},
    {"192.0.0.0/24", Reach::kSpecial, "for protocols"},
    {"192.0.2.0/24", Reach::kSpecial, "for documentation"},
    {"192.88.99.0/24", Reach::kSpecial, "for relays of 6to4"},
    {"192.168.0.0/16", Reach::kPrivate, "a private network"},
    {"198.18.0.0/15", Reach::kSpecial, "for benchmarks"},
    {"198.51.100.0/24", Reach::kSpecial, "for documentation"},
    {"203.0.113.0/24", Reach::kSpecial, "for documentation"},
    {"224.0.0.0/4", Reach::kSpecial, "multicast"},
    {"240.0.0.0/4", Reach::kSpecial, "reserved"},
    {"255.255.255.255/32", Reach::kSpecial, "broadcast"},

    {"169.254.169.254/32", Reach::kMetadata, "a cloud's metadata (AWS, Google, Azure, OpenStack and most others)"},
    {"169.254.169.252/32", Reach::kMetadata, "a cloud's metadata (Google Kubernetes Engine)"},
    {"169.254.170.2/32", Reach::kMetadata, "a cloud's credentials (AWS ECS)"},
    {"169.254.170.23/32", Reach::kMetadata, "a cloud's credentials (AWS EKS)"},
    {"169.254.0.23/32", Reach::kMetadata, "a cloud's metadata (Tencent)"},
    {"169.254.10.10/32", Reach::kMetadata, "a cloud's metadata (Tencent)"},
    {"169.254.42.42/32", Reach::kMetadata, "a cloud's metadata (Scaleway)"},
    {"100.100.100.200/32", Reach::kMetadata, "a cloud's metadata (Alibaba)"},
    {"168.63.129.16/32", Reach::kMetadata, "a cloud's own services (Azure)"},
    {"192.0.0.192/32", Reach::kMetadata, "a cloud's metadata (Oracle)"},

    {"::/3", Reach::kSpecial, "not given out"},
    {"4000::/2", Reach::kSpecial, "not given out"},
    {"8000::/1", Reach::kSpecial, "not given out"},
    {"::/96", Reach::kSpecial, "an IPv4-compatible address"},
    {"::/128", Reach::kHost, "this host (Linux takes it for its own)"},
    {"::1/128", Reach::kHost, "the host's loopback"},
    {"::ffff:0:0:0/96", Reach::kSpecial, "an IPv4-translated address"},
    {"64:ff9b::/96", Reach::kInternet, "NAT64: as the IPv4 address within"},
    {"64:ff9b:1::/48", Reach::kSpecial, "NAT64 of one's own"},
    {"100::/64", Reach::kSpecial, "to be discarded"},
    {"100:0:0:1::/64", Reach::kSpecial, "a dummy prefix"},
    {"2001::/23", Reach::kSpecial, "for protocols"},
    {"2001::/32", Reach::kSpecial, "Teredo"},
    {"2001:2::/48", Reach::kSpecial, "for benchmarks"},
    {"2001:10::/28", Reach::kSpecial, "ORCHID"},
    {"2001:20::/28", Reach::kSpecial, "ORCHID"},
    {"2001:db8::/32", Reach::kSpecial, "for documentation"},
    {"2002::/16", Reach::kInternet, "6to4: as the IPv4 address within"},
    {"3fff::/20", Reach::kSpecial, "for documentation"},
    {"5f00::/16", Reach::kSpecial, "segment routing"},
    {"fc00::/7", Reach::kPrivate, "a private network (unique local)"},
    {"fe80::/10", Reach::kSpecial, "link-local"},
    {"fec0::/10", Reach::kSpecial, "site-local"},
    {"ff00::/8", Reach::kSpecial, "multicast"},

    {"fd00:ec2::/32", Reach::kMetadata, "a cloud's own services (AWS)"},
    {"fd00:ec2::254/128", Reach::kMetadata, "a cloud's metadata (AWS)"},
    {"fd00:ec2::23/128", Reach::kMetadata, "a cloud's credentials (AWS EKS)"},
    {"fd20:ce::254/128", Reach::kMetadata, "a cloud's metadata (Google)"},
    {"fd00:c1::a9fe:a9fe/128", Reach::kMetadata, "a cloud's metadata (Oracle)"},
    {"fd00:100::100:200/128", Reach::kMetadata, "a cloud's metadata (Alibaba)"},
    {"fd00:a9fe:a9fe::1/128", Reach::kMetadata, "a cloud's metadata (Linode)"},
    {"fd00:42::42/128", Reach::kMetadata, "a cloud's metadata (Scaleway)"},
    {"fe80::a9fe:a9fe/128", Reach::kMetadata, "a cloud's metadata (OpenStack, Linode)"},
};

SpecialRange to_range(const Row& row) {
    const std::string_view text = row.text;
    const auto slash = text.find('/');
    const auto first = Address::parse(text.substr(0, slash));
    unsigned bits = 0;
    const auto read = std::from_chars(text.data() + slash + 1, text.data() + text.size(), bits);
    CAISSON_CHECK(first && read.ptr == text.data() + text.size());
    return {row.text, row.reach, row.what, *first, first->is_v4() ? kMappedBits + bits : bits};
}

using Table = std::array<SpecialRange, std::size(kRows)>;
const Table& table() {
    static const Table kTable = [] {
        Table made;
        std::transform(std::begin(kRows), std::end(kRows), made.begin(), to_range);
        // The longest first, so that the first that fits counts.
        std::stable_sort(made.begin(), made.end(), [](const auto& a, const auto& b) { return a.bits > b.bits; });
        return made;
    }();
    return kTable;
}

bool starts_with(const Address& address, const char* first, unsigned bits) {
    return address.shares_prefix(*Address::parse(first), bits);
}

Address v4_at(const Address& address, std::size_t offset, std::uint8_t mask = 0) {
    std::uint32_t number = 0;
    for (std::size_t i = 0; i < 4; ++i) number = number << 8 | static_cast<std::uint32_t>(address.bytes()[offset + i] ^ mask);
    return Address::v4(number);
}

// RFC 5214: the interface's part of an address begins with 0000:5efe, or 0200:5efe where the IPv4 address is unique.
bool is_isatap(const Address& address) {
    const auto& bytes = address.bytes();
    return (bytes[8] & ~2) == 0 && bytes[9] == 0 && bytes[10] == 0x5e && bytes[11] == 0xfe;
}

}  // namespace

const char* to_string(Reach reach) {
    switch (reach) {
        case Reach::kInternet: return "internet";
        case Reach::kPrivate: return "private";
        case Reach::kSpecial: return "special";
        case Reach::kHost: return "host";
        case Reach::kMetadata: return "metadata";
    }
    return "unknown";
}

std::span<const SpecialRange> special_ranges() { return table(); }

const SpecialRange* special_range_of(const Address& address) {
    for (const auto& range : table())
        if (range.first.is_v4() == address.is_v4() && address.shares_prefix(range.first, range.bits))
            return range.reach == Reach::kInternet ? nullptr : &range;
    return nullptr;
}

std::vector<Address> embedded_in(const Address& address) {
    std::vector<Address> found;
    if (address.is_v4()) return found;
    constexpr std::size_t kLast = 12;
    // :: and ::1 are no IPv4-compatible addresses (RFC 4291, 2.5.5.1).
    const bool plain = starts_with(address, "::", 127);
    if ((starts_with(address, "::", 96) && !plain) || starts_with(address, "::ffff:0:0:0", 96) || starts_with(address, "64:ff9b::", 96) ||
        starts_with(address, "64:ff9b:1::", 48))
        found.push_back(v4_at(address, kLast));
    if (starts_with(address, "2002::", 16)) found.push_back(v4_at(address, 2));
    if (starts_with(address, "2001::", 32)) found.push_back(v4_at(address, kLast, 0xff));  // RFC 4380: inverted
    if (is_isatap(address)) found.push_back(v4_at(address, kLast));
    return found;
}

}  // namespace caisson::net
