// <home>/registries.json: mirrors, and registries without TLS. Pure.
//
//   {"registries": {"docker.io": {"mirrors": ["https://mirror.example",
//                                             {"url": "http://10.0.0.2:5000", "plain_http": true}]},
//                   "registry.lan:5000": {"plain_http": true}},
//    "parallel_layers": 4, "stall_seconds": 30}
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "image/registry/url.h"

namespace caisson::image::registry {

struct MirrorSetting {
    Url url;
    bool plain_http = false;
};

struct RegistrySetting {
    std::vector<MirrorSetting> mirrors;  // asked in this order, before the registry itself
    bool plain_http = false;
};

struct Settings {
    std::map<std::string, RegistrySetting> registries;
    std::size_t parallel_layers = 4;
    int stall_seconds = 30;
};

// kUsage says what is wrong. Unknown keys are wrong, so that a typing error does not pass for a setting.
Result<Settings> parse_settings(std::string_view text);
// A missing file is one without settings.
Result<Settings> read_settings(const std::string& path);

}  // namespace caisson::image::registry
