#include <algorithm>
#include <charconv>

#include "base/text.h"
#include "net/name.h"
#include "net/peek/limits.h"
#include "net/peek/peek.h"

namespace caisson::net {

namespace {

constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
constexpr std::size_t kVersionBytes = sizeof " HTTP/1.1" - 1;

// Registered methods are of these; others would be tokens too, but no known client sends them, and so the first bytes of
// most protocols that are not HTTP show it.
bool is_method_byte(char c) { return (c >= 'A' && c <= 'Z') || c == '-' || c == '_'; }
bool is_token_byte(char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
           std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}
bool is_visible(char c) { return c > ' ' && c < 0x7f; }
bool is_control(char c) { return static_cast<unsigned char>(c) < ' ' || c == 0x7f; }
bool is_blank(char c) { return c == ' ' || c == '\t'; }
char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }
bool equal_any_case(std::string_view a, std::string_view b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) { return lower(x) == lower(y); });
}

std::optional<std::uint16_t> parse_port(std::string_view text) {
    std::uint16_t port = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
    if (error != std::errc() || end != text.data() + text.size() || port == 0) return std::nullopt;
    return port;
}

// "name", "name:port", "192.0.2.1:port", "[2001:db8::1]:port".
std::optional<HttpHost> parse_host(std::string_view text) {
    HttpHost host;
    std::string_view port;
    if (text.starts_with('[')) {
        const auto end = text.find(']');
        if (end == std::string_view::npos) return std::nullopt;
        host.address = Address::parse(text.substr(1, end - 1));
        if (!host.address || text.substr(1, end - 1).find(':') == std::string_view::npos) return std::nullopt;
        port = text.substr(end + 1);
    } else {
        const auto colon = text.find(':');
        const auto name = text.substr(0, colon);
        if (const auto known = canonical_name(name)) host.name = *known;
        else if (host.address = Address::parse(name); !host.address) return std::nullopt;
        if (colon != std::string_view::npos) port = text.substr(colon);
    }
    if (host.address) host.name = host.address->to_string();
    if (!port.empty()) {
        host.port = port[0] == ':' ? parse_port(port.substr(1)) : std::nullopt;
        if (!host.port) return std::nullopt;
    }
    return host;
}

// The rest of a line that begins at `from`, without its end; nullopt: it does not end yet. `from` moves behind it.
struct Line {
    std::string_view text;
    bool has_return = false;
};
std::optional<Line> next_line(std::string_view text, std::size_t& from) {
    const auto end = text.find('\n', from);
    if (end == std::string_view::npos) return std::nullopt;
    Line line{text.substr(from, end - from)};
    from = end + 1;
    if (line.text.ends_with('\r')) {
        line.text.remove_suffix(1);
        line.has_return = true;
    }
    return line;
}

// Whether these bytes cannot be the beginning of a request, seen as early as possible.
bool is_not_http(std::string_view text) {
    const auto method = std::find_if_not(text.begin(), text.end(), is_method_byte) - text.begin();
    if (static_cast<std::size_t>(method) > kLongestMethod) return true;
    if (static_cast<std::size_t>(method) == text.size()) return false;
    if (method == 0 || text[static_cast<std::size_t>(method)] != ' ') return true;
    auto line = text.substr(static_cast<std::size_t>(method) + 1);
    line = line.substr(0, line.find('\n'));
    if (line.ends_with('\r')) line.remove_suffix(1);
    return !std::all_of(line.begin(), line.end(), [](char c) { return c == ' ' || is_visible(c); });
}

// What parts of a head say whom it is for, until they are compared.
struct Parts {
    HttpHead head;
    bool needs_host = false;       // HTTP/1.1
    bool has_host = false;
    std::optional<HttpHost> host;  // of the header
    std::optional<HttpHost> target;
    std::uint16_t default_port = 80;
};

std::optional<Malformed> read_target(Parts& parts) {
    auto& head = parts.head;
    std::string_view target = head.target;
    if (head.is_connect) {
        parts.target = parse_host(target);
        if (!parts.target || !parts.target->port) return Malformed{"the target of CONNECT is no host and port"};
        return std::nullopt;
    }
    if (target.starts_with('/') || (target == "*" && head.method == "OPTIONS")) return std::nullopt;
    const auto scheme = target.substr(0, target.find("://"));
    if (scheme.size() == target.size() || !(equal_any_case(scheme, "http") || equal_any_case(scheme, "https")))
        return Malformed{"the target of the request is no path and no URL of HTTP"};
    parts.default_port = scheme.size() == 5 ? 443 : 80;
    target.remove_prefix(scheme.size() + 3);
    parts.target = parse_host(target.substr(0, target.find_first_of("/?#")));
    if (!parts.target) return Malformed{"the target of the request has no usable host"};
    head.is_absolute = true;
    return std::nullopt;
}

