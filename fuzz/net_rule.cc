// A rule of the network's policy, and names as they come from the wire. What is accepted must have one spelling, which means
// the same, and cover what it says.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "net/policy/limits.h"
#include "net/name.h"
#include "net/policy/rule.h"

using namespace caisson::net;

namespace {

void check(bool fine) {
    if (!fine) std::abort();
}

void check_name(std::string_view text) {
    const auto name = canonical_name(text);
    if (!name) return;
    check(!name->empty() && name->size() <= kLongestName && canonical_name(*name) == name);
    check(!Address::parse(*name) && name->find_first_of("/:@[]* ") == std::string::npos);
    check(!is_below(*name, *name) && is_below("a." + *name, *name) && !is_below("a" + *name, *name));
}

void check_rule(std::string_view text, Effect effect) {
    const auto rule = Rule::parse(text, effect);
    if (!rule) {
        check(!rule.error().message.empty() && !rule.error().hint.empty());
        return;
    }
    check(text.size() <= limits::kLongestRule);
    const auto again = Rule::parse(rule->text(), effect);
    check(again && again->text() == rule->text() && again->host() == rule->host() && again->name() == rule->name());
    check(again->first() == rule->first() && again->bits() == rule->bits());
    check(rule->from() >= 1 && rule->from() <= rule->to());
    for (auto protocol : {Protocol::kTcp, Protocol::kUdp})
        for (unsigned port : {1u, 80u, 443u, 65535u, unsigned{rule->from()}, unsigned{rule->to()}})
            check(rule->covers(static_cast<std::uint16_t>(port), protocol) == again->covers(static_cast<std::uint16_t>(port), protocol));
    check(!rule->covers(std::uint16_t{0}, Protocol::kTcp) && !rule->covers(std::uint16_t{0}, Protocol::kUdp));
    if (rule->is_range()) check(rule->covers(rule->first()) && !rule->covers(std::string_view("a.b")));
    else check(!rule->covers(Address()) && (rule->host() == Rule::Host::kBelow || rule->covers(rule->name())));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    check_name(text);
    check_rule(text, Effect::kAllow);
    check_rule(text, Effect::kDeny);
    return 0;
}
