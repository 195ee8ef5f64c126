// Index, manifest, config and docker's manifest.json. The first byte chooses the parser; what is accepted must survive
// being written and read again.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "image/oci_json.h"

using namespace caisson::image;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
    auto check = [](bool fine) {
        if (!fine) std::abort();
    };
    switch (data[0] % 4) {
        case 0:
            if (auto index = parse_index(text)) {
                auto again = parse_index(write_index(*index));
                check(again && again->manifests.size() == index->manifests.size());
            }
            break;
        case 1:
            if (auto manifest = parse_manifest(text)) {
                auto again = parse_manifest(write_manifest(*manifest));
                check(again && again->layers.size() == manifest->layers.size());
            }
            break;
        case 2:
            if (auto config = parse_config(text)) {
                auto again = parse_config(write_config(config->config, config->diff_ids));
                check(again && again->config.cmd == config->config.cmd && again->config.env == config->config.env &&
                      again->config.labels == config->config.labels && again->diff_ids == config->diff_ids);
            }
            break;
        case 3: static_cast<void>(parse_docker_manifest(text)); break;
    }
    return 0;
}
