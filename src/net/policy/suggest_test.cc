#include "net/policy/suggest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

namespace caisson::net {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

Address address(const std::string& text) { return Address::parse(text).value(); }
Policy policy_of(const PolicyWords& words) { return Policy::from_words(words).value(); }

Wishes::Connection to(const std::string& text, std::uint16_t port, Protocol protocol = Protocol::kTcp, const std::string& name = "") {
    Wishes::Connection connection;
    connection.target = {address(text), port};
    connection.protocol = protocol;
    connection.name = name;
    return connection;
}

Wishes::Connection denied(Wishes::Connection connection, const std::string& rule, const std::string& reason = "because") {
    connection.denied = true;
    connection.rule = rule;
    connection.reason = reason;
    return connection;
}

Wishes::Question asked(const std::string& name, const std::string& answer) { return {.name = name, .denied = false, .addresses = {address(answer)}, .dropped = {}}; }

class Suggest : public testing::Test {
  protected:
    std::vector<std::string> rules() {
        auto made = wishes_.suggest().value();
        EXPECT_EQ(made.policy.mode(), Mode::kRules);
        EXPECT_THAT(made.policy.deny(), IsEmpty());
        EXPECT_EQ(made.reasons.size(), made.policy.allow().size());
        std::vector<std::string> texts;
        for (std::size_t i = 0; i < made.reasons.size(); ++i) {
            EXPECT_EQ(made.reasons[i].rule, made.policy.allow()[i].text());
            EXPECT_FALSE(made.reasons[i].wanted.empty()) << made.reasons[i].rule;
            texts.push_back(made.reasons[i].rule);
        }
        return texts;
    }
    std::map<std::string, std::string> refused() { return wishes_.suggest().value().refused; }
    Wishes wishes_{policy_of({.net = "public", .allow = {}, .deny = {}}), {address("198.51.7.7")}};
};

TEST_F(Suggest, NothingWantedNeedsNothing) {
    EXPECT_THAT(rules(), IsEmpty());
    EXPECT_THAT(refused(), IsEmpty());
}

TEST_F(Suggest, AShownNameIsTheBareName) {
    wishes_.add(to("9.9.9.9", 443, Protocol::kTcp, "API.example.com"));
    wishes_.add(to("9.9.9.9", 80, Protocol::kTcp, "api.example.com"));
    EXPECT_THAT(rules(), ElementsAre("api.example.com"));
}

TEST_F(Suggest, TheNameThatWasAskedForLastStandsForAnAddress) {
    wishes_.add(asked("first.example.com", "9.9.9.9"));
    wishes_.add(asked("git.example.com", "9.9.9.9"));
    wishes_.add(to("9.9.9.9", 22));
    wishes_.add(to("9.9.9.9", 443));
    EXPECT_THAT(rules(), ElementsAre("first.example.com", "git.example.com", "git.example.com:22"));
}

TEST_F(Suggest, ABareAddressStaysOne) {
    wishes_.add(to("9.9.9.9", 443));
    wishes_.add(to("9.9.9.9", 53, Protocol::kUdp));
    wishes_.add(to("2620:fe::fe", 53, Protocol::kUdp));
    EXPECT_THAT(rules(), ElementsAre("9.9.9.9:443", "9.9.9.9:53/udp", "[2620:fe::fe]:53/udp"));
}

TEST_F(Suggest, AConnectionThatWasReadAndShowsNoNameNeedsItsAddress) {
    wishes_.add(asked("api.example.com", "9.9.9.9"));
    auto connection = to("9.9.9.9", 443);
    connection.looked = true;
    wishes_.add(connection);
    EXPECT_THAT(rules(), ElementsAre("api.example.com", "9.9.9.9:443"));
}

TEST_F(Suggest, NoWildcardsForManyNames) {
    for (const char* name : {"a.example.com", "b.example.com", "c.example.com"}) wishes_.add(to("9.9.9.9", 443, Protocol::kTcp, name));
    EXPECT_THAT(rules(), ElementsAre("a.example.com", "b.example.com", "c.example.com"));
}

TEST_F(Suggest, NeighbouringPortsAreOneRule) {
    wishes_.add(asked("a.example.com", "9.9.9.9"));
    for (auto port : std::initializer_list<std::uint16_t>{8000, 8001, 8002, 8004, 79, 80, 81}) wishes_.add(to("9.9.9.9", port));
    EXPECT_THAT(rules(), ElementsAre("a.example.com", "a.example.com:79", "a.example.com:81", "a.example.com:8000-8002", "a.example.com:8004"));
}

TEST_F(Suggest, WhatWasAskedForAloneIsAName) {
    wishes_.add(asked("a.example.com", "9.9.9.9"));
    wishes_.add({.name = "not.example.com", .denied = false, .addresses = {}, .dropped = {}});
    EXPECT_THAT(rules(), ElementsAre("a.example.com"));
}

TEST_F(Suggest, WhatAnAllowListRefusedIsWanted) {
    Wishes wishes(policy_of({.net = "", .allow = {"a.example.com"}, .deny = {"bad.example.com"}}), {});
    wishes.add({.name = "b.example.com", .denied = true, .addresses = {}, .dropped = {}});
    wishes.add({.name = "bad.example.com", .denied = true, .addresses = {}, .dropped = {}});
    wishes.add(denied(to("9.9.9.9", 443, Protocol::kTcp, "c.example.com"), "mode rules"));
    wishes.add(denied(to("9.9.9.8", 443), "allow a.example.com"));
    wishes.add(denied(to("9.9.9.9", 443, Protocol::kTcp, "bad.example.com"), "deny bad.example.com"));
    const auto made = wishes.suggest().value();
    EXPECT_EQ(made.policy.to_json(), policy_of({.net = "", .allow = {"b.example.com", "c.example.com", "9.9.9.8:443"}, .deny = {}}).to_json());
    EXPECT_THAT(made.refused, ElementsAre(Pair("bad.example.com", "the rule \"deny bad.example.com\" stands against it"),
                                          Pair("bad.example.com at 9.9.9.9:443/tcp", "the rule \"deny bad.example.com\" stands against it")));
}

TEST_F(Suggest, WhatIsNotTheInternetIsToldApart) {
    wishes_.add(denied(to("169.254.169.254", 80), "mode public"));
    wishes_.add(denied(to("10.20.30.40", 5432), "mode public"));
    wishes_.add(denied(to("64:ff9b::a14:1e28", 80), "mode public"));
    wishes_.add(denied(to("10.0.2.2", 8080, Protocol::kTcp, std::string(kHostName)), "mode public"));
    wishes_.add(denied(to("198.51.7.7", 22), "mode rules"));
    wishes_.add(denied(to("9.9.9.1", 22), "mode public"));
    wishes_.add({.name = "inside.example.com", .denied = false, .addresses = {}, .dropped = {address("10.20.30.40")}});
    wishes_.add({.name = std::string(kHostName), .denied = true, .addresses = {}, .dropped = {}});
    EXPECT_THAT(rules(), IsEmpty());
    EXPECT_EQ(refused().size(), 8u);
    EXPECT_EQ(refused().at("169.254.169.254:80/tcp"), "169.254.169.254 is a cloud's metadata (AWS, Google, Azure, OpenStack and most others) (169.254.169.254/32)");
    EXPECT_EQ(refused().at("198.51.7.7:22/tcp"), "198.51.7.7 is an address of this host");
}

TEST_F(Suggest, WhatThePolicyReachedBesideTheInternetIsNamedByItsAddress) {
    wishes_.add(asked("db.example.com", "10.0.0.7"));
    wishes_.add(to("10.0.0.7", 5432));
    wishes_.add(to("10.0.2.2", 8080, Protocol::kTcp, std::string(kHostName)));
    EXPECT_THAT(rules(), ElementsAre("db.example.com:5432", "host.caisson.internal:8080", "10.0.0.7:5432"));
}

TEST_F(Suggest, QuicOfANameIsLeftToTcp) {
    wishes_.add(asked("a.example.com", "9.9.9.9"));
    wishes_.add(to("9.9.9.9", 443, Protocol::kUdp));
    wishes_.add(to("9.9.9.8", 443, Protocol::kUdp));
    EXPECT_THAT(rules(), ElementsAre("a.example.com", "9.9.9.8:443/udp"));
    EXPECT_THAT(refused(), ElementsAre(Pair("a.example.com at 9.9.9.9:443/udp", testing::HasSubstr("QUIC"))));
}

TEST_F(Suggest, MoreRulesThanAPolicyMayHaveAreAnError) {
    for (unsigned i = 0; i < 1024; ++i) wishes_.add(to("9.9." + std::to_string(i / 250) + "." + std::to_string(1 + i % 250), 22));
    EXPECT_TRUE(wishes_.suggest());
    wishes_.add(to("9.9.9.9", 22));
    EXPECT_EQ(wishes_.suggest().error().code, Errc::kLimit);
}

// A box with any policy wants things at random, and its journal says what came of them. The suggested policy allows all of
// them that are of the internet, or that the box reached, unless the operator's own rule stands against one.
class Random {
  public:
    explicit Random(unsigned seed) : engine_(seed) {}
    std::size_t below(std::size_t end) { return engine_() % end; }
    template <typename List>
    auto of(const List& list) {
        return list[below(list.size())];
    }

