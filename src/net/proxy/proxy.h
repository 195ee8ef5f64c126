// The proxy through which a box's connections leave the host: how it is written, what it is asked and what it answers. Pure.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "net/address.h"

namespace caisson::net {

struct Proxy {
    enum class Kind : std::uint8_t { kHttp, kSocks5 };
    Kind kind = Kind::kHttp;
    Endpoint place;
    // "http://192.0.2.1:3128": as parse_proxy() takes it, in one spelling.
    std::string to_string() const;
    bool operator==(const Proxy&) const = default;
};

// "http://HOST:PORT" or "socks5://HOST:PORT"; HOST is an address (of IPv6 in brackets) or localhost, which is 127.0.0.1.
// kUsage: anything else, with what to write. A password is in no message.
Result<Proxy> parse_proxy(std::string_view text);

struct ProxyAnswer {
    int error = 0;          // what a connect() that failed so would say; 0: the proxy has said yes
    std::size_t bytes = 0;  // of a yes: what follows them belongs to the connection
    std::string why;        // the proxy said no, or no answer to the question
};

// What is said to a proxy, and the reader of what it says to that.
struct ProxyQuestion {
    base::Bytes said;
    // `so_far`: all that has come. nullopt: it is not enough. What was read once stays so with more bytes, and
    // kMostProxyAnswerBytes are always enough.
    std::optional<ProxyAnswer> (*read)(base::ByteView so_far);
};

// One after the other, each once the one before was answered with yes; then the proxy has connected to `place`. CONNECT of
// HTTP/1.1 (RFC 9110 9.3.6), or SOCKS5 without authentication (RFC 1928).
std::vector<ProxyQuestion> proxy_questions(Proxy::Kind kind, const Endpoint& place);

}  // namespace caisson::net
