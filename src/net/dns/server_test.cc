#include "net/dns/server.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include "net/dns/test_support.h"

namespace caisson::net::dns {
namespace {

using base::Bytes;
using Verdict = Question::Verdict;
using Texts = std::vector<std::string>;

Texts texts(const std::vector<Address>& addresses) {
    Texts made;
    for (const auto& address : addresses) made.push_back(address.to_string());
    return made;
}

class ServerTest : public testing::Test {
  protected:
    os::Loop loop = os::Loop::create().value();
    TestUpstream upstream{loop, knows({{"a.test", {"192.0.2.1", "2001:db8::1"}}, {"inside.test", {"10.0.0.1"}}})};
    Resolver resolver{
        {.loop = &loop,
         .servers = {upstream.endpoint()},
         .may_use = [](const std::string&,
                       const Address& address) { return !address.shares_prefix(*Address::parse("10.0.0.0"), 96 + 8); },
         .try_timeout = std::chrono::milliseconds(300),
         .deadline = std::chrono::milliseconds(600)}};
    std::vector<Question> told;
    Server::Options options{.loop = &loop,
                            .resolver = &resolver,
                            .judge = [](const std::string& name) { return name.ends_with(".test") && name != "denied.test"; },
                            .on_question = [this](const Question& question) { told.push_back(question); }};
    std::unique_ptr<Server> server;

