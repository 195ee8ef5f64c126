// Image names and addresses of registries. What is accepted must mean the same when it is written and read again.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "image/name.h"
#include "image/registry/client.h"
#include "image/registry/url.h"

using namespace caisson::image;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::string_view text(reinterpret_cast<const char*>(data), size);
    auto check = [](bool fine) {
        if (!fine) std::abort();
    };
    if (auto reference = parse_reference(text)) {
        auto again = parse_reference(reference->name());
        check(again && again->repository == reference->repository && again->name() == reference->name());
        auto place = registry::place_of(*reference);
        check(!place.registry.empty() && !place.repository.empty());
        // Nothing in a name may lead a request to another host or another path.
        check(place.repository.find_first_of("?#%\\@: \r\n") == std::string::npos && place.repository.find("..") == std::string::npos);
        if (auto url = registry::url_of(place.registry)) check(url->target == "/");
    }
    if (auto url = registry::parse_url(text)) {
        auto again = registry::parse_url(url->to_string());
        check(again && again->origin() == url->origin() && again->target == url->target);
        check(url->host.find_first_of("/@?# \r\n") == std::string::npos);
        if (auto next = registry::resolve_url(*url, text)) check(next->port > 0 && next->port < 65536);
    }
    return 0;
}
