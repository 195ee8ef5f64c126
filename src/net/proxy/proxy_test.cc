#include "net/proxy/proxy.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "net/proxy/limits.h"

namespace caisson::net {
namespace {

const Endpoint kFour{*Address::parse("93.184.216.34"), 443}, kSix{*Address::parse("2606:2800:21f::1"), 80};

std::string spelling(std::string_view text) {
    auto proxy = parse_proxy(text);
    return proxy ? proxy->to_string() : proxy.error().to_string();
}

TEST(Proxy, IsReadInOneSpelling) {
    EXPECT_EQ(spelling("http://192.0.2.1:3128"), "http://192.0.2.1:3128");
    EXPECT_EQ(spelling("socks5://[2001:DB8::0:1]:1080"), "socks5://[2001:db8::1]:1080");
    EXPECT_EQ(spelling("http://localhost:08"), "http://127.0.0.1:8");
    EXPECT_EQ(parse_proxy("socks5://10.0.0.1:1")->kind, Proxy::Kind::kSocks5);
    EXPECT_EQ(parse_proxy("http://10.0.0.1:1")->kind, Proxy::Kind::kHttp);
}

TEST(Proxy, WhatCannotBeMeantIsRefusedWithWhatToWrite) {
    const std::pair<const char*, const char*> wrong[] = {
        {"", "neither"}, {"192.0.2.1:3128", "neither"}, {"https://192.0.2.1:3128", "neither"}, {"socks5h://192.0.2.1:1", "neither"}, {"socks4://192.0.2.1:1", "neither"},
        {"http://192.0.2.1:3128/", "behind the port"}, {"http://192.0.2.1:3128?a", "behind the port"}, {"http://192.0.2.1/x:1", "behind the port"},
        {"http://192.0.2.1", "no port"}, {"http://[2001:db8::1]", "no port"}, {"http://192.0.2.1:", "no port"}, {"http://192.0.2.1:0", "no port"}, {"http://192.0.2.1:65536", "no port"},
        {"http://proxy.example.com:3128", "not looked up"}, {"http://127.1:3128", "not looked up"}, {"http://:3128", "no address"}, {"http://2001:db8::1:3128", "no address"},
        {"http://[192.0.2.1]:3128", "no address"}, {"http://[localhost]:3128", "no address"}, {"http://[fe80::1%eth0]:3128", "no address"},
    };
    for (const auto& [text, words] : wrong) {
        auto proxy = parse_proxy(text);
        ASSERT_FALSE(proxy) << text;
        EXPECT_EQ(proxy.error().code, Errc::kUsage);
        EXPECT_NE(proxy.error().to_string().find(words), std::string::npos) << text << ": " << proxy.error().to_string();
    }
}

TEST(Proxy, APasswordIsInNoMessage) {
    for (const char* text : {"http://user:sesame@192.0.2.1:3128", "user:sesame@192.0.2.1:3128", "https://user:sesame@192.0.2.1"}) {
        auto proxy = parse_proxy(text);
        ASSERT_FALSE(proxy) << text;
        EXPECT_EQ(proxy.error().to_string().find("sesame"), std::string::npos) << proxy.error().to_string();
        EXPECT_NE(proxy.error().to_string().find("cannot log in"), std::string::npos);
    }
}

std::string text_of(const base::Bytes& bytes) { return std::string(base::as_text(bytes)); }

TEST(ProxyHttp, IsAskedForTheAddress) {
    const auto questions = proxy_questions(Proxy::Kind::kHttp, kFour);
    ASSERT_EQ(questions.size(), 1u);
    EXPECT_EQ(text_of(questions[0].said), "CONNECT 93.184.216.34:443 HTTP/1.1\r\nHost: 93.184.216.34:443\r\n\r\n");
    EXPECT_EQ(text_of(proxy_questions(Proxy::Kind::kHttp, kSix)[0].said), "CONNECT [2606:2800:21f::1]:80 HTTP/1.1\r\nHost: [2606:2800:21f::1]:80\r\n\r\n");
}

std::optional<ProxyAnswer> http(std::string_view answer) { return proxy_questions(Proxy::Kind::kHttp, kFour)[0].read(base::as_bytes(answer)); }
int error_of(std::string_view answer) {
    const auto read = http(answer);
    EXPECT_TRUE(read) << answer;
    return read ? read->error : -1;
}

TEST(ProxyHttp, AnAnswerIsItsHeadAndNothingBehindIt) {
    const std::string head = "HTTP/1.1 200 Connection established\r\nVia: x\r\nContent-Length: 5\r\n\r\n";
    for (std::size_t part = 0; part < head.size(); ++part) EXPECT_FALSE(http(head.substr(0, part))) << part;
    for (const char* more : {"", "220 hello", "\r\n\r\n", "a\nb"}) {
        const auto read = http(head + more);
        ASSERT_TRUE(read);
        EXPECT_EQ(read->error, 0);
        EXPECT_EQ(read->bytes, head.size());
    }
    EXPECT_EQ(error_of("HTTP/1.0 200\r\n\r\n"), 0);
}

TEST(ProxyHttp, ItsStatusIsAnError) {
    for (const auto& [status, error] : {std::pair("400", ECONNREFUSED), {"403", ECONNREFUSED}, {"407", ECONNREFUSED}, {"504", ETIMEDOUT}, {"500", EHOSTUNREACH},
                                        {"502", EHOSTUNREACH}, {"503", EHOSTUNREACH}, {"302", EHOSTUNREACH}, {"100", EHOSTUNREACH}, {"999", EHOSTUNREACH}}) {
        const auto read = http("HTTP/1.1 " + std::string(status) + " Words\r\n\r\n");
        ASSERT_TRUE(read);
        EXPECT_EQ(read->error, error) << status;
        EXPECT_EQ(read->why.substr(0, 22), "the proxy answered " + std::string(status));
    }
}

TEST(ProxyHttp, WhatIsNoneIsRefusedAsSoonAsItShows) {
    for (std::string_view answer : {"S", "SSH-2.0-x\r\n", "HTTP/2", "HTTP/1.1  200", "HTTP/1.1 2000", "HTTP/1.1 20x", "HTTP/1.1 200 a\nb", "HTTP/1.1 200 a\rb", "HTTP/1.1 200\r\n\n", "\r\nHTTP/1.1 200\r\n\r\n"})
        EXPECT_EQ(error_of(answer), EHOSTUNREACH) << answer;
    EXPECT_EQ(error_of(std::string_view("HTTP/1.1 200 \0\r\n\r\n", 18)), EHOSTUNREACH);
}

TEST(ProxyHttp, AHeadHasSoManyBytesAndNoMore) {
    const std::string begin = "HTTP/1.1 200 ", end = "\r\n\r\n";
    const auto fits = begin + std::string(kMostProxyAnswerBytes - begin.size() - end.size(), 'x') + end;
    ASSERT_TRUE(http(fits));
    EXPECT_EQ(http(fits)->error, 0);
    EXPECT_EQ(http(fits)->bytes, kMostProxyAnswerBytes);
    EXPECT_FALSE(http(fits.substr(0, fits.size() - 1)));
    const auto longer = begin + std::string(kMostProxyAnswerBytes - begin.size() - end.size() + 1, 'x') + end;
    EXPECT_EQ(error_of(longer), EHOSTUNREACH);
    EXPECT_EQ(http(longer)->why, "the proxy's answer is too long");
}

using Bytes = base::Bytes;

TEST(ProxySocks, IsAskedForTheAddress) {
    const auto four = proxy_questions(Proxy::Kind::kSocks5, kFour), six = proxy_questions(Proxy::Kind::kSocks5, kSix);
    ASSERT_EQ(four.size(), 2u);
    EXPECT_EQ(four[0].said, (Bytes{5, 1, 0}));
    EXPECT_EQ(four[1].said, (Bytes{5, 1, 0, 1, 93, 184, 216, 34, 1, 187}));
    EXPECT_EQ(six[1].said, (Bytes{5, 1, 0, 4, 0x26, 0x06, 0x28, 0, 0x02, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 80}));
}

std::optional<ProxyAnswer> socks(std::size_t question, const Bytes& answer) { return proxy_questions(Proxy::Kind::kSocks5, kFour)[question].read(answer); }

TEST(ProxySocks, ItsMethodIsNoAuthentication) {
    EXPECT_FALSE(socks(0, {}));
    EXPECT_FALSE(socks(0, {5}));
    EXPECT_EQ(socks(0, {5, 0})->error, 0);
    EXPECT_EQ(socks(0, {5, 0, 5, 0})->bytes, 2u);
    EXPECT_EQ(socks(0, {5, 0xff})->error, ECONNREFUSED);
    EXPECT_EQ(socks(0, {5, 2})->error, EHOSTUNREACH);
    EXPECT_EQ(socks(0, {4})->error, EHOSTUNREACH);
    EXPECT_EQ(socks(0, {'H', 'T'})->error, EHOSTUNREACH);
}

TEST(ProxySocks, AReplyIsAsLongAsItsAddress) {
    const Bytes replies[] = {{5, 0, 0, 1, 1, 2, 3, 4, 0, 80}, {5, 0, 0, 4, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 0, 80}, {5, 0, 0, 3, 2, 'a', 'b', 0, 80}, {5, 0, 0, 3, 0, 0, 80}};
    for (auto reply : replies) {
        const auto size = reply.size();
        for (std::size_t part = 0; part < size; ++part) EXPECT_FALSE(socks(1, Bytes(reply.begin(), reply.begin() + static_cast<std::ptrdiff_t>(part))));
        reply.push_back('x');
        ASSERT_TRUE(socks(1, reply));
        EXPECT_EQ(socks(1, reply)->error, 0);
        EXPECT_EQ(socks(1, reply)->bytes, size);
    }
    EXPECT_EQ(socks(1, {5, 0, 0, 2})->error, EHOSTUNREACH);
    EXPECT_EQ(socks(1, {4, 0})->error, EHOSTUNREACH);
}

TEST(ProxySocks, ItsReplyIsAnError) {
    for (const auto& [reply, error] : {std::pair(1, EHOSTUNREACH), {2, ECONNREFUSED}, {3, ENETUNREACH}, {4, EHOSTUNREACH}, {5, ECONNREFUSED}, {6, ETIMEDOUT}, {7, EHOSTUNREACH}, {8, EHOSTUNREACH}, {255, EHOSTUNREACH}}) {
        const auto read = socks(1, {5, static_cast<std::uint8_t>(reply)});
        ASSERT_TRUE(read);
        EXPECT_EQ(read->error, error) << reply;
        EXPECT_EQ(read->why, "the proxy answered with reply " + std::to_string(reply));
    }
}

}  // namespace
}  // namespace caisson::net