    Server& make() {
        if (!server) server = std::make_unique<Server>(options);
        return *server;
    }
    // The answer to one datagram; empty: none came.
    Bytes ask_raw(const Bytes& query) {
        std::optional<Bytes> answer;
        make().on_datagram(query, [&](base::ByteView bytes) {
            EXPECT_FALSE(answer);
            answer.emplace(bytes.begin(), bytes.end());
        });
        const auto end = os::Loop::Clock::now() + std::chrono::seconds(5);
        while (!answer && os::Loop::Clock::now() < end) EXPECT_TRUE(loop.step(std::chrono::milliseconds(20)));
        return answer.value_or(Bytes{});
    }
    Answer ask(const std::string& name, Type type = Type::kA) { return parse_answer(ask_raw(build_query(7, name, type, true)), 7, name, type); }
};

TEST_F(ServerTest, AnswersWhatPolicyAllows) {
    const auto four = ask("a.test");
    EXPECT_EQ(four.kind, Answer::Kind::kAddresses);
    EXPECT_EQ(texts(four.addresses), (Texts{"192.0.2.1"}));
    EXPECT_EQ(texts(ask("a.test", Type::kAaaa).addresses), (Texts{"2001:db8::1"}));
    ASSERT_EQ(told.size(), 2u);
    EXPECT_EQ(told[0].name, "a.test");
    EXPECT_EQ(told[0].verdict, Verdict::kAnswered);
    EXPECT_EQ(texts(told[0].addresses), (Texts{"192.0.2.1"}));
    EXPECT_EQ(told[0].ttl, 60u);
    EXPECT_EQ(told[1].type, Type::kAaaa);
}

TEST_F(ServerTest, IsToldOfBeforeTheGuestIs) {
    bool answered = false;
    make().on_datagram(build_query(7, "a.test", Type::kA, false), [&](base::ByteView) {
        answered = true;
        EXPECT_EQ(told.size(), 1u);
    });
    EXPECT_TRUE(run_until(loop, [&] { return answered; }));
}

TEST_F(ServerTest, WhatPolicyDeniesDoesNotExistAndIsNotAskedFor) {
    for (auto type : {Type::kA, Type::kAaaa, Type::kHttps}) EXPECT_EQ(ask("denied.test", type).kind, Answer::Kind::kNoSuchName);
    EXPECT_EQ(ask("secret-that-leaves.example").kind, Answer::Kind::kNoSuchName);
    EXPECT_EQ(upstream.asked, 0);
    ASSERT_EQ(told.size(), 4u);
    for (const auto& question : told) EXPECT_EQ(question.verdict, Verdict::kDenied);
    EXPECT_EQ(server->counts().denied, 4u);
}

TEST_F(ServerTest, ServiceRecordsAreRefused) {
    for (auto type : {Type::kHttps, Type::kSvcb}) {
        EXPECT_EQ(ask("a.test", type).kind, Answer::Kind::kNoData);
        EXPECT_EQ(told.back().verdict, Verdict::kNoData) << "a record that hides names is asked for";
    }
    EXPECT_EQ(upstream.asked, 0) << "a record that hides names is asked for";
}

TEST_F(ServerTest, OtherTypesHaveNoData) {
    for (int type : {2, 5, 6, 15, 16, 33, 255}) EXPECT_EQ(ask("a.test", static_cast<Type>(type)).kind, Answer::Kind::kNoData) << type;
    EXPECT_EQ(ask("1.2.0.192.in-addr.test", Type::kPtr).kind, Answer::Kind::kNoSuchName);
    EXPECT_EQ(upstream.asked, 0);
}

TEST_F(ServerTest, NamesOfNoHostDoNotExist) {
    EXPECT_EQ(ask_raw(build_query(7, "1.2.3.4", Type::kA, false))[3] & 15, 3);
    EXPECT_EQ(ask_raw(build_query(7, "a b.test", Type::kA, false))[3] & 15, 3);
    EXPECT_EQ(ask_raw(build_query(7, "", static_cast<Type>(2), false))[3] & 15, 0);  // the root does exist
    EXPECT_EQ(upstream.asked, 0);
}

TEST_F(ServerTest, AddressesInsideAreNotAnswered) {
    EXPECT_EQ(ask("inside.test").kind, Answer::Kind::kNoData) << "an address inside came from outside";
    ASSERT_EQ(told.size(), 1u);
    EXPECT_EQ(told[0].verdict, Verdict::kDropped);
    EXPECT_EQ(texts(told[0].dropped), (Texts{"10.0.0.1"}));
    EXPECT_TRUE(told[0].addresses.empty());
}

TEST_F(ServerTest, WithoutIpv6ThereAreNoAddressesOfIt) {
    make().set_ipv6(false);
    EXPECT_EQ(ask("a.test", Type::kAaaa).kind, Answer::Kind::kNoData);
    EXPECT_EQ(upstream.asked, 0);
    server->set_ipv6(true);
    EXPECT_EQ(ask("a.test", Type::kAaaa).kind, Answer::Kind::kAddresses);
}

TEST_F(ServerTest, FailuresOfServersAreTold) {
    EXPECT_EQ(ask("none.test").kind, Answer::Kind::kNoSuchName);
    upstream.handle(nullptr);
    EXPECT_EQ(ask("silent.test").code, Code::kServerFailure);
    EXPECT_EQ(told.back().verdict, Verdict::kFailed);
    EXPECT_EQ(told.back().why, Resolved::Kind::kTimeout);
}

TEST_F(ServerTest, APolicyThatChangesMeanwhileHolds) {
    bool allowed = true, answered = false;
    options.judge = [&](const std::string&) { return allowed; };
    make().on_datagram(build_query(7, "a.test", Type::kA, false), [&](base::ByteView bytes) {
        answered = true;
        EXPECT_EQ(parse_answer(bytes, 7, "a.test", Type::kA).kind, Answer::Kind::kNoSuchName);
    });
    allowed = false;
    EXPECT_TRUE(run_until(loop, [&] { return answered; }));
}

TEST_F(ServerTest, DamagedQuestionsGetAnErrorOrNothing) {
    for (const auto& query : {Bytes{1, 2, 3}, Bytes{0, 7, 0x81, 0, 0, 0, 0, 0, 0, 0, 0, 0}})
        make().on_datagram(query, [](base::ByteView) { ADD_FAILURE(); });
    const auto answer = ask_raw(Bytes{0, 7, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0});
    ASSERT_EQ(answer.size(), 12u);
    EXPECT_EQ(answer[3] & 15, 1);
    EXPECT_EQ(server->counts().malformed, 3u);
    EXPECT_EQ(told.size(), 1u);  // once a second
}

TEST_F(ServerTest, QuestionsAreLimitedBySecond) {
    options.questions_at_once = 5;
    options.questions_per_second = 1;
    std::size_t answers = 0;
    for (int i = 0; i < 8; ++i) make().on_datagram(build_query(7, "denied.test", Type::kA, false), [&](base::ByteView) { ++answers; });
    EXPECT_EQ(answers, 5u);
    EXPECT_EQ(server->counts().limited, 3u);
    EXPECT_EQ(std::count_if(told.begin(), told.end(), [](const Question& question) { return question.verdict == Verdict::kLimited; }), 1);
}

TEST_F(ServerTest, UnansweredQuestionsAreLimited) {
    upstream.handle(nullptr);
    std::size_t failures = 0;
    const auto count = [&](base::ByteView bytes) { failures += (bytes[3] & 15) == 2; };
    for (std::size_t i = 0; i < kMostUnansweredQuestions; ++i)
        make().on_datagram(build_query(7, "n" + std::to_string(i) + ".test", Type::kA, false), count);
    EXPECT_EQ(failures, 0u);
    make().on_datagram(build_query(7, "one-more.test", Type::kA, false), count);
    EXPECT_EQ(failures, 1u);
    EXPECT_TRUE(run_until(loop, [&] { return failures == kMostUnansweredQuestions + 1; }));
}

TEST_F(ServerTest, ADestroyedServerIsSilent) {
    make().on_datagram(build_query(7, "a.test", Type::kA, false), [](base::ByteView) { ADD_FAILURE(); });
    server.reset();
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(loop.step(std::chrono::milliseconds(10)));
}

TEST_F(ServerTest, LargeAnswersAreCutForDatagramsOnly) {
    Texts many;
    for (int i = 0; i < 60; ++i) many.push_back("192.0.2." + std::to_string(i + 1));
    upstream.handle([&](const Query& query, bool) { return TestUpstream::Answers{upstream_answer(query, many)}; });
    const auto plain = ask_raw(build_query(7, "a.test", Type::kA, false));
    EXPECT_LE(plain.size(), 512u);
    EXPECT_EQ(parse_answer(plain, 7, "a.test", Type::kA).kind, Answer::Kind::kTruncated);
    EXPECT_EQ(ask("a.test").addresses.size(), 60u);  // 1000 bytes, with EDNS
}

// ---- over TCP ----

class ServerTcpTest : public ServerTest {
  protected:
    // The guest's end of a new connection.
    os::Fd connect() {
        auto pair = os::make_socketpair(SOCK_STREAM).value();
        EXPECT_TRUE(os::set_nonblocking(pair.first.get(), true));
        EXPECT_TRUE(make().on_stream(std::move(pair.second)));
        return std::move(pair.first);
    }
    static Bytes framed(const Bytes& message) {
        return Bytes{static_cast<std::uint8_t>(message.size() >> 8), static_cast<std::uint8_t>(message.size())} +
               message;
    }
    static Bytes question(const std::string& name, std::uint16_t id = 7) { return framed(build_query(id, name, Type::kA, false)); }
    static void send(const os::Fd& fd, const Bytes& bytes) {
        EXPECT_EQ(::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
    }
    // So many answers, or as many as come until the connection ends.
    std::vector<Bytes> receive(const os::Fd& fd, std::size_t count) {
        Bytes bytes;
        std::vector<Bytes> messages;
        ended = false;
        run_until(loop, [&] {
            std::uint8_t room[4096];
            const auto size = ::recv(fd.get(), room, sizeof room, 0);
            if (size > 0) base::append(bytes, base::ByteView(room).first(static_cast<std::size_t>(size)));
            while (bytes.size() >= 2 && bytes.size() >= 2u + (static_cast<std::size_t>(bytes[0]) << 8 | bytes[1])) {
                const auto length = static_cast<long>(static_cast<std::size_t>(bytes[0]) << 8 | bytes[1]);
                messages.emplace_back(bytes.begin() + 2, bytes.begin() + 2 + length);
                bytes.erase(bytes.begin(), bytes.begin() + 2 + length);
            }
            ended = size == 0 || (size < 0 && errno != EAGAIN);
            return ended || messages.size() >= count;
        });
        return messages;
    }
    bool ended = false;
};

TEST_F(ServerTcpTest, AnswersQuestionsInAnyPieces) {
    auto guest = connect();
    const auto two = question("a.test", 1) + question("denied.test", 2);
    for (const auto byte : two) {
        send(guest, {byte});
        ASSERT_TRUE(loop.step(std::chrono::milliseconds(0)));
    }
    const auto answers = receive(guest, 2);
    ASSERT_EQ(answers.size(), 2u);
    std::map<int, Answer::Kind> kinds;
    for (const auto& answer : answers) kinds[answer[1]] = parse_answer(answer, answer[1], answer[1] == 1 ? "a.test" : "denied.test", Type::kA).kind;
    EXPECT_EQ(kinds[1], Answer::Kind::kAddresses);
    EXPECT_EQ(kinds[2], Answer::Kind::kNoSuchName);
    EXPECT_TRUE(told[0].over_tcp);
    send(guest, two);  // the connection stands
    EXPECT_EQ(receive(guest, 2).size(), 2u);
}

TEST_F(ServerTcpTest, AnswersThatDoNotFitADatagramFit) {
    Texts many;
    for (int i = 0; i < 60; ++i) many.push_back("192.0.2." + std::to_string(i + 1));
    upstream.handle([&](const Query& query, bool) { return TestUpstream::Answers{upstream_answer(query, many)}; });
    auto guest = connect();
    send(guest, question("a.test"));
    const auto answers = receive(guest, 1);
    ASSERT_EQ(answers.size(), 1u);
    EXPECT_EQ(parse_answer(answers[0], 7, "a.test", Type::kA).addresses.size(), 60u);
}

TEST_F(ServerTcpTest, WhoHasSentAllGetsAllAnswers) {
    auto guest = connect();
    send(guest, question("a.test") + question("denied.test"));
    ::shutdown(guest.get(), SHUT_WR);
    EXPECT_EQ(receive(guest, 3).size(), 2u);
    EXPECT_TRUE(ended);
    EXPECT_TRUE(run_until(loop, [&] { return server->sessions() == 0; }));
}

TEST_F(ServerTcpTest, ManyQuestionsAtOnceAreAnsweredInTurn) {
    upstream.handle([](const Query& query, bool) { return TestUpstream::Answers{upstream_answer(query, {"192.0.2.1"})}; });
    auto guest = connect();
    Bytes all;
    for (std::size_t i = 0; i < 4 * kMostSessionQuestions; ++i) all = all + question("n" + std::to_string(i) + ".test");
    send(guest, all);
    EXPECT_EQ(receive(guest, 4 * kMostSessionQuestions).size(), 4 * kMostSessionQuestions);
}

TEST_F(ServerTcpTest, UnansweredQuestionsOfOneAreLimited) {
    upstream.handle(nullptr);
    auto guest = connect();
    Bytes all;
    for (std::size_t i = 0; i < kMostSessionQuestions + 1; ++i) all = all + question("n" + std::to_string(i) + ".test");
    send(guest, all);
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(loop.step(std::chrono::milliseconds(1)));
    EXPECT_EQ(server->counts().questions, kMostSessionQuestions);
    EXPECT_EQ(receive(guest, kMostSessionQuestions + 1).size(), kMostSessionQuestions + 1);  // once those are answered
}

TEST_F(ServerTcpTest, WhoTakesNoAnswersAsksNoMore) {
    options.questions_at_once = options.questions_per_second = 1000000;
    auto guest = connect();
    const auto one = question("denied.test");
    Bytes many;
    for (int i = 0; i < 100; ++i) many = many + one;
    // Until neither direction takes any more.
    for (int idle = 0; idle < 20; ++idle) {
        while (::send(guest.get(), many.data(), many.size(), MSG_NOSIGNAL) > 0) idle = 0;
        ASSERT_TRUE(loop.step(std::chrono::milliseconds(1)));
    }
    const auto asked = server->counts().questions;
    for (int i = 0; i < 10; ++i) ASSERT_TRUE(loop.step(std::chrono::milliseconds(1)));
    EXPECT_EQ(server->counts().questions, asked);
    EXPECT_GT(receive(guest, asked).size(), 0u);
}

TEST_F(ServerTcpTest, AQuestionHasALargestSize) {
    auto guest = connect();
    send(guest, {static_cast<std::uint8_t>((kMostQueryBytes + 1) >> 8), static_cast<std::uint8_t>(kMostQueryBytes + 1)});
    EXPECT_TRUE(receive(guest, 1).empty());
    EXPECT_TRUE(ended);
    guest = connect();
    Bytes largest(kMostQueryBytes);  // damaged, but not too large
    largest[2] = 1;
    send(guest, framed(largest));
    EXPECT_EQ(receive(guest, 1).size(), 1u);
}

TEST_F(ServerTcpTest, AnIdleConnectionIsEnded) {
    options.session_idle = std::chrono::milliseconds(50);
    auto guest = connect();
    send(guest, {0});  // half a length
    EXPECT_TRUE(receive(guest, 1).empty());
    EXPECT_TRUE(ended);
    EXPECT_EQ(server->sessions(), 0u);
}

TEST_F(ServerTcpTest, TheIdlestGoesWhenThereAreTooMany) {
    std::vector<os::Fd> guests;
    for (std::size_t i = 0; i < kMostTcpSessions; ++i) guests.push_back(connect());
    send(guests[0], question("denied.test"));
    EXPECT_EQ(receive(guests[0], 1).size(), 1u);
    guests.push_back(connect());
    EXPECT_EQ(server->sessions(), kMostTcpSessions);
    receive(guests[1], 1);
    EXPECT_TRUE(ended);
    send(guests[0], question("denied.test"));
    EXPECT_EQ(receive(guests[0], 1).size(), 1u);
}

TEST_F(ServerTcpTest, AConnectionThatEndsMeanwhileDoesNoHarm) {
    auto guest = connect();
    send(guest, question("a.test"));
    ASSERT_TRUE(loop.step(std::chrono::milliseconds(0)));
    guest.reset();
    EXPECT_TRUE(run_until(loop, [&] { return server->sessions() == 0 && told.size() == 1; }));
    guest = connect();
    send(guest, question("silent.test"));
    ASSERT_TRUE(loop.step(std::chrono::milliseconds(0)));
    server.reset();
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(loop.step(std::chrono::milliseconds(10)));
}

TEST_F(ServerTcpTest, AQuestionBeyondTheLimitEndsIt) {
    options.questions_at_once = options.questions_per_second = 1;
    auto guest = connect();
    send(guest, question("denied.test") + question("denied.test"));
    EXPECT_EQ(receive(guest, 2).size(), 1u);
    EXPECT_TRUE(ended);
}

}  // namespace
}  // namespace caisson::net::dns
