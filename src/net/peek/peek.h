// The name that a connection shows in the first bytes its client sends. Pure functions of all bytes so far: call again
// with more of them after NeedMore. A verdict other than NeedMore never changes with more bytes.
//
// A name is what the peer claims: whoever acts on it must dial that name itself.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "net/address.h"

namespace caisson::net {

// Too few bytes to tell. Never said of kMostFirstBytes or more.
struct NeedMore {};
// It claims to be of this protocol and breaks its rules, or is larger than limits.h allows. `why`: for people, one line
// without bytes of the peer.
struct Malformed {
    std::string why;
};

// ---- TLS (RFC 8446 4.1.2, RFC 6066 3, RFC 7301) ----
struct NotTls {};
struct TlsHello {
    // See canonical_name(). None: it shows no name.
    std::optional<std::string> server_name;
    std::vector<std::string> alpn;  // as it is sent; bytes of the peer
    // It has an encrypted_client_hello extension, real or for show: these cannot be told apart, so that server_name may not
    // be what the server looks at.
    bool has_ech = false;
};
using TlsPeek = std::variant<NeedMore, NotTls, TlsHello, Malformed>;
// Malformed, among others: two names or two server_name extensions, a name that is an address or no name of a host.
TlsPeek peek_tls(base::ByteView bytes);

// ---- HTTP/1 (RFC 9112) ----
struct NotHttp {};
// The preface of HTTP/2 without TLS (RFC 9113 3.4). Its names are compressed in frames to come (HPACK), which are not read
// here: it shows no name.
struct Http2Preface {};
struct HttpHost {
    std::string name;                // see canonical_name(); the canonical text of an address, without brackets
    std::optional<Address> address;  // if it is one
    std::optional<std::uint16_t> port;
    bool operator==(const HttpHost&) const = default;
};
struct HttpHead {
    std::string method;
    std::string target;  // as it is sent: printable ASCII without spaces
    // Whom the request is for: Host, or the target of CONNECT and of an absolute target, which must agree with Host.
    // None: HTTP/1.0 without Host, or an empty one: it shows no name.
    std::optional<HttpHost> host;
    bool is_absolute = false;  // the target is a whole URL: as a proxy is asked
    bool is_connect = false;
    std::size_t bytes = 0;     // of the head, its empty line among them
};
using HttpPeek = std::variant<NeedMore, NotHttp, Http2Preface, HttpHead, Malformed>;
// Malformed, among others: two Host headers, folded lines, a space before a colon, control characters, lines that end
// without a carriage return, HTTP/1.1 without Host.
HttpPeek peek_http(base::ByteView bytes);

// ---- either ----
// Neither of them: its client shows no name. (So does one that waits for the server to speak first: no byte ever comes.)
struct Nameless {};
using FirstBytes = std::variant<NeedMore, TlsHello, HttpHead, Http2Preface, Nameless, Malformed>;
FirstBytes peek_first_bytes(base::ByteView bytes);

}  // namespace caisson::net
