#include "net/policy/policy.h"

#include <algorithm>
#include <array>
#include <functional>
#include <optional>
#include <utility>

namespace caisson::net {

namespace {

constexpr std::uint16_t kWebPort = 80, kTlsPort = 443;

bool is_quic(std::uint16_t port, Protocol protocol) { return protocol == Protocol::kUdp && port == kTlsPort; }
bool is_about_names(const Rule& rule) { return rule.host() == Rule::Host::kName || rule.host() == Rule::Host::kBelow; }
std::string mode_rule(Mode mode) { return std::string("mode ") + to_string(mode); }
std::string shown(std::uint16_t port, Protocol protocol) { return std::to_string(port) + "/" + to_string(protocol); }
std::string shown(const Endpoint& target, Protocol protocol) { return target.to_string() + "/" + to_string(protocol); }

Verdict allowed_by(std::string rule, std::string reason) {
    return {.answer = Verdict::Answer::kAllow, .rule = std::move(rule), .reason = std::move(reason), .looks = false, .pinned = {}};
}
Verdict denied_by(std::string rule, std::string reason) {
    return {.answer = Verdict::Answer::kDeny, .rule = std::move(rule), .reason = std::move(reason), .looks = false, .pinned = {}};
}

// The address, and those that packets to it may come to.
std::vector<Address> spellings_of(const Address& address) {
    auto all = embedded_in(address);
    all.insert(all.begin(), address);
    return all;
}

template <typename Fits>
const Rule* first_of(const std::vector<Rule>& rules, Fits fits) {
    const auto found = std::find_if(rules.begin(), rules.end(), fits);
    return found == rules.end() ? nullptr : &*found;
}

// A rule that denies, whichever spelling of the address it is about.
const Rule* denies(const std::vector<Rule>& rules, const std::vector<Address>& spellings, std::uint16_t port, Protocol protocol) {
    return first_of(rules, [&](const Rule& rule) {
        return rule.covers(port, protocol) &&
               std::any_of(spellings.begin(), spellings.end(), [&](const Address& address) { return rule.covers(address); });
    });
}

const Rule* about_name(const std::vector<Rule>& rules, std::string_view name, std::uint16_t port, Protocol protocol) {
    return first_of(rules, [&](const Rule& rule) { return rule.covers(name) && rule.covers(port, protocol); });
}

const Rule* about_any_name(const std::vector<Rule>& rules, std::uint16_t port, Protocol protocol) {
    return first_of(rules, [&](const Rule& rule) { return is_about_names(rule) && rule.covers(port, protocol); });
}

// Whether a mode and rules that name it let a box come to an address, whatever else would allow it.
class Surroundings {
  public:
    Surroundings(Mode mode, const std::vector<Rule>& allow, const std::vector<Address>& host_addresses)
        : mode_(mode), allow_(allow), host_addresses_(host_addresses) {}

    // The rule that names it.
    const Rule* naming(const Address& address, std::uint16_t port, Protocol protocol) const {
        return first_of(allow_, [&](const Rule& rule) { return rule.covers(port, protocol) && rule.names(address, is_host(address)); });
    }
    bool is_in_mode(const Address& address) const {
        if (is_host(address)) return false;
        const auto* range = special_range_of(address);
        return range == nullptr || (range->reach == Reach::kPrivate && mode_ == Mode::kOpen);
    }
    // Empty: nothing stands against it; else why not.
    std::string out_of_reach(const std::vector<Address>& spellings, std::uint16_t port, Protocol protocol) const {
        for (const auto& address : spellings)
            if (!is_in_mode(address) && naming(address, port, protocol) == nullptr)
                return described(spellings.front(), address) + ", which only a rule that names it for " + shown(port, protocol) + " allows";
        return {};
    }

