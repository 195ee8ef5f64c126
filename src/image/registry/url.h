// URLs of registries, as far as registries use them; pure. Strict on purpose: what decides who gets a password must not
// be read in two ways.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace caisson::image::registry {

struct Url {
    bool tls = true;
    std::string host;  // lower case; IPv6 in brackets
    int port = 443;
    std::string target = "/";  // path and query

    // Scheme, host and port: what a credential belongs to.
    std::string origin() const;
    std::string to_string() const { return origin() + target; }
    // "ghcr.io", "localhost:5000": for people.
    std::string authority() const;
};

// http and https only; no user names, no spaces, no bytes outside ASCII. kProtocol otherwise.
Result<Url> parse_url(std::string_view text);
// What a Location header means, seen from `base`.
Result<Url> resolve_url(const Url& base, std::string_view location);
// localhost, 127.0.0.0/8, [::1].
bool is_loopback(std::string_view host);
// Bytes for a query string, everything else than letters, digits and -._~ as %XX.
std::string url_encode(std::string_view text);

}  // namespace caisson::image::registry
