#include "net/policy/rule.h"

#include "net/name.h"
#include "net/policy/special.h"

namespace caisson::net {

const char* to_string(Effect effect) { return effect == Effect::kAllow ? "allow" : "deny"; }

std::string Rule::to_string() const { return std::string(net::to_string(effect_)) + " " + text_; }

bool Rule::covers(std::string_view name) const {
    switch (host_) {
        case Host::kName:
        case Host::kThisHost: return name == name_;
        // What lies behind this one name is nothing of the suffix's owner: who wants it says so.
        case Host::kBelow: return is_below(name, name_) && (name != kHostName || effect_ == Effect::kDeny);
        case Host::kRange: return false;
    }
    return false;
}

bool Rule::covers(const Address& address) const {
    const bool is_v4 = bits_ >= kMappedBits && first_.is_v4();
    return host_ == Host::kRange && is_v4 == address.is_v4() && address.shares_prefix(first_, bits_);
}

bool Rule::covers(std::uint16_t port, Protocol protocol) const {
    if (!(protocol == Protocol::kTcp ? tcp_ : udp_)) return false;
    return web_ ? port == 80 || port == 443 : port >= from_ && port <= to_;
}

bool Rule::names(const Address& address, bool of_the_host) const {
    if (!covers(address)) return false;
    const auto* range = special_range_of(address);
    if (of_the_host || (range != nullptr && range->reach == Reach::kMetadata)) return bits_ == kAllBits;
    return range == nullptr || bits_ >= range->bits;
}

}  // namespace caisson::net
