#include "net/dns/resolver.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "net/dns/test_support.h"

namespace caisson::net::dns {
namespace {

using base::Bytes;
using Kind = Resolved::Kind;
using Texts = std::vector<std::string>;

Texts texts(const std::vector<Address>& addresses) {
    Texts made;
    for (const auto& address : addresses) made.push_back(address.to_string());
    return made;
}

class ResolverTest : public testing::Test {
  protected:
    os::Loop loop = os::Loop::create().value();
    TestUpstream upstream{loop};
    Resolver::Options options{.loop = &loop,
                              .servers = {upstream.endpoint()},
                              .try_timeout = std::chrono::seconds(2),
                              .deadline = std::chrono::seconds(10)};
    std::unique_ptr<Resolver> resolver;

    // For tests of servers that do not answer. The others have time enough for a busy machine.
    void be_impatient() {
        options.try_timeout = std::chrono::milliseconds(100);
        options.deadline = std::chrono::milliseconds(600);
    }
    Resolver& make() {
        if (!resolver) resolver = std::make_unique<Resolver>(options);
        return *resolver;
    }
    Resolved resolve(const std::string& name, Family family = Family::kV4) {
        std::optional<Resolved> result;
        make().resolve(name, family, [&](const Resolved& resolved) {
            EXPECT_FALSE(result) << "called twice";
            result = resolved;
        });
        EXPECT_FALSE(result) << "called from within resolve()";
        EXPECT_TRUE(run_until(loop, [&] { return result.has_value(); }));
        return result.value_or(Resolved{});
    }
};

TEST_F(ResolverTest, FindsAddressesOfEitherFamily) {
    upstream.handle(knows({{"a.test", {"192.0.2.1", "192.0.2.2", "2001:db8::1"}}}));
    EXPECT_EQ(texts(resolve("a.test", Family::kV4).addresses), (Texts{"192.0.2.1", "192.0.2.2"}));
    EXPECT_EQ(texts(resolve("a.test", Family::kV6).addresses), (Texts{"2001:db8::1"}));
    resolver.reset();
    const auto both = resolve("a.test", Family::kBoth);
    EXPECT_EQ(texts(both.addresses), (Texts{"192.0.2.1", "192.0.2.2", "2001:db8::1"}));
    EXPECT_EQ(both.ttl, 60u);
}

TEST_F(ResolverTest, SaysWhyThereAreNone) {
    upstream.handle(knows({{"four.test", {"192.0.2.1"}}}));
    EXPECT_EQ(resolve("none.test").kind, Kind::kNoSuchName);
    EXPECT_EQ(resolve("none.test", Family::kBoth).kind, Kind::kNoSuchName);
    EXPECT_EQ(resolve("four.test", Family::kV6).kind, Kind::kNoData);
    EXPECT_EQ(resolve("Not.Canonical").kind, Kind::kBadName);
    upstream.handle([](const Query& query, bool) { return TestUpstream::Answers{upstream_answer(query, {}, 2)}; });
    EXPECT_EQ(resolve("failing.test").kind, Kind::kServerFailure);
    upstream.handle([](const Query& query, bool) { return TestUpstream::Answers{upstream_answer(query, {}, 5)}; });
    EXPECT_EQ(resolve("refused.test").kind, Kind::kRefused);
}

TEST_F(ResolverTest, ASilentServerEndsInTime) {
    be_impatient();
    const auto began = os::Loop::Clock::now();
    EXPECT_EQ(resolve("a.test").kind, Kind::kTimeout);
    EXPECT_EQ(upstream.asked, static_cast<int>(kMostRounds));
    EXPECT_LT(os::Loop::Clock::now() - began, std::chrono::seconds(2));
}

TEST_F(ResolverTest, TheDeadlineHoldsForAllTries) {
    be_impatient();
    options.servers.assign(kMostServers, upstream.endpoint());
    const auto began = os::Loop::Clock::now();
    EXPECT_EQ(resolve("a.test").kind, Kind::kTimeout);
    EXPECT_LT(upstream.asked, static_cast<int>(kMostServers * kMostRounds));
    EXPECT_GE(os::Loop::Clock::now() - began, options.deadline);
}

TEST_F(ResolverTest, WithoutServersNothingIsAsked) {
    options.servers.clear();
    EXPECT_EQ(resolve("a.test").kind, Kind::kNoServers);
}

TEST_F(ResolverTest, ANextServerIsAskedWhenOneIsSilentFailsOrIsNotThere) {
    be_impatient();
    TestUpstream good(loop, knows({{"a.test", {"192.0.2.1"}}, {"b.test", {"192.0.2.2"}}, {"c.test", {"192.0.2.3"}}}));
    options.servers = {upstream.endpoint(), good.endpoint()};
    EXPECT_EQ(texts(resolve("a.test").addresses), (Texts{"192.0.2.1"}));
    upstream.handle([](const Query& query, bool) { return TestUpstream::Answers{upstream_answer(query, {}, 2)}; });
    EXPECT_EQ(texts(resolve("b.test").addresses), (Texts{"192.0.2.2"}));
    EXPECT_EQ(upstream.asked, 2);
    Endpoint nobody;
    {
        TestUpstream gone(loop);
        nobody = gone.endpoint();
    }
    resolver->set_servers({nobody, good.endpoint()});
    EXPECT_EQ(texts(resolve("c.test").addresses), (Texts{"192.0.2.3"}));
}

TEST_F(ResolverTest, EachQuestionHasItsOwnIdAndPort) {
    upstream.handle(knows({}));
    for (int i = 0; i < 20; ++i) resolve("n" + std::to_string(i) + ".test");
    EXPECT_EQ(upstream.asked, 20);
    EXPECT_GE(std::set<std::uint16_t>(upstream.ids.begin(), upstream.ids.end()).size(), 19u);  // two of 65536 may be alike
    EXPECT_GE(std::set<std::uint16_t>(upstream.ports.begin(), upstream.ports.end()).size(), 10u);
}

// ---- hostile servers ----

TEST_F(ResolverTest, AnAnswerWithAWrongIdIsNone) {
    upstream.handle([](const Query& query, bool) {
        auto forged = query;
        forged.id ^= 1;
        return TestUpstream::Answers{upstream_answer(forged, {"192.0.2.66"}), upstream_answer(query, {"192.0.2.1"})};
    });
    EXPECT_EQ(texts(resolve("a.test").addresses), (Texts{"192.0.2.1"})) << "an answer with a wrong id was taken";
    EXPECT_EQ(resolver->counts().strays, 1u);
}

TEST_F(ResolverTest, AnAnswerToAnotherQuestionIsNone) {
    upstream.handle([](const Query& query, bool) {
        auto other = std::get<Query>(parse_query(build_query(query.id, "other.test", query.type, false)));
        return TestUpstream::Answers{upstream_answer(other, {"192.0.2.66"}), upstream_answer(query, {"192.0.2.1"})};
    });
    EXPECT_EQ(texts(resolve("a.test").addresses), (Texts{"192.0.2.1"}));
}

TEST_F(ResolverTest, AnAnswerFromAnotherAddressIsNone) {
    os::Fd stranger(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    upstream.handle([&](const Query& query, bool) {
        upstream.send_from(stranger.get(), upstream_answer(query, {"192.0.2.66"}));
        return TestUpstream::Answers{upstream_answer(query, {"192.0.2.1"})};
    });
    EXPECT_EQ(texts(resolve("a.test").addresses), (Texts{"192.0.2.1"}));
    EXPECT_EQ(resolver->counts().strays, 0u);  // the kernel dropped it
}

TEST_F(ResolverTest, WhoGuessesMayNotGuessForLong) {
    const auto guesses = [](std::size_t count) {
        return [count](const Query& query, bool) {
            TestUpstream::Answers answers;
            auto forged = query;
            for (std::size_t i = 0; i < count; ++i) {
                ++forged.id;
                answers.push_back(upstream_answer(forged, {"192.0.2.66"}));
            }
            answers.push_back(upstream_answer(query, {"192.0.2.1"}));
            return answers;
        };
    };
    upstream.handle(guesses(kMostStrayAnswers));
    EXPECT_EQ(texts(resolve("a.test").addresses), (Texts{"192.0.2.1"}));
    EXPECT_EQ(upstream.asked, 1);
    upstream.handle(guesses(kMostStrayAnswers + 1));
    EXPECT_EQ(resolve("b.test").kind, Kind::kTimeout);
    EXPECT_EQ(upstream.asked, 1 + static_cast<int>(kMostRounds));
    EXPECT_NE(upstream.ports[1], upstream.ports[2]);
}

TEST_F(ResolverTest, DamagedAnswersAreAFailure) {
    const Bytes self = {0xc0, 0, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 66};
    upstream.handle([&](const Query& query, bool) {
        auto answer = upstream_answer(query, {});
        answer[7] = 1;
        auto endless = self;
        endless[0] = static_cast<std::uint8_t>(0xc0 | answer.size() >> 8);
        endless[1] = static_cast<std::uint8_t>(answer.size());
        return TestUpstream::Answers{answer + endless};
    });
    EXPECT_EQ(resolve("pointer.test").kind, Kind::kServerFailure);
    upstream.handle([](const Query& query, bool) {
        auto answer = upstream_answer(query, {});
        answer[7] = 1;
        return TestUpstream::Answers{answer + Bytes{0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 2, 0xc0, 12}};  // an alias of itself
    });
    EXPECT_EQ(resolve("loop.test").kind, Kind::kServerFailure);
}

TEST_F(ResolverTest, AddressesThatMayNotBeUsedAreDropped) {
    options.may_use = [](const std::string& name, const Address& address) {
        EXPECT_TRUE(name == "mixed.test" || name == "inside.test");
        return !address.shares_prefix(*Address::parse("10.0.0.0"), 96 + 8);
    };
    upstream.handle(knows({{"mixed.test", {"10.0.0.1", "192.0.2.1"}}, {"inside.test", {"10.0.0.1"}}}));
    const auto mixed = resolve("mixed.test");
    EXPECT_EQ(texts(mixed.addresses), (Texts{"192.0.2.1"})) << "an address inside came from outside";
    EXPECT_EQ(texts(mixed.dropped), (Texts{"10.0.0.1"}));
    const auto inside = resolve("inside.test");
    EXPECT_EQ(inside.kind, Kind::kAllDropped);
    EXPECT_TRUE(inside.addresses.empty());
    EXPECT_EQ(resolve("inside.test").kind, Kind::kAllDropped);  // from the cache
    EXPECT_EQ(upstream.asked, 2);
}

TEST_F(ResolverTest, AMappedAddressIsDropped) {
    upstream.handle([](const Query& query, bool) { return TestUpstream::Answers{upstream_answer(query, {"::ffff:10.0.0.1"})}; });
    const auto result = resolve("a.test", Family::kV6);
    EXPECT_EQ(result.kind, Kind::kAllDropped);
    EXPECT_EQ(texts(result.dropped), (Texts{"10.0.0.1"}));
}

// ---- large answers ----

TEST_F(ResolverTest, ATruncatedAnswerIsAskedForOverTcp) {
    upstream.handle([](const Query& query, bool over_tcp) {
        auto answer = upstream_answer(query, over_tcp ? Texts{"192.0.2.1"} : Texts{});
        if (!over_tcp) answer[2] |= 2;
        return TestUpstream::Answers{answer};
    });
    EXPECT_EQ(texts(resolve("a.test").addresses), (Texts{"192.0.2.1"}));
    EXPECT_EQ(upstream.asked_tcp, 1);
}

TEST_F(ResolverTest, AnAnswerLargerThanItMayBeIsAskedForOverTcp) {
    upstream.handle([](const Query& query, bool over_tcp) {
        auto answer = upstream_answer(query, {"192.0.2.1"});
        answer.resize(over_tcp ? answer.size() : kMostUdpAnswerBytes + 1);
        return TestUpstream::Answers{answer};
    });
    EXPECT_EQ(texts(resolve("a.test").addresses), (Texts{"192.0.2.1"}));
    EXPECT_EQ(upstream.asked_tcp, 1);
}

TEST_F(ResolverTest, OverTcpAnAnswerHasALargestSizeToo) {
    const auto of_size = [&](std::size_t size) {
        upstream.handle([size](const Query& query, bool over_tcp) {
            auto answer = upstream_answer(query, over_tcp ? Texts{"192.0.2.1"} : Texts{});
            if (over_tcp) answer.resize(size);
            else answer[2] |= 2;
            return TestUpstream::Answers{answer};
        });
    };
    of_size(kMostTcpAnswerBytes);
    EXPECT_EQ(resolve("a.test").kind, Kind::kAddresses);
    of_size(kMostTcpAnswerBytes + 1);
    EXPECT_EQ(resolve("b.test").kind, Kind::kServerFailure);
}

TEST_F(ResolverTest, OverTcpAWrongIdIsNoneEither) {
    upstream.handle([](const Query& query, bool over_tcp) {
        auto forged = query;
        if (over_tcp) forged.id ^= 1;
        auto answer = upstream_answer(forged, over_tcp ? Texts{"192.0.2.66"} : Texts{});
        if (!over_tcp) answer[2] |= 2;
        return TestUpstream::Answers{answer};
    });
    EXPECT_NE(resolve("a.test").kind, Kind::kAddresses);
}

TEST_F(ResolverTest, AServerWithoutEdnsIsAskedWithout) {
    upstream.handle([](const Query& query, bool) {
        if (query.edns) return TestUpstream::Answers{upstream_answer(query, {}, 1)};
        return TestUpstream::Answers{upstream_answer(query, {"192.0.2.1"})};
    });
    EXPECT_EQ(texts(resolve("a.test").addresses), (Texts{"192.0.2.1"}));
    EXPECT_EQ(upstream.asked, 2);
}

// ---- hosts, cache, sharing ----

TEST_F(ResolverTest, HostsComeFirst) {
    options.hosts = {{"a.test", {*Address::parse("10.0.0.1")}}};
    options.may_use = [](const std::string&, const Address&) { return false; };
    upstream.handle(knows({{"a.test", {"192.0.2.1", "2001:db8::1"}}}));
    const auto four = resolve("a.test");
    EXPECT_EQ(texts(four.addresses), (Texts{"10.0.0.1"}));
    EXPECT_TRUE(four.from_hosts);
    EXPECT_EQ(resolve("a.test", Family::kV6).kind, Kind::kNoData);
    EXPECT_EQ(texts(resolve("a.test", Family::kBoth).addresses), (Texts{"10.0.0.1"}));
    EXPECT_EQ(upstream.asked, 0);
    resolver->set_hosts({});
    EXPECT_EQ(resolve("a.test").kind, Kind::kAllDropped);
}

TEST_F(ResolverTest, AnswersAreKeptForTheirTime) {
    upstream.handle(knows({{"a.test", {"192.0.2.1"}}}));
    resolve("a.test");
    const auto again = resolve("a.test");
    EXPECT_EQ(texts(again.addresses), (Texts{"192.0.2.1"}));
    EXPECT_GE(again.ttl, 58u);
    EXPECT_LE(again.ttl, 60u);
    resolve("none.test");
    resolve("none.test");
    EXPECT_EQ(upstream.asked, 2);
    EXPECT_EQ(resolver->counts().from_cache, 2u);
    resolver->set_servers({upstream.endpoint()});
    resolve("a.test");
    EXPECT_EQ(upstream.asked, 3);
}

TEST_F(ResolverTest, FailuresAreNotKept) {
    upstream.handle([](const Query& query, bool) { return TestUpstream::Answers{upstream_answer(query, {}, 2)}; });
    resolve("a.test");
    upstream.handle(knows({{"a.test", {"192.0.2.1"}}}));
    EXPECT_EQ(resolve("a.test").kind, Kind::kAddresses);
}

TEST_F(ResolverTest, TimesToLiveAreClamped) {
    std::uint32_t ttl = 0;
    upstream.handle([&](const Query& query, bool) { return TestUpstream::Answers{upstream_answer(query, {"192.0.2.1"}, 0, ttl)}; });
    EXPECT_EQ(resolve("a.test").ttl, kShortestTtl);
    ttl = 86400;
    EXPECT_EQ(resolve("b.test").ttl, kLongestTtl);
    EXPECT_LE(resolve("b.test").ttl, kLongestTtl);
}

TEST_F(ResolverTest, TheCacheHasAMostNames) {
    upstream.handle([](const Query& query, bool) { return TestUpstream::Answers{upstream_answer(query, {"192.0.2.1"})}; });
    for (std::size_t i = 0; i < kMostCachedNames; ++i) resolve("n" + std::to_string(i) + ".test");
    resolve("n0.test");
    EXPECT_EQ(upstream.asked, static_cast<int>(kMostCachedNames));
    resolve("one-more.test");
    resolve("n0.test");  // it was to end first
    EXPECT_EQ(upstream.asked, static_cast<int>(kMostCachedNames) + 2);
}

TEST_F(ResolverTest, EqualQuestionsAreAskedOnce) {
    upstream.handle(knows({{"a.test", {"192.0.2.1"}}}));
    int answers = 0;
    for (int i = 0; i < 10; ++i)
        make().resolve("a.test", Family::kV4,
                       [&](const Resolved& resolved) { answers += resolved.kind == Kind::kAddresses; });
    EXPECT_TRUE(run_until(loop, [&] { return answers == 10; }));
    EXPECT_EQ(upstream.asked, 1);
}

TEST_F(ResolverTest, ThereIsAMostLookupsAndWaiters) {
    be_impatient();
    std::map<Kind, std::size_t> kinds;
    const auto count = [&](const Resolved& resolved) { ++kinds[resolved.kind]; };
    for (std::size_t i = 0; i < kMostLookups + 1; ++i) make().resolve("n" + std::to_string(i) + ".test", Family::kV4, count);
    EXPECT_TRUE(run_until(loop, [&] { return kinds[Kind::kBusy] == 1; }));
    EXPECT_TRUE(run_until(loop, [&] { return kinds[Kind::kTimeout] == kMostLookups; }));
    kinds.clear();
    for (std::size_t i = 0; i < kMostWaiters + 1; ++i) make().resolve("a.test", Family::kV4, count);
    EXPECT_TRUE(run_until(loop, [&] { return kinds[Kind::kTimeout] == kMostWaiters; }));
    EXPECT_EQ(kinds[Kind::kBusy], 1u);
}

TEST_F(ResolverTest, OnlySoManyServersAreAsked) {
    be_impatient();
    options.servers.assign(kMostServers, upstream.endpoint());
    TestUpstream beyond(loop, knows({{"a.test", {"192.0.2.1"}}}));
    options.servers.push_back(beyond.endpoint());
    options.try_timeout = std::chrono::milliseconds(10);
    EXPECT_EQ(resolve("a.test").kind, Kind::kTimeout);
    EXPECT_EQ(beyond.asked, 0);
}

TEST_F(ResolverTest, TheOtherFamilyIsNotWaitedForLong) {
    options.try_timeout = options.deadline = std::chrono::seconds(4);
    upstream.handle([](const Query& query, bool) {
        return query.type == Type::kA ? TestUpstream::Answers{upstream_answer(query, {"192.0.2.1"})}
                                      : TestUpstream::Answers{};
    });
    for (int i = 0; i < 2; ++i) {  // once from the server, once from the cache
        const auto began = os::Loop::Clock::now();
        EXPECT_EQ(texts(resolve("a.test", Family::kBoth).addresses), (Texts{"192.0.2.1"}));
        EXPECT_GE(os::Loop::Clock::now() - began, kOtherFamilyWait);
        EXPECT_LT(os::Loop::Clock::now() - began, std::chrono::seconds(2));
    }
}

TEST_F(ResolverTest, ACancelledRequestIsSilent) {
    upstream.handle(knows({{"a.test", {"192.0.2.1"}}}));
    bool called = false;
    const auto ticket = make().resolve("a.test", Family::kBoth, [&](const Resolved&) { called = true; });
    make().cancel(ticket);
    make().cancel(ticket);
    EXPECT_EQ(resolve("a.test", Family::kBoth).kind, Kind::kAddresses);
    EXPECT_FALSE(called);
}

TEST_F(ResolverTest, ADestroyedResolverIsSilent) {
    upstream.handle(knows({{"a.test", {"192.0.2.1"}}}));
    make().resolve("a.test", Family::kBoth, [&](const Resolved&) { ADD_FAILURE(); });
    ASSERT_TRUE(loop.step(std::chrono::milliseconds(0)));
    make().resolve("Bad.Name", Family::kBoth, [&](const Resolved&) { ADD_FAILURE(); });
    resolver.reset();
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(loop.step(std::chrono::milliseconds(10)));
}

TEST_F(ResolverTest, ACallbackMayAskAgain) {
    upstream.handle(knows({{"a.test", {"192.0.2.1"}}}));
    int answers = 0;
    make().resolve("a.test", Family::kV4, [&](const Resolved&) {
        ++answers;
        make().resolve("a.test", Family::kV6, [&](const Resolved&) { ++answers; });
    });
    EXPECT_TRUE(run_until(loop, [&] { return answers == 2; }));
}

}  // namespace
}  // namespace caisson::net::dns