// "METHOD target HTTP/1.x", whose method is_not_http() has looked at.
std::variant<std::monostate, NotHttp, Malformed> read_request_line(const Line& line, Parts& parts) {
    const auto space = line.text.find(' ');
    if (line.text.size() < space + 1 + kVersionBytes) return NotHttp{};
    const auto version = line.text.substr(line.text.size() - kVersionBytes);
    const auto target = line.text.substr(space + 1, line.text.size() - kVersionBytes - space - 1);
    if (!version.starts_with(" HTTP/")) return NotHttp{};
    if (version != " HTTP/1.1" && version != " HTTP/1.0") return Malformed{"the request is of an unknown version of HTTP"};
    if (!line.has_return) return Malformed{"a line of the head does not end as it must"};
    if (target.empty() || !std::all_of(target.begin(), target.end(), is_visible))
        return Malformed{"the target of the request has a space in it, or is empty"};
    parts.head.method = line.text.substr(0, space);
    parts.head.target = target;
    parts.head.is_connect = parts.head.method == "CONNECT";
    parts.needs_host = version.back() == '1';
    if (auto bad = read_target(parts)) return *bad;
    return std::monostate{};
}

std::optional<Malformed> read_header(const Line& line, Parts& parts) {
    if (!line.has_return) return Malformed{"a line of the head does not end as it must"};
    if (is_blank(line.text.front())) return Malformed{"a line of the head is folded"};
    const auto colon = line.text.find(':');
    const auto name = line.text.substr(0, colon);
    if (colon == std::string_view::npos || name.empty() || !std::all_of(name.begin(), name.end(), is_token_byte))
        return Malformed{"a line of the head has no usable name before a colon"};
    auto value = line.text.substr(colon + 1);
    if (std::any_of(value.begin(), value.end(), [](char c) { return is_control(c) && c != '\t'; }))
        return Malformed{"a header has a control character"};
    if (!equal_any_case(name, "host")) return std::nullopt;
    if (parts.has_host) return Malformed{"the request has two Host headers"};
    parts.has_host = true;
    while (!value.empty() && is_blank(value.front())) value.remove_prefix(1);
    while (!value.empty() && is_blank(value.back())) value.remove_suffix(1);
    if (value.empty()) return std::nullopt;
    parts.host = parse_host(value);
    if (!parts.host) return Malformed{"the Host header has no usable host"};
    return std::nullopt;
}

// The same host, and the same port if that of the scheme stands for none.
bool agree(const Parts& parts) {
    const auto &host = parts.host, &target = parts.target;
    if (host->name != target->name) return false;
    if (parts.head.is_connect) return !host->port || host->port == target->port;
    return host->port.value_or(parts.default_port) == target->port.value_or(parts.default_port);
}

HttpPeek finish(Parts& parts) {
    if (parts.needs_host && !parts.has_host) return Malformed{"the request is HTTP/1.1 and has no Host header"};
    if (parts.target && parts.has_host && (!parts.host || !agree(parts)))
        return Malformed{"the target of the request and its Host header name different hosts"};
    parts.head.host = parts.target ? parts.target : parts.host;
    return std::move(parts.head);
}

// The head, which is not known not to be one. `is_all`: no further bytes are looked at.
HttpPeek read_head(std::string_view text, bool is_all) {
    Parts parts;
    std::size_t from = 0;
    for (std::size_t lines = 0; auto line = next_line(text, from); ++lines) {
        if (lines == kMostHeadLines) return Malformed{"the head of the request has too many lines"};
        if (lines == 0) {
            auto read = read_request_line(*line, parts);
            if (std::holds_alternative<NotHttp>(read)) return NotHttp{};
            if (auto* bad = std::get_if<Malformed>(&read)) return *bad;
            continue;
        }
        if (line->text.empty()) {
            if (!line->has_return) return Malformed{"a line of the head does not end as it must"};
            parts.head.bytes = from;
            return finish(parts);
        }
        if (auto bad = read_header(*line, parts)) return *bad;
    }
    if (is_all) return Malformed{"the head of the request is too long"};
    return NeedMore{};
}

}  // namespace

HttpPeek peek_http(base::ByteView bytes) {
    const bool is_all = bytes.size() >= kMostHeadBytes;
    const auto text = base::as_text(bytes.first(std::min(bytes.size(), kMostHeadBytes)));
    if (text.starts_with(kPreface)) return Http2Preface{};
    if (kPreface.starts_with(text)) return NeedMore{};
    if (is_not_http(text)) return NotHttp{};
    return read_head(text, is_all);
}

FirstBytes peek_first_bytes(base::ByteView bytes) {
    const auto tls = peek_tls(bytes);
    if (!std::holds_alternative<NotTls>(tls)) {
        if (auto* hello = std::get_if<TlsHello>(&tls)) return *hello;
        if (auto* bad = std::get_if<Malformed>(&tls)) return *bad;
        return NeedMore{};
    }
    auto http = peek_http(bytes);
    if (auto* head = std::get_if<HttpHead>(&http)) return std::move(*head);
    if (auto* bad = std::get_if<Malformed>(&http)) return std::move(*bad);
    if (std::holds_alternative<Http2Preface>(http)) return Http2Preface{};
    if (std::holds_alternative<NeedMore>(http)) return NeedMore{};
    return Nameless{};
}

}  // namespace caisson::net
