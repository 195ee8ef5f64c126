#include "net/dns/message.h"

#include <gtest/gtest.h>

#include "net/name.h"

namespace caisson::net::dns {
namespace {

using base::Bytes;

Bytes bytes(std::initializer_list<int> values) { return Bytes(values.begin(), values.end()); }
Bytes operator+(Bytes a, const Bytes& b) {
    base::append(a, b);
    return a;
}
Bytes number(std::size_t value, int width) {
    Bytes made;
    for (int i = width - 1; i >= 0; --i) made.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
    return made;
}
// "a.test" as labels.
Bytes name(std::string_view text) {
    Bytes made;
    while (!text.empty()) {
        const auto label = text.substr(0, text.find('.'));
        made = made + number(label.size(), 1) + Bytes(label.begin(), label.end());
        text.remove_prefix(std::min(text.size(), label.size() + 1));
    }
    return made + bytes({0});
}
Bytes header(std::size_t bits, std::size_t answers = 0, std::size_t additionals = 0, std::size_t questions = 1) {
    return number(0x1234, 2) + number(bits, 2) + number(questions, 2) + number(answers, 2) + number(0, 2) + number(additionals, 2);
}
Bytes question(std::string_view text, Type type) { return name(text) + number(static_cast<std::size_t>(type), 2) + number(1, 2); }
Bytes edns(std::size_t size) { return bytes({0, 0, 41}) + number(size, 2) + Bytes(4) + number(0, 2); }
Bytes record(const Bytes& owner, Type type, const Bytes& data, std::size_t ttl = 60) {
    return owner + number(static_cast<std::size_t>(type), 2) + number(1, 2) + number(ttl, 4) + number(data.size(), 2) + data;
}
const Bytes kOwner = bytes({0xc0, 12});  // the question's name

constexpr std::size_t kAnswer = 0x8180;

// ---- questions ----
Query good(const Bytes& query) {
    auto parsed = parse_query(query);
    EXPECT_TRUE(std::holds_alternative<Query>(parsed));
    return std::holds_alternative<Query>(parsed) ? std::get<Query>(parsed) : Query{};
}
BadQuery bad(const Bytes& query) {
    auto parsed = parse_query(query);
    EXPECT_TRUE(std::holds_alternative<BadQuery>(parsed));
    return std::holds_alternative<BadQuery>(parsed) ? std::get<BadQuery>(parsed) : BadQuery{};
}

TEST(DnsQuery, IsRead) {
    const auto query = good(header(0x0100) + question("WWW.Example.test", Type::kAaaa));
    EXPECT_EQ(query.id, 0x1234);
    EXPECT_EQ(query.name, "www.example.test");
    EXPECT_EQ(query.type, Type::kAaaa);
    EXPECT_TRUE(query.recursion_desired);
    EXPECT_FALSE(query.edns);
    EXPECT_EQ(query.udp_bytes, 512u);
    EXPECT_EQ(query.question, question("WWW.Example.test", Type::kAaaa));
}

TEST(DnsQuery, ThatIsBuiltIsRead) {
    for (bool with : {false, true}) {
        const auto query = good(build_query(7, "a.example.test", Type::kA, with));
        EXPECT_EQ(query.id, 7);
        EXPECT_EQ(query.name, "a.example.test");
        EXPECT_EQ(query.edns, with);
        EXPECT_EQ(query.udp_bytes, with ? kMostUdpAnswerBytes : 512u);
    }
}

TEST(DnsQuery, SaysHowMuchFits) {
    const auto of = [](std::size_t size) { return good(header(0x0100, 0, 1) + question("a.test", Type::kA) + edns(size)).udp_bytes; };
    EXPECT_EQ(of(0), 512u);
    EXPECT_EQ(of(1000), 1000u);
    EXPECT_EQ(of(kMostUdpAnswerBytes + 1), kMostUdpAnswerBytes);
    EXPECT_EQ(of(65535), kMostUdpAnswerBytes);
}

TEST(DnsQuery, OfANameThatNoHostHasIsRead) {
    for (const auto& wire : {bytes({3, 'a', '.', 'b', 4}) + Bytes{'t', 'e', 's', 't', 0}, name("a b.test"),
                             name("1.2.3.4"), name("-a.test"), bytes({2, 0xc3, 0xbc, 0})}) {
        const auto query = good(header(0x0100) + wire + bytes({0, 1, 0, 1}));
        EXPECT_EQ(query.name, "");
        EXPECT_FALSE(query.is_root);
    }
    EXPECT_TRUE(good(header(0x0100) + bytes({0, 0, 2, 0, 1})).is_root);
}

TEST(DnsQuery, ThatIsDamagedIsRefused) {
    const auto whole = header(0x0100, 0, 1) + question("a.test", Type::kA) + edns(1232);
    for (std::size_t size = 0; size < whole.size(); ++size) {
        const auto read = bad(Bytes(whole.begin(), whole.begin() + static_cast<long>(size)));
        EXPECT_EQ(read.id.has_value(), size >= 12) << size;
    }
    const auto format = [](const Bytes& query) {
        const auto read = bad(query);
        return read.id && read.code == Code::kFormatError;
    };
    EXPECT_TRUE(format(whole + bytes({0})));
    EXPECT_TRUE(format(header(0x0100, 0, 0, 2) + question("a.test", Type::kA) + question("b.test", Type::kA)));
    EXPECT_TRUE(format(header(0x0100, 0, 0, 0)));
    EXPECT_TRUE(format(header(0x0100, 1) + question("a.test", Type::kA) + record(kOwner, Type::kA, bytes({1, 2, 3, 4}))));
    EXPECT_TRUE(format(header(0x0100, 0, 2) + question("a.test", Type::kA) + edns(1232) + edns(1232)));
    EXPECT_TRUE(format(header(0x0100, 0, 1) + question("a.test", Type::kA) + record(bytes({0}), Type::kA, {})));
    EXPECT_TRUE(format(header(0x0100) + kOwner + bytes({0, 1, 0, 1})));                       // a pointer
    EXPECT_TRUE(format(header(0x0100) + bytes({1, 'a', 0xc0, 12, 0, 1, 0, 1})));
    EXPECT_TRUE(format(header(0x0100) + bytes({0x41, 'a', 0, 0, 1, 0, 1})));                  // a label of an unknown kind
    EXPECT_TRUE(format(header(0x0100) + question("a.test", Type::kOpt)));
}

TEST(DnsQuery, OfAnotherKindIsRefused) {
    EXPECT_FALSE(bad(header(0x8100) + question("a.test", Type::kA)).id);  // itself an answer: else two servers answer each other for ever
    EXPECT_EQ(bad(header(0x2800) + question("a.test", Type::kSoa)).code, Code::kNotImplemented);  // UPDATE
    EXPECT_EQ(bad(header(0x0100) + name("a.test") + bytes({0, 1, 0, 3})).code, Code::kNotImplemented);  // class CH
}

TEST(DnsQueryLimits, HasALargestSize) {
    const auto of_size = [](std::size_t size) {
        const auto begin = header(0x0100, 0, 1) + question("a.test", Type::kA) + bytes({0, 0, 41}) + number(1232, 2) + Bytes(4);
        const auto options = size - begin.size() - 2;
        return begin + number(options, 2) + Bytes(options);
    };
    EXPECT_EQ(good(of_size(kMostQueryBytes)).name, "a.test");
    EXPECT_EQ(bad(of_size(kMostQueryBytes + 1)).code, Code::kFormatError);
}

TEST(DnsQueryLimits, ItsNameHasALongestForm) {
    const std::string label(63, 'a'), longest = label + "." + label + "." + label + "." + std::string(61, 'b');
    EXPECT_EQ(good(header(0x0100) + question(longest, Type::kA)).name, longest);
    EXPECT_EQ(bad(header(0x0100) + question(longest + "b", Type::kA)).code, Code::kFormatError);
}

// ---- answers ----
Answer read(const Bytes& answer, Type type = Type::kA) { return parse_answer(answer, 0x1234, "a.test", type); }
Bytes answered(const Bytes& records, std::size_t count, Type type = Type::kA) { return header(kAnswer, count) + question("a.test", type) + records; }
std::vector<std::string> texts(const Answer& answer) {
    std::vector<std::string> made;
    for (const auto& address : answer.addresses) made.push_back(address.to_string());
    return made;
}
using Texts = std::vector<std::string>;

TEST(DnsAnswer, AddressesAreRead) {
    const auto four = read(answered(record(kOwner, Type::kA, bytes({192, 0, 2, 1}), 90) + record(kOwner, Type::kA, bytes({192, 0, 2, 2}), 80), 2));
    EXPECT_EQ(four.kind, Answer::Kind::kAddresses);
    EXPECT_EQ(texts(four), (Texts{"192.0.2.1", "192.0.2.2"}));
    EXPECT_EQ(four.ttl, 80u);
    const auto address = *Address::parse("2001:db8::1");
    const auto six =
        read(answered(record(name("A.Test"), Type::kAaaa, Bytes(address.bytes().begin(), address.bytes().end())), 1,
                      Type::kAaaa),
             Type::kAaaa);
    EXPECT_EQ(texts(six), (Texts{"2001:db8::1"}));
}

TEST(DnsAnswer, AliasesAreFollowed) {
    const auto chain = record(kOwner, Type::kCname, name("b.test"), 70) + record(name("b.test"), Type::kCname, name("c.test"), 20);
    const auto answer = read(answered(record(name("C.test"), Type::kA, bytes({192, 0, 2, 1}), 90) + chain, 3));
    EXPECT_EQ(texts(answer), (Texts{"192.0.2.1"}));
    EXPECT_EQ(answer.ttl, 20u);
    EXPECT_EQ(read(answered(chain, 2)).kind, Answer::Kind::kNoData);
}

TEST(DnsAnswer, OnlyWhatTheNameLeadsToIsTaken) {
    const auto other = record(name("other.test"), Type::kA, bytes({192, 0, 2, 9}));
    EXPECT_EQ(texts(read(answered(other + record(kOwner, Type::kA, bytes({192, 0, 2, 1})) +
                                      record(kOwner, Type::kAaaa, Bytes(16, 1)) +
                                      record(kOwner, Type::kHttps, bytes({0, 1, 0})),
                                  4))),
              (Texts{"192.0.2.1"}));
    EXPECT_EQ(read(answered(other, 1)).kind, Answer::Kind::kNoData);
    EXPECT_EQ(read(answered({}, 0)).kind, Answer::Kind::kNoData);
}

TEST(DnsAnswer, ToAnotherQuestionIsNotOurs) {
    const auto address = record(kOwner, Type::kA, bytes({192, 0, 2, 1}));
    const auto whole = answered(address, 1);
    EXPECT_EQ(parse_answer(whole, 0x1234, "a.test", Type::kA).kind, Answer::Kind::kAddresses);
    EXPECT_EQ(parse_answer(whole, 0x1235, "a.test", Type::kA).kind, Answer::Kind::kNotOurs) << "an answer with a wrong id was taken";
    EXPECT_EQ(parse_answer(whole, 0x1234, "b.test", Type::kA).kind, Answer::Kind::kNotOurs);
    EXPECT_EQ(parse_answer(whole, 0x1234, "a.test", Type::kAaaa).kind, Answer::Kind::kNotOurs);
    EXPECT_EQ(read(header(0x0180, 1) + question("a.test", Type::kA) + address).kind, Answer::Kind::kNotOurs);  // no answer at all
    EXPECT_EQ(read(header(kAnswer, 1, 0, 0) + address).kind, Answer::Kind::kNotOurs);
    EXPECT_EQ(read(header(kAnswer) + name("a.test") + bytes({0, 1, 0, 3})).kind, Answer::Kind::kNotOurs);
    EXPECT_EQ(read({}).kind, Answer::Kind::kNotOurs);
}

TEST(DnsAnswer, FailuresAreTold) {
    const auto with = [](std::size_t bits) { return read(header(bits) + question("a.test", Type::kA)); };
    EXPECT_EQ(with(0x8183).kind, Answer::Kind::kNoSuchName);
    EXPECT_EQ(with(0x8182).kind, Answer::Kind::kFailed);
    EXPECT_EQ(with(0x8185).code, Code::kRefused);
    EXPECT_EQ(with(0x8380).kind, Answer::Kind::kTruncated);
    EXPECT_EQ(read(header(0x8181, 0, 0, 0)).code, Code::kFormatError);
}

TEST(DnsAnswer, ThatIsDamagedIsRefused) {
    const auto whole = answered(record(kOwner, Type::kCname, name("b.test")) + record(name("b.test"), Type::kA, bytes({192, 0, 2, 1})), 2);
    for (std::size_t size = 0; size < whole.size(); ++size) {
        const auto kind = read(Bytes(whole.begin(), whole.begin() + static_cast<long>(size))).kind;
        EXPECT_TRUE(kind == Answer::Kind::kNotOurs || kind == Answer::Kind::kMalformed) << size;
    }
    EXPECT_EQ(read(answered(record(kOwner, Type::kA, bytes({192, 0, 2})), 1)).kind, Answer::Kind::kMalformed);
    EXPECT_EQ(read(answered(record(kOwner, Type::kA, bytes({192, 0, 2, 1, 1})), 1)).kind, Answer::Kind::kMalformed);
    EXPECT_EQ(read(answered(record(kOwner, Type::kCname, name("b.test") + bytes({0})), 1)).kind, Answer::Kind::kMalformed);
    EXPECT_EQ(
        read(answered(record(kOwner, Type::kCname, name("b.test")) + record(kOwner, Type::kCname, name("c.test")), 2))
            .kind,
        Answer::Kind::kMalformed);
}

TEST(DnsAnswer, PointersLeadToTheFrontOnly) {
    const auto at = 12 + question("a.test", Type::kA).size();
    const auto pointer = [](std::size_t to) { return number(0xc000 | to, 2); };
    for (std::size_t to : {at, at + 1, at + 2, at + 100})  // at itself, behind itself, out of the message
        EXPECT_EQ(read(answered(record(pointer(to), Type::kA, bytes({192, 0, 2, 1})), 1)).kind, Answer::Kind::kMalformed) << to;
    EXPECT_EQ(read(answered(record(bytes({1, 'x'}) + pointer(at), Type::kA, bytes({192, 0, 2, 1})), 1)).kind, Answer::Kind::kMalformed);
    // A record's data may point at its owner, or back into the question.
    EXPECT_EQ(read(answered(record(kOwner, Type::kCname, bytes({1, 'x'}) + pointer(14)), 1)).kind, Answer::Kind::kNoData);
}

TEST(DnsAnswer, ALoopOfAliasesIsRefused) {
    EXPECT_EQ(read(answered(record(kOwner, Type::kCname, name("a.test")), 1)).kind, Answer::Kind::kMalformed);
    EXPECT_EQ(read(answered(record(kOwner, Type::kCname, name("b.test")) +
                                record(name("b.test"), Type::kCname, name("a.test")),
                            2))
                  .kind,
              Answer::Kind::kMalformed);
}

TEST(DnsAnswerLimits, ANameFollowsAMostPointers) {
    // Each pointer leads to the one before it, the first to the question's name.
    const auto with = [](std::size_t pointers) {
        Bytes chain;
        std::size_t at = 12 + question("a.test", Type::kA).size() + 1 + 10, last = 12;
        for (std::size_t i = 0; i + 1 < pointers; ++i, at += 2) {
            chain = chain + number(0xc000 | last, 2);
            last = at;
        }
        return answered(record(bytes({0}), static_cast<Type>(99), chain) + record(number(0xc000 | last, 2), Type::kA, bytes({192, 0, 2, 1})), 2);
    };
    EXPECT_EQ(read(with(kMostPointers)).kind, Answer::Kind::kAddresses);
    EXPECT_EQ(read(with(kMostPointers + 1)).kind, Answer::Kind::kMalformed);
}

TEST(DnsAnswerLimits, ANameHasAMostAliases) {
    const auto with = [](std::size_t aliases) {
        Bytes records;
        const auto nth = [](std::size_t i) { return i == 0 ? name("a.test") : name("n" + std::to_string(i) + ".test"); };
        for (std::size_t i = 0; i < aliases; ++i) records = records + record(nth(i), Type::kCname, nth(i + 1));
        return answered(records + record(nth(aliases), Type::kA, bytes({192, 0, 2, 1})), aliases + 1);
    };
    EXPECT_EQ(read(with(kMostAliases)).kind, Answer::Kind::kAddresses);
    EXPECT_EQ(read(with(kMostAliases + 1)).kind, Answer::Kind::kMalformed);
}

TEST(DnsAnswerLimits, AnAnswerHasAMostRecordsAndAddresses) {
    const auto with = [](std::size_t count, bool alike) {
        Bytes records;
        for (std::size_t i = 0; i < count; ++i) records = records + record(kOwner, Type::kA, bytes({192, 0, 2}) + number(alike ? 1 : i, 1));
        return answered(records, count);
    };
    EXPECT_EQ(read(with(kMostAnswerRecords, true)).addresses.size(), 1u);
    EXPECT_EQ(read(with(kMostAnswerRecords + 1, true)).kind, Answer::Kind::kMalformed);
    EXPECT_EQ(read(with(kMostAnswerAddresses, false)).addresses.size(), kMostAnswerAddresses);
    EXPECT_EQ(read(with(kMostAnswerAddresses + 1, false)).addresses.size(), kMostAnswerAddresses);
}

// ---- replies ----
Reply reply(std::initializer_list<const char*> addresses, std::uint32_t ttl = 60) {
    Reply made{Code::kNoError, {}, ttl};
    for (const char* text : addresses) made.addresses.push_back(*Address::parse(text));
    return made;
}

TEST(DnsReply, IsAnAnswerToItsQuestion) {
    const auto query = good(header(0x0100, 0, 1) + question("A.Test", Type::kA) + edns(1232));
    const auto built = build_reply(query, reply({"192.0.2.1", "2001:db8::1", "192.0.2.2"}), query.udp_bytes);
    EXPECT_EQ(built, header(kAnswer, 2, 1) + question("A.Test", Type::kA) +
                         record(kOwner, Type::kA, bytes({192, 0, 2, 1})) +
                         record(kOwner, Type::kA, bytes({192, 0, 2, 2})) + edns(1232));
    EXPECT_EQ(texts(read(built)), (Texts{"192.0.2.1", "192.0.2.2"}));
    const auto six = good(header(0x0100) + question("a.test", Type::kAaaa));
    EXPECT_EQ(texts(read(build_reply(six, reply({"192.0.2.1", "2001:db8::1"}), 512), Type::kAaaa)), (Texts{"2001:db8::1"}));
}

TEST(DnsReply, ItsTimeToLiveIsClamped) {
    const auto query = good(header(0x0100) + question("a.test", Type::kA));
    const auto of = [&](std::uint32_t ttl) { return read(build_reply(query, reply({"192.0.2.1"}, ttl), 512)).ttl; };
    EXPECT_EQ(of(0), kShortestTtl);
    EXPECT_EQ(of(kShortestTtl), kShortestTtl);
    EXPECT_EQ(of(100), 100u);
    EXPECT_EQ(of(kLongestTtl + 1), kLongestTtl);
}

TEST(DnsReply, HasNoAddressesOfATypeThatIsNoAddress) {
    for (auto type : {Type::kHttps, Type::kSvcb, Type::kPtr, Type::kCname}) {
        const auto query = good(header(0x0100) + question("a.test", type));
        EXPECT_EQ(build_reply(query, Reply{Code::kNoError, {}, 60}, 512), header(kAnswer) + question("a.test", type));
    }
    const auto query = good(header(0x0000) + question("a.test", Type::kA));
    EXPECT_EQ(build_reply(query, Reply{Code::kNoSuchName, {}, 0}, 512), header(0x8083) + question("a.test", Type::kA));
}

TEST(DnsReply, ThatDoesNotFitSaysSo) {
    const auto query = good(header(0x0100) + question("a.test", Type::kA));
    Reply many{Code::kNoError, {}, 60};
    const std::size_t fit = (512 - 12 - query.question.size()) / 16;
    for (std::size_t i = 0; i < fit; ++i) many.addresses.push_back(Address::v4(0xc0000200u + static_cast<std::uint32_t>(i)));
    EXPECT_EQ(read(build_reply(query, many, query.udp_bytes)).addresses.size(), fit);
    many.addresses.push_back(Address::v4(0xc0000300u));
    const auto cut = build_reply(query, many, query.udp_bytes);
    EXPECT_EQ(read(cut).kind, Answer::Kind::kTruncated);
    EXPECT_LE(cut.size(), 512u);
    EXPECT_EQ(read(build_reply(query, many, 65535)).addresses.size(), fit + 1);
}

TEST(DnsReply, ToABadQuestionIsItsHeaderAlone) {
    EXPECT_EQ(build_reply(BadQuery{0x1234, Code::kFormatError}), header(0x8081, 0, 0, 0));
    EXPECT_FALSE(build_reply(BadQuery{}));
}

TEST(DnsType, HasANameForPeople) {
    EXPECT_EQ(to_string(Type::kHttps), "HTTPS");
    EXPECT_EQ(to_string(static_cast<Type>(4711)), "TYPE4711");
}

// ---- resolv.conf ----
TEST(Server, HasAnAddressAndMayHaveAPort) {
    EXPECT_EQ(parse_server("9.9.9.9")->to_string(), "9.9.9.9:53");
    EXPECT_EQ(parse_server("9.9.9.9:5353")->to_string(), "9.9.9.9:5353");
    EXPECT_EQ(parse_server("2620:fe::fe")->to_string(), "[2620:fe::fe]:53");
    EXPECT_EQ(parse_server("[2620:fe::fe]:5353")->to_string(), "[2620:fe::fe]:5353");
    for (const auto* wrong : {"", "9.9.9", "a.b", "9.9.9.9:", "9.9.9.9:0", "9.9.9.9:65536", "[9.9.9.9]:53", "[2620:fe::fe]", "[2620:fe::fe]:x"})
        EXPECT_EQ(parse_server(wrong).error().code, Errc::kUsage) << wrong;
}

TEST(ResolvConf, ServersAreRead) {
    const auto servers = parse_resolv_conf(
        "# nameserver 192.0.2.9\nsearch example.test\nnameserver 192.0.2.1\nnameserver\t2001:db8::1  # mine\r\n "
        "nameserver 192.0.2.8\n"
        "nameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver\nnameservers 192.0.2.7\nnameserver "
        "0.0.0.0\nnameserver ::\nnameserver x\nnameserver 127.0.0.53");
    ASSERT_EQ(servers.size(), 3u);
    EXPECT_EQ(servers[0].to_string(), "192.0.2.1:53");
    EXPECT_EQ(servers[1].to_string(), "[2001:db8::1]:53");
    EXPECT_EQ(servers[2].to_string(), "127.0.0.53:53");
    EXPECT_TRUE(parse_resolv_conf("").empty());
}

TEST(ResolvConfLimits, ThereIsAMostServers) {
    std::string text;
    for (std::size_t i = 0; i < kMostServers + 1; ++i) text += "nameserver 192.0.2." + std::to_string(i + 1) + "\n";
    EXPECT_EQ(parse_resolv_conf(text).size(), kMostServers);
}

}  // namespace
}  // namespace caisson::net::dns
