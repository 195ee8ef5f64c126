#include "net/proxy/proxy.h"

#include <algorithm>
#include <array>

#include "base/text.h"

namespace caisson::net {

using base::failure;

namespace {

constexpr const char* kWriteThis = "write http://ADDRESS:PORT or socks5://ADDRESS:PORT, such as http://192.0.2.1:3128";
constexpr std::size_t kShown = 100;

struct Scheme {
    std::string_view text;
    Proxy::Kind kind;
};
constexpr std::array<Scheme, 2> kSchemes{{{"http://", Proxy::Kind::kHttp}, {"socks5://", Proxy::Kind::kSocks5}}};

}  // namespace

std::string Proxy::to_string() const {
    const auto* scheme = std::find_if(kSchemes.begin(), kSchemes.end(), [this](const Scheme& one) { return one.kind == kind; });
    return std::string(scheme->text) + place.to_string();
}

Result<Proxy> parse_proxy(std::string_view text) {
    // Before anything is repeated to anybody: there may be a password in it.
    if (text.find('@') != std::string_view::npos)
        return failure(Errc::kUsage, "the network's proxy is given with a user, and caisson cannot log in to a proxy yet", std::string("use one that asks for no password, and ") + kWriteThis);
    const auto wrong = [text](const std::string& why, const std::string& hint = kWriteThis) {
        return failure(Errc::kUsage, "the network's proxy '" + base::printable(text, kShown) + "' " + why, hint);
    };
    const auto* scheme = std::find_if(kSchemes.begin(), kSchemes.end(), [text](const Scheme& one) { return text.starts_with(one.text); });
    if (scheme == kSchemes.end()) return wrong("is neither of HTTP nor of SOCKS5");
    auto host = text.substr(scheme->text.size());
    if (host.find_first_of("/?#") != std::string_view::npos) return wrong("has something behind the port");
    const auto colon = host.rfind(':');
    if (colon == std::string_view::npos || host.ends_with(']')) return wrong("names no port");
    const auto port = base::parse_u64(host.substr(colon + 1));
    if (!port || *port == 0 || *port > 65535) return wrong("names no port from 1 to 65535");
    host = host.substr(0, colon);
    const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
    if (bracketed) host = host.substr(1, host.size() - 2);
    const auto address = host == "localhost" && !bracketed ? std::optional(Address::v4(0x7f000001)) : Address::parse(host);
    if (!address && (bracketed || host.empty() || host.find(':') != std::string_view::npos)) return wrong("names no address", "an IPv6 address takes brackets: http://[2001:db8::1]:3128");
    if (!address) return wrong("is given by a name, which is not looked up", "write its address; see: getent ahosts " + base::printable(host, kShown));
    const bool written_as_v6 = host.find(':') != std::string_view::npos;
    if (bracketed != written_as_v6) return wrong("names no address", "an IPv6 address takes brackets, and no other does: http://[2001:db8::1]:3128");
    return Proxy{scheme->kind, {*address, static_cast<std::uint16_t>(*port)}};
}

}  // namespace caisson::net
