#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <deque>
#include <nlohmann/json.hpp>

#include "caisson/registry.h"
#include "image/limits.h"
#include "image/registry/base64.h"
#include "image/registry/challenge.h"
#include "image/registry/client.h"
#include "image/registry/proxy.h"
#include "image/registry/session.h"
#include "image/registry/settings.h"
#include "os/file.h"

namespace caisson::image::registry {
namespace {

using testing::HasSubstr;

Url url(std::string_view text) {
    auto parsed = parse_url(text);
    EXPECT_TRUE(parsed) << text;
    return parsed.value_or(Url{});
}

TEST(Proxy, IsWrittenOutWithSchemeAndPort) {
    for (auto [text, wanted] : {std::pair{"", ""}, {" ", ""}, {"proxy", "http://proxy:80"}, {"Proxy:3128", "http://proxy:3128"},
                                {"https://proxy/", "https://proxy:443"}, {"http://u:p%40@[::1]:1", "http://u:p%40@[::1]:1"}}) {
        auto proxy = normalized_proxy(text);
        ASSERT_TRUE(proxy) << text;
        EXPECT_EQ(proxy->reveal(), wanted);
    }
    EXPECT_EQ(name_of_proxy(Secret("http://u:p@proxy:80")), "proxy:80");
}

TEST(Proxy, RefusesWhatIsNone) {
    for (std::string text : {"socks5://proxy", "ftp://proxy", "http://", "http://u@v@proxy", "http://u p@proxy", "proxy/path", "proxy?x", "a\nb", "proxy:0"})
        EXPECT_FALSE(normalized_proxy(text)) << text;
    EXPECT_TRUE(normalized_proxy("u:" + std::string(kMaxProxyBytes - 8, 'x') + "@proxy"));
    EXPECT_FALSE(normalized_proxy("u:" + std::string(kMaxProxyBytes - 7, 'x') + "@proxy"));
    EXPECT_TRUE(checked_no_proxy(std::string(kMaxProxyBytes, 'x')));
    EXPECT_FALSE(checked_no_proxy(std::string(kMaxProxyBytes + 1, 'x')));
}

TEST(RegistryUrl, SplitsIntoOriginAndTarget) {
    auto parsed = url("HTTPS://Registry.Example:5000/a/b?c=d#e");
    EXPECT_EQ(parsed.origin(), "https://registry.example:5000");
    EXPECT_EQ(parsed.target, "/a/b?c=d");
    EXPECT_EQ(url("https://x:443").origin(), "https://x");
    EXPECT_EQ(url("http://[::1]:80?x").to_string(), "http://[::1]/?x");
}

TEST(RegistryUrl, RefusesWhatCouldBeReadInTwoWays) {
    for (const char* text : {"", "x", "ftp://x/", "https://", "https:///x", "https://u@x/", "https://x y/", "https://x\\@y/", "https://x:0/",
                             "https://x:65536/", "https://x:/", "https://x:5a/", "https://-x/", "https://x\n/", "https://\xc3\xa4/", "https://[::1/"})
        EXPECT_FALSE(parse_url(text)) << text;
    EXPECT_FALSE(parse_url("https://x/" + std::string(20000, 'a')));
}

TEST(RegistryUrl, ResolvesRedirects) {
    auto base = url("https://r.example/v2/a/blobs/x?y=z");
    EXPECT_EQ(resolve_url(base, "/other")->to_string(), "https://r.example/other");
    EXPECT_EQ(resolve_url(base, "sibling")->to_string(), "https://r.example/v2/a/blobs/sibling");
    EXPECT_EQ(resolve_url(base, "//cdn.example/x")->to_string(), "https://cdn.example/x");
    EXPECT_EQ(resolve_url(base, "http://cdn.example/x")->to_string(), "http://cdn.example/x");
    EXPECT_FALSE(resolve_url(base, "javascript:alert(1)"));
}

TEST(RegistryUrl, KnowsLoopback) {
    for (const char* host : {"localhost", "127.0.0.1", "127.255.1.2", "[::1]"}) EXPECT_TRUE(is_loopback(host)) << host;
    for (const char* host : {"127.0.0.1.evil.example", "127.evil.example", "128.0.0.1", "localhost.example", "[::2]", "127.1"})
        EXPECT_FALSE(is_loopback(host)) << host;
}

TEST(RegistryPlace, KnowsDockersHub) {
    auto place = [](const char* name) {
        auto found = place_of(*parse_reference(name));
        return found.registry + " " + found.repository;
    };
    EXPECT_EQ(place("debian"), "docker.io library/debian");
    EXPECT_EQ(place("docker.io/library/debian:12"), "docker.io library/debian");
    EXPECT_EQ(place("owner/name"), "docker.io owner/name");
    EXPECT_EQ(place("ghcr.io/owner/name:1"), "ghcr.io owner/name");
    EXPECT_EQ(place("localhost/name"), "localhost name");
    EXPECT_EQ(place("localhost:5000/a/b"), "localhost:5000 a/b");
    EXPECT_EQ(url_of("docker.io")->origin(), "https://registry-1.docker.io");
    EXPECT_FALSE(parse_reference("docker.io/other.example/x"));
}

TEST(RegistryChallenge, ParsesWhatRegistriesSend) {
    auto parsed = parse_challenges(R"(Bearer realm="https://auth.example/token",service="a, \"b\"",scope="repository:x:pull", Basic realm=y)");
    ASSERT_TRUE(parsed) << parsed.error().to_string();
    ASSERT_EQ(parsed->size(), 2U);
    EXPECT_EQ((*parsed)[0].scheme, "bearer");
    EXPECT_EQ((*parsed)[0].get("service"), R"(a, "b")");
    EXPECT_EQ((*parsed)[0].get("scope"), "repository:x:pull");
    EXPECT_EQ((*parsed)[1].scheme, "basic");
    EXPECT_EQ((*parsed)[1].get("realm"), "y");
}

TEST(RegistryChallenge, RefusesWhatTheGrammarDoesNotAllow) {
    for (const char* text : {"=", "Bearer realm=\"x", "realm=x", "Bearer a=1,a=2", "Bearer a=1 b=2", "Bearer a=\"\x01\"", "Bear\x7f"})
        EXPECT_FALSE(parse_challenges(text)) << text;
}

TEST(RegistryChallenge, HasLimits) {
    EXPECT_TRUE(parse_challenges("Bearer a=\"" + std::string(kMaxChallengeBytes - 11, 'x') + "\""));
    EXPECT_EQ(parse_challenges("Bearer a=\"" + std::string(kMaxChallengeBytes - 10, 'x') + "\"").error().code, Errc::kLimit);
    std::string many = "Bearer a0=1";
    for (std::size_t i = 1; i < kMaxChallengeParameters; ++i) many += ",a" + std::to_string(i) + "=1";
    EXPECT_TRUE(parse_challenges(many));
    EXPECT_EQ(parse_challenges(many + ",more=1").error().code, Errc::kLimit);
    std::string schemes = "A";
    for (std::size_t i = 1; i < kMaxChallenges; ++i) schemes += ", A";
    EXPECT_TRUE(parse_challenges(schemes));
    EXPECT_EQ(parse_challenges(schemes + ", A").error().code, Errc::kLimit);
}

TEST(RegistryBase64, EncodesAndDecodes) {
    EXPECT_EQ(base64_encode("user:pass"), "dXNlcjpwYXNz");
    EXPECT_EQ(base64_encode("f"), "Zg==");
    EXPECT_EQ(base64_encode("fo"), "Zm8=");
    for (std::string_view text : {"", "f", "fo", "foo", "foob"}) EXPECT_EQ(base64_decode(base64_encode(text)), std::string(text));
    EXPECT_FALSE(base64_decode("a b"));
}

TEST(RegistrySettings, AreStrict) {
    auto good = parse_settings(R"({"registries":{"docker.io":{"mirrors":["https://m.example/cache/",{"url":"http://10.0.0.2:5000","plain_http":true}]},
                                   "r.lan":{"plain_http":true}},"parallel_layers":2,"stall_seconds":5})");
    ASSERT_TRUE(good) << good.error().to_string();
    EXPECT_EQ(good->registries["docker.io"].mirrors[0].url.target, "/cache");
    EXPECT_TRUE(good->registries["docker.io"].mirrors[1].plain_http);
    EXPECT_TRUE(good->registries["r.lan"].plain_http);
    EXPECT_EQ(good->parallel_layers, 2U);
    for (const char* text : {"[]", R"({"x":1})", R"({"registries":[]})", R"({"registries":{"r":{"mirror":[]}}})", R"({"registries":{"r":{"plain_http":1}}})",
                             R"({"registries":{"r":{"mirrors":["http://10.0.0.2"]}}})", R"({"parallel_layers":0})", R"({"parallel_layers":17})", R"({"stall_seconds":"1"})"})
        EXPECT_EQ(parse_settings(text).error().code, Errc::kUsage) << text;
}

// ---- session -------------------------------------------------------------------------------------------------------

// Answers what it is told, and remembers what it was asked.
class ScriptedHttp final : public Http {
  public:
    struct Asked {
        std::string url, authorization;
    };
    Result<HttpAnswer> send(const HttpRequest& request) override {
        asked.push_back({request.url.to_string(), std::string(request.authorization.reveal())});
        if (answers.empty()) return base::failure(Errc::kInternal, "nothing more was expected");
        auto answer = std::move(answers.front());
        answers.pop_front();
        return answer;
    }
    void say(int status, std::vector<std::pair<std::string, std::string>> headers = {}, std::string body = "") {
        answers.push_back(HttpAnswer{{status, std::move(headers)}, std::move(body)});
    }
    void fail(Errc code) { answers.push_back(base::failure(code, "scripted")); }
    std::deque<Result<HttpAnswer>> answers;
    std::vector<Asked> asked;
};

class RegistrySession : public testing::Test {
  protected:
    Session& session(const std::string& origin = "https://r.example", bool plain_http = false) {
        Endpoint endpoint{.url = url(origin), .name = "r.example", .repository = "a/b", .plain_http = plain_http};
        endpoint.try_plain = is_loopback(endpoint.url.host);
        endpoint.user = "me";
        endpoint.password = Secret("secret");
        session_ = std::make_unique<Session>(std::move(endpoint), [this](std::chrono::milliseconds time) {
            waits_.push_back(time);
            return true;
        });
        return *session_;
    }
    ScriptedHttp http_;
    std::vector<std::chrono::milliseconds> waits_;
    std::unique_ptr<Session> session_;
};

TEST_F(RegistrySession, SendsAPasswordOnlyWhenAskedAndOnlyToTheRegistry) {
    http_.say(401, {{"www-authenticate", "Basic realm=\"x\""}});
    http_.say(307, {{"location", "https://storage.example/blob"}});
    http_.say(200);
    ASSERT_TRUE(session().get(http_, "blobs/x", {}));
    ASSERT_EQ(http_.asked.size(), 3U);
    EXPECT_EQ(http_.asked[0].authorization, "");
    EXPECT_EQ(http_.asked[1].authorization, "Basic " + base64_encode("me:secret"));
    EXPECT_EQ(http_.asked[2].url, "https://storage.example/blob");
    EXPECT_EQ(http_.asked[2].authorization, "");
}

TEST_F(RegistrySession, AnotherPortOrSchemeIsAnotherHost) {
    http_.say(401, {{"www-authenticate", "Basic realm=\"x\""}});
    http_.say(307, {{"location", "https://r.example:8443/blob"}});
    http_.say(200);
    ASSERT_TRUE(session().get(http_, "blobs/x", {}));
    EXPECT_EQ(http_.asked[2].authorization, "");
}

TEST_F(RegistrySession, GetsATokenForItsRepository) {
    http_.say(401, {{"www-authenticate", R"(Bearer realm="https://auth.example/t",service="s",scope="repository:a/b:pull")"}});
    http_.say(200, {}, R"({"token":"tttt"})");
    http_.say(200);
    ASSERT_TRUE(session().get(http_, "manifests/1", {}));
    EXPECT_EQ(http_.asked[1].url, "https://auth.example/t?service=s&scope=repository%3Aa%2Fb%3Apull&account=me");
    EXPECT_EQ(http_.asked[1].authorization, "Basic " + base64_encode("me:secret"));
    EXPECT_EQ(http_.asked[2].authorization, "Bearer tttt");
}

TEST_F(RegistrySession, ATokenCannotHoldAFurtherHeader) {
    http_.say(401, {{"www-authenticate", R"(Bearer realm="https://auth.example/t",service="s")"}});
    http_.say(200, {}, "{\"token\":\"t\\r\\nX: y\"}");
    EXPECT_EQ(session().get(http_, "manifests/1", {}).error().code, Errc::kProtocol);
}

TEST_F(RegistrySession, PlainHttpOnlyWhereItIsAllowed) {
    EXPECT_EQ(session("http://10.0.0.1").get(http_, "manifests/1", {}).error().code, Errc::kPermission);
    EXPECT_TRUE(http_.asked.empty());
    http_.say(200);
    EXPECT_TRUE(session("http://10.0.0.1", true).get(http_, "manifests/1", {}));
    http_.say(200);
    EXPECT_TRUE(session("http://127.0.0.1:5000").get(http_, "manifests/1", {}));
}

TEST_F(RegistrySession, ARedirectOrTokenServerCannotSwitchOffTls) {
    http_.say(307, {{"location", "http://r.example/blob"}});
    EXPECT_EQ(session().get(http_, "blobs/x", {}).error().code, Errc::kPermission);
    // A registry elsewhere does not reach what listens on this host only.
    http_.say(307, {{"location", "http://127.0.0.1/blob"}});
    EXPECT_EQ(session().get(http_, "blobs/x", {}).error().code, Errc::kPermission);
    http_.say(401, {{"www-authenticate", R"(Bearer realm="http://auth.example/t",service="s")"}});
    EXPECT_EQ(session().get(http_, "blobs/x", {}).error().code, Errc::kPermission);
    EXPECT_EQ(http_.asked.size(), 3U);
}

TEST_F(RegistrySession, FallsBackToPlainHttpOnLoopbackOnly) {
    http_.fail(Errc::kProtocol);
    http_.say(200);
    ASSERT_TRUE(session("https://localhost:5000").get(http_, "manifests/1", {}));
    EXPECT_EQ(http_.asked[1].url, "http://localhost:5000/v2/a/b/manifests/1");
    http_.fail(Errc::kProtocol);
    EXPECT_EQ(session().get(http_, "manifests/1", {}).error().code, Errc::kProtocol);
    http_.fail(Errc::kPermission);  // a certificate that is not trusted is no reason
    EXPECT_EQ(session("https://localhost:5000").get(http_, "manifests/1", {}).error().code, Errc::kPermission);
}

TEST_F(RegistrySession, WaitsAsLongAsItIsTold) {
    http_.say(429, {{"retry-after", "7"}});
    http_.say(503, {{"retry-after", "100000"}});
    http_.say(200);
    ASSERT_TRUE(session().get(http_, "manifests/1", {}));
    EXPECT_EQ(waits_[0], std::chrono::seconds(7));
    EXPECT_EQ(waits_[1], std::chrono::seconds(kMaxRetryAfterSeconds));
}

TEST_F(RegistrySession, GivesUpInTheEnd) {
    for (int i = 0; i < kMaxTries; ++i) http_.say(503);
    EXPECT_EQ(session().get(http_, "manifests/1", {}).error().code, Errc::kIo);
    EXPECT_TRUE(http_.answers.empty());
    for (int i = 0; i <= kMaxRedirects; ++i) http_.say(302, {{"location", "/again"}});
    EXPECT_EQ(session().get(http_, "manifests/1", {}).error().code, Errc::kLimit);
    EXPECT_TRUE(http_.answers.empty());
}

TEST_F(RegistrySession, SaysWhichLoginWasRefused) {
    for (int i = 0; i < 3; ++i) http_.say(401, {{"www-authenticate", "Basic realm=\"x\""}});
    auto error = session().get(http_, "manifests/1", {}).error();
    EXPECT_EQ(error.code, Errc::kPermission);
    EXPECT_THAT(error.to_string(), HasSubstr("user me"));
    EXPECT_THAT(error.to_string(), testing::Not(HasSubstr("secret")));
    EXPECT_THAT(error.hint, HasSubstr("caisson registry login r.example"));
}

// ---- docker's config.json --------------------------------------------------------------------------------------------

class DockerConfigTest : public testing::Test {
  protected:
    void SetUp() override {
        auto made = os::TemporaryDirectory::create(testing::TempDir(), "docker-");
        ASSERT_TRUE(made);
        directory_.emplace(std::move(*made));
        options_.docker_config = directory_->path() + "/config";
    }
    void write(const std::string& text) {
        ASSERT_TRUE(os::make_directories(options_.docker_config));
        ASSERT_TRUE(os::write_file_atomic(path(), text, 0600));
    }
    std::string path() const { return options_.docker_config + "/config.json"; }
    RegistryLogin login(const std::string& registry) {
        auto access = caller_access(options_);
        EXPECT_TRUE(access);
        auto found = (*access)(registry);
        EXPECT_TRUE(found) << found.error().to_string();
        return found ? found->login : RegistryLogin{};
    }
    std::optional<os::TemporaryDirectory> directory_;
    CallerAccessOptions options_;
};

TEST_F(DockerConfigTest, KeepsWhatItStores) {
    EXPECT_TRUE(login("ghcr.io").empty());
    ASSERT_TRUE(store_registry_login("ghcr.io", {"me", Secret("pa:ss"), {}}, options_));
    ASSERT_TRUE(store_registry_login("docker.io", {"hub", Secret("x"), {}}, options_));
    struct stat info {};
    ASSERT_EQ(::stat(path().c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600U);
    EXPECT_EQ(login("ghcr.io").user, "me");
    EXPECT_EQ(login("ghcr.io").password.reveal(), "pa:ss");
    EXPECT_EQ(login("docker.io").user, "hub");
    auto document = nlohmann::json::parse(*os::read_file(path()));
    EXPECT_TRUE(document["auths"].contains("https://index.docker.io/v1/"));
    EXPECT_EQ(remove_registry_login("ghcr.io", options_), true);
    EXPECT_EQ(remove_registry_login("ghcr.io", options_), false);
    EXPECT_TRUE(login("ghcr.io").empty());
    EXPECT_EQ(login("docker.io").user, "hub");
}

TEST_F(DockerConfigTest, ReadsOlderKeysAndTokensAndKeepsTheRest) {
    write(R"({"HttpHeaders":{"a":"b"},"auths":{"https://old.example/v1/":{"auth":"dXNlcjpwYXNz"},"tok.example":{"identitytoken":"abc"},"none.example":{}}})");
    EXPECT_EQ(login("old.example").password.reveal(), "pass");
    EXPECT_EQ(login("tok.example").identity_token.reveal(), "abc");
    EXPECT_TRUE(login("none.example").empty());
    ASSERT_TRUE(store_registry_login("old.example", {"new", Secret("x"), {}}, options_));
    auto document = nlohmann::json::parse(*os::read_file(path()));
    EXPECT_EQ(document["HttpHeaders"]["a"], "b");
    EXPECT_FALSE(document["auths"].contains("https://old.example/v1/"));
    EXPECT_EQ(login("old.example").user, "new");
}

TEST_F(DockerConfigTest, RefusesWhatIsDamaged) {
    for (const char* text : {"{", "[]", R"({"auths":{"x":{"auth":"!"}}})", R"({"auths":{"x":{"auth":"bm9jb2xvbg=="}}})"}) {
        write(text);
        auto access = caller_access(options_);
        bool fine = access && (*access)("x");
        EXPECT_FALSE(fine) << text;
    }
    write(R"({"credsStore":"../../bin/sh"})");
    auto access = caller_access(options_);
    EXPECT_FALSE(access && (*access)("x"));
}

TEST_F(DockerConfigTest, RefusesWhatIsNoRegistry) {
    for (const char* name : {"", "a/b", "a b", "https://x", "x?y"}) EXPECT_FALSE(store_registry_login(name, {"u", Secret("p"), {}}, options_)) << name;
}

}  // namespace
}  // namespace caisson::image::registry

namespace caisson {
namespace {

TEST(Secret, CopiesMovesAndGrows) {
    Secret one("pass");
    Secret two = one;
    two.append("word");
    EXPECT_EQ(one.reveal(), "pass");
    EXPECT_EQ(two.reveal(), "password");
    Secret three = std::move(two);
    EXPECT_EQ(three.reveal(), "password");
    three.clear();
    EXPECT_TRUE(three.empty());
}

TEST(Secret, IsZeroedWhenItGoes) {
    std::string text(100, 'x');
    const char* place = text.data();
    wipe(text);
    EXPECT_EQ(std::string(place, 100), std::string(100, '\0'));
}

}  // namespace
}  // namespace caisson
