// A second engine, written for being obvious and not for being fast, and random policies and targets on which both must agree
// in everything: the answer, the rule that decided, whether names are looked at. CAISSON_NET_CASES: how many (10^6).
#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <random>
#include <sstream>

#include "net/policy/policy.h"

namespace caisson::net {
namespace {

__extension__ using Wide = unsigned __int128;

// An address as a number in the space of its family.
struct Place {
    bool six = false;
    Wide number = 0;
    bool operator==(const Place&) const = default;
};

Wide wide(std::uint64_t high, std::uint64_t low) { return static_cast<Wide>(high) << 64 | low; }

Place place_of(const Address& address) {
    Wide number = 0;
    for (auto byte : address.bytes()) number = number << 8 | byte;
    if (number >> 32 == 0xffff) return {false, number & 0xffffffff};
    return {true, number};
}

// i: internet, p: private, s: special, h: host, m: metadata; and the length of the range that says so.
struct Kind {
    char kind;
    int length;
};

Kind kind_of_four(Wide a) {
    const auto b = [a](int i) { return static_cast<int>(a >> (24 - 8 * i) & 255); };
    const std::string text = std::to_string(b(0)) + "." + std::to_string(b(1)) + "." + std::to_string(b(2)) + "." + std::to_string(b(3));
    for (const char* metadata : {"169.254.169.254", "169.254.169.252", "169.254.170.2", "169.254.170.23", "169.254.0.23", "169.254.10.10",
                                 "169.254.42.42", "100.100.100.200", "168.63.129.16", "192.0.0.192"})
        if (text == metadata) return {'m', 32};
    if (text == "255.255.255.255") return {'s', 32};
    if (b(0) == 0 || b(0) == 127) return {'h', 8};
    if (b(0) == 10) return {'p', 8};
    if (b(0) == 100 && b(1) >= 64 && b(1) <= 127) return {'p', 10};
    if (b(0) == 172 && b(1) >= 16 && b(1) <= 31) return {'p', 12};
    if (b(0) == 192 && b(1) == 168) return {'p', 16};
    if (b(0) == 169 && b(1) == 254) return {'s', 16};
    if (b(0) == 192 && b(1) == 0 && (b(2) == 0 || b(2) == 2)) return {'s', 24};
    if (b(0) == 192 && b(1) == 88 && b(2) == 99) return {'s', 24};
    if (b(0) == 198 && (b(1) == 18 || b(1) == 19)) return {'s', 15};
    if (b(0) == 198 && b(1) == 51 && b(2) == 100) return {'s', 24};
    if (b(0) == 203 && b(1) == 0 && b(2) == 113) return {'s', 24};
    if (b(0) >= 224) return {'s', 4};
    return {'i', 0};
}

Kind kind_of_six(Wide a) {
    const auto group = [a](int i) { return static_cast<unsigned>(a >> (112 - 16 * i) & 0xffff); };
    const auto high = static_cast<std::uint64_t>(a >> 64), low = static_cast<std::uint64_t>(a);
    if (a == 0 || a == 1) return {'h', 128};
    for (auto [h, l] : {std::pair<std::uint64_t, std::uint64_t>{0xfd000ec200000000, 0x254}, {0xfd000ec200000000, 0x23}, {0xfd2000ce00000000, 0x254},
                        {0xfd0000c100000000, 0xa9fea9fe}, {0xfd000100'00000000, 0x01000200}, {0xfd00a9fea9fe0000, 1}, {0xfd00004200000000, 0x42},
                        {0xfe80000000000000, 0xa9fea9fe}})
        if (high == h && low == l) return {'m', 128};
    if (high >> 32 == 0xfd000ec2) return {'m', 32};
    if (high == 0 && low >> 32 == 0) return {'s', 96};                                    // ::a.b.c.d
    if (high == 0 && low >> 32 == 0xffff0000) return {'s', 96};                           // ::ffff:0:a.b.c.d
    if (high == 0x0064ff9b00000000 && low >> 32 == 0) return {'i', 0};                    // 64:ff9b::
    if (high >> 16 == 0x0064ff9b0001) return {'s', 48};                                   // 64:ff9b:1::
    if (high == 0x0100000000000000 || high == 0x0100000000000001) return {'s', 64};       // 100::
    if (group(0) == 0x2001 && group(1) == 0) return {'s', 32};                            // Teredo
    if (group(0) == 0x2001 && group(1) == 2 && group(2) == 0) return {'s', 48};
    if (group(0) == 0x2001 && (group(1) >> 4 == 1 || group(1) >> 4 == 2)) return {'s', 28};
    if (group(0) == 0x2001 && group(1) < 0x200) return {'s', 23};
    if (group(0) == 0x2001 && group(1) == 0xdb8) return {'s', 32};
    if (group(0) == 0x3fff && group(1) < 0x1000) return {'s', 20};
    if (group(0) == 0x5f00) return {'s', 16};
    if (group(0) >= 0xff00) return {'s', 8};
    if (group(0) >= 0xfec0) return {'s', 10};
    if (group(0) >= 0xfe80) return {'s', 10};
    if (group(0) >= 0xfc00 && group(0) <= 0xfdff) return {'p', 7};
    if (group(0) >= 0x8000) return {'s', 1};
    if (group(0) >= 0x4000) return {'s', 2};
    if (group(0) >= 0x2000) return {'i', 0};
    return {'s', 3};
}

Kind kind_of(const Place& place) { return place.six ? kind_of_six(place.number) : kind_of_four(place.number); }

std::vector<Place> with_carried(const Place& place) {
    std::vector<Place> all{place};
    if (!place.six) return all;
    const auto a = place.number;
    const auto add = [&](Wide four) { all.push_back({false, four & 0xffffffff}); };
    if ((a >> 32 == 0 && a > 1) || a >> 32 == 0xffff0000 || a >> 32 == (wide(0x0064ff9b00000000, 0) >> 32) ||
        a >> 80 == 0x0064ff9b0001)
        add(a);
    if (a >> 112 == 0x2002) add(a >> 80);
    if (a >> 96 == 0x20010000) add(~a);
    if ((a >> 32 & 0xffffffff) == 0x5efe || (a >> 32 & 0xffffffff) == 0x02005efe) add(a);
    return all;
}

// A rule as it was thrown by the dice. `ports`: n for none, * for all, r for from-to.
struct Rule2 {
    bool allow = true;
    char host = 'n';  // n: name, b: below, r: range, l: the host's loopback
    std::string name;
    Place first;
    int length = 0;
    char ports = 'n';
    int from = 1, to = 65535;
    std::string protocol;

    bool about_ports(int port, bool udp) const {
        const bool named = host != 'r';
        if (allow && named && ports == 'n') return !udp && (port == 80 || port == 443);
        if (ports == 'r' && (port < from || port > to)) return false;
        if (!protocol.empty()) return udp == (protocol == "udp");
        const bool every = ports != 'r' || (from == 1 && to == 65535);
        return !allow || every || !udp;
    }
    bool about(const Place& place) const {
        if (host != 'r' || place.six != first.six) return false;
        const int rest = (place.six ? 128 : 32) - length;
        if (rest == 128) return true;
        return place.number >> rest == first.number >> rest;
    }
    bool about(const std::string& asked) const {
        if (host == 'n' || host == 'l') return asked == name;
        if (host != 'b' || (allow && asked == "host.caisson.internal")) return false;
        const std::string tail = "." + name;
        return asked.length() > tail.length() && asked.substr(asked.length() - tail.length()) == tail;
    }
    bool is_about_names() const { return host == 'n' || host == 'b'; }
};

struct Pin2 {
    std::string name;
    Place place;
};

struct Told {
    std::string answer, rule, pinned;
    bool looks = false;
    bool operator==(const Told&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Told& told) {
    return out << told.answer << " by " << told.rule << " pinned=" << told.pinned << " looks=" << told.looks;
}

Told told(const Verdict& verdict) {
    return {to_string(verdict.answer), verdict.rule, verdict.pinned, verdict.allowed() && verdict.looks};
}

struct Engine {
    std::string mode;
    std::vector<Rule2> rules;  // in order; both effects
    std::vector<std::string> texts;
    std::vector<Place> host;
    std::vector<Pin2> pins;

    std::string by_mode() const { return "mode " + mode; }

    template <typename Fits>
    int first(bool allow, int port, bool udp, Fits fits) const {
        for (std::size_t i = 0; i < rules.size(); ++i)
            if (rules[i].allow == allow && rules[i].about_ports(port, udp) && fits(rules[i])) return static_cast<int>(i);
        return -1;
    }
    Told by(const char* answer, int rule) const { return {answer, texts[static_cast<std::size_t>(rule)], "", false}; }

    bool is_host(const Place& place) const {
        for (const auto& each : host)
            if (each == place && kind_of(place).kind != 'h') return true;
        return false;
    }
    int naming(const Place& place, int port, bool udp) const {
        const auto kind = kind_of(place);
        return first(true, port, udp, [&](const Rule2& rule) {
            if (!rule.about(place)) return false;
            if (is_host(place) || kind.kind == 'm') return rule.length == (place.six ? 128 : 32);
            return rule.length >= kind.length;
        });
    }
    bool in_mode(const Place& place) const {
        const char kind = is_host(place) ? 'h' : kind_of(place).kind;
        return kind == 'i' || (kind == 'p' && mode == "open");
    }
    bool in_reach(const std::vector<Place>& places, int port, bool udp) const {
        bool all = true;
        for (const auto& place : places) all = all && (in_mode(place) || naming(place, port, udp) >= 0);
        return all;
    }
    int address_denied(const std::vector<Place>& places, int port, bool udp) const {
        return first(false, port, udp, [&](const Rule2& rule) {
            bool any = false;
            for (const auto& place : places) any = any || rule.about(place);
            return any;
        });
    }
    int any_name(bool allow, int port, bool udp) const {
        return first(allow, port, udp, [](const Rule2& rule) { return rule.is_about_names(); });
    }
    int for_name(bool allow, const std::string& name, int port, bool udp) const {
        return first(allow, port, udp, [&](const Rule2& rule) { return rule.about(name); });
    }
    std::vector<std::string> pinned(const Place& place) const {
        std::vector<std::string> names;
        for (const auto& pin : pins)
            if (pin.place == place) names.push_back(pin.name);
        std::sort(names.begin(), names.end());
        return names;
    }

    Told connect(const Place& target, int port, bool udp) const {
        if (mode == "none") return {"deny", by_mode(), "", false};
        const auto places = with_carried(target);
        const bool shows = !udp && (port == 80 || port == 443), quic = udp && port == 443;
        if (int rule = address_denied(places, port, udp); rule >= 0) return by("deny", rule);
        if (int rule = any_name(false, port, udp); quic && rule >= 0) return by("deny", rule);
        for (const auto& place : places)
            for (const auto& name : pinned(place))
                if (int rule = for_name(false, name, port, udp); !shows && rule >= 0) return by("deny", rule);
        if (!in_reach(places, port, udp)) return {"deny", by_mode(), "", false};
        const bool looks = !udp && any_name(false, port, udp) >= 0;
        if (mode != "rules") {
            Told result{"allow", by_mode(), "", looks};
            for (const auto& place : places)
                if (!in_mode(place)) result.rule = texts[static_cast<std::size_t>(naming(place, port, udp))];
            return result;
        }
        if (int rule = first(true, port, udp, [&](const Rule2& each) { return each.about(target); }); rule >= 0)
            return {"allow", texts[static_cast<std::size_t>(rule)], "", looks};
        const int named = any_name(true, port, udp);
        if (named < 0) return {"deny", by_mode(), "", false};
        if (quic) return by("deny", named);
        if (shows) return by("needs_name", named);
        for (const auto& name : pinned(target))
            if (int rule = for_name(true, name, port, udp); rule >= 0 && name != "host.caisson.internal")
                return {"allow", texts[static_cast<std::size_t>(rule)], name, !udp};
        return {"deny", by_mode(), "", false};
    }

    Told name(const std::string& name, int port, bool udp) const {
        if (mode == "none") return {"deny", by_mode(), "", false};
        if (int rule = for_name(false, name, port, udp); rule >= 0) return by("deny", rule);
        const int allowed = for_name(true, name, port, udp);
        if (name == "host.caisson.internal") return allowed >= 0 ? by("allow", allowed) : Told{"deny", by_mode(), "", false};
        const bool quic = udp && port == 443;
        if (int rule = any_name(false, port, udp); quic && rule >= 0) return by("deny", rule);
        if (mode != "rules") return {"allow", by_mode(), "", false};
        if (allowed < 0) return {"deny", by_mode(), "", false};
        return by(quic ? "deny" : "allow", allowed);
    }

    Told dial(const std::string& asked, const Place& target, int port, bool udp) const {
        const auto by_name = name(asked, port, udp);
        if (by_name.answer != "allow") return by_name;
        if (asked == "host.caisson.internal") return {"deny", by_mode(), "", false};
        const auto places = with_carried(target);
        if (int rule = address_denied(places, port, udp); rule >= 0) return by("deny", rule);
        return in_reach(places, port, udp) ? by_name : Told{"deny", by_mode(), "", false};
    }

    // Every port there is.
    bool ask(const std::string& asked) const {
        for (int port = 1; port <= 65535; ++port)
            if (name(asked, port, false).answer == "allow" || name(asked, port, true).answer == "allow") return true;
        return false;
    }
    bool answer(const std::string& asked, const Place& place) const {
        for (int port = 1; port <= 65535; ++port)
            if (dial(asked, place, port, false).answer == "allow" || dial(asked, place, port, true).answer == "allow") return true;
        return false;
    }
};

// ---- dice ----
class Dice {
  public:
    explicit Dice(std::uint64_t seed) : random_(seed) {}
    int below(int n) { return static_cast<int>(random_() % static_cast<std::uint64_t>(n)); }
    bool one_in(int n) { return below(n) == 0; }
    template <typename List>
    const auto& from(const List& list) { return list[random_() % std::size(list)]; }

    std::string name() {
        static const std::vector<std::string> kNames{"example.test",          "a.example.test", "b.a.example.test",           "badexample.test",
                                                     "test.example",          "a.test",         "xn--bcher-kva.example.test", "host.caisson.internal",
                                                     "other.caisson.internal"};
        return from(kNames);
    }
    std::string suffix() {
        static const std::vector<std::string> kSuffixes{"example.test", "a.example.test", "caisson.internal", "e.test"};
        return from(kSuffixes);
    }
    int port() {
        static const std::vector<int> kPorts{1, 22, 53, 79, 80, 81, 442, 443, 444, 8000, 65535};
        return one_in(8) ? 1 + below(65535) : from(kPorts);
    }
    Address four() {
        static const std::vector<std::uint32_t> kEdges = edges();
        return one_in(6) ? Address::v4(static_cast<std::uint32_t>(random_())) : Address::v4(from(kEdges));
    }
    Address six() {
        if (one_in(3)) return carrying(four());
        std::array<std::uint8_t, 16> bytes{};
        if (one_in(8))
            for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random_());
        else
            bytes = edge_of_six();
        return Address::v6(bytes);
    }
    Address address() { return one_in(2) ? four() : six(); }

  private:
    // The first and last of every special range, and their neighbours outside.
    static std::vector<std::uint32_t> edges() {
        std::vector<std::uint32_t> all{0x09090909, 0x08080808};
        for (const auto& range : special_ranges()) {
            if (!range.first.is_v4()) continue;
            const auto first = range.first.v4_number();
            const auto last = static_cast<std::uint32_t>(first + ((std::uint64_t{1} << (128 - range.bits)) - 1));
            for (auto each : {first, last, first - 1, last + 1}) all.push_back(each);
        }
        return all;
    }
    static std::array<std::uint8_t, 16> to_bytes(Wide number) {
        std::array<std::uint8_t, 16> bytes{};
        for (std::size_t i = 0; i < 16; ++i) bytes[i] = static_cast<std::uint8_t>(number >> (120 - 8 * i));
        return bytes;
    }
    std::array<std::uint8_t, 16> edge_of_six() {
        const auto& range = from(special_ranges());
        Wide first = 0;
        for (auto byte : range.first.bytes()) first = first << 8 | byte;
        const Wide size = range.bits == 0 ? 0 : static_cast<Wide>(1) << (128 - range.bits);
        switch (below(5)) {
            case 0: return to_bytes(first);
            case 1: return to_bytes(first + size - 1);
            case 2: return to_bytes(first - 1);
            case 3: return to_bytes(first + size);
            default: return to_bytes(first + (static_cast<Wide>(random_()) << 64 | random_()) % size);
        }
    }
    Address carrying(const Address& four) {
        const Wide number = four.v4_number();
        switch (below(9)) {
            case 0: return Address::v6(to_bytes(number));
            case 1: return Address::v6(to_bytes(wide(0, 0xffff000000000000) | number));
            case 2: return Address::v6(to_bytes(wide(0x0064ff9b00000000, 0) | number));
            case 3: return Address::v6(to_bytes(wide(0x0064ff9b00010000, 0) | number));
            case 4: return Address::v6(to_bytes(wide(0x2002000000000000, 0) | number << 80 | 1));
            case 5: return Address::v6(to_bytes(wide(0x2001000009090909, 0) | (~number & 0xffffffff)));
            case 6: return Address::v6(to_bytes(wide(0x262000fe00000000, 0x00005efe00000000) | number));
            case 7: return Address::v6(to_bytes(wide(0x262000fe00000000, 0x02005efe00000000) | number));
            default: return Address::v6(to_bytes(wide(0, 0xffff00000000) | number));
        }
    }
    std::mt19937_64 random_;
};

std::string host_text(const Rule2& rule, const Address& address) {
    if (rule.host == 'b') return "*." + rule.name;
    if (rule.host != 'r') return rule.name;
    auto text = address.to_string() + (rule.length == (rule.first.six ? 128 : 32) ? "" : "/" + std::to_string(rule.length));
    return rule.first.six && rule.ports != 'n' ? "[" + text + "]" : text;
}

Address masked(const Address& address, int bits) {
    auto bytes = address.bytes();
    for (int bit = bits; bit < 128; ++bit) bytes[static_cast<std::size_t>(bit / 8)] &= static_cast<std::uint8_t>(~(0x80 >> bit % 8));
    return Address::v6(bytes);
}

struct Thrown {
    Rule2 rule;
    std::string text;
};

Thrown throw_rule(Dice& dice, bool allow, bool with_names) {
    while (true) {
        Rule2 rule;
        rule.allow = allow;
        Address address;
        const int what = with_names ? dice.below(4) : 2 + dice.below(2);
        if (what == 0) rule.host = 'b', rule.name = dice.suffix();
        if (what == 1) rule.host = 'n', rule.name = dice.name();
        if (rule.name == "host.caisson.internal") rule.host = 'l';
        if (what == 2 && dice.one_in(4)) rule.host = 'l', rule.name = "host.caisson.internal";
        else if (what >= 2) {
            rule.host = 'r';
            address = dice.address();
            const bool six = !address.is_v4();
            const int whole = six ? 128 : 32;
            rule.length = dice.one_in(2) ? whole : dice.below(whole + 1);
            address = masked(address, 128 - whole + rule.length);
            if (six && address.is_v4()) continue;
            rule.first = place_of(address);
            if (rule.length == whole && rule.first.number == 0) continue;  // 0.0.0.0 and :: are refused
        }
        if (dice.one_in(2)) rule.ports = dice.one_in(4) ? '*' : 'r';
        if (rule.ports == 'r') {
            rule.from = dice.port();
            rule.to = dice.one_in(2) ? rule.from : dice.port();
            if (rule.from > rule.to) std::swap(rule.from, rule.to);
        }
        if (dice.one_in(3)) rule.protocol = dice.one_in(2) ? "udp" : "tcp";
        const bool named = rule.host != 'r';
        if (allow && named && rule.protocol == "udp" && rule.ports == 'n') continue;                                           // refused
        if (allow && rule.is_about_names() && rule.protocol == "udp" && rule.ports == 'r' && rule.from == 443 && rule.to == 443) continue;  // refused
        auto text = host_text(rule, address);
        if (rule.ports == '*') text += ":*";
        if (rule.ports == 'r') text += ":" + std::to_string(rule.from) + (rule.from == rule.to ? "" : "-" + std::to_string(rule.to));
        if (!rule.protocol.empty()) text += "/" + rule.protocol;
        return {rule, text};
    }
}

struct Pair {
    Policy policy;
    Engine engine;
    Pins pins;
    std::string text;
};

std::string quoted(const std::vector<std::string>& texts) {
    std::string all;
    for (const auto& text : texts) all += (all.empty() ? "\"" : ",\"") + text + "\"";
    return "[" + all + "]";
}

const Pins::Time kNow{};

Pair throw_policy(Dice& dice) {
    Pair pair;
    auto& engine = pair.engine;
    static const std::vector<std::string> kModes{"rules", "rules", "rules", "public", "open", "public", "open", "none"};
    engine.mode = dice.from(kModes);
    std::vector<std::string> allow, deny;
    const auto add = [&](bool allows) {
        const auto thrown = throw_rule(dice, allows, !allows || engine.mode == "rules");
        engine.rules.push_back(thrown.rule);
        (allows ? allow : deny).push_back(thrown.text);
        engine.texts.push_back(Rule::parse(thrown.text, allows ? Effect::kAllow : Effect::kDeny)->to_string());
    };
    if (engine.mode != "none") {
        for (int i = dice.below(5); i > 0; --i) add(true);
        for (int i = dice.below(3); i > 0; --i) add(false);
    }
    pair.text = R"({"version":1,"mode":")" + engine.mode + R"(","allow":)" + quoted(allow) + R"(,"deny":)" + quoted(deny) + "}";
    auto policy = Policy::parse(pair.text);
    if (!policy) throw std::runtime_error(pair.text + ": " + policy.error().to_string() + " " + policy.error().hint);
    pair.policy = std::move(*policy);
    std::vector<Address> host;
    for (int i = dice.below(3); i > 0; --i) host.push_back(dice.address());
    for (const auto& address : host) engine.host.push_back(place_of(address));
    pair.policy.set_host_addresses(host);
    return pair;
}

// Often what a rule is about, or its neighbour.
Address throw_target(Dice& dice, const Pair& pair) {
    const auto& rules = pair.policy.allow().empty() || dice.one_in(3) ? pair.policy.deny() : pair.policy.allow();
    if (!rules.empty() && dice.one_in(2)) {
        const auto& rule = dice.from(rules);
        if (rule.is_range()) {
            auto bytes = rule.first().bytes();
            if (rule.bits() < 128 || dice.one_in(4)) bytes[15] = static_cast<std::uint8_t>(bytes[15] ^ dice.below(4));
            return Address::v6(bytes);
        }
    }
    return dice.address();
}

// Often a name that a rule is about, or its neighbour.
std::string throw_name(Dice& dice, const Pair& pair) {
    const auto& rules = pair.policy.allow().empty() || dice.one_in(3) ? pair.policy.deny() : pair.policy.allow();
    if (rules.empty() || dice.one_in(2)) return dice.name();
    const auto& rule = dice.from(rules);
    if (rule.is_range()) return dice.name();
    if (rule.host() == Rule::Host::kBelow && !dice.one_in(4)) return (dice.one_in(8) ? "bad" : "a.") + rule.name();
    return rule.name();
}

std::uint16_t throw_port(Dice& dice, const Pair& pair) {
    const auto& rules = pair.policy.allow();
    if (rules.empty() || dice.one_in(2)) return static_cast<std::uint16_t>(dice.port());
    const auto& rule = dice.from(rules);
    return dice.one_in(2) ? rule.from() : rule.to();
}

std::string describe(const Pair& pair, const std::string& what) {
    std::string text = pair.text + " " + what;
    for (const auto& pin : pair.engine.pins) text += " pin:" + pin.name;
    return text;
}

std::uint64_t cases() {
    const char* text = std::getenv("CAISSON_NET_CASES");
    return text == nullptr ? 1000000 : std::strtoull(text, nullptr, 10);
}

TEST(Reference, AgreesOnEverything) {
    constexpr int kTargets = 25, kEveryPortOneIn = 10000;
    Dice dice(20260917);
    std::uint64_t compared = 0, allowed = 0, needing = 0, pinned = 0;
    while (compared < cases()) {
        auto pair = throw_policy(dice);
        for (int i = 0; i < kTargets; ++i) {
            const auto address = throw_target(dice, pair);
            const auto place = place_of(address);
            const auto name = throw_name(dice, pair);
            const auto port = throw_port(dice, pair);
            const bool udp = dice.one_in(3);
            const auto protocol = udp ? Protocol::kUdp : Protocol::kTcp;
            if (dice.one_in(2)) {
                pair.pins.add(name, address, std::chrono::seconds(60), kNow);
                pair.engine.pins.push_back({name, place});
            }
            const auto where = Endpoint{address, port}.to_string() + "/" + to_string(protocol);
            const auto connected = told(pair.policy.judge_address({address, port}, protocol, pair.pins, kNow));
            ASSERT_EQ(connected, pair.engine.connect(place, port, udp)) << describe(pair, where);
            ASSERT_EQ(told(pair.policy.judge_name(name, port, protocol)), pair.engine.name(name, port, udp)) << describe(pair, name + " " + where);
            ASSERT_EQ(told(pair.policy.judge_resolved(name, Endpoint{address, port}, protocol)), pair.engine.dial(name, place, port, udp))
                << describe(pair, name + " " + where);
            ++compared;
            allowed += connected.answer == "allow" ? 1 : 0;
            needing += connected.answer == "needs_name" ? 1 : 0;
            pinned += connected.pinned.empty() ? 0 : 1;
            if (!dice.one_in(kEveryPortOneIn)) continue;
            ASSERT_EQ(pair.policy.judge_question(name).allowed(), pair.engine.ask(name)) << describe(pair, name);
            ASSERT_EQ(pair.policy.judge_resolved(name, address).allowed(), pair.engine.answer(name, place)) << describe(pair, name + " " + where);
        }
        const auto again = Policy::parse(pair.policy.to_json());
        ASSERT_TRUE(again && *again == pair.policy) << pair.text;
    }
    // The dice reach what there is to reach.
    EXPECT_GT(allowed, compared / 10);
    EXPECT_GT(needing, compared / 500);
    EXPECT_GT(pinned, compared / 1000);
    std::printf("%llu compared, %llu allowed, %llu need a name, %llu through pins\n", static_cast<unsigned long long>(compared),
                static_cast<unsigned long long>(allowed), static_cast<unsigned long long>(needing), static_cast<unsigned long long>(pinned));
}

}  // namespace
}  // namespace caisson::net
