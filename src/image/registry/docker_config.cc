// What the calling user has for registries, where docker keeps it: logins in ~/.docker/config.json or with a credential
// helper, certificate authorities in /etc/docker/certs.d. Runs as the caller, before root is given up.
//
// Source: docker's documentation of `docker login` (config.json, credential helpers and their protocol) and of
// certificates for registries.
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "caisson/registry.h"
#include "image/limits.h"
#include "image/oci_json.h"
#include "image/registry/base64.h"
#include "image/registry/client.h"
#include "image/registry/proxy.h"
#include "os/file.h"
#include "os/process.h"

namespace caisson {

using base::failure;
using base::printable;
using nlohmann::ordered_json;

namespace {

constexpr const char* kHubKey = "https://index.docker.io/v1/";
constexpr const char* kTokenUser = "<token>";  // a helper's way to say that the secret is an identity token
constexpr const char* kCertificates = "/etc/docker/certs.d/";
constexpr std::chrono::seconds kHelperDeadline{120};  // it may ask its user something
constexpr std::size_t kMaxHelperBytes = 64 << 10;
constexpr std::size_t kMaxCertificateFiles = 64;

Result<> check_registry(const std::string& registry) {
    if (auto url = image::registry::url_of(registry); url && url->target == "/") return {};
    return failure(Errc::kUsage, "\"" + printable(registry, 200) + "\" is not a registry", "name it as ghcr.io or localhost:5000");
}

std::string key_of(const std::string& registry) { return registry == "docker.io" ? kHubKey : registry; }

// What older tools write as a key: with scheme, with a path.
std::string registry_of_key(std::string_view key) {
    for (std::string_view scheme : {"https://", "http://"})
        if (key.starts_with(scheme)) key.remove_prefix(scheme.size());
    key = key.substr(0, key.find('/'));
    if (key == "index.docker.io" || key == "registry-1.docker.io" || key == "docker.io") return "docker.io";
    return std::string(key);
}

Result<std::string> directory_of(const CallerAccessOptions& options) {
    if (!options.docker_config.empty()) return options.docker_config;
    if (const char* set = ::getenv("DOCKER_CONFIG"); set != nullptr && *set != '\0') return std::string(set);
    if (const char* home = ::getenv("HOME"); home != nullptr && *home != '\0') return std::string(home) + "/.docker";
    return std::string();
}

// ---- credential helpers ------------------------------------------------------------------------------------------

Result<std::string> find_helper(const std::string& name) {
    if (name.empty() || name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != std::string::npos)
        return failure(Errc::kCorrupt, "docker's config.json names the credential helper \"" + printable(name, 100) + "\", which is no name");
    const auto program = "docker-credential-" + name;
    const char* path = ::getenv("PATH");
    for (const auto& directory : base::split(path == nullptr ? "/usr/local/bin:/usr/bin:/bin" : path, ':'))
        if (directory.starts_with('/') && ::access((directory + "/" + program).c_str(), X_OK) == 0) return directory + "/" + program;
    return failure(Errc::kHostMissing, "the credential helper " + program + ", which docker's config.json names, is not installed",
                   "install it, or remove it from config.json (credsStore, credHelpers)");
}

struct HelperAnswer {
    bool succeeded = false;
    Secret output;
};

// One request: `verb` as its argument, `input` on standard input.
Result<HelperAnswer> ask_helper(const std::string& name, const std::string& verb, std::string_view input) {
    os::Command command;
    command.arguments = {CAISSON_TRY(find_helper(name)), verb};
    for (char** variable = environ; *variable != nullptr; ++variable) command.environment.emplace_back(*variable);
    auto in = CAISSON_TRY(os::make_socketpair(SOCK_STREAM));
    auto out = CAISSON_TRY(os::make_pipe());
    command.descriptors = {{in.second.get(), STDIN_FILENO}, {out.second.get(), STDOUT_FILENO}};
    auto process = CAISSON_TRY(os::spawn(command));
    in.second.reset();
    out.second.reset();
    // A socket's buffer takes all of it at once; a helper that does not read is its own trouble.
    static_cast<void>(::send(in.first.get(), input.data(), input.size(), MSG_NOSIGNAL | MSG_DONTWAIT));
    in.first.reset();
    auto text = os::read_fd(out.first.get(), kMaxHelperBytes, "the credential helper's answer");
    auto ended = process.wait(kHelperDeadline);
    if (!text) return failure(std::move(text).error());
    HelperAnswer answer{false, Secret(*text)};
    wipe(*text);
    if (!ended) return failure(Errc::kTimeout, "the credential helper docker-credential-" + name + " does not end");
    answer.succeeded = !ended->signalled && ended->code == 0;
    return answer;
}

Result<RegistryLogin> login_from_helper(const std::string& name, const std::string& registry) {
    auto answer = CAISSON_TRY(ask_helper(name, "get", key_of(registry)));
    if (!answer.succeeded) {
        auto said = base::trim(answer.output.reveal());
        if (said.find("credentials not found") != std::string_view::npos) return RegistryLogin{};
        return failure(Errc::kIo, "the credential helper docker-credential-" + name + " failed: " + printable(said, 300));
    }
    auto document = CAISSON_TRY(image::parse_json(answer.output.reveal(), "the credential helper's answer"));
    RegistryLogin login;
    auto user = document.is_object() ? document.find("Username") : document.end();
    auto secret = document.is_object() ? document.find("Secret") : document.end();
    if (user == document.end() || secret == document.end() || !user->is_string() || !secret->is_string())
        return failure(Errc::kCorrupt, "the answer of the credential helper docker-credential-" + name + " cannot be understood");
    if (*user == kTokenUser) login.identity_token = Secret(secret->get_ref<std::string&>());
    else {
        login.user = user->get<std::string>();
        login.password = Secret(secret->get_ref<std::string&>());
    }
    wipe(secret->get_ref<std::string&>());
    return login;
}

// ---- config.json -------------------------------------------------------------------------------------------------

struct DockerConfig {
    std::map<std::string, RegistryLogin> logins;
    std::map<std::string, std::string> helpers;  // by registry
    std::string store;                           // the helper of all others

