// The one door to HTTP: requests as plain data, one answer each, no redirects followed, nothing retried, no decision of
// who may see which credential. All of libcurl is behind it, in http_curl.cc.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "caisson/registry.h"
#include "caisson/secret.h"
#include "image/registry/url.h"

namespace caisson::image::registry {

struct HttpHead {
    int status = 0;
    std::vector<std::pair<std::string, std::string>> headers;  // names in lower case, in order
    // The first of that name; empty if there is none.
    std::string header(std::string_view name) const {
        for (const auto& [key, value] : headers)
            if (key == name) return value;
        return {};
    }
};

struct HttpRequest {
    Url url;
    std::vector<std::string> headers;  // "Name: value"
    Secret authorization;              // value of the Authorization header; empty: none
    std::optional<Secret> form;        // makes it a POST
    std::string authorities_pem;       // trusted besides the host's own
    std::size_t max_body_bytes = 0;    // kLimit beyond it; what error answers carry beyond it is dropped instead
    std::chrono::seconds connect_timeout{15};
    // Fewer than a hundred bytes a second for this long end the transfer (kTimeout).
    std::chrono::seconds stall_timeout{30};
    std::chrono::seconds deadline{0};  // of the whole transfer; 0: none
    // Bodies of 200 and 206 come here instead; `on_head` once before the first byte, also for empty bodies.
    std::function<Result<>(const HttpHead&)> on_head;
    std::function<Result<>(base::ByteView)> on_data;
};

struct HttpAnswer {
    HttpHead head;
    std::string body;
};

// One per thread: it keeps connections open between requests.
class Http {
  public:
    virtual ~Http() = default;
    // kIo: no connection, or it broke; kTimeout; both may be tried again. kPermission: the server's certificate is not
    // trusted. kProtocol: no TLS at the other end, or no HTTP. kNotFound: the host's name does not resolve.
    virtual Result<HttpAnswer> send(const HttpRequest& request) = 0;
};

// libcurl's. Call once before threads are made; the factory may then be used by all of them. `proxies` are normalised.
std::function<std::unique_ptr<Http>()> make_curl_factory(std::string user_agent, RegistryProxies proxies);

}  // namespace caisson::image::registry
