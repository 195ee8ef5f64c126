// Registries: what a caller has for them (logins, certificate authorities), and how an image is pulled.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "caisson/export.h"
#include "caisson/result.h"
#include "caisson/secret.h"

namespace caisson {

struct RegistryLogin {
    std::string user;
    Secret password;
    Secret identity_token;  // instead of a password: an OAuth2 refresh token
    bool empty() const { return user.empty() && identity_token.empty(); }
};

// Proxies on the way to registries, as curl and docker have them: "http://[user:password@]host:port", or https:// for a
// proxy that speaks TLS itself. Registries with TLS are reached through a tunnel. Loopback is never asked through one.
struct RegistryProxies {
    Secret https, http;    // for registries with and without TLS; empty: none
    std::string no_proxy;  // hosts, domains with all below them, addresses, CIDRs, separated by commas; or "*"
    bool empty() const { return https.empty() && http.empty(); }
};

// What one registry is asked with.
struct RegistryAccess {
    RegistryLogin login;          // empty: anonymously
    std::string authorities_pem;  // certificates of authorities, trusted besides the host's
    RegistryProxies proxies;      // those of the image's own registry hold for its mirrors, too
};

// Asked with the name of a registry ("docker.io", "ghcr.io", "localhost:5000") when one is about to be used.
using RegistryAccessSource = std::function<Result<RegistryAccess>(const std::string& registry)>;

struct CallerAccessOptions {
    std::string authorities_file;   // PEM; for every registry, besides /etc/docker/certs.d/REGISTRY/*.crt
    std::string docker_config;      // directory; empty: $DOCKER_CONFIG, else ~/.docker
    // Programs that are to be started as root call caller_access() before leave_root(); a credential helper that this
    // image's registry needs is then asked at once, since later only the service user could.
    std::string image;
};

// What the calling user has: logins of docker's config.json (in the file, or by credential helpers), authorities, and the
// proxies of the environment: HTTPS_PROXY, HTTP_PROXY, NO_PROXY, or the same in lower case. Everything is read when it is
// first needed, as root at once. Errors: kNotFound, kPermission, kCorrupt, kUsage, naming the file or variable.
CAISSON_API Result<RegistryAccessSource> caller_access(const CallerAccessOptions& options);

// Stores a login for `registry` where docker looks for it: with the credential helper if one is configured, else in
// config.json (0600, replaced atomically). Returns where, for people. Does not ask the registry; see
// Runtime::check_registry_login().
CAISSON_API Result<std::string> store_registry_login(const std::string& registry, const RegistryLogin& login,
                                         const CallerAccessOptions& options = {});
// Removes it. False if there was none.
CAISSON_API Result<bool> remove_registry_login(const std::string& registry, const CallerAccessOptions& options = {});

// The registry that an image's name points to: "docker.io" for "debian:12". kUsage for what is no name.
CAISSON_API Result<std::string> registry_of(std::string_view image);

// How far one layer of a pull is.
struct LayerProgress {
    enum class State {
        kWaiting,      // another process downloads it
        kDownloading,
        kDone,
        kPresent,      // it was in the store already
    };
    std::size_t number = 0, count = 0;  // from 1
    std::string digest;
    State state = State::kWaiting;
    std::uint64_t done_bytes = 0, total_bytes = 0;
};

struct PullOptions {
    std::string platform;       // "linux/arm64", "linux/arm/v7"; empty: this host's
    bool plain_http = false;    // without TLS; registries on loopback need not ask for it
    RegistryAccessSource access;  // empty: anonymously, with the host's authorities
    // Told about each layer, on the thread that called.
    std::function<void(const LayerProgress&)> on_layer;
};

}  // namespace caisson
