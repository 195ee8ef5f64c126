#include "image/registry/proxy.h"

#include <algorithm>

#include "base/text.h"
#include "image/limits.h"
#include "image/registry/url.h"

namespace caisson::image::registry {

using base::failure;

namespace {

// All but the user's name and password.
std::string_view without_user(std::string_view text) {
    auto at = text.rfind('@');
    return at == std::string_view::npos ? text : text.substr(at + 1);
}

base::Failure wrong(std::string_view text, const std::string& why) {
    return failure(Errc::kUsage, "\"" + base::printable(without_user(text), 200) + "\" is not a usable proxy: " + why,
                   "write it as http://[USER:PASSWORD@]HOST:PORT");
}

}  // namespace

Result<Secret> normalized_proxy(std::string_view text) {
    text = base::trim(text);
    if (text.empty()) return Secret();
    if (text.size() > kMaxProxyBytes) return failure(Errc::kUsage, "it is longer than " + base::format_size(kMaxProxyBytes));
    auto rest = text;
    std::string scheme = "http://";
    if (auto end = text.find("://"); end != std::string_view::npos) {
        scheme = text.substr(0, end + 3);
        rest.remove_prefix(end + 3);
    }
    if (scheme != "http://" && scheme != "https://") return wrong(text, "only http:// and https:// proxies are supported");
    auto user_end = rest.rfind('@');
    auto user = user_end == std::string_view::npos ? std::string_view() : rest.substr(0, user_end);
    for (char c : user)
        if (c <= ' ' || c > '~' || c == '/' || c == '?' || c == '#' || c == '@' || c == '\\')
            return wrong(text, "its user or password holds characters that have to be written as %XX");
    auto url = parse_url(scheme + std::string(without_user(rest)));
    if (!url) return wrong(text, "it names no host and port");
    if (url->target != "/") return wrong(text, "it has a path");
    Secret proxy(scheme);
    if (!user.empty()) {
        proxy.append(user);
        proxy.append("@");
    }
    proxy.append(url->host + ":" + std::to_string(url->port));
    return proxy;
}

std::string name_of_proxy(const Secret& proxy) {
    auto text = proxy.reveal();
    auto scheme = text.find("://");
    if (scheme != std::string_view::npos) text.remove_prefix(scheme + 3);
    return std::string(without_user(text));
}

Result<std::string> checked_no_proxy(std::string_view text) {
    bool fine = text.size() <= kMaxProxyBytes && std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; });
    if (!fine) return failure(Errc::kUsage, "NO_PROXY is not a list of hosts", "write it as HOST,.DOMAIN,10.0.0.0/8");
    return std::string(base::trim(text));
}

}  // namespace caisson::image::registry