  private:
    std::mt19937 engine_;
};

const std::vector<std::string> kNames{"a.example.com", "b.example.com", "example.com", "git.example.org", "x.y.example.net"};
const std::vector<std::string> kAddresses{"9.9.9.9", "9.9.9.8", "2620:fe::fe", "10.0.0.7", "169.254.169.254", "64:ff9b::909:909", "64:ff9b::a00:7", "2002:a00:7::1", "100.64.0.7"};
const std::vector<std::uint16_t> kPorts{22, 53, 80, 81, 443, 444, 8080};
const std::vector<PolicyWords> kPolicies{{.net = "public", .allow = {}, .deny = {}}, {.net = "open", .allow = {}, .deny = {}}, {.net = "public", .allow = {}, .deny = {"b.example.com", "9.9.9.8:22"}},
                                         {.net = "", .allow = {"*.example.com", "10.0.0.7"}, .deny = {}}, {.net = "", .allow = {"9.9.9.9"}, .deny = {"a.example.com"}}};

struct Tried {
    Endpoint target;
    Protocol protocol;
    std::string name, pinned;  // shown, and asked for before
};

// As caisson-netd judges it from its beginning to its first bytes; the verdict that was recorded.
Verdict judged(const Policy& policy, const Tried& tried) {
    Pins pins;
    if (!tried.pinned.empty()) pins.add(tried.pinned, tried.target.address, std::chrono::seconds(60), {});
    auto verdict = policy.judge_address(tried.target, tried.protocol, pins, {});
    if (verdict.answer == Verdict::Answer::kDeny) return verdict;
    if (verdict.answer == Verdict::Answer::kNeedsName) {
        if (tried.name.empty()) return {.answer = Verdict::Answer::kDeny, .rule = verdict.rule, .reason = "it shows no name", .looks = false, .pinned = {}};
        return policy.judge_resolved(tried.name, tried.target, tried.protocol);
    }
    return verdict.looks && !tried.name.empty() ? policy.judge_shown(verdict, tried.name, tried.target.port, tried.protocol) : verdict;
}

TEST(SuggestProperty, AllowsWhateverWasWantedOfTheInternetOrReached) {
    std::size_t wanted = 0, checked = 0;
    for (unsigned seed = 0; seed < 3000; ++seed) {
        Random random(seed);
        const auto own = policy_of(random.of(kPolicies));
        Wishes wishes(own, {});
        std::vector<Tried> all;
        std::vector<std::string> questions;
        std::map<Address, std::string> pinned;
        for (auto left = random.below(12); left > 0; --left) {
            if (random.below(3) == 0) {
                const auto name = random.of(kNames);
                const auto place = address(random.of(kAddresses));
                const bool may = own.judge_question(name).allowed();
                const bool dropped = may && !own.judge_resolved(name, place).allowed();
                Wishes::Question question{.name = name, .denied = !may, .addresses = {}, .dropped = {}};
                if (dropped) question.dropped.push_back(place);
                else if (may) question.addresses.push_back(place);
                wishes.add(question);
                if (may && !dropped) pinned[place] = name;
                if (!dropped && !own.judge_question(name).rule.starts_with("deny ")) questions.push_back(name);
                continue;
            }
            Tried tried{{address(random.of(kAddresses)), random.of(kPorts)}, random.below(4) == 0 ? Protocol::kUdp : Protocol::kTcp, "", ""};
            if (Policy::shows_name(tried.target.port, tried.protocol) && random.below(3) != 0) tried.name = random.of(kNames);
            if (const auto found = pinned.find(tried.target.address); found != pinned.end()) tried.pinned = found->second;
            const auto verdict = judged(own, tried);
            Wishes::Connection connection{.target = tried.target, .protocol = tried.protocol, .name = tried.name, .looked = true, .denied = !verdict.allowed(),
                                          .rule = verdict.rule, .reason = verdict.reason};
            wishes.add(connection);
            ++wanted;
            const bool is_internet = !special_range_of(tried.target.address) && embedded_in(tried.target.address).empty();
            const bool is_quic = tried.protocol == Protocol::kUdp && tried.target.port == 443 && !tried.pinned.empty();
            if (!is_quic && (verdict.allowed() || (is_internet && !verdict.rule.starts_with("deny ")))) all.push_back(tried);
        }
        const auto made = wishes.suggest();
        ASSERT_TRUE(made) << made.error().to_string();
        for (const auto& tried : all) {
            EXPECT_TRUE(judged(made->policy, tried).allowed())
                << "seed " << seed << ": " << tried.target.to_string() << " shows " << tried.name << " asked for " << tried.pinned << " by " << made->policy.to_json() << ": "
                << judged(made->policy, tried).reason;
            ++checked;
        }
        for (const auto& name : questions) EXPECT_TRUE(made->policy.judge_question(name).allowed()) << "seed " << seed << ": " << name << " by " << made->policy.to_json();
    }
    EXPECT_GT(checked, wanted / 3);
}

// Nothing less would do: without any one of its rules something that was wanted is denied.
TEST(SuggestProperty, EveryRuleIsNeeded) {
    for (unsigned seed = 0; seed < 1000; ++seed) {
        Random random(seed);
        Wishes wishes(policy_of({.net = "open", .allow = {}, .deny = {}}), {});
        std::vector<Tried> all;
        for (auto left = random.below(10); left > 0; --left) {
            Tried tried{{address(random.of(kAddresses)), random.of(kPorts)}, Protocol::kTcp, "", ""};
            if (Policy::shows_name(tried.target.port, tried.protocol) && random.below(2) == 0) tried.name = random.of(kNames);
            if (!judged(policy_of({.net = "open", .allow = {}, .deny = {}}), tried).allowed()) continue;
            wishes.add({.target = tried.target, .protocol = tried.protocol, .name = tried.name, .looked = true, .denied = false, .rule = "", .reason = ""});
            all.push_back(tried);
        }
        const auto made = wishes.suggest().value();
        std::vector<std::string> rules;
        for (const auto& rule : made.policy.allow()) rules.push_back(rule.text());
        for (std::size_t without = 0; rules.size() > 1 && without < rules.size(); ++without) {
            PolicyWords fewer;
            for (std::size_t i = 0; i < rules.size(); ++i)
                if (i != without) fewer.allow.push_back(rules[i]);
            const auto policy = policy_of(fewer);
            // A name behind which there is no address of the internet is for the question alone.
            const auto is_denied = [&](const Tried& tried) { return !judged(policy, tried).allowed() || (!tried.name.empty() && !policy.judge_question(tried.name).allowed()); };
            EXPECT_TRUE(std::any_of(all.begin(), all.end(), is_denied))
                << "seed " << seed << ": " << made.policy.to_json() << " does not need " << rules[without];
        }
    }
}

}  // namespace
}  // namespace caisson::net
