#include "net/policy/suggest.h"

namespace caisson::net {

namespace {

constexpr std::uint16_t kHttp = 80, kHttps = 443;

std::vector<Address> spellings_of(const Address& address) {
    auto all = embedded_in(address);
    all.push_back(address);
    return all;
}

// Empty: the internet.
std::string kind_of(const Address& address) {
    for (const auto& spelling : spellings_of(address))
        if (const auto* range = special_range_of(spelling)) return spelling.to_string() + " is " + range->what + " (" + range->text + ")";
    return {};
}

std::string shown(const Wishes::Connection& connection, const std::string& name) {
    const auto place = connection.target.to_string() + "/" + to_string(connection.protocol);
    return name.empty() ? place : name + " at " + place;
}

struct Wanted {
    std::string rule;
    std::set<std::string> targets;
};

// Its ports as few rules: neighbours together.
void add_rules(const std::string& host, Protocol protocol, const std::map<std::pair<Protocol, std::uint16_t>, std::set<std::string>>& places, bool is_name,
               std::vector<Wanted>& rules) {
    unsigned last = 0, first = 0;
    for (const auto& [place, targets] : places) {
        const auto port = place.second;
        if (place.first != protocol || (is_name && Policy::shows_name(port, protocol))) continue;
        const bool goes_on = last != 0 && port == last + 1;
        if (!goes_on) {
            first = port;
            rules.emplace_back();
        }
        last = port;
        rules.back().rule = host + ":" + (first == last ? "" : std::to_string(first) + "-") + std::to_string(last) + (protocol == Protocol::kUdp ? "/udp" : "");
        rules.back().targets.insert(targets.begin(), targets.end());
    }
}

void add_all(const std::string& host, const std::map<std::pair<Protocol, std::uint16_t>, std::set<std::string>>& places, bool is_name, std::vector<Wanted>& rules) {
    Wanted web{host, {}};
    for (const auto port : {kHttp, kHttps})
        if (const auto found = places.find({Protocol::kTcp, port}); is_name && found != places.end()) web.targets.insert(found->second.begin(), found->second.end());
    if (!web.targets.empty()) rules.push_back(std::move(web));
    for (const auto protocol : {Protocol::kTcp, Protocol::kUdp}) add_rules(host, protocol, places, is_name, rules);
}

}  // namespace

// Empty: it may be suggested.
std::string Wishes::refusal_of(const Connection& connection, const std::string& name) const {
    if (!connection.denied) return {};
    if (connection.rule.starts_with("deny ")) return "the rule \"" + connection.rule + "\" stands against it";
    if (name == kHostName) return "it is the host's loopback";
    if (auto kind = kind_of(connection.target.address); !kind.empty()) return kind;
    const bool is_host = host_addresses_.contains(connection.target.address);
    // A mode that reaches the internet denied it: it was the host's then.
    if (is_host || connection.rule == "mode public" || connection.rule == "mode open") return connection.target.address.to_string() + " is an address of this host";
    return {};
}

// What is not the internet is reached through a name only if a rule names its address as well.
void Wishes::add_surroundings(const Connection& connection) {
    for (const auto& address : spellings_of(connection.target.address))
        if (special_range_of(address) != nullptr || host_addresses_.contains(address))
            addresses_[address][{connection.protocol, connection.target.port}].insert(shown(connection, {}));
}

void Wishes::add(const Connection& connection) {
    const auto canonical = canonical_name(connection.name);
    const auto name = canonical.value_or("");
    const auto target = shown(connection, name);
    if (connection.target.port == 0) return;
    if (auto why = refusal_of(connection, name); !why.empty()) {
        refused_.emplace(target, std::move(why));
        return;
    }
    const Place place{connection.protocol, connection.target.port};
    if (name == kHostName) {
        names_[name][place].insert(target);
        return;
    }
    const auto found = name_of_.find(connection.target.address);
    const auto asked = found == name_of_.end() ? std::string() : found->second;
    const auto by_name = [&](const std::string& host) {
        names_[host][place].insert(target);
        add_surroundings(connection);
    };
    const auto by_address = [&] {
        addresses_[connection.target.address][place].insert(target);
        add_surroundings(connection);
    };
    // Port 443 of UDP is QUIC: no rule about a name allows it.
    if (connection.protocol == Protocol::kUdp && connection.target.port == kHttps) {
        if (asked.empty()) return by_address();
        refused_.emplace(shown(connection, asked), "QUIC does not show the name; clients take TCP instead");
        return;
    }
    // A rule that allows names wanted to see one, or what it showed is none.
    const bool looked = connection.looked || !connection.name.empty() || (connection.denied && connection.rule.starts_with("allow "));
    if (Policy::shows_name(connection.target.port, connection.protocol)) {
        if (!name.empty()) return by_name(name);
        return looked || asked.empty() ? by_address() : by_name(asked);
    }
    if (asked.empty()) return name.empty() || connection.looked ? by_address() : by_name(name);
    by_name(asked);
    // It shows another one than the box asked for: both must be allowed then.
    if (!name.empty() && name != asked) by_name(name);
}

void Wishes::add(const Question& question) {
    const auto name = canonical_name(question.name);
    if (!name) return;
    for (const auto& address : question.dropped) {
        const auto kind = kind_of(address);
        refused_.emplace(*name + " at " + address.to_string(), kind.empty() ? "this address may not stand for a name" : kind);
    }
    if (question.denied && *name == kHostName) refused_.emplace(*name, "it is the host's loopback");
    if (question.denied && *name == kHostName) return;
    if (question.denied)
        if (const auto verdict = own_.judge_question(*name); verdict.rule.starts_with("deny ")) {
            refused_.emplace(*name, "the rule \"" + verdict.rule + "\" stands against it");
            return;
        }
    if (question.denied || !question.addresses.empty()) asked_.insert(*name);
    for (const auto& address : question.addresses) name_of_[address] = *name;
}

Result<Suggestion> Wishes::suggest() const {
    std::vector<Wanted> wanted;
    auto names = names_;
    for (const auto& name : asked_)
        if (!names.contains(name)) names[name][{Protocol::kTcp, kHttps}].insert("asked for");
    for (const auto& [name, places] : names) add_all(name, places, true, wanted);
    for (const auto& [address, places] : addresses_) add_all(address.is_v4() ? address.to_string() : "[" + address.to_string() + "]", places, false, wanted);
    PolicyWords words;
    for (const auto& one : wanted) words.allow.push_back(one.rule);
    Suggestion suggestion;
    suggestion.refused = refused_;
    // No rules at all are another policy in words.
    suggestion.policy = words.allow.empty() ? CAISSON_TRY(Policy::parse(R"({"version": 1, "mode": "rules"})")) : CAISSON_TRY(Policy::from_words(words));
    for (std::size_t i = 0; i < wanted.size(); ++i) suggestion.reasons.push_back({suggestion.policy.allow()[i].text(), wanted[i].targets});
    return suggestion;
}

}  // namespace caisson::net