    std::string helper_for(const std::string& registry) const {
        auto own = helpers.find(registry);
        return own == helpers.end() ? store : own->second;
    }
};

Result<> read_logins(ordered_json& auths, DockerConfig& config, const std::string& path) {
    for (auto& [key, item] : auths.items()) {
        if (!item.is_object()) continue;
        RegistryLogin login;
        if (auto token = item.find("identitytoken"); token != item.end() && token->is_string()) {
            login.identity_token = Secret(token->get_ref<std::string&>());
            wipe(token->get_ref<std::string&>());
        }
        if (auto auth = item.find("auth"); auth != item.end() && auth->is_string() && !auth->get_ref<std::string&>().empty()) {
            auto pair = image::registry::base64_decode(auth->get_ref<std::string&>());
            wipe(auth->get_ref<std::string&>());
            auto colon = pair ? pair->find(':') : std::string::npos;
            if (colon == std::string::npos)
                return failure(Errc::kCorrupt, path + ": the login for \"" + printable(key, 200) + "\" is damaged", "log in again");
            login.user = pair->substr(0, colon);
            auto password = std::string_view(*pair).substr(colon + 1);
            while (password.ends_with('\0')) password.remove_suffix(1);
            login.password = Secret(password);
            wipe(*pair);
        }
        // A key as docker writes it wins over older spellings.
        auto registry = registry_of_key(key);
        if (!login.empty() && (key == key_of(registry) || !config.logins.contains(registry))) config.logins[registry] = std::move(login);
    }
    return {};
}

Result<ordered_json> parse_config_file(const std::string& path) {
    auto text = os::read_file(path, image::kMaxSettingsBytes);
    if (!text && text.error().code == Errc::kNotFound) return ordered_json(ordered_json::object());
    if (!text) return failure(std::move(text).error());
    if (base::trim(*text).empty()) return ordered_json(ordered_json::object());
    auto sane = image::parse_json(*text, path);
    auto document = sane ? ordered_json::parse(*text, nullptr, false) : ordered_json();
    wipe(*text);
    if (!sane) return failure(std::move(sane).error());
    if (!document.is_object()) return failure(Errc::kCorrupt, path + " is not a JSON object");
    return document;
}

Result<DockerConfig> read_config(const std::string& directory) {
    DockerConfig config;
    if (directory.empty()) return config;
    const auto path = directory + "/config.json";
    auto document = CAISSON_TRY(parse_config_file(path));
    if (auto auths = document.find("auths"); auths != document.end() && auths->is_object())
        CAISSON_TRY(read_logins(*auths, config, path));
    if (auto store = document.find("credsStore"); store != document.end() && store->is_string()) config.store = store->get<std::string>();
    if (auto helpers = document.find("credHelpers"); helpers != document.end() && helpers->is_object())
        for (const auto& [key, name] : helpers->items())
            if (name.is_string()) config.helpers[registry_of_key(key)] = name.get<std::string>();
    return config;
}

Result<> check_pem(const std::string& text, const std::string& path) {
    if (text.find("-----BEGIN CERTIFICATE-----") != std::string::npos) return {};
    return failure(Errc::kUsage, path + " holds no certificate", "it must be PEM: -----BEGIN CERTIFICATE-----");
}

// docker's own place for the authorities of one registry.
Result<std::string> authorities_of_host(const std::string& registry) {
    std::string pem;
    const auto directory = kCertificates + registry;
    auto names = os::list_directory(directory);
    if (!names) return pem;  // none, or not for us to read
    std::sort(names->begin(), names->end());
    if (names->size() > kMaxCertificateFiles) return failure(Errc::kLimit, directory + " holds too many files");
    for (const auto& name : *names) {
        if (!name.ends_with(".crt")) continue;
        auto text = CAISSON_TRY(os::read_file(directory + "/" + name, image::kMaxSettingsBytes));
        CAISSON_TRY(check_pem(text, directory + "/" + name));
        pem += text + "\n";
    }
    return pem;
}

// In capitals first, as docker has it.
std::string_view variable(const char* name, const char* lower_name) {
    const char* value = ::getenv(name);
    if (value == nullptr || *value == '\0') value = ::getenv(lower_name);
    return value == nullptr ? "" : value;
}

Result<RegistryProxies> proxies_of_environment() {
    using namespace image::registry;
    RegistryProxies proxies;
    proxies.https = CAISSON_TRY_CTX(normalized_proxy(variable("HTTPS_PROXY", "https_proxy")), "HTTPS_PROXY");
    proxies.http = CAISSON_TRY_CTX(normalized_proxy(variable("HTTP_PROXY", "http_proxy")), "HTTP_PROXY");
    proxies.no_proxy = CAISSON_TRY(checked_no_proxy(variable("NO_PROXY", "no_proxy")));
    return proxies;
}

// Everything the caller has; shared by the copies of the function that asks it.
class Caller {
  public:
    explicit Caller(CallerAccessOptions options) : options_(std::move(options)) {}

