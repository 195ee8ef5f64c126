// One registry, as one pull sees it: who may be asked over what, with which credential, how often.
//
// The rules that matter for security live here: the Authorization header goes to the registry's own origin and never
// along a redirect; nothing is asked over plain HTTP unless that was allowed for this registry, or it is on loopback;
// a redirect or token server cannot change that.
//
// Source: OCI distribution specification 1.1; the distribution project's token and OAuth2 specifications.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "image/registry/http.h"

namespace caisson::image::registry {

// Where a repository is found and what is known about the way there.
struct Endpoint {
    Url url;                 // origin; the target is empty or a path before /v2/
    std::string name;        // for people, and for `caisson registry login`: "docker.io", "localhost:5000"
    std::string repository;  // "library/debian"
    bool plain_http = false; // asked for
    bool try_plain = false;  // on loopback, and nothing speaks for TLS: fall back when there is none
    std::string authorities_pem;
    std::string user;
    Secret password;
    Secret identity_token;
    std::chrono::seconds stall_timeout{30};
};

// May `url` be asked without TLS? Only if that was asked for, or registry and `url` are both on this host.
bool plain_http_allowed(const Endpoint& endpoint, const Url& url);

class Session {
  public:
    // Waits this long between tries, unless cancelled; false: cancelled.
    using Wait = std::function<bool(std::chrono::milliseconds)>;

    Session(Endpoint endpoint, Wait wait) : endpoint_(std::move(endpoint)), wait_(std::move(wait)) {}

    // GET of `path` ("manifests/latest") below the repository, or of /v2/ if it is empty; follows redirects, answers challenges,
    // and tries again what can be tried again before a first byte of the body has come. 200 and 206 are answers; all
    // else is an error that says what it means. May be used by several threads, each with its own `http`.
    Result<HttpAnswer> get(Http& http, const std::string& path, HttpRequest request);

    const Endpoint& endpoint() const { return endpoint_; }

  private:
    Result<HttpAnswer> follow(Http& http, const Url& url, HttpRequest request);
    Result<HttpAnswer> once(Http& http, const Url& url, HttpRequest request);
    // Answers the challenge in `head`; `used` is what was refused.
    Result<> authorize(Http& http, const HttpHead& head, const Secret& used);
    Result<Secret> fetch_token(Http& http, const std::string& realm, const std::string& service, const std::string& scope);
    Result<HttpAnswer> failure_of(const HttpAnswer& answer, const std::string& path) const;
    Url base() const;

    Endpoint endpoint_;
    Wait wait_;
    mutable std::mutex mutex_;  // guards the two below
    Secret authorization_;
    bool fell_back_ = false;
};

}  // namespace caisson::image::registry
