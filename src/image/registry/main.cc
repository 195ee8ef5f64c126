// caisson-fetch: asks registries, in a process and a jail of its own. It sees the host's resolver settings and
// certificate authorities, the store's blobs (read-only) and its downloads (writable), and nothing else of the host.
//
// The request is one line of JSON, then the secrets that it counts; see client.cc, which writes it. Answers as in
// image/protocol.h, progress being {"layer":{"number","count","digest","state","done","total"}}.
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "image/registry/fetch.h"
#include "image/status.h"

namespace {

using namespace caisson;
using namespace caisson::image;
using nlohmann::json;

const char* name_of(registry::BlobState state) {
    switch (state) {
        case registry::BlobState::kWaiting: return "waiting";
        case registry::BlobState::kDownloading: return "downloading";
        case registry::BlobState::kDone: return "done";
        case registry::BlobState::kPresent: return "present";
    }
    return "";
}

Result<registry::FetchPlan> read_plan(const json& request, const Secret& secrets) {
    registry::FetchPlan plan;
    auto left = secrets.reveal();
    auto take = [&left](const json& endpoint, const char* key) {
        auto size = std::min(endpoint.value(key, std::size_t{0}), left.size());
        Secret secret(left.substr(0, size));
        left.remove_prefix(size);
        return secret;
    };
    for (const auto& item : request.at("endpoints")) {
        registry::Endpoint endpoint;
        endpoint.url = CAISSON_TRY(registry::parse_url(item.value("url", "")));
        endpoint.name = item.value("name", "");
        endpoint.repository = item.value("repository", "");
        endpoint.plain_http = item.value("plain_http", false);
        endpoint.try_plain = item.value("try_plain", false);
        endpoint.authorities_pem = item.value("authorities", "");
        endpoint.user = item.value("user", "");
        endpoint.password = take(item, "password_bytes");
        endpoint.identity_token = take(item, "identity_token_bytes");
        endpoint.stall_timeout = std::chrono::seconds(request.value("stall_seconds", 30));
        plan.endpoints.push_back(std::move(endpoint));
    }
    if (plan.endpoints.empty()) return base::failure(Errc::kInternal, "no registry to ask");
    plan.tag = request.value("tag", "");
    plan.digest = request.value("digest", "");
    plan.platform = {request.value("os", ""), request.value("architecture", ""), request.value("variant", "")};
    plan.downloads = {request.value("downloads", "")};
    plan.blobs_directory = request.value("blobs", "");
    plan.parallel = request.value("parallel", std::size_t{4});
    RegistryProxies proxies;
    if (auto item = request.find("proxies"); item != request.end()) {
        proxies.https = take(*item, "https_bytes");
        proxies.http = take(*item, "http_bytes");
        proxies.no_proxy = item->value("no_proxy", "");
    }
    plan.http = registry::make_curl_factory("caisson/" CAISSON_VERSION, std::move(proxies));
    plan.news = [](const registry::LayerNews& news) {
        report_progress({{"layer",
                          {{"number", news.number}, {"count", news.count}, {"digest", news.digest},
                           {"state", name_of(news.state)}, {"done", news.done}, {"total", news.total}}}});
    };
    return plan;
}

Result<json> work() {
    Secret secrets;
    auto request = CAISSON_TRY(read_request(&secrets));
    auto plan = CAISSON_TRY(read_plan(request, secrets));
    secrets.clear();
    if (request.value("operation", "") == "check") {
        CAISSON_TRY(registry::check_login(plan));
        return json::object();
    }
    auto fetched = CAISSON_TRY(registry::fetch_image(plan));
    return json{{"media_type", fetched.manifest.media_type}, {"digest", fetched.manifest.digest},
                {"size", fetched.manifest.size}, {"source_digest", fetched.source_digest}};
}

}  // namespace

int main(int argc, char**) {
    if (argc != 1) {
        ::fputs("caisson-fetch is started by caisson; it has no use of its own\n", stderr);
        return 2;
    }
    ::prctl(PR_SET_DUMPABLE, 0);  // it holds passwords
    ::umask(0077);
    try {
        auto result = work();
        return result ? report_result(*result) : report_error(result.error());
    } catch (const std::exception& error) {
        return report_error(base::failure(Errc::kInternal, std::string("the request cannot be understood: ") + error.what()).value());
    }
}