    // Of what only the caller may read or ask: all of it for `registry`, the files for others.
    Result<> load(const std::string& registry) {
        std::scoped_lock guard(mutex_);
        CAISSON_TRY(load_files());
        if (!registry.empty()) known_[registry] = CAISSON_TRY(collect(registry));
        return {};
    }

    Result<RegistryAccess> access(const std::string& registry) {
        std::scoped_lock guard(mutex_);
        if (auto known = known_.find(registry); known != known_.end()) return known->second;
        CAISSON_TRY(load_files());
        return collect(registry);
    }

  private:
    Result<> load_files() {
        if (loaded_) return {};
        if (!options_.authorities_file.empty()) {
            authorities_ = CAISSON_TRY_CTX(os::read_file(options_.authorities_file, image::kMaxSettingsBytes), "--tls-ca");
            CAISSON_TRY(check_pem(authorities_, options_.authorities_file));
        }
        config_ = CAISSON_TRY(read_config(CAISSON_TRY(directory_of(options_))));
        loaded_ = true;
        return {};
    }
    Result<RegistryAccess> collect(const std::string& registry) {
        RegistryAccess access;
        access.authorities_pem = authorities_ + CAISSON_TRY(authorities_of_host(registry));
        access.proxies = CAISSON_TRY(proxies_of_environment());
        if (auto helper = config_.helper_for(registry); !helper.empty()) access.login = CAISSON_TRY(login_from_helper(helper, registry));
        if (access.login.empty())
            if (auto login = config_.logins.find(registry); login != config_.logins.end()) access.login = login->second;
        return access;
    }

