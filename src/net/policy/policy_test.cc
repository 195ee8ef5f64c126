#include "net/policy/policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "net/policy/limits.h"

namespace caisson::net {
namespace {

using testing::HasSubstr;

const Pins::Time kNow{};
Policy of_words(const PolicyWords& words) { return *Policy::from_words(words); }
Endpoint at(const char* address, std::uint16_t port) { return {*Address::parse(address), port}; }

std::string said(const std::string& json) {
    const auto policy = Policy::parse(json);
    EXPECT_FALSE(policy) << json;
    return policy ? "" : policy.error().to_string() + "; " + policy.error().hint;
}
std::string said_of_words(const PolicyWords& words) {
    const auto policy = Policy::from_words(words);
    EXPECT_FALSE(policy);
    return policy ? "" : policy.error().to_string() + "; " + policy.error().hint;
}

TEST(PolicyWords, ChooseTheMode) {
    EXPECT_EQ(of_words({}).mode(), Mode::kPublic);
    EXPECT_EQ(of_words({"public", {}, {}}).mode(), Mode::kPublic);
    EXPECT_EQ(of_words({"open", {}, {}}).mode(), Mode::kOpen);
    EXPECT_EQ(of_words({"none", {}, {}}).mode(), Mode::kNone);
    EXPECT_EQ(of_words({"", {"a.b"}, {}}).mode(), Mode::kRules);
    EXPECT_EQ(of_words({"", {"a.b"}, {"b.a.b"}}).mode(), Mode::kRules);
    EXPECT_EQ(of_words({"", {}, {"a.b"}}).mode(), Mode::kPublic);
}

TEST(PolicyWords, ThatCouldMeanTwoThingsAreRefused) {
    EXPECT_THAT(said_of_words({"public", {"a.b"}, {}}), HasSubstr("could mean two things"));
    EXPECT_THAT(said_of_words({"open", {"10.0.0.1"}, {}}), HasSubstr("--net-policy"));
    EXPECT_THAT(said_of_words({"none", {"a.b"}, {}}), HasSubstr("leave one of them out"));
    EXPECT_THAT(said_of_words({"none", {}, {"a.b"}}), HasSubstr("reaches nothing"));
    EXPECT_THAT(said_of_words({"rules", {}, {}}), HasSubstr("is no mode"));
    EXPECT_THAT(said_of_words({"Public", {}, {}}), HasSubstr("use none, public or open"));
    EXPECT_THAT(said_of_words({"", {"*"}, {}}), HasSubstr("--allow-net"));
    EXPECT_THAT(said_of_words({"", {}, {"a..b"}}), HasSubstr("--deny-net"));
}

TEST(PolicyFile, IsReadAndWrittenInOneForm) {
    const auto policy = Policy::parse(R"({"deny":["10.0.0.0/8:1-65535"], "allow":["A.b.","a.b", "*.a.b:22"], "mode":"rules", "version":1})");
    ASSERT_TRUE(policy);
    EXPECT_EQ(policy->to_json(), R"({"version":1,"mode":"rules","allow":["a.b","*.a.b:22"],"deny":["10.0.0.0/8"]})");
    EXPECT_TRUE(*Policy::parse(policy->to_json()) == *policy);
    EXPECT_EQ(Policy().to_json(), R"({"version":1,"mode":"public"})");
    EXPECT_EQ(Policy::parse(R"({"version":1,"mode":"rules"})")->to_json(), R"({"version":1,"mode":"rules","allow":[]})");
}

TEST(PolicyFile, SaysWhatIsWrong) {
    for (const auto& [json, what] : std::vector<std::pair<std::string, std::string>>{
             {"", "not valid JSON, from byte"},
             {"{", "not valid JSON"},
             {"[]", "it is no object"},
             {"1", "it is no object"},
             {"null", "it is no object"},
             {R"({"version":1,"mode":"public"} x)", "not valid JSON"},
             {R"({"mode":"public"})", "\"version\" is missing"},
             {R"({"version":1})", "\"mode\" is missing"},
             {R"({"version":2,"mode":"public"})", "version 2 is not known here"},
             {R"({"version":"1","mode":"public"})", "\"version\" is no number"},
             {R"({"version":-1,"mode":"public"})", "\"version\" is no number"},
             {R"({"version":1.0,"mode":"public"})", "\"version\" is no number"},
             {R"({"version":1,"mode":"Public"})", "\"Public\" is no mode"},
             {R"({"version":1,"mode":1})", "\"mode\" is no text"},
             {R"({"version":1,"mode":true})", "\"mode\" is no text"},
             {R"({"version":1,"mode":"public","alow":[]})", "unknown key \"alow\""},
             {R"({"version":1,"mode":"public","mode":"open"})", "\"mode\" is there twice"},
             {R"({"version":1,"mode":"rules","allow":"a.b"})", "\"allow\" is no list"},
             {R"({"version":1,"mode":"rules","allow":{"a":1}})", "\"allow\" is no list"},
             {R"({"version":1,"mode":"rules","allow":[["a.b"]]})", "something else than texts"},
             {R"({"version":1,"mode":"rules","allow":[1]})", "something else than texts"},
             {R"({"version":1,"mode":"rules","allow":[null]})", "something else than texts"},
             {R"({"version":1,"mode":"rules","deny":["*.com"]})", "\"deny\" of the network policy"},
             {R"({"version":1,"mode":"rules","allow":["a\u0000b"]})", "control character"},
             {R"({"version":1,"mode":"none","deny":["a.b"]})", "mode none reaches nothing"},
             {R"({"version":1,"mode":"public","allow":["a.b"]})", "mode public allows every name, so \"allow a.b\" says nothing"},
             {"{\"version\":1,\"mode\":\"\xff\"}", "not valid JSON"}})
        EXPECT_THAT(said(json), HasSubstr(what)) << json;
}

TEST(PolicyFile, AtItsLimits) {
    const auto with = [](std::size_t count) {
        std::string rules;
        for (std::size_t i = 0; i < count; ++i)
            rules += (i == 0 ? "\"9.0." : ",\"9.0.") + std::to_string(i / 256) + "." + std::to_string(i % 256) + "\"";
        return R"({"version":1,"mode":"rules","allow":[)" + rules + "]}";
    };
    EXPECT_TRUE(Policy::parse(with(limits::kMostRules)));
    EXPECT_EQ(Policy::parse(with(limits::kMostRules + 1)).error().code, Errc::kLimit);
    std::string padded = R"({"version":1,"mode":"public"})";
    padded.resize(limits::kLargestPolicyBytes, ' ');
    EXPECT_TRUE(Policy::parse(padded));
    EXPECT_EQ(Policy::parse(padded + " ").error().code, Errc::kLimit);
    EXPECT_EQ(Policy::from_words({"", std::vector<std::string>(limits::kMostRules + 1, "a.b"), {}}).error().code, Errc::kLimit);
    const std::string deep(100000, '[');
    EXPECT_THAT(said(R"({"version":1,"mode":"rules","allow":)" + deep), HasSubstr("something else"));
}

TEST(Policy, DenyBeatsAllow) {
    const auto addresses = of_words({"", {"9.9.9.9", "9.9.9.0/24"}, {"9.9.9.9"}});
    EXPECT_EQ(addresses.judge_address(at("9.9.9.9", 80), Protocol::kTcp, {}, kNow).rule, "deny 9.9.9.9");
    EXPECT_TRUE(addresses.judge_address(at("9.9.9.8", 80), Protocol::kTcp, {}, kNow).allowed());
    const auto names = of_words({"", {"bad.a.b", "*.a.b"}, {"bad.a.b"}});
    EXPECT_EQ(names.judge_name("bad.a.b", 443, Protocol::kTcp).rule, "deny bad.a.b");
    EXPECT_TRUE(names.judge_name("good.a.b", 443, Protocol::kTcp).allowed());
    EXPECT_FALSE(names.judge_question("bad.a.b").allowed());
}

TEST(Policy, PortZeroAndWhatIsNoNameAreDenied) {
    const auto open = of_words({"open", {}, {}});
    EXPECT_FALSE(open.judge_address(at("9.9.9.9", 0), Protocol::kTcp, {}, kNow).allowed());
    EXPECT_FALSE(open.judge_name("a.b", 0, Protocol::kTcp).allowed());
    for (const char* name : {"", "9.9.9.9", "a b", "a..b", "127.1"}) {
        EXPECT_FALSE(open.judge_name(name, 443, Protocol::kTcp).allowed()) << name;
        EXPECT_FALSE(open.judge_question(name).allowed()) << name;
        EXPECT_FALSE(open.judge_resolved(name, *Address::parse("9.9.9.9")).allowed()) << name;
    }
}

TEST(Policy, TheHostsOwnAddressesAreTheHost) {
    auto open = of_words({"open", {}, {}});
    open.set_host_addresses({*Address::parse("192.168.1.5"), *Address::parse("9.9.9.9"), *Address::parse("127.0.0.1")});
    EXPECT_FALSE(open.judge_address(at("192.168.1.5", 80), Protocol::kTcp, {}, kNow).allowed());
    EXPECT_FALSE(open.judge_address(at("9.9.9.9", 80), Protocol::kTcp, {}, kNow).allowed());
    EXPECT_FALSE(open.judge_address(at("64:ff9b::9.9.9.9", 80), Protocol::kTcp, {}, kNow).allowed());
    EXPECT_FALSE(open.judge_resolved("a.b", *Address::parse("9.9.9.9")).allowed());
    EXPECT_TRUE(open.judge_address(at("192.168.1.6", 80), Protocol::kTcp, {}, kNow).allowed());

    auto rules = of_words({"", {"9.9.9.0/24", "9.9.10.9", "127.0.0.0/8"}, {}});
    rules.set_host_addresses({*Address::parse("9.9.9.9"), *Address::parse("9.9.10.9"), *Address::parse("127.0.0.1")});
    EXPECT_FALSE(rules.judge_address(at("9.9.9.9", 80), Protocol::kTcp, {}, kNow).allowed());
    EXPECT_TRUE(rules.judge_address(at("9.9.9.8", 80), Protocol::kTcp, {}, kNow).allowed());
    EXPECT_TRUE(rules.judge_address(at("9.9.10.9", 80), Protocol::kTcp, {}, kNow).allowed());
    EXPECT_TRUE(rules.judge_address(at("127.0.0.1", 80), Protocol::kTcp, {}, kNow).allowed());
}

TEST(Policy, APinHoldsUntilItExpires) {
    const auto policy = of_words({"", {"git.a.b:22"}, {}});
    Pins pins;
    pins.add("git.a.b", *Address::parse("9.9.9.9"), limits::kShortestPin, kNow);
    const auto verdict = policy.judge_address(at("9.9.9.9", 22), Protocol::kTcp, pins, kNow);
    EXPECT_TRUE(verdict.allowed() && verdict.looks);
    EXPECT_EQ(verdict.pinned, "git.a.b");
    EXPECT_FALSE(policy.judge_address(at("9.9.9.9", 22), Protocol::kTcp, pins, kNow + limits::kShortestPin).allowed());
    EXPECT_FALSE(policy.judge_address(at("9.9.9.8", 22), Protocol::kTcp, pins, kNow).allowed());
    // Not even a pin leads to where no rule about addresses leads.
    pins.add("git.a.b", *Address::parse("10.0.0.7"), limits::kShortestPin, kNow);
    EXPECT_FALSE(policy.judge_address(at("10.0.0.7", 22), Protocol::kTcp, pins, kNow).allowed());
}

TEST(Policy, MetadataNeedsItsOwnRuleInEveryMode) {
    for (const auto& words : std::vector<PolicyWords>{
             {"public", {}, {}}, {"open", {}, {}}, {"", {"0.0.0.0/0", "::/0", "169.254.0.0/16", "fd00:ec2::/32", "fc00::/7", "100.64.0.0/10"}, {}}})
        for (const auto& range : special_ranges()) {
            const auto verdict = of_words(words).judge_address({range.first, 80}, Protocol::kTcp, {}, kNow);
            EXPECT_FALSE(range.reach == Reach::kMetadata && verdict.allowed()) << range.text;
        }
    EXPECT_TRUE(of_words({"", {"169.254.169.254"}, {}}).judge_address(at("169.254.169.254", 80), Protocol::kTcp, {}, kNow).allowed());
}

TEST(Policy, WithAsManyRulesAsThereMayBeIsStillFast) {
    PolicyWords words;
    for (std::size_t i = 0; i < limits::kMostRules; ++i) words.allow.push_back("*.example.test:" + std::to_string(2 * i + 1000));
    const auto policy = of_words(words);
    EXPECT_TRUE(policy.judge_question("a.example.test").allowed());
    EXPECT_FALSE(policy.judge_resolved("a.example.test", *Address::parse("10.0.0.1")).allowed());  // tries every port there is to try
}

}  // namespace
}  // namespace caisson::net
