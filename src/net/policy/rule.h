// One rule of a policy: whom it is about. Pure.
//
//   HOST[:PORT|:FROM-TO|:*][/tcp|/udp]
//
// HOST: a name, *.SUFFIX (what lies below it, not itself), an IPv4 address or range, an IPv6 address or range (in brackets if
// ports follow), or host.caisson.internal. What a rule leaves out it decides in favour of less being reached: a name that is
// allowed means 80 and 443 of TCP, a port that is allowed means TCP; a rule that denies means everything that it does not
// exclude. Addresses without ports mean all ports of TCP and UDP in both.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "net/address.h"

namespace caisson::net {

enum class Effect : std::uint8_t { kAllow, kDeny };
const char* to_string(Effect effect);  // "allow", "deny"

class Rule {
  public:
    enum class Host : std::uint8_t { kName, kBelow, kRange, kThisHost };

    // kUsage, and what to write instead.
    static Result<Rule> parse(std::string_view text, Effect effect);
    // The shortest text that means the same; parse() of it gives an equal rule.
    const std::string& text() const { return text_; }
    // With its effect, for people and records: "allow *.example.com".
    std::string to_string() const;

    Effect effect() const { return effect_; }
    Host host() const { return host_; }
    bool is_range() const { return host_ == Host::kRange; }
    // kName: the name; kBelow: the suffix. As canonical_name() gives it.
    const std::string& name() const { return name_; }
    // kRange; `bits` count from the front of 16 bytes.
    const Address& first() const { return first_; }
    unsigned bits() const { return bits_; }
    // The lowest and highest port that it may cover.
    std::uint16_t from() const { return from_; }
    std::uint16_t to() const { return to_; }

    // Says nothing about ports. Of a rule about names: `name` is normal. A range of IPv4 holds no IPv6 address, nor the
    // other way round.
    bool covers(std::string_view name) const;
    bool covers(const Address& address) const;
    bool covers(std::uint16_t port, Protocol protocol) const;
    // The same as covers(), and the range is not wider than the special range in which the address lies: 0.0.0.0/0 covers
    // 10.0.0.1, but does not name it. Addresses of metadata are named by themselves alone, so are those of the host.
    bool names(const Address& address, bool of_the_host) const;

    bool operator==(const Rule& other) const { return effect_ == other.effect_ && text_ == other.text_; }

  private:
    friend class RuleParser;
    Rule() = default;
    std::string text_, name_;
    Effect effect_ = Effect::kAllow;
    Host host_ = Host::kName;
    Address first_;
    unsigned bits_ = 128;
    bool web_ = false;  // of those between, 80 and 443 alone
    std::uint16_t from_ = 1, to_ = 65535;
    bool tcp_ = true, udp_ = true;
};

}  // namespace caisson::net
