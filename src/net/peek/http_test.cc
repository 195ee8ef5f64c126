#include <gtest/gtest.h>

#include "net/peek/limits.h"
#include "net/peek/peek.h"

namespace caisson::net {
namespace {

HttpPeek peek(std::string_view text) { return peek_http(base::as_bytes(text)); }

std::string verdict(const HttpPeek& peek) {
    if (auto* bad = std::get_if<Malformed>(&peek)) return bad->why;
    if (std::holds_alternative<NeedMore>(peek)) return "need more";
    if (std::holds_alternative<NotHttp>(peek)) return "not HTTP";
    return std::holds_alternative<HttpHead>(peek) ? "fine" : "preface";
}
std::string verdict(std::string_view text) { return verdict(peek(text)); }

// "name", "name:port", "-": none.
std::string host_of(std::string_view text) {
    const auto read = peek(text);
    auto* head = std::get_if<HttpHead>(&read);
    if (!head) return verdict(read);
    if (!head->host) return "-";
    return head->host->name + (head->host->port ? ":" + std::to_string(*head->host->port) : "");
}

TEST(PeekHttp, FindsTheHost) {
    EXPECT_EQ(host_of("GET / HTTP/1.1\r\nHost: Example.TEST\r\n\r\n"), "example.test");
    EXPECT_EQ(host_of("POST /a HTTP/1.1\r\nA: b\r\nhOsT:\t example.test.:8080 \r\n\r\nbody"), "example.test:8080");
    EXPECT_EQ(host_of("GET / HTTP/1.1\r\nHost: 192.0.2.1:81\r\n\r\n"), "192.0.2.1:81");
    EXPECT_EQ(host_of("GET / HTTP/1.1\r\nHost: [2001:DB8:0::1]:81\r\n\r\n"), "2001:db8::1:81");
    EXPECT_EQ(host_of("GET / HTTP/1.0\r\n\r\n"), "-");
    EXPECT_EQ(host_of("GET / HTTP/1.1\r\nHost:\r\n\r\n"), "-");
    EXPECT_EQ(host_of("OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n"), "a.test");
}

TEST(PeekHttp, AnAddressIsToldFromAName) {
    const auto four = peek("GET / HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n");
    EXPECT_EQ(std::get<HttpHead>(four).host->address, Address::parse("192.0.2.1"));
    EXPECT_FALSE(std::get<HttpHead>(peek("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")).host->address);
}

TEST(PeekHttp, ReadsTheRequestLine) {
    const std::string text = "DELETE /x?y HTTP/1.1\r\nHost: a.test\r\n\r\n";
    const auto head = std::get<HttpHead>(peek(text + "more"));
    EXPECT_EQ(head.method, "DELETE");
    EXPECT_EQ(head.target, "/x?y");
    EXPECT_EQ(head.bytes, text.size());
    EXPECT_FALSE(head.is_absolute || head.is_connect);
}

TEST(PeekHttp, TheTargetsOfProxiesNameTheHost) {
    const auto connect = peek("CONNECT Example.test:443 HTTP/1.1\r\nHost: example.test:443\r\n\r\n");
    ASSERT_EQ(verdict(connect), "fine");
    EXPECT_TRUE(std::get<HttpHead>(connect).is_connect);
    EXPECT_EQ(std::get<HttpHead>(connect).host->port, 443);
    EXPECT_EQ(host_of("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n"), "a.test:443");
    EXPECT_EQ(host_of("CONNECT [2001:db8::1]:443 HTTP/1.0\r\n\r\n"), "2001:db8::1:443");
    const auto absolute = peek("GET http://Example.test/x HTTP/1.1\r\nHost: example.test\r\n\r\n");
    ASSERT_EQ(verdict(absolute), "fine");
    EXPECT_TRUE(std::get<HttpHead>(absolute).is_absolute);
    EXPECT_EQ(host_of("GET http://a.test:80?q HTTP/1.1\r\nHost: a.test\r\n\r\n"), "a.test:80");
    EXPECT_EQ(host_of("GET HTTPS://a.test HTTP/1.1\r\nHost: a.test:443\r\n\r\n"), "a.test");
}

TEST(PeekHttp, ATargetThatDisagreesWithHostIsRefused) {
    const std::string why = "the target of the request and its Host header name different hosts";
    EXPECT_EQ(verdict("GET http://a.test/ HTTP/1.1\r\nHost: b.test\r\n\r\n"), why);
    EXPECT_EQ(verdict("GET http://a.test/ HTTP/1.1\r\nHost:\r\n\r\n"), why);
    EXPECT_EQ(verdict("GET http://a.test/ HTTP/1.1\r\nHost: a.test:81\r\n\r\n"), why);
    EXPECT_EQ(verdict("GET https://a.test/ HTTP/1.1\r\nHost: a.test:80\r\n\r\n"), why);
    EXPECT_EQ(verdict("CONNECT a.test:443 HTTP/1.1\r\nHost: b.test:443\r\n\r\n"), why);
    EXPECT_EQ(verdict("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:80\r\n\r\n"), why);
}

TEST(PeekHttp, TwoHostHeadersAreRefused) {
    const std::string why = "the request has two Host headers";
    EXPECT_EQ(verdict("GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n"), why);
    EXPECT_EQ(verdict("GET / HTTP/1.1\r\nHost: a.test\r\nX: y\r\nHOST: a.test\r\n\r\n"), why);
    EXPECT_EQ(verdict("GET / HTTP/1.1\r\nHost:\r\nHost: a.test\r\n\r\n"), why);
}

TEST(PeekHttp, RefusesWhatServersReadInTwoWays) {
    const std::string name = "a line of the head has no usable name before a colon", end = "a line of the head does not end as it must";
    EXPECT_EQ(verdict("GET / HTTP/1.1\r\nHost : a.test\r\n\r\n"), name);
    EXPECT_EQ(verdict("GET / HTTP/1.1\r\nHost: a.test\r\nnocolon\r\n\r\n"), name);
    EXPECT_EQ(verdict("GET / HTTP/1.1\r\n: a.test\r\n\r\n"), name);
    EXPECT_EQ(verdict("GET / HTTP/1.1\r\nX: y\r\n Host: a.test\r\n\r\n"), "a line of the head is folded");
    EXPECT_EQ(verdict("GET / HTTP/1.1\r\n\tHost: a.test\r\n\r\n"), "a line of the head is folded");
    EXPECT_EQ(verdict("GET / HTTP/1.1\nHost: a.test\r\n\r\n"), end);
    EXPECT_EQ(verdict("GET / HTTP/1.1\r\nHost: a.test\n\r\n"), end);
    EXPECT_EQ(verdict("GET / HTTP/1.1\r\nHost: a.test\r\n\n"), end);
    EXPECT_EQ(verdict("GET / HTTP/1.1\r\nX: a\rHost: b\r\n\r\n"), "a header has a control character");
    EXPECT_EQ(verdict(std::string("GET / HTTP/1.1\r\nX: a\0b\r\n\r\n", 26)), "a header has a control character");
    EXPECT_EQ(verdict("GET /a b HTTP/1.1\r\nHost: a.test\r\n\r\n"), "the target of the request has a space in it, or is empty");
    EXPECT_EQ(verdict("GET  HTTP/1.1\r\nHost: a.test\r\n\r\n"), "the target of the request has a space in it, or is empty");
    EXPECT_EQ(verdict("GET / HTTP/1.1\r\n\r\n"), "the request is HTTP/1.1 and has no Host header");
    EXPECT_EQ(verdict("GET / HTTP/1.2\r\n"), "the request is of an unknown version of HTTP");
    EXPECT_EQ(verdict("GET / HTTP/3.0\r\n"), "the request is of an unknown version of HTTP");
}

TEST(PeekHttp, RefusesHostsThatAreNone) {
    using std::string_literals::operator""s;
    for (const auto& host : {"a b"s, "a.test, b.test"s, "a.test:"s, "a.test:0"s, "a.test:65536"s, "a.test:+1"s,
                             "a.test:80x"s, "u@a.test"s, "[a.test]"s, "[192.0.2.1]"s, "[::1"s, "[::1]x"s, "::1"s,
                             "127.1"s, "0x7f000001"s, "a/b"s, "\xc3\xbc.test"s, ".a"s, "a..b"s}) {
        EXPECT_EQ(verdict("GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n"), "the Host header has no usable host") << host;
        EXPECT_NE(verdict("GET http://" + host + "/ HTTP/1.0\r\n\r\n"), host == "a/b" ? "" : "fine") << host;
    }
    EXPECT_EQ(verdict("GET ftp://a.test/ HTTP/1.0\r\n\r\n"), "the target of the request is no path and no URL of HTTP");
    EXPECT_EQ(verdict("GET a.test HTTP/1.0\r\n\r\n"), "the target of the request is no path and no URL of HTTP");
    EXPECT_EQ(verdict("GET * HTTP/1.0\r\n\r\n"), "the target of the request is no path and no URL of HTTP");
    EXPECT_EQ(verdict("CONNECT a.test HTTP/1.0\r\n\r\n"), "the target of CONNECT is no host and port");
}

TEST(PeekHttp, OtherProtocolsAreToldByFewBytes) {
    EXPECT_EQ(verdict(""), "need more");
    for (std::string_view text : {"g", "\r", "*3\r\n", "SSH-2", "1", "PING\r", "GET\t", " ", "\x7f", "GET /\x01"}) {
        EXPECT_EQ(verdict(text), "not HTTP") << text;
        EXPECT_EQ(verdict(text.substr(0, text.size() - 1)), text == "*3\r\n" ? "not HTTP" : "need more") << text;
    }
    EXPECT_EQ(verdict("EHLO mail.test\r"), "need more");
    EXPECT_EQ(verdict("EHLO mail.test\r\n"), "not HTTP");
    EXPECT_EQ(verdict("GET /\r\n"), "not HTTP");  // HTTP/0.9
}

TEST(PeekHttp, KnowsThePrefaceOfHttp2) {
    const std::string preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for (std::size_t size = 0; size < preface.size(); ++size) EXPECT_EQ(verdict(preface.substr(0, size)), "need more") << size;
    EXPECT_EQ(verdict(preface), "preface");
    EXPECT_EQ(verdict(preface + "\x01"), "preface");
    EXPECT_EQ(verdict("PRI * HTTP/2.0\r\n\r\nSX"), "the request is of an unknown version of HTTP");
    EXPECT_EQ(verdict("PRI /x HTTP/1.0\r\n\r\n"), "fine");
}

TEST(PeekHttp, GivesTheSameVerdictHoweverItIsCut) {
    for (std::string_view text :
         {"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nX: y\r\n\r\n", "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
          "GET / HTTP/1.1\r\nX: y\r\n\r\n", "EHLO a.test\r\nMAIL\r\n"}) {
        const auto whole = verdict(text);
        ASSERT_NE(whole, "need more");
        for (std::size_t size = 0; size < text.size(); ++size) {
            const auto part = verdict(text.substr(0, size));
            EXPECT_TRUE(part == "need more" || part == whole) << part << " for " << text.substr(0, size);
        }
    }
}

TEST(PeekHttpLimits, AHeadHasALargestSize) {
    const auto of_size = [](std::size_t size) {
        const std::string begin = "GET / HTTP/1.1\r\nHost: a.test\r\nX: ", end = "\r\n\r\n";
        return begin + std::string(size - begin.size() - end.size(), 'x') + end;
    };
    EXPECT_EQ(verdict(of_size(kMostHeadBytes)), "fine");
    EXPECT_EQ(verdict(of_size(kMostHeadBytes + 1)), "the head of the request is too long");
    EXPECT_EQ(verdict(of_size(kMostHeadBytes + 1).substr(0, kMostHeadBytes)), "the head of the request is too long");
    EXPECT_EQ(verdict("GET /" + std::string(kMostHeadBytes, 'x')), "the head of the request is too long");
    static_assert(kMostHeadBytes <= kMostFirstBytes);
}

TEST(PeekHttpLimits, AHeadHasAMostLines) {
    const auto with = [](std::size_t lines) {
        std::string text = "GET / HTTP/1.1\r\nHost: a.test\r\n";
        for (std::size_t i = 3; i < lines; ++i) text += "X: y\r\n";
        return text + "\r\n";
    };
    EXPECT_EQ(verdict(with(kMostHeadLines)), "fine");
    EXPECT_EQ(verdict(with(kMostHeadLines + 1)), "the head of the request has too many lines");
}

TEST(PeekHttpLimits, AMethodHasALongestName) {
    EXPECT_EQ(verdict(std::string(kLongestMethod, 'X') + " / HTTP/1.0\r\n\r\n"), "fine");
    EXPECT_EQ(verdict(std::string(kLongestMethod + 1, 'X')), "not HTTP");
}

TEST(PeekFirstBytes, SaysWhichOfThemItIs) {
    const auto kind = [](std::string_view text) { return peek_first_bytes(base::as_bytes(text)).index(); };
    EXPECT_EQ(kind(""), FirstBytes(NeedMore{}).index());
    EXPECT_EQ(kind("\x16\x03\x01"), FirstBytes(NeedMore{}).index());
    EXPECT_EQ(kind("\x16\x03\x09"), FirstBytes(Nameless{}).index());
    EXPECT_EQ(kind("GET / HTTP/1.0\r\n\r\n"), FirstBytes(HttpHead{}).index());
    EXPECT_EQ(kind("GET / HTTP/1.1\r\n\r\n"), FirstBytes(Malformed{}).index());
    EXPECT_EQ(kind("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), FirstBytes(Http2Preface{}).index());
    EXPECT_EQ(kind("SSH-2.0-x\r\n"), FirstBytes(Nameless{}).index());
    EXPECT_EQ(kind(std::string_view("\0", 1)), FirstBytes(Nameless{}).index());
}

}  // namespace
}  // namespace caisson::net
