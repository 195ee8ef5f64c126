#include "image/registry/session.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <random>

#include "base/text.h"
#include "image/limits.h"
#include "image/oci_json.h"
#include "image/registry/base64.h"
#include "image/registry/challenge.h"

namespace caisson::image::registry {

using base::failure;
using base::printable;
using std::chrono::milliseconds;

namespace {

constexpr std::chrono::seconds kSmallDeadline{60};

bool is_redirect(int status) { return status == 301 || status == 302 || status == 303 || status == 307 || status == 308; }

// The server may be well in a moment.
bool is_passing(int status) { return status == 408 || status == 429 || status == 500 || status == 502 || status == 503 || status == 504; }

bool is_passing(const Error& error) { return error.code == Errc::kIo || error.code == Errc::kTimeout; }

// The registry's own words: {"errors":[{"code":...,"message":...}]}.
std::string registry_words(const std::string& body) {
    auto document = parse_json(body, "an answer");
    if (!document || !document->is_object()) return {};
    auto errors = document->find("errors");
    if (errors == document->end() || !errors->is_array() || errors->empty() || !(*errors)[0].is_object()) return {};
    const auto& first = (*errors)[0];
    std::string words;
    for (const char* key : {"message", "code"})
        if (auto text = first.find(key); words.empty() && text != first.end() && text->is_string())
            words = printable(text->get_ref<const std::string&>(), 200);
    return words.empty() ? words : " (" + words + ")";
}

Secret basic(const std::string& user, const Secret& password) {
    Secret pair(user + ":");
    pair.append(password.reveal());
    Secret value("Basic ");
    auto encoded = base64_encode(pair.reveal());
    value.append(encoded);
    wipe(encoded);
    return value;
}

milliseconds backoff(int attempt) {
    thread_local std::mt19937 random{std::random_device{}()};  // so that many clients do not come back at once
    auto base = 500L << std::min(attempt, 5);
    return milliseconds(base + static_cast<long>(random() % 250));
}

}  // namespace

bool plain_http_allowed(const Endpoint& endpoint, const Url& url) {
    return endpoint.plain_http || (is_loopback(endpoint.url.host) && is_loopback(url.host));
}

Url Session::base() const {
    Url url = endpoint_.url;
    std::scoped_lock guard(mutex_);
    if (fell_back_ || endpoint_.plain_http) {
        if (url.tls && url.port == 443) url.port = 80;
        url.tls = false;
    }
    return url;
}

Result<HttpAnswer> Session::get(Http& http, const std::string& path, HttpRequest request) {
    const bool waits_for_body = static_cast<bool>(request.on_data);
    if (!waits_for_body) request.deadline = kSmallDeadline;
    request.stall_timeout = endpoint_.stall_timeout;
    for (int attempt = 0;; ++attempt) {
        Url url = base();
        url.target = (url.target == "/" ? "" : url.target) + "/v2/" + (path.empty() ? "" : endpoint_.repository + "/" + path);
        auto answer = follow(http, url, request);
        milliseconds pause = backoff(attempt);
        if (!answer) {
            const auto& error = answer.error();
            if (error.code == Errc::kProtocol && url.tls && endpoint_.try_plain && is_loopback(url.host)) {
                std::scoped_lock guard(mutex_);
                if (!std::exchange(fell_back_, true)) continue;
            }
            // Transfers with a body of their own know themselves where to go on.
            if (waits_for_body || !is_passing(error) || attempt + 1 >= 2) return answer;
        } else {
            int status = answer->head.status;
            if (status == 200 || status == 206) return answer;
            if (!is_passing(status) || attempt + 1 >= kMaxTries) return failure_of(*answer, path);
            if (auto seconds = base::parse_u64(base::trim(answer->head.header("retry-after"))))
                pause = std::chrono::seconds(std::min<std::uint64_t>(*seconds, kMaxRetryAfterSeconds));
        }
        if (!wait_(pause)) return failure(Errc::kCancelled, "cancelled");
    }
}

// One answer of the registry itself or of whom it sent us to.
Result<HttpAnswer> Session::follow(Http& http, const Url& first, HttpRequest request) {
    Url url = first;
    for (int hops = 0;; ++hops) {
        // A credential belongs to the registry's own origin.
        const bool own = url.origin() == base().origin();
        auto answer = own ? once(http, url, request) : [&]() -> Result<HttpAnswer> {
            request.url = url;
            request.authorization.clear();
            return http.send(request);
        }();
        if (!answer || !is_redirect(answer->head.status)) return answer;
        if (hops >= kMaxRedirects)
            return failure(Errc::kLimit, endpoint_.name + " sends us around more than " + std::to_string(kMaxRedirects) + " times");
        url = CAISSON_TRY_CTX(resolve_url(url, answer->head.header("location")), "a redirect of " + endpoint_.name);
        if (!url.tls && !plain_http_allowed(endpoint_, url))
            return failure(Errc::kPermission, endpoint_.name + " redirects to " + url.authority() + " over plain HTTP, which caisson does not follow",
                           "a registry without TLS is used with --plain-http, on a network that you trust");
    }
}

Result<HttpAnswer> Session::once(Http& http, const Url& url, HttpRequest request) {
    if (!url.tls && !plain_http_allowed(endpoint_, url))
        return failure(Errc::kPermission, "caisson does not speak plain HTTP with " + url.authority(),
                       "a registry without TLS is used with --plain-http, on a network that you trust");
    request.url = url;
    for (int attempt = 0;; ++attempt) {
        {
            std::scoped_lock guard(mutex_);
            request.authorization = authorization_;
        }
        auto answer = http.send(request);
        if (!answer || answer->head.status != 401 || attempt >= 2) return answer;
        auto authorized = authorize(http, answer->head, request.authorization);
        if (!authorized) return failure(std::move(authorized).error());
        std::scoped_lock guard(mutex_);
        if (authorization_.reveal() == request.authorization.reveal()) return answer;  // nothing new to say
    }
}

Result<> Session::authorize(Http& http, const HttpHead& head, const Secret& used) {
    {
        std::scoped_lock guard(mutex_);
        // Another thread has got a new token meanwhile.
        if (authorization_.reveal() != used.reveal()) return {};
    }
    std::vector<Challenge> challenges;
    for (const auto& [name, value] : head.headers) {
        if (name != "www-authenticate") continue;
        auto parsed = CAISSON_TRY_CTX(parse_challenges(value), endpoint_.name);
        challenges.insert(challenges.end(), parsed.begin(), parsed.end());
    }
    Secret authorization;
    auto bearer = std::find_if(challenges.begin(), challenges.end(), [](const Challenge& c) { return c.scheme == "bearer"; });
    auto plain = std::find_if(challenges.begin(), challenges.end(), [](const Challenge& c) { return c.scheme == "basic"; });
    if (bearer != challenges.end()) {
        auto scope = bearer->get("scope");
        if (scope.empty() && !endpoint_.repository.empty()) scope = "repository:" + endpoint_.repository + ":pull";
        auto token = CAISSON_TRY(fetch_token(http, bearer->get("realm"), bearer->get("service"), scope));
        authorization = Secret("Bearer ");
        authorization.append(token.reveal());
    } else if (plain != challenges.end() && !endpoint_.user.empty() && !endpoint_.password.empty()) {
        authorization = basic(endpoint_.user, endpoint_.password);
    } else {
        return {};
    }
    std::scoped_lock guard(mutex_);
    authorization_ = std::move(authorization);
    return {};
}

Result<Secret> Session::fetch_token(Http& http, const std::string& realm, const std::string& service, const std::string& scope) {
    HttpRequest request;
    request.url = CAISSON_TRY_CTX(parse_url(realm), "the token server of " + endpoint_.name);
    if (!request.url.tls && !plain_http_allowed(endpoint_, request.url))
        return failure(Errc::kPermission, endpoint_.name + " names the token server " + request.url.authority() + ", which has no TLS; caisson does not send it anything");
    request.authorities_pem = endpoint_.authorities_pem;
    request.max_body_bytes = kMaxTokenBytes;
    request.deadline = kSmallDeadline;
    request.stall_timeout = endpoint_.stall_timeout;
    std::string query = "service=" + url_encode(service);
    if (!scope.empty()) query += "&scope=" + url_encode(scope);
    if (!endpoint_.identity_token.empty()) {
        Secret form("grant_type=refresh_token&client_id=caisson&" + query + "&refresh_token=");
        auto encoded = url_encode(endpoint_.identity_token.reveal());
        form.append(encoded);
        wipe(encoded);
        request.form = std::move(form);
        request.headers = {"Content-Type: application/x-www-form-urlencoded"};
    } else {
        request.url.target += (request.url.target.find('?') == std::string::npos ? "?" : "&") + query;
        if (!endpoint_.user.empty()) {
            request.url.target += "&account=" + url_encode(endpoint_.user);
            request.authorization = basic(endpoint_.user, endpoint_.password);
        }
    }
    auto answer = CAISSON_TRY_CTX(http.send(request), "asking for a token");
    int status = answer.head.status;
    if (status == 401 || status == 403 || status == 400) {
        if (endpoint_.user.empty() && endpoint_.identity_token.empty())
            return failure(Errc::kPermission, "the token server of " + endpoint_.name + " wants a login" + registry_words(answer.body),
                           "log in: caisson registry login " + endpoint_.name);
        return failure(Errc::kPermission, endpoint_.name + " does not accept the user name or password of " +
                                              (endpoint_.user.empty() ? std::string("the stored token") : "user " + printable(endpoint_.user, 100)) + registry_words(answer.body),
                       "log in again: caisson registry login " + endpoint_.name);
    }
    if (status != 200)
        return failure(is_passing(status) ? Errc::kIo : Errc::kProtocol, "the token server of " + endpoint_.name + " (" + request.url.authority() + ") answers with status " + std::to_string(status));
    auto document = parse_json(answer.body, "the token server's answer");
    wipe(answer.body);
    if (!document) return failure(std::move(document).error());
    for (const char* key : {"token", "access_token"}) {
        auto found = document->is_object() ? document->find(key) : document->end();
        if (!document->is_object() || found == document->end() || !found->is_string()) continue;
        auto& text = found->get_ref<std::string&>();
        bool printable_ascii = !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~'; });
        Secret token(text);
        wipe(text);
        if (!printable_ascii) break;
        return token;
    }
    return failure(Errc::kProtocol, "the answer of the token server of " + endpoint_.name + " holds no token");
}

Result<HttpAnswer> Session::failure_of(const HttpAnswer& answer, const std::string& path) const {
    const int status = answer.head.status;
    const auto words = registry_words(answer.body);
    const auto login = "caisson registry login " + endpoint_.name;
    if (status == 401) {
        if (endpoint_.user.empty() && endpoint_.identity_token.empty())
            return failure(Errc::kPermission, endpoint_.name + " wants a login for " + (path.empty() ? "this" : endpoint_.repository) +
                                                  ", or has no such repository" + words, "log in: " + login);
        return failure(Errc::kPermission, endpoint_.name + " does not accept the user name or password of user " + printable(endpoint_.user, 100) + words,
                       "log in again: " + login);
    }
    if (status == 403)
        return failure(Errc::kPermission, endpoint_.name + " denies access to " + endpoint_.repository + words,
                       "log in as a user who may read it: " + login);
    if (status == 404) return failure(Errc::kNotFound, endpoint_.name + " has no such object" + words);
    return failure(is_passing(status) ? Errc::kIo : Errc::kProtocol, endpoint_.name + " answers with status " + std::to_string(status) + words,
                   is_passing(status) ? "try again later" : "");
}

}  // namespace caisson::image::registry
