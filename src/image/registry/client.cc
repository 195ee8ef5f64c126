#include "image/registry/client.h"

#include <sys/resource.h>

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "image/helper.h"
#include "image/layout.h"
#include "image/limits.h"
#include "image/registry/proxy.h"
#include "jail/jail.h"
#include "jail/kinds.h"

namespace caisson::image::registry {

using base::failure;
using nlohmann::json;

namespace {

// Copies secrets behind the request's line, and remembers in it how long each is.
class RequestWriter {
  public:
    Result<json> endpoint(const Url& url, const std::string& name, const std::string& repository, bool plain_http,
                          const RegistryAccess& access) {
        secrets_.append(access.login.password.reveal());
        secrets_.append(access.login.identity_token.reveal());
        // On loopback there may be no TLS; whoever gave an authority expects it.
        return json{{"url", url.to_string()}, {"name", name}, {"repository", repository}, {"plain_http", plain_http || !url.tls},
                    {"try_plain", is_loopback(url.host) && access.authorities_pem.empty()},
                    {"authorities", access.authorities_pem}, {"user", access.login.user},
                    {"password_bytes", access.login.password.size()}, {"identity_token_bytes", access.login.identity_token.size()}};
    }
    // Behind the endpoints'. Embedding programs may have written them as people do.
    Result<json> proxies(const RegistryProxies& proxies) {
        auto https = CAISSON_TRY_CTX(normalized_proxy(proxies.https.reveal()), "the proxy for TLS");
        auto http = CAISSON_TRY_CTX(normalized_proxy(proxies.http.reveal()), "the proxy for plain HTTP");
        secrets_.append(https.reveal());
        secrets_.append(http.reveal());
        return json{{"https_bytes", https.size()}, {"http_bytes", http.size()}, {"no_proxy", CAISSON_TRY(checked_no_proxy(proxies.no_proxy))}};
    }
    const Secret& secrets() const { return secrets_; }

