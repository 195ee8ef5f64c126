#include "image/registry/url.h"

#include <algorithm>

#include "base/text.h"

namespace caisson::image::registry {

using base::failure;

namespace {

constexpr std::size_t kMaxUrlBytes = 16 << 10;  // signed addresses of object stores are long

Result<Url> wrong(std::string_view text, const char* why) {
    return failure(Errc::kProtocol, "\"" + base::printable(text, 200) + "\" is not a usable address: " + why);
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_host(std::string_view host) {
    if (host.size() > 2 && host.front() == '[' && host.back() == ']')
        return host.find_first_not_of("0123456789abcdef:.", 1) == host.size() - 1;
    if (host.empty() || host.size() > 253 || host.front() == '-' || host.front() == '.') return false;
    return host.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-._") == std::string_view::npos;
}

}  // namespace

std::string Url::authority() const {
    return port == (tls ? 443 : 80) ? host : host + ":" + std::to_string(port);
}

std::string Url::origin() const { return (tls ? "https://" : "http://") + authority(); }

Result<Url> parse_url(std::string_view text) {
    if (text.size() > kMaxUrlBytes) return wrong(text, "it is too long");
    for (char c : text)
        if (c <= ' ' || c > '~' || c == '\\' || c == '"' || c == '<' || c == '>')
            return wrong(text, "it holds characters that addresses cannot have");
    Url url;
    auto rest = text;
    auto scheme_end = rest.find("://");
    if (scheme_end == std::string_view::npos) return wrong(text, "it does not begin with https:// or http://");
    std::string scheme(rest.substr(0, scheme_end));
    std::transform(scheme.begin(), scheme.end(), scheme.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (scheme == "http") url.tls = false;
    else if (scheme != "https") return wrong(text, "it does not begin with https:// or http://");
    rest.remove_prefix(scheme_end + 3);
    auto fragment = rest.find('#');
    rest = rest.substr(0, fragment);
    auto host_end = rest.find_first_of("/?");
    auto authority = rest.substr(0, host_end);
    if (host_end != std::string_view::npos) url.target = std::string(rest.substr(host_end));
    if (url.target.front() != '/') url.target.insert(0, 1, '/');
    if (authority.find('@') != std::string_view::npos) return wrong(text, "it holds a user name");
    auto colon = authority.rfind(':');
    if (!authority.empty() && authority.back() == ']') colon = std::string_view::npos;
    url.port = url.tls ? 443 : 80;
    if (colon != std::string_view::npos) {
        auto port = authority.substr(colon + 1);
        if (port.empty() || port.size() > 5 || !std::all_of(port.begin(), port.end(), is_digit)) return wrong(text, "its port is not a number");
        auto number = CAISSON_TRY(base::parse_u64(port));
        if (number == 0 || number > 65535) return wrong(text, "its port is not a number");
        url.port = static_cast<int>(number);
        authority = authority.substr(0, colon);
    }
    url.host = std::string(authority);
    std::transform(url.host.begin(), url.host.end(), url.host.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (!is_host(url.host)) return wrong(text, "it names no host");
    return url;
}

Result<Url> resolve_url(const Url& base, std::string_view location) {
    location = location.substr(0, location.find('#'));
    auto colon = location.find(':');
    if (colon != std::string_view::npos && colon < location.find_first_of("/?")) return parse_url(location);
    std::string scheme = base.tls ? "https:" : "http:";
    if (location.starts_with("//")) return parse_url(scheme + std::string(location));
    if (location.starts_with("/")) return parse_url(base.origin() + std::string(location));
    auto path = base.target.substr(0, base.target.find('?'));
    return parse_url(base.origin() + path.substr(0, path.rfind('/') + 1) + std::string(location));
}

bool is_loopback(std::string_view host) {
    if (host == "localhost" || host == "[::1]") return true;
    // Four numbers, the first 127: a name like 127.example.com is somebody else's.
    auto parts = base::split(host, '.');
    if (parts.size() != 4 || parts[0] != "127") return false;
    return std::all_of(parts.begin(), parts.end(), [](const std::string& part) {
        return !part.empty() && part.size() <= 3 && std::all_of(part.begin(), part.end(), is_digit);
    });
}

std::string url_encode(std::string_view text) {
    constexpr const char* kHex = "0123456789ABCDEF";
    std::string encoded;
    for (unsigned char c : text) {
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(static_cast<char>(c)) ||
                     c == '-' || c == '.' || c == '_' || c == '~';
        if (plain) encoded += static_cast<char>(c);
        else encoded += {'%', kHex[c >> 4], kHex[c & 15]};
    }
    return encoded;
}

}  // namespace caisson::image::registry
