#include <algorithm>
#include <set>

#include "net/name.h"
#include "net/peek/limits.h"
#include "net/peek/peek.h"
#include "net/reader.h"

namespace caisson::net {

namespace {

constexpr std::uint8_t kHandshake = 22, kClientHello = 1, kHostName = 0;
constexpr std::size_t kRecordHeader = 5, kHandshakeHeader = 4, kMostRecordBytes = 16384, kMostSessionIdBytes = 32;
enum : std::uint16_t { kServerName = 0, kAlpn = 16, kEncryptedHello = 0xfe0d, kEncryptedServerName = 0xffce };

// One name of the one type there is. RFC 6066 has no second type and forbids two of one; a server would choose one of
// them, and not the one that was judged.
std::optional<Malformed> read_server_name(base::ByteView data, TlsHello& hello) {
    Reader extension(data);
    Reader list(extension.counted(2));
    const auto type = list.number(1);
    const auto name = list.counted(2);
    if (!extension.is_done() || list.failed()) return Malformed{"the server_name extension is damaged"};
    if (!list.empty()) return Malformed{"the server_name extension has more than one name"};
    if (type != kHostName) return Malformed{"the server_name extension has a name of unknown type"};
    hello.server_name = canonical_name(base::as_text(name));
    if (!hello.server_name) return Malformed{"the server_name is no name of a host"};
    return std::nullopt;
}

std::optional<Malformed> read_alpn(base::ByteView data, TlsHello& hello) {
    Reader extension(data);
    Reader list(extension.counted(2));
    while (!list.failed() && !list.empty()) {
        const auto name = list.counted(1);
        if (name.empty()) return Malformed{"the ALPN extension is damaged"};
        if (hello.alpn.size() == kMostProtocolNames) return Malformed{"the ALPN extension lists too many protocols"};
        hello.alpn.emplace_back(base::as_text(name));
    }
    if (!extension.is_done() || list.failed() || hello.alpn.empty()) return Malformed{"the ALPN extension is damaged"};
    return std::nullopt;
}

std::optional<Malformed> read_extension(std::uint16_t type, base::ByteView data, TlsHello& hello) {
    switch (type) {
        case kServerName: return read_server_name(data, hello);
        case kAlpn: return read_alpn(data, hello);
        case kEncryptedHello:
        case kEncryptedServerName: hello.has_ech = true; return std::nullopt;
        default: return std::nullopt;
    }
}

// RFC 8446 4.1.2; earlier versions are the same up to the extensions, which they may lack.
TlsPeek read_hello(base::ByteView message) {
    Reader reader(message);
    const auto version = reader.number(2);
    reader.take(32);  // random
    const auto session = reader.counted(1), ciphers = reader.counted(2), compressions = reader.counted(1);
    if (reader.failed() || version >> 8 != 3 || session.size() > kMostSessionIdBytes || ciphers.empty() ||
        ciphers.size() % 2 != 0 || compressions.empty())
        return Malformed{"the ClientHello is damaged"};
    TlsHello hello;
    if (reader.empty()) return hello;
    Reader extensions(reader.counted(2));
    if (!reader.is_done()) return Malformed{"the extensions of the ClientHello are damaged"};
    std::set<std::uint16_t> seen;
    while (!extensions.empty()) {
        const auto type = static_cast<std::uint16_t>(extensions.number(2));
        const auto data = extensions.counted(2);
        if (extensions.failed()) return Malformed{"the extensions of the ClientHello are damaged"};
        if (seen.size() == kMostHelloExtensions) return Malformed{"the ClientHello has too many extensions"};
        if (!seen.insert(type).second) return Malformed{"the ClientHello has an extension twice"};
        if (auto bad = read_extension(type, data, hello)) return *bad;
    }
    return hello;
}

// The first record's header, as far as it is there, is not one of TLS.
bool is_not_tls(base::ByteView bytes) {
    if (!bytes.empty() && bytes[0] != kHandshake) return true;
    if (bytes.size() > 1 && bytes[1] != 3) return true;
    return bytes.size() > 2 && bytes[2] > 4;
}

// Of the message that `handshake` begins. nullopt: not known yet.
std::optional<std::size_t> message_size(base::ByteView handshake) {
    if (handshake.size() < kHandshakeHeader) return std::nullopt;
    Reader reader(handshake.subspan(1));
    return kHandshakeHeader + reader.number(3);
}

}  // namespace

TlsPeek peek_tls(base::ByteView bytes) {
    if (is_not_tls(bytes)) return NotTls{};
    const bool all_there = bytes.size() >= kMostFirstBytes;
    bytes = bytes.first(std::min(bytes.size(), kMostFirstBytes));
    base::Bytes handshake;
    handshake.reserve(bytes.size());
    for (std::size_t records = 0; bytes.size() >= kRecordHeader; ++records) {
        const std::size_t length = static_cast<std::size_t>(bytes[3]) << 8 | bytes[4];
        if (records == kMostHelloRecords) return Malformed{"the ClientHello is cut into too many records"};
        if (bytes[0] != kHandshake || bytes[1] != 3 || length == 0 || length > kMostRecordBytes)
            return Malformed{"a record of the ClientHello is damaged"};
        const auto here = bytes.subspan(kRecordHeader).first(std::min(length, bytes.size() - kRecordHeader));
        base::append(handshake, here);
        if (!handshake.empty() && handshake[0] != kClientHello) return Malformed{"TLS begins with something other than a ClientHello"};
        const auto size = message_size(handshake);
        if (size && *size > kMostHelloBytes) return Malformed{"the ClientHello is too long"};
        if (size && handshake.size() >= *size) return read_hello(base::ByteView(handshake).first(*size).subspan(kHandshakeHeader));
        bytes = bytes.subspan(kRecordHeader + here.size());
    }
    if (all_there) return Malformed{"the ClientHello is too long"};
    return NeedMore{};
}

}  // namespace caisson::net