  private:
    Secret secrets_;
};

// Connections, downloads and what the libraries open beside them.
constexpr unsigned long long kMaxClientFiles = 1024;

struct Places {
    std::string downloads, blobs;  // as caisson-fetch sees them
};

jail::Description describe(const Store::Options& options, const std::string& downloads_directory, Places& places) {
    jail::Description description;
    description.name = "registry client";
    description.filter = jail::fetch_filter();
    description.share_network = true;
    description.die_with_parent = false;  // its life hangs on its standard input
    const Layout layout{options.images_directory};
#ifdef CAISSON_STATIC_UNPACKER
    places = {"/downloads", "/blobs"};
    using Kind = jail::Mount::Kind;
    // Libraries; name resolution; certificate authorities. Nothing that belongs to a user.
    for (const char* path : {"/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates",
                             "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/ld.so.cache", "/etc/resolv.conf", "/etc/hosts",
                             "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf"})
        if (os::exists(path)) description.mounts.push_back({Kind::kReadOnly, path, path});
    description.mounts.push_back({Kind::kReadOnly, options.fetch_program, "/caisson-fetch"});
    description.mounts.push_back({Kind::kReadOnly, layout.blobs(), places.blobs});
    if (!downloads_directory.empty()) description.mounts.push_back({Kind::kReadWrite, downloads_directory, places.downloads});
    description.arguments = {"/caisson-fetch"};
    jail::enter_by(description, options.enter_program, "/caisson-enter");
#else
    places = {downloads_directory, layout.blobs()};
    description.root = "/";  // sanitizers need more than libraries
    if (!downloads_directory.empty())
        description.mounts.push_back({jail::Mount::Kind::kReadWrite, downloads_directory, downloads_directory});
    description.arguments = {options.fetch_program};
#endif
    // Its own checks end a download long before this; it ends one that is taken over.
    description.resource_limits = {{RLIMIT_FSIZE, kMaxBlobBytes}, {RLIMIT_NOFILE, kMaxClientFiles}};
    return description;
}

LayerProgress::State state_of(const std::string& name) {
    if (name == "downloading") return LayerProgress::State::kDownloading;
    if (name == "done") return LayerProgress::State::kDone;
    if (name == "present") return LayerProgress::State::kPresent;
    return LayerProgress::State::kWaiting;
}

Result<json> run(const Store::Options& options, const Downloads& downloads, json request, const RequestWriter& writer,
                 const std::string& what, const std::function<void(const LayerProgress&)>& on_layer) {
    Places places;
    auto description = describe(options, downloads.directory, places);
    request["downloads"] = places.downloads;
    request["blobs"] = places.blobs;
    request["secret_bytes"] = writer.secrets().size();
    auto channels = CAISSON_TRY(HelperChannels::create(false));
    description.descriptors = channels.descriptors();
    auto client = CAISSON_TRY(jail::start(description));
    client.init.learn();  // it has read nothing yet
    auto line = request.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
    HelperTalk talk{.who = "the registry client", .what = what, .request = {line, writer.secrets().reveal()}};
    talk.further_errors = {Errc::kNotFound, Errc::kTimeout, Errc::kProtocol, Errc::kUsage};
    if (on_layer)
        talk.progress = [&](const json& said) {
            auto layer = said.find("layer");
            if (layer == said.end() || !layer->is_object()) return;
            on_layer({number_field(*layer, "number"), number_field(*layer, "count"), text_field(*layer, "digest"),
                      state_of(text_field(*layer, "state")), number_field(*layer, "done"), number_field(*layer, "total")});
        };
    return converse(std::move(channels), std::move(client), talk);
}

}  // namespace

jail::Description client_jail(const Store::Options& options, const std::string& downloads_directory) {
    Places places;
    return describe(options, downloads_directory, places);
}

Place place_of(const Reference& reference) {
    auto slash = reference.repository.find('/');
    auto first = reference.repository.substr(0, slash);
    if (slash != std::string::npos && is_registry_part(first)) return {first, reference.repository.substr(slash + 1)};
    return {"docker.io", slash == std::string::npos ? "library/" + reference.repository : reference.repository};
}

Result<Url> url_of(const std::string& registry) {
    return parse_url("https://" + (registry == "docker.io" ? std::string("registry-1.docker.io") : registry));
}

Result<Answer> run_fetch(const Store::Options& options, const Downloads& downloads, const Reference& reference,
                         const std::string& os, const std::string& architecture, const std::string& variant,
                         const PullOptions& pull) {
    auto settings = CAISSON_TRY(read_settings(options.registries_file));
    auto place = place_of(reference);
    const auto& setting = settings.registries[place.registry];
    auto access_of = [&](const std::string& registry) -> Result<RegistryAccess> {
        return pull.access ? pull.access(registry) : RegistryAccess{};
    };
    RequestWriter writer;
    auto endpoints = json::array();
    for (const auto& mirror : setting.mirrors) {
        auto name = mirror.url.authority();
        endpoints.push_back(CAISSON_TRY(writer.endpoint(mirror.url, name, place.repository, mirror.plain_http, CAISSON_TRY(access_of(name)))));
    }
    auto access = CAISSON_TRY(access_of(place.registry));
    endpoints.push_back(CAISSON_TRY(writer.endpoint(CAISSON_TRY(url_of(place.registry)), place.registry, place.repository,
                                                    pull.plain_http || setting.plain_http, access)));
    json request{{"operation", "pull"}, {"endpoints", endpoints}, {"proxies", CAISSON_TRY(writer.proxies(access.proxies))},
                 {"tag", reference.tag}, {"digest", reference.digest},
                 {"os", os}, {"architecture", architecture}, {"variant", variant},
                 {"parallel", settings.parallel_layers}, {"stall_seconds", settings.stall_seconds}};
    auto said = CAISSON_TRY(run(options, downloads, std::move(request), writer, "pulling " + base::printable(reference.name(), 300), pull.on_layer));
    Answer answer;
    answer.manifest = {text_field(said, "media_type"), text_field(said, "digest"), number_field(said, "size")};
    answer.source_digest = text_field(said, "source_digest");
    CAISSON_TRY(digest_hex(answer.manifest.digest));
    CAISSON_TRY(digest_hex(answer.source_digest));
    return answer;
}

Result<> run_login_check(const Store::Options& options, const std::string& registry, const RegistryAccess& access, bool plain_http) {
    auto settings = CAISSON_TRY(read_settings(options.registries_file));
    RequestWriter writer;
    auto endpoints = json::array();
    endpoints.push_back(CAISSON_TRY(writer.endpoint(CAISSON_TRY(url_of(registry)), registry, "", plain_http || settings.registries[registry].plain_http, access)));
    json request{{"operation", "check"}, {"endpoints", endpoints}, {"proxies", CAISSON_TRY(writer.proxies(access.proxies))},
                 {"stall_seconds", settings.stall_seconds}};
    CAISSON_TRY(run(options, {}, std::move(request), writer, "logging in to " + base::printable(registry, 300), {}));
    return {};
}

}  // namespace caisson::image::registry
