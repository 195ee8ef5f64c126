#include "image/registry/settings.h"

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "image/limits.h"
#include "image/oci_json.h"
#include "os/file.h"

namespace caisson::image::registry {

using base::failure;
using base::printable;
using nlohmann::json;

namespace {

Result<> known_keys(const json& object, std::initializer_list<std::string_view> keys, const std::string& where) {
    if (!object.is_object()) return failure(Errc::kUsage, where + " is not an object");
    for (const auto& [key, value] : object.items())
        if (std::find(keys.begin(), keys.end(), key) == keys.end())
            return failure(Errc::kUsage, where + " has the unknown key \"" + printable(key, 100) + "\"");
    return {};
}

Result<bool> flag(const json& object, const char* key, const std::string& where) {
    auto found = object.find(key);
    if (found == object.end()) return false;
    if (!found->is_boolean()) return failure(Errc::kUsage, where + ": \"" + key + "\" is neither true nor false");
    return found->get<bool>();
}

Result<std::uint64_t> number(const json& object, const char* key, std::uint64_t fallback, std::uint64_t least, std::uint64_t most) {
    auto found = object.find(key);
    if (found == object.end()) return fallback;
    if (!found->is_number_unsigned() || found->get<std::uint64_t>() < least || found->get<std::uint64_t>() > most)
        return failure(Errc::kUsage, std::string("\"") + key + "\" is not a number from " + std::to_string(least) + " to " + std::to_string(most));
    return found->get<std::uint64_t>();
}

Result<MirrorSetting> parse_mirror(const json& item, const std::string& where) {
    MirrorSetting mirror;
    std::string url;
    if (item.is_string()) {
        url = item.get<std::string>();
    } else {
        CAISSON_TRY(known_keys(item, {"url", "plain_http"}, where));
        auto found = item.find("url");
        if (found == item.end() || !found->is_string()) return failure(Errc::kUsage, where + " has no \"url\"");
        url = found->get<std::string>();
        mirror.plain_http = CAISSON_TRY(flag(item, "plain_http", where));
    }
    mirror.url = CAISSON_TRY_CTX(parse_url(url), where);
    if (!mirror.url.tls && !mirror.plain_http && !is_loopback(mirror.url.host))
        return failure(Errc::kUsage, where + " " + printable(url, 200) + " has no TLS",
                       "write {\"url\": ..., \"plain_http\": true} if its network is to be trusted");
    while (mirror.url.target.ends_with('/')) mirror.url.target.pop_back();
    return mirror;
}

}  // namespace

Result<Settings> parse_settings(std::string_view text) {
    auto document = CAISSON_TRY(parse_json(text, "it"));
    CAISSON_TRY(known_keys(document, {"registries", "parallel_layers", "stall_seconds"}, "it"));
    Settings settings;
    settings.parallel_layers = CAISSON_TRY(number(document, "parallel_layers", 4, 1, 16));
    settings.stall_seconds = static_cast<int>(CAISSON_TRY(number(document, "stall_seconds", 30, 1, 3600)));
    auto registries = document.find("registries");
    if (registries == document.end()) return settings;
    if (!registries->is_object()) return failure(Errc::kUsage, "\"registries\" is not an object");
    for (const auto& [name, item] : registries->items()) {
        const auto where = "\"" + printable(name, 200) + "\"";
        CAISSON_TRY(known_keys(item, {"mirrors", "plain_http"}, where));
        RegistrySetting setting;
        setting.plain_http = CAISSON_TRY(flag(item, "plain_http", where));
        if (auto mirrors = item.find("mirrors"); mirrors != item.end()) {
            if (!mirrors->is_array() || mirrors->size() > kMaxMirrors)
                return failure(Errc::kUsage, "the mirrors of " + where + " are not a list of at most " + std::to_string(kMaxMirrors));
            for (const auto& mirror : *mirrors)
                setting.mirrors.push_back(CAISSON_TRY(parse_mirror(mirror, "a mirror of " + where)));
        }
        settings.registries[name] = std::move(setting);
    }
    return settings;
}

Result<Settings> read_settings(const std::string& path) {
    auto text = os::read_file(path, kMaxSettingsBytes);
    if (!text && text.error().code == Errc::kNotFound) return Settings{};
    if (!text) return failure(std::move(text).error());
    return CAISSON_TRY_CTX(parse_settings(*text), path);
}

}  // namespace caisson::image::registry