    CallerAccessOptions options_;
    std::mutex mutex_;
    bool loaded_ = false;
    std::string authorities_;
    DockerConfig config_;
    std::map<std::string, RegistryAccess> known_;
};

// Where a change of config.json goes: through a link to its target, which the link's owner put there.
std::string target_of(const std::string& path) {
    char* real = ::realpath(path.c_str(), nullptr);
    if (real == nullptr) return path;
    std::string target(real);
    ::free(real);
    return target;
}

Result<> write_config(const std::string& directory, const ordered_json& document) {
    CAISSON_TRY(os::make_directories(directory, 0700));
    auto text = document.dump(1, '\t', false, ordered_json::error_handler_t::replace) + "\n";
    auto written = os::write_file_atomic(target_of(directory + "/config.json"), text, 0600);
    wipe(text);
    return written;
}

}  // namespace

Result<RegistryAccessSource> caller_access(const CallerAccessOptions& options) {
    auto caller = std::make_shared<Caller>(options);
    // Wrong options show at once; as root everything must be read before it is given up.
    if (::geteuid() == 0 || !options.authorities_file.empty()) {
        std::string registry;
        if (::geteuid() == 0 && !options.image.empty())
            if (auto name = registry_of(options.image)) registry = *name;
        CAISSON_TRY(caller->load(registry));
    }
    return RegistryAccessSource([caller](const std::string& registry) { return caller->access(registry); });
}

Result<std::string> store_registry_login(const std::string& registry, const RegistryLogin& login, const CallerAccessOptions& options) {
    CAISSON_TRY(check_registry(registry));
    const auto directory = CAISSON_TRY(directory_of(options));
    if (directory.empty()) return failure(Errc::kUsage, "there is no place for the login: HOME is not set", "set HOME or DOCKER_CONFIG");
    auto config = CAISSON_TRY(read_config(directory));
    if (auto helper = config.helper_for(registry); !helper.empty()) {
        ordered_json request{{"ServerURL", key_of(registry)},
                             {"Username", login.identity_token.empty() ? login.user : std::string(kTokenUser)},
                             {"Secret", std::string((login.identity_token.empty() ? login.password : login.identity_token).reveal())}};
        auto text = request.dump();
        wipe(request["Secret"].get_ref<std::string&>());
        auto answer = ask_helper(helper, "store", text);
        wipe(text);
        if (!answer) return failure(std::move(answer).error());
        if (!answer->succeeded)
            return failure(Errc::kIo, "the credential helper docker-credential-" + helper + " failed: " + printable(base::trim(answer->output.reveal()), 300));
        return "the credential helper docker-credential-" + helper;
    }
    const auto path = directory + "/config.json";
    auto document = CAISSON_TRY(parse_config_file(path));
    if (!document.contains("auths") || !document["auths"].is_object()) document["auths"] = ordered_json::object();
    auto& auths = document["auths"];
    std::vector<std::string> old;
    for (const auto& [key, item] : auths.items())
        if (registry_of_key(key) == registry) old.push_back(key);
    for (const auto& key : old) auths.erase(key);
    ordered_json entry = ordered_json::object();
    Secret pair(login.user + ":");
    pair.append(login.password.reveal());
    entry["auth"] = image::registry::base64_encode(pair.reveal());
    if (!login.identity_token.empty()) entry["identitytoken"] = std::string(login.identity_token.reveal());
    auths[key_of(registry)] = std::move(entry);
    CAISSON_TRY(write_config(directory, document));
    return path;
}

Result<bool> remove_registry_login(const std::string& registry, const CallerAccessOptions& options) {
    CAISSON_TRY(check_registry(registry));
    const auto directory = CAISSON_TRY(directory_of(options));
    auto config = CAISSON_TRY(read_config(directory));
    bool removed = false;
    if (auto helper = config.helper_for(registry); !helper.empty()) {
        removed = !CAISSON_TRY(login_from_helper(helper, registry)).empty();
        if (removed) {
            auto answer = CAISSON_TRY(ask_helper(helper, "erase", key_of(registry)));
            if (!answer.succeeded)
                return failure(Errc::kIo, "the credential helper docker-credential-" + helper + " failed: " + printable(base::trim(answer.output.reveal()), 300));
        }
    }
    if (directory.empty()) return removed;
    auto document = CAISSON_TRY(parse_config_file(directory + "/config.json"));
    auto auths = document.find("auths");
    if (auths == document.end() || !auths->is_object()) return removed;
    std::vector<std::string> old;
    for (const auto& [key, item] : auths->items())
        if (registry_of_key(key) == registry) old.push_back(key);
    if (old.empty()) return removed;
    for (const auto& key : old) auths->erase(key);
    CAISSON_TRY(write_config(directory, document));
    return true;
}

}  // namespace caisson
