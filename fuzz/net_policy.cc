// A policy file, and behind its first zero byte what is judged by it: 16 bytes of an address, 2 of a port, 1 of a protocol, and
// a name. Whatever the policy, verdicts are consistent with one another.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "net/policy/policy.h"

using namespace caisson::net;

namespace {

void check(bool fine) {
    if (!fine) std::abort();
}

struct Target {
    Endpoint endpoint{Address::v4(0x09090909), 443};
    Protocol protocol = Protocol::kTcp;
    std::string_view name = "a.example.com";
};

Target target_of(std::string_view bytes) {
    Target target;
    constexpr std::size_t kHead = 19;
    if (bytes.size() < kHead) return target;
    std::array<std::uint8_t, 16> address{};
    std::copy_n(bytes.begin(), address.size(), address.begin());
    const auto byte = [&](std::size_t at) { return static_cast<std::uint8_t>(bytes[at]); };
    target.endpoint = {Address::v6(address), static_cast<std::uint16_t>(byte(16) << 8 | byte(17))};
    target.protocol = byte(18) % 2 == 0 ? Protocol::kTcp : Protocol::kUdp;
    target.name = bytes.substr(kHead);
    return target;
}

void check_verdicts(const Policy& policy, const Target& target) {
    const auto& [endpoint, protocol, name] = target;
    const auto by_name = policy.judge_name(name, endpoint.port, protocol);
    const auto dialled = policy.judge_resolved(name, endpoint, protocol);
    const auto question = policy.judge_question(name), answer = policy.judge_resolved(name, endpoint.address);
    for (const auto& verdict : {by_name, dialled, question, answer})
        check(!verdict.rule.empty() && !verdict.reason.empty() && verdict.answer != Verdict::Answer::kNeedsName);
    // Each is allowed only if what comes before it is.
    check(!dialled.allowed() || (by_name.allowed() && answer.allowed()));
    check(!by_name.allowed() || question.allowed());
    check(!answer.allowed() || question.allowed());
    Pins pins;
    const auto unpinned = policy.judge_address(endpoint, protocol, pins, {});
    if (const auto normal = canonical_name(name)) pins.add(*normal, endpoint.address, std::chrono::seconds(60), {});
    const auto verdict = policy.judge_address(endpoint, protocol, pins, {});
    check(verdict.pinned.empty() || (dialled.allowed() && !unpinned.allowed()));
    const auto shown = policy.judge_shown(verdict, name, endpoint.port, protocol);
    check(shown.answer != Verdict::Answer::kNeedsName && (verdict.answer != Verdict::Answer::kDeny || shown == verdict));
    if (policy.mode() == Mode::kNone || endpoint.port == 0) check(!verdict.allowed() && !by_name.allowed() && !dialled.allowed());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view all(reinterpret_cast<const char*>(data), size);
    const auto end = all.find('\0');
    const auto policy = Policy::parse(all.substr(0, end));
    if (!policy) {
        check(!policy.error().message.empty());
        return 0;
    }
    const auto again = Policy::parse(policy->to_json());
    check(again && *again == *policy && again->to_json() == policy->to_json());
    check_verdicts(*policy, target_of(end == std::string_view::npos ? std::string_view() : all.substr(end + 1)));
    return 0;
}
