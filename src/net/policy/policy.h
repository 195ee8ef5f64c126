// What a box may reach. A policy is plain data; its verdicts are pure functions of it, of the target, of the pins and of the
// time that are passed in. docs/network.md has the truth table; a test reads it.
//
// How verdicts go together:
//   DNS question -> judge_question(name); each address of the answer -> judge_resolved(name, address); then Pins::add()
//   TCP or UDP to an address -> judge_address(); if that is
//     kAllow      dial the address. With `looks`, read along: a name that the first bytes show goes to judge_shown()
//     kNeedsName  the first bytes must show a name; judge_name() of it; resolve it outside; dial only addresses that
//                 judge_resolved(name, endpoint, protocol) allows. The address that the guest chose is worth nothing
//     kDeny       refuse at once, record `rule` and `reason`
//   A connection that is there when the policy changes: by name or through a pin, judge_resolved(name, endpoint, protocol);
//     else judge_address(), and judge_shown() if it showed a name
//   To the host's loopback (the address that stands for host.caisson.internal) -> judge_name(kHostName, port, protocol)
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "net/address.h"
#include "net/name.h"
#include "net/policy/pins.h"
#include "net/policy/rule.h"
#include "net/policy/special.h"

namespace caisson::net {

enum class Mode : std::uint8_t {
    kNone,    // no network
    kPublic,  // the internet
    kOpen,    // and private networks
    kRules,   // what rules allow
};
const char* to_string(Mode mode);  // "none", "public", "open", "rules"

struct Verdict {
    enum class Answer : std::uint8_t { kAllow, kDeny, kNeedsName };
    Answer answer = Answer::kDeny;
    // What decided: "allow *.example.com", "deny 10.0.0.0/8", or "mode public", in which case `reason` says more. Of
    // kNeedsName: the first rule that may come to allow it.
    std::string rule;
    std::string reason;  // for people; a clause without a dot: "10.0.0.1 is a private network (10.0.0.0/8)"
    // Of kAllow: rules about names hold for this connection, so a name that its first bytes show must be judged, too. It
    // does not have to show one.
    bool looks = false;
    std::string pinned;  // of kAllow: the name through whose pin it is allowed

    bool allowed() const { return answer == Answer::kAllow; }
    bool operator==(const Verdict&) const = default;
};
const char* to_string(Verdict::Answer answer);  // "allow", "deny", "needs_name"

// As on a command line: --net, --allow-net, --deny-net.
struct PolicyWords {
    std::string net;  // empty: not given
    std::vector<std::string> allow, deny;
};

class Policy {
  public:
    Policy() = default;  // public, without rules

    // Without anything: public. Only `allow`: rules. kUsage.
    static Result<Policy> from_words(const PolicyWords& words);
    // A policy file. kUsage with what to change; kLimit where it is too large.
    static Result<Policy> parse(std::string_view json);
    // In canonical form, one line without a newline at its end; parse() of it gives an equal policy.
    std::string to_json() const;

    Mode mode() const { return mode_; }
    const std::vector<Rule>& allow() const { return allow_; }
    const std::vector<Rule>& deny() const { return deny_; }
    // Addresses of the host's own interfaces: connections to them end at the host as those to its loopback do, so only a
    // rule with the very address reaches them. Not part of the policy's text.
    void set_host_addresses(std::vector<Address> addresses);

    // A connection or datagram to an address.
    Verdict judge_address(const Endpoint& target, Protocol protocol, const Pins& pins, Pins::Time now) const;
    // A connection that showed this name, and is going to be dialled by it. Any spelling; what is no name is denied.
    Verdict judge_name(std::string_view name, std::uint16_t port, Protocol protocol) const;
    // A connection that judge_address() allowed with `looks`, and that now shows this name.
    Verdict judge_shown(const Verdict& earlier, std::string_view name, std::uint16_t port, Protocol protocol) const;
    // May this name be asked for.
    Verdict judge_question(std::string_view name) const;
    // May a connection that was judged by this name go to this place.
    Verdict judge_resolved(std::string_view name, const Endpoint& target, Protocol protocol) const;
    // May an answer for this name hold this address: some port of it can be reached by that name.
    Verdict judge_resolved(std::string_view name, const Address& address) const;

    // Where a connection shows a name by itself: 80 (HTTP) and 443 (TLS) of TCP.
    static bool shows_name(std::uint16_t port, Protocol protocol);

    bool operator==(const Policy& other) const {
        return mode_ == other.mode_ && allow_ == other.allow_ && deny_ == other.deny_;
    }

  private:
    std::optional<Verdict> denied_address(const std::vector<Address>& spellings, std::uint16_t port, Protocol protocol, const Pins& pins,
                                          Pins::Time now) const;
    std::optional<Verdict> denied_quic(std::uint16_t port, Protocol protocol) const;
    Verdict judge_by_rules(const Endpoint& target, Protocol protocol, const Pins& pins, Pins::Time now) const;
    Verdict judge_by_pins(const Endpoint& target, Protocol protocol, const Pins& pins, Pins::Time now) const;

    Mode mode_ = Mode::kPublic;
    std::vector<Rule> allow_, deny_;
    std::vector<Address> host_addresses_;  // sorted
};

}  // namespace caisson::net