  private:
    bool is_host(const Address& address) const { return std::binary_search(host_addresses_.begin(), host_addresses_.end(), address); }
    std::string described(const Address& outer, const Address& address) const {
        const auto text = (outer == address ? "" : outer.to_string() + " leads to ") + address.to_string() + (outer == address ? " is " : ", ");
        const auto* range = special_range_of(address);
        if (range == nullptr || (is_host(address) && range->reach != Reach::kMetadata)) return text + "an address of this host";
        return text + range->what + " (" + range->text + ")";
    }

    Mode mode_;
    const std::vector<Rule>& allow_;
    const std::vector<Address>& host_addresses_;
};

// Every verdict about a name or an address is the same between two of these ports, so looking at them is looking at all.
using Target = std::pair<std::uint16_t, Protocol>;
std::vector<Target> telling_targets(const std::vector<const Rule*>& rules) {
    std::vector<Target> targets{{kTlsPort, Protocol::kTcp}};
    const auto add = [&](unsigned port) {
        if (port < 1 || port > 65535) return;
        targets.emplace_back(static_cast<std::uint16_t>(port), Protocol::kTcp);
        targets.emplace_back(static_cast<std::uint16_t>(port), Protocol::kUdp);
    };
    for (unsigned port : {1u, 80u, 81u, 443u, 444u}) add(port);
    for (const auto* rule : rules) {
        add(rule->from());
        add(rule->to() + 1u);
    }
    std::sort(targets.begin() + 1, targets.end());
    targets.erase(std::unique(targets.begin() + 1, targets.end()), targets.end());
    return targets;
}

// The first that is allowed, else the verdict about TLS, which is what people mean.
Verdict at_some_port(const std::vector<Target>& targets, const std::function<Verdict(std::uint16_t, Protocol)>& judge) {
    auto first = judge(targets.front().first, targets.front().second);
    if (first.allowed()) return first;
    for (const auto& [port, protocol] : targets)
        if (auto verdict = judge(port, protocol); verdict.allowed()) return verdict;
    return first;
}

Verdict no_name() { return denied_by("names", "this is no name of a host"); }
Verdict no_port(Mode mode) { return denied_by(mode_rule(mode), "there is no port 0"); }
Verdict no_network() { return denied_by(mode_rule(Mode::kNone), "the box has no network"); }

}  // namespace

const char* to_string(Mode mode) {
    switch (mode) {
        case Mode::kNone: return "none";
        case Mode::kPublic: return "public";
        case Mode::kOpen: return "open";
        case Mode::kRules: return "rules";
    }
    return "unknown";
}

const char* to_string(Verdict::Answer answer) {
    switch (answer) {
        case Verdict::Answer::kAllow: return "allow";
        case Verdict::Answer::kDeny: return "deny";
        case Verdict::Answer::kNeedsName: return "needs_name";
    }
    return "unknown";
}

bool Policy::shows_name(std::uint16_t port, Protocol protocol) { return protocol == Protocol::kTcp && (port == kWebPort || port == kTlsPort); }

void Policy::set_host_addresses(std::vector<Address> addresses) {
    // Those of its loopback are the host's by themselves, and a rule may name them as a range.
    std::erase_if(addresses, [](const Address& address) {
        const auto* range = special_range_of(address);
        return range != nullptr && range->reach == Reach::kHost;
    });
    std::sort(addresses.begin(), addresses.end());
    host_addresses_ = std::move(addresses);
}

Verdict Policy::judge_address(const Endpoint& target, Protocol protocol, const Pins& pins, Pins::Time now) const {
    if (mode_ == Mode::kNone) return no_network();
    if (target.port == 0) return no_port(mode_);
    const auto spellings = spellings_of(target.address);
    if (auto denied = denied_address(spellings, target.port, protocol, pins, now)) return *denied;
    const Surroundings surroundings(mode_, allow_, host_addresses_);
    if (auto why = surroundings.out_of_reach(spellings, target.port, protocol); !why.empty()) return denied_by(mode_rule(mode_), why);
    if (mode_ == Mode::kRules) return judge_by_rules(target, protocol, pins, now);
    // In the other modes, a rule allows what the mode leaves out.
    auto verdict = allowed_by(mode_rule(mode_), shown(target, protocol) + " is in the reach of this mode");
    for (const auto& address : spellings)
        if (!surroundings.is_in_mode(address))
            verdict = allowed_by(surroundings.naming(address, target.port, protocol)->to_string(), "the rule names it");
    verdict.looks = protocol == Protocol::kTcp && about_any_name(deny_, target.port, protocol) != nullptr;
    return verdict;
}

// A rule denies beyond doubt, or may be about the name that the connection is for and nobody would see it.
std::optional<Verdict> Policy::denied_address(const std::vector<Address>& spellings, std::uint16_t port, Protocol protocol, const Pins& pins,
                                              Pins::Time now) const {
    if (const auto* rule = denies(deny_, spellings, port, protocol))
        return denied_by(rule->to_string(), "the rule covers " + spellings.front().to_string());
    if (auto denied = denied_quic(port, protocol)) return denied;
    if (shows_name(port, protocol)) return std::nullopt;
    for (const auto& address : spellings)
        for (const auto& name : pins.names_of(address, now))
            if (const auto* rule = about_name(deny_, name, port, protocol))
                return denied_by(rule->to_string(), address.to_string() + " was given for " + name);
    return std::nullopt;
}

std::optional<Verdict> Policy::denied_quic(std::uint16_t port, Protocol protocol) const {
    if (!is_quic(port, protocol)) return std::nullopt;
    const auto* rule = about_any_name(deny_, port, protocol);
    if (rule == nullptr) return std::nullopt;
    return denied_by(rule->to_string(), "port 443 of UDP is QUIC, which hides the name that the rule is about");
}

// An allow-list; nothing stands against the address.
Verdict Policy::judge_by_rules(const Endpoint& target, Protocol protocol, const Pins& pins, Pins::Time now) const {
    const bool looks = protocol == Protocol::kTcp && about_any_name(deny_, target.port, protocol) != nullptr;
    const auto* direct = first_of(allow_, [&](const Rule& rule) { return rule.covers(target.address) && rule.covers(target.port, protocol); });
    if (direct != nullptr) {
        auto verdict = allowed_by(direct->to_string(), "the rule covers " + target.address.to_string());
        verdict.looks = looks;
        return verdict;
    }
    const auto* by_name = about_any_name(allow_, target.port, protocol);
    if (by_name == nullptr) return denied_by(mode_rule(mode_), "no rule allows " + shown(target, protocol));
    if (is_quic(target.port, protocol))
        return denied_by(by_name->to_string(), "port 443 of UDP is QUIC, which hides the name that the rule asks for");
    if (shows_name(target.port, protocol))
        return {.answer = Verdict::Answer::kNeedsName,
                .rule = by_name->to_string(),
                .reason = "rules allow names at port " + shown(target.port, protocol) + ": the connection must show one",
                .looks = true,
                .pinned = {}};
    return judge_by_pins(target, protocol, pins, now);
}

Verdict Policy::judge_by_pins(const Endpoint& target, Protocol protocol, const Pins& pins, Pins::Time now) const {
    for (const auto& name : pins.names_of(target.address, now)) {
        const auto* rule = about_name(allow_, name, target.port, protocol);
        if (rule == nullptr || name == kHostName) continue;  // that one has no address outside
        auto verdict = allowed_by(rule->to_string(), target.address.to_string() + " was given for " + name);
        verdict.looks = protocol == Protocol::kTcp;
        verdict.pinned = name;
        return verdict;
    }
    return denied_by(mode_rule(mode_),
                     target.address.to_string() + " was not given for any name that rules allow at " + shown(target.port, protocol));
}

Verdict Policy::judge_name(std::string_view text, std::uint16_t port, Protocol protocol) const {
    if (mode_ == Mode::kNone) return no_network();
    if (port == 0) return no_port(mode_);
    const auto name = canonical_name(text);
    if (!name) return no_name();
    if (const auto* rule = about_name(deny_, *name, port, protocol)) return denied_by(rule->to_string(), "the rule covers " + *name);
    const auto* rule = about_name(allow_, *name, port, protocol);
    if (*name == kHostName) {
        if (rule != nullptr) return allowed_by(rule->to_string(), "the rule names the host's loopback");
        return denied_by(mode_rule(mode_), "the host's loopback, which only a rule with " + *name + " for " + shown(port, protocol) + " allows");
    }
    if (auto denied = denied_quic(port, protocol)) return *denied;
    if (mode_ != Mode::kRules) return allowed_by(mode_rule(mode_), "every name that no rule denies");
    if (rule == nullptr) return denied_by(mode_rule(mode_), "no rule allows " + *name + ":" + shown(port, protocol));
    if (is_quic(port, protocol)) return denied_by(rule->to_string(), "port 443 of UDP is QUIC, which hides the name that the rule asks for");
    return allowed_by(rule->to_string(), "the rule covers " + *name);
}

Verdict Policy::judge_shown(const Verdict& earlier, std::string_view name, std::uint16_t port, Protocol protocol) const {
    if (!earlier.allowed()) return earlier.answer == Verdict::Answer::kNeedsName ? judge_name(name, port, protocol) : earlier;
    if (!earlier.pinned.empty()) return judge_name(name, port, protocol);
    // Allowed by its address, so the name need not be allowed. What is no name is about nothing that a rule denies.
    const auto normal = canonical_name(name);
    const auto* rule = normal ? about_name(deny_, *normal, port, protocol) : nullptr;
    return rule == nullptr ? earlier : denied_by(rule->to_string(), "the connection shows " + *normal);
}

Verdict Policy::judge_question(std::string_view text) const {
    if (mode_ == Mode::kNone) return no_network();
    const auto name = canonical_name(text);
    if (!name) return no_name();
    std::vector<const Rule*> rules;
    for (const auto* list : {&allow_, &deny_})
        for (const auto& rule : *list)
            if (rule.covers(*name)) rules.push_back(&rule);
    auto verdict = at_some_port(telling_targets(rules), [&](std::uint16_t port, Protocol protocol) { return judge_name(*name, port, protocol); });
    if (!verdict.allowed() && verdict.rule == mode_rule(mode_) && *name != kHostName) verdict.reason = "no rule allows " + *name;
    return verdict;
}

Verdict Policy::judge_resolved(std::string_view text, const Endpoint& target, Protocol protocol) const {
    auto by_name = judge_name(text, target.port, protocol);
    if (!by_name.allowed()) return by_name;
    // Its address is the box's own idea; no server has a say in it.
    if (canonical_name(text) == kHostName) return denied_by(mode_rule(mode_), std::string(kHostName) + " is not looked up");
    const auto spellings = spellings_of(target.address);
    if (const auto* rule = denies(deny_, spellings, target.port, protocol))
        return denied_by(rule->to_string(), "the rule covers " + target.address.to_string());
    const Surroundings surroundings(mode_, allow_, host_addresses_);
    if (auto why = surroundings.out_of_reach(spellings, target.port, protocol); !why.empty()) return denied_by(mode_rule(mode_), why);
    return by_name;
}

Verdict Policy::judge_resolved(std::string_view text, const Address& address) const {
    const auto name = canonical_name(text);
    if (!name) return mode_ == Mode::kNone ? no_network() : no_name();
    const auto spellings = spellings_of(address);
    std::vector<const Rule*> rules;
    for (const auto* list : {&allow_, &deny_})
        for (const auto& rule : *list)
            if (rule.covers(*name) || std::any_of(spellings.begin(), spellings.end(), [&](const Address& each) { return rule.covers(each); }))
                rules.push_back(&rule);
    return at_some_port(telling_targets(rules), [&](std::uint16_t port, Protocol protocol) {
        return judge_resolved(*name, Endpoint{address, port}, protocol);
    });
}

}  // namespace caisson::net
