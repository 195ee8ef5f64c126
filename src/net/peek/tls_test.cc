#include <gtest/gtest.h>

#include "net/peek/limits.h"
#include "net/peek/peek.h"

namespace caisson::net {
namespace {

using base::Bytes;

Bytes number(std::size_t value, int width) {
    Bytes bytes;
    for (int i = width - 1; i >= 0; --i) bytes.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
    return bytes;
}
Bytes operator+(Bytes a, const Bytes& b) {
    base::append(a, b);
    return a;
}
Bytes text(std::string_view of) { return Bytes(of.begin(), of.end()); }
Bytes counted(const Bytes& data, int width) { return number(data.size(), width) + data; }

Bytes extension(std::size_t type, const Bytes& data) { return number(type, 2) + counted(data, 2); }
Bytes entry(std::string_view name, std::size_t type = 0) { return number(type, 1) + counted(text(name), 2); }
Bytes server_name(std::string_view name) { return extension(0, counted(entry(name), 2)); }
Bytes alpn(std::initializer_list<std::string_view> names) {
    Bytes list;
    for (auto name : names) list = list + counted(text(name), 1);
    return extension(16, counted(list, 2));
}

Bytes message(const Bytes& extensions) {
    const auto body = number(0x0303, 2) + Bytes(32, 7) + counted(Bytes(32, 9), 1) + counted(number(0x1301, 2), 2) +
                      counted(number(0, 1), 1) + counted(extensions, 2);
    return number(1, 1) + counted(body, 3);
}
// In records of at most `piece` bytes.
Bytes records(const Bytes& handshake, std::size_t piece = 16384) {
    Bytes made;
    for (std::size_t at = 0; at < handshake.size(); at += piece) {
        const Bytes part(handshake.begin() + static_cast<long>(at), handshake.begin() + static_cast<long>(std::min(handshake.size(), at + piece)));
        made = made + number(22, 1) + number(0x0301, 2) + counted(part, 2);
    }
    return made;
}
Bytes hello(const Bytes& extensions) { return records(message(extensions)); }

std::string why(const TlsPeek& peek) {
    if (auto* bad = std::get_if<Malformed>(&peek)) return bad->why;
    return std::holds_alternative<TlsHello>(peek) ? "fine" : std::holds_alternative<NeedMore>(peek) ? "need more" : "not TLS";
}

TEST(PeekTls, FindsTheNameInOneSpelling) {
    const auto peek = peek_tls(hello(server_name("WWW.Example.test") + alpn({"h2", "http/1.1"})));
    ASSERT_EQ(why(peek), "fine");
    EXPECT_EQ(std::get<TlsHello>(peek).server_name, "www.example.test");
    EXPECT_EQ(std::get<TlsHello>(peek).alpn, (std::vector<std::string>{"h2", "http/1.1"}));
    EXPECT_FALSE(std::get<TlsHello>(peek).has_ech);
}

TEST(PeekTls, AHelloWithoutANameIsOne) {
    const auto peek = peek_tls(hello(alpn({"h2"})));
    ASSERT_EQ(why(peek), "fine");
    EXPECT_FALSE(std::get<TlsHello>(peek).server_name);
    const auto body = number(0x0303, 2) + Bytes(32, 7) + number(0, 1) + counted(number(0x002f, 2), 2) + counted(number(0, 1), 1);
    EXPECT_EQ(why(peek_tls(records(number(1, 1) + counted(body, 3)))), "fine");  // as before there were extensions
}

TEST(PeekTls, SaysThatANameIsEncrypted) {
    const auto peek = peek_tls(hello(server_name("front.test") + extension(0xfe0d, Bytes(40, 1))));
    ASSERT_EQ(why(peek), "fine");
    EXPECT_TRUE(std::get<TlsHello>(peek).has_ech);
}

TEST(PeekTls, GivesTheSameVerdictHoweverItIsCut) {
    const auto whole = message(server_name("example.test") + alpn({"h2"}) + extension(21, Bytes(200, 0)));
    for (std::size_t piece : {5u, 6u, 7u, 50u, 16384u}) {
        const auto bytes = records(whole, piece);
        for (std::size_t size = 0; size < bytes.size(); ++size)
            ASSERT_EQ(why(peek_tls(base::ByteView(bytes).first(size))), "need more") << piece << " " << size;
        const auto peek = peek_tls(bytes + text("what follows"));
        ASSERT_EQ(why(peek), "fine");
        EXPECT_EQ(std::get<TlsHello>(peek).server_name, "example.test");
    }
}

TEST(PeekTls, RefusesASecondName) {
    EXPECT_EQ(why(peek_tls(hello(extension(0, counted(entry("a.test") + entry("b.test"), 2))))), "the server_name extension has more than one name");
    EXPECT_EQ(why(peek_tls(hello(extension(0, counted(entry("a.test") + entry("b.test", 1), 2))))),
              "the server_name extension has more than one name");
    EXPECT_EQ(why(peek_tls(hello(server_name("a.test") + server_name("b.test")))), "the ClientHello has an extension twice");
    EXPECT_EQ(why(peek_tls(hello(server_name("a.test") + server_name("a.test")))), "the ClientHello has an extension twice");
}

TEST(PeekTls, RefusesWhatIsNoName) {
    using std::string_view_literals::operator""sv;
    for (auto name : {""sv, "good.test\0.evil.test"sv, "good.test\0"sv, "127.0.0.1"sv, "2130706433"sv, "::1"sv,
                      "[::1]"sv, "a b.test"sv, "a..b"sv, "*.test"sv, "b\xc3\xbc.test"sv, "a.test:443"sv})
        EXPECT_EQ(why(peek_tls(hello(server_name(name)))), "the server_name is no name of a host") << name;
    EXPECT_EQ(why(peek_tls(hello(extension(0, counted(entry("a.test", 1), 2))))), "the server_name extension has a name of unknown type");
    EXPECT_EQ(why(peek_tls(hello(extension(0, {})))), "the server_name extension is damaged");
    EXPECT_EQ(why(peek_tls(hello(extension(0, number(0, 2))))), "the server_name extension is damaged");
    EXPECT_EQ(why(peek_tls(hello(extension(0, counted(entry("a.test"), 2) + number(0, 1))))), "the server_name extension is damaged");
}

TEST(PeekTls, RefusesDamage) {
    const auto good = message(server_name("a.test"));
    for (std::size_t i : {4u, 38u, 71u, 75u, 77u, 78u}) {  // version, lengths of session, ciphers, compressions and extensions
        auto bad = good;
        bad[i] ^= 0x80;
        EXPECT_NE(why(peek_tls(records(bad))), "fine") << i;
    }
    EXPECT_EQ(why(peek_tls(records(number(2, 1) + counted(Bytes(50, 0), 3)))), "TLS begins with something other than a ClientHello");
    EXPECT_EQ(why(peek_tls(number(22, 1) + number(0x0301, 2) + number(0, 2))), "a record of the ClientHello is damaged");
    EXPECT_EQ(why(peek_tls(number(22, 1) + number(0x0301, 2) + number(16385, 2))), "a record of the ClientHello is damaged");
    auto mixed = records(good, 60);
    mixed[65] = 23;  // the second record is of application data
    EXPECT_EQ(why(peek_tls(mixed)), "a record of the ClientHello is damaged");
    EXPECT_EQ(why(peek_tls(hello(extension(16, number(0, 2))))), "the ALPN extension is damaged");
    EXPECT_EQ(why(peek_tls(hello(extension(16, counted(number(0, 1), 2))))), "the ALPN extension is damaged");
}

TEST(PeekTls, KnowsFromTheFirstBytesWhatIsNotTls) {
    EXPECT_EQ(why(peek_tls({})), "need more");
    EXPECT_EQ(why(peek_tls(text("G"))), "not TLS");
    EXPECT_EQ(why(peek_tls(text("\x16\x02"))), "not TLS");
    EXPECT_EQ(why(peek_tls(text("\x16\x03\x05"))), "not TLS");
    EXPECT_EQ(why(peek_tls(text("\x16\x03\x04"))), "need more");
    EXPECT_EQ(why(peek_tls(text("\x80\x2e\x01\x03"))), "not TLS");  // the hello of SSL 2
}

TEST(PeekTlsLimits, AHelloHasALargestSize) {
    const auto empty = message(server_name("a.test") + extension(21, {})).size();
    const auto of_size = [&](std::size_t size) { return records(message(server_name("a.test") + extension(21, Bytes(size - empty)))); };
    EXPECT_EQ(why(peek_tls(of_size(kMostHelloBytes))), "fine");
    EXPECT_EQ(why(peek_tls(of_size(kMostHelloBytes + 1))), "the ClientHello is too long");
    EXPECT_EQ(why(peek_tls(base::ByteView(of_size(kMostHelloBytes + 1)).first(9))), "the ClientHello is too long");  // once it says so
}

TEST(PeekTlsLimits, AHelloHasAMostRecords) {
    auto whole = message(server_name("a.test") + extension(21, Bytes(200)));
    const auto piece = (whole.size() + kMostHelloRecords - 1) / kMostHelloRecords;
    whole = message(server_name("a.test") + extension(21, Bytes(200 + piece * kMostHelloRecords - whole.size())));
    ASSERT_EQ(whole.size(), piece * kMostHelloRecords);
    EXPECT_EQ(why(peek_tls(records(whole, piece))), "fine");
    const auto more = message(server_name("a.test") + extension(21, Bytes(200 + piece * kMostHelloRecords - whole.size() + 1 + 200)));
    EXPECT_EQ(why(peek_tls(records(more, piece))), "the ClientHello is cut into too many records");
}

TEST(PeekTlsLimits, AHelloHasAMostExtensions) {
    const auto with = [](std::size_t count) {
        Bytes all;
        for (std::size_t i = 0; i < count; ++i) all = all + extension(1000 + i, {});
        return hello(all);
    };
    EXPECT_EQ(why(peek_tls(with(kMostHelloExtensions))), "fine");
    EXPECT_EQ(why(peek_tls(with(kMostHelloExtensions + 1))), "the ClientHello has too many extensions");
}

TEST(PeekTlsLimits, AlpnHasAMostNames) {
    const auto with = [](std::size_t count) {
        Bytes list;
        for (std::size_t i = 0; i < count; ++i) list = list + counted(text("x"), 1);
        return hello(extension(16, counted(list, 2)));
    };
    EXPECT_EQ(why(peek_tls(with(kMostProtocolNames))), "fine");
    EXPECT_EQ(why(peek_tls(with(kMostProtocolNames + 1))), "the ALPN extension lists too many protocols");
}

TEST(PeekTlsLimits, NothingNeedsMoreThanTheFirstBytes) {
    // No record may be empty and few records are allowed, so this many bytes never wait for more.
    auto bytes = records(number(1, 1) + number(kMostHelloBytes - 4, 3) + Bytes(kMostHelloBytes - 5));
    EXPECT_EQ(why(peek_tls(bytes)), "need more");
    bytes.resize(kMostFirstBytes);
    EXPECT_NE(why(peek_tls(bytes)), "need more");
}

}  // namespace
}  // namespace caisson::net
