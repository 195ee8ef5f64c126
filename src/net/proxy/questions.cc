#include <algorithm>
#include <cerrno>

#include "net/proxy/limits.h"
#include "net/proxy/proxy.h"
#include "net/reader.h"

namespace caisson::net {

namespace {

ProxyAnswer refused(int error, std::string why) { return {.error = error, .bytes = 0, .why = std::move(why)}; }
ProxyAnswer malformed(const char* why) { return refused(EHOSTUNREACH, std::string("the proxy's answer ") + why); }

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// ---- HTTP ----

// "HTTP/1.1 200 ": as much of it as there is.
constexpr std::string_view kStatusLine = "HTTP/1.0 000 ";
constexpr std::size_t kMinorAt = 7, kStatusAt = 9, kStatusEnd = 12;

bool begins_like_a_status_line(std::string_view text) {
    for (std::size_t at = 0; at < std::min(text.size(), kStatusLine.size()); ++at) {
        const char c = text[at];
        const bool fits = at == kMinorAt || (at >= kStatusAt && at < kStatusEnd) ? is_digit(c) : c == kStatusLine[at] || (at == kStatusEnd && c == '\r');
        if (!fits) return false;
    }
    return true;
}

// Lines end with both bytes, so that nobody can take another place for the head's end.
bool is_of_lines(std::string_view text) {
    for (std::size_t at = 0; at < text.size(); ++at) {
        const char c = text[at];
        if (c == '\0' || (c == '\n' && (at == 0 || text[at - 1] != '\r'))) return false;
        if (c == '\r' && at + 1 < text.size() && text[at + 1] != '\n') return false;
    }
    return true;
}

std::optional<ProxyAnswer> read_http(base::ByteView so_far) {
    constexpr std::string_view kEnd = "\r\n\r\n";
    auto head = base::as_text(so_far).substr(0, kMostProxyAnswerBytes);
    const auto end = head.find(kEnd);
    if (end != std::string_view::npos) head = head.substr(0, end + kEnd.size());
    if (!begins_like_a_status_line(head)) return malformed("is not of HTTP/1.1");
    if (!is_of_lines(head)) return malformed("has something else than lines");
    if (end == std::string_view::npos) return head.size() < kMostProxyAnswerBytes ? std::nullopt : std::optional(malformed("is too long"));
    const auto status = std::string(head.substr(kStatusAt, kStatusEnd - kStatusAt));
    if (status[0] == '2') return ProxyAnswer{.error = 0, .bytes = head.size(), .why = {}};
    const int error = status[0] == '4' ? ECONNREFUSED : status == "504" ? ETIMEDOUT : EHOSTUNREACH;
    return refused(error, "the proxy answered " + status + (status == "407" ? ": it wants a password" : ""));
}

// ---- SOCKS5 ----

constexpr std::uint8_t kVersion = 5, kNoAuthentication = 0, kNoMethod = 0xff, kConnect = 1, kAddressV4 = 1, kName = 3, kAddressV6 = 4;

std::optional<ProxyAnswer> read_method(base::ByteView so_far) {
    constexpr std::size_t kBytes = 2;
    if (!so_far.empty() && so_far[0] != kVersion) return malformed("is not of SOCKS5");
    if (so_far.size() < kBytes) return std::nullopt;
    if (so_far[1] == kNoMethod) return refused(ECONNREFUSED, "the proxy wants a password");
    if (so_far[1] != kNoAuthentication) return malformed("chooses what it was not offered");
    return ProxyAnswer{.error = 0, .bytes = kBytes, .why = {}};
}

int error_of(std::uint8_t reply) {
    switch (reply) {
        case 2: case 5: return ECONNREFUSED;
        case 3: return ENETUNREACH;
        case 6: return ETIMEDOUT;
        default: return EHOSTUNREACH;
    }
}

std::optional<ProxyAnswer> read_reply(base::ByteView so_far) {
    if (!so_far.empty() && so_far[0] != kVersion) return malformed("is not of SOCKS5");
    if (so_far.size() >= 2 && so_far[1] != 0) return refused(error_of(so_far[1]), "the proxy answered with reply " + std::to_string(so_far[1]));
    Reader reader(so_far);
    reader.take(3);
    const auto kind = reader.number(1);
    if (reader.failed()) return std::nullopt;
    if (kind != kAddressV4 && kind != kName && kind != kAddressV6) return malformed("has an address of no kind");
    // Where the proxy is connected from is of no interest.
    if (kind == kName) reader.counted(1);
    else reader.take(kind == kAddressV4 ? 4 : 16);
    reader.take(2);
    if (reader.failed()) return std::nullopt;
    return ProxyAnswer{.error = 0, .bytes = so_far.size() - reader.rest().size(), .why = {}};
}

base::Bytes request(const Endpoint& place) {
    base::Bytes said{kVersion, kConnect, 0, place.address.is_v4() ? kAddressV4 : kAddressV6};
    const base::ByteView address(place.address.bytes());
    base::append(said, place.address.is_v4() ? address.last(4) : address);
    said.push_back(static_cast<std::uint8_t>(place.port >> 8));
    said.push_back(static_cast<std::uint8_t>(place.port & 0xff));
    return said;
}

}  // namespace

std::vector<ProxyQuestion> proxy_questions(Proxy::Kind kind, const Endpoint& place) {
    if (kind == Proxy::Kind::kSocks5) return {{{kVersion, 1, kNoAuthentication}, read_method}, {request(place), read_reply}};
    const auto text = place.to_string();
    const auto said = "CONNECT " + text + " HTTP/1.1\r\nHost: " + text + "\r\n\r\n";
    return {{base::Bytes(said.begin(), said.end()), read_http}};
}

}  // namespace caisson::net
