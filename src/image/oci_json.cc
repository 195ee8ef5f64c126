#include "image/oci_json.h"

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "image/digest.h"
#include "image/limits.h"

namespace caisson::image {

using base::failure;
using base::printable;
using nlohmann::json;

namespace {

// Deepest nesting of brackets outside strings: looked at before parsing, since parsers recurse.
int depth_of(std::string_view text) {
    int depth = 0;
    int deepest = 0;
    bool in_string = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        char c = text[i];
        if (in_string) {
            if (c == '\\')
                ++i;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            deepest = std::max(deepest, ++depth);
        } else if (c == '}' || c == ']') {
            --depth;
        }
    }
    return deepest;
}

// Reads fields of one object; the first problem is kept and everything after it reads as empty.
class Fields {
  public:
    Fields(const json& object, std::string what) : object_(object), what_(std::move(what)) {
        if (!object.is_object()) wrong("is not an object");
    }

    // Missing and null read as empty, as Go's parsers have it.
    std::string text(const char* key, bool required = false) {
        const json* value = get(key, required);
        if (value == nullptr) return {};
        return text_of(*value, key);
    }
    std::uint64_t size(const char* key) {
        const json* value = get(key, true);
        if (value == nullptr) return 0;
        if (!value->is_number_unsigned() || value->get<std::uint64_t>() > kMaxBlobBytes) {
            wrong(std::string("has no usable \"") + key + "\"");
            return 0;
        }
        return value->get<std::uint64_t>();
    }
    // Between 0 and `largest`, what is missing being 0.
    std::uint64_t number(const char* key, std::uint64_t largest) {
        const json* value = get(key, false);
        if (value == nullptr) return 0;
        if (value->is_number_unsigned() && value->get<std::uint64_t>() <= largest) return value->get<std::uint64_t>();
        wrong(std::string("has no usable \"") + key + "\"");
        return 0;
    }
    std::vector<std::string> list(const char* key, std::size_t limit = kMaxConfigStrings) {
        const json* value = get(key, false);
        std::vector<std::string> texts;
        if (value == nullptr) return texts;
        if (!value->is_array()) {
            wrong(std::string("has a \"") + key + "\" that is not a list");
            return texts;
        }
        if (!within(value->size(), limit, key)) return texts;
        for (const auto& item : *value) texts.push_back(text_of(item, key));
        return texts;
    }
    std::map<std::string, std::string> map(const char* key) {
        const json* value = get(key, false);
        std::map<std::string, std::string> texts;
        if (value == nullptr) return texts;
        if (!value->is_object()) {
            wrong(std::string("has a \"") + key + "\" that is not an object");
            return texts;
        }
        if (!within(value->size(), kMaxConfigStrings, key)) return texts;
        for (const auto& [name, item] : value->items()) texts[checked(name, key)] = text_of(item, key);
        return texts;
    }
    std::vector<std::string> keys(const char* key) {
        const json* value = get(key, false);
        std::vector<std::string> texts;
        if (value == nullptr) return texts;
        if (!value->is_object()) {
            wrong(std::string("has a \"") + key + "\" that is not an object");
            return texts;
        }
        if (!within(value->size(), kMaxConfigStrings, key)) return texts;
        for (const auto& [name, item] : value->items()) texts.push_back(checked(name, key));
        return texts;
    }
    const json* array(const char* key, std::size_t limit) {
        const json* value = get(key, true);
        if (value == nullptr) return nullptr;
        if (!value->is_array()) {
            wrong(std::string("has a \"") + key + "\" that is not a list");
            return nullptr;
        }
        return within(value->size(), limit, key) ? value : nullptr;
    }
    const json* object(const char* key, bool required) {
        const json* value = get(key, required);
        if (value == nullptr) return nullptr;
        if (!value->is_object()) {
            wrong(std::string("has a \"") + key + "\" that is not an object");
            return nullptr;
        }
        return value;
    }
    void wrong(const std::string& why) { wrong(Errc::kCorrupt, why); }
    void wrong(Errc code, const std::string& why) {
        if (failed_) return;
        failed_ = true;
        error_ = failure(code, what_ + " " + why).value();
    }
    Result<> done() const {
        if (failed_) return failure(base::Error(error_));
        return {};
    }

  private:
    const json* get(const char* key, bool required) {
        if (failed_) return nullptr;
        auto found = object_.find(key);
        if (found != object_.end() && !found->is_null()) return &*found;
        if (required) wrong(std::string("has no \"") + key + "\"");
        return nullptr;
    }
    bool within(std::size_t count, std::size_t limit, const char* key) {
        if (count <= limit) return true;
        wrong(Errc::kLimit, std::string("has ") + std::to_string(count) + " \"" + key + "\" (the limit is " +
                                std::to_string(limit) + ")");
        return false;
    }
    std::string text_of(const json& value, const char* key) {
        if (!value.is_string()) {
            wrong(std::string("has a \"") + key + "\" that is not text");
            return {};
        }
        return checked(value.get_ref<const std::string&>(), key);
    }
    // These texts become arguments and variables: a zero byte would silently cut them.
    std::string checked(const std::string& value, const char* key) {
        if (value.find('\0') != std::string::npos) wrong(std::string("has a \"") + key + "\" with a zero byte");
        return value;
    }

    const json& object_;
    std::string what_;
    bool failed_ = false;
    base::Error error_;
};

Result<Descriptor> read_descriptor(const json& object, const std::string& what) {
    Fields fields(object, what);
    Descriptor descriptor;
    descriptor.media_type = fields.text("mediaType");
    descriptor.digest = fields.text("digest", true);
    descriptor.size = fields.size("size");
    descriptor.annotations = fields.map("annotations");
    descriptor.artifact_type = fields.text("artifactType");
    if (const json* platform = fields.object("platform", false)) {
        Fields inner(*platform, what);
        descriptor.os = inner.text("os");
        descriptor.architecture = inner.text("architecture");
        descriptor.variant = inner.text("variant");
        CAISSON_TRY(inner.done());
    }
    CAISSON_TRY(fields.done());
    CAISSON_TRY_CTX(digest_hex(descriptor.digest), what);
    return descriptor;
}

json write_descriptor(const Descriptor& descriptor) {
    json object{{"mediaType", descriptor.media_type}, {"digest", descriptor.digest}, {"size", descriptor.size}};
    if (!descriptor.annotations.empty()) object["annotations"] = descriptor.annotations;
    if (!descriptor.os.empty() || !descriptor.architecture.empty())
        object["platform"] = {{"os", descriptor.os}, {"architecture", descriptor.architecture}};
    if (!descriptor.variant.empty()) object["platform"]["variant"] = descriptor.variant;
    if (!descriptor.artifact_type.empty()) object["artifactType"] = descriptor.artifact_type;
    return object;
}

Result<std::string> layer_type(const Descriptor& layer) {
    static constexpr std::string_view kKnown[] = {
        kMediaLayerTar,
        kMediaLayerGzip,
        kMediaLayerZstd,
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
    };
    for (auto known : kKnown)
        if (layer.media_type == known) return std::string(known);
    return failure(Errc::kUnsupported, "layer " + layer.digest + " has the media type \"" +
                                           printable(layer.media_type, 200) + "\", which caisson cannot unpack");
}

std::string dump(const json& document) { return document.dump(-1, ' ', false, json::error_handler_t::replace); }

}  // namespace

Result<json> parse_json(std::string_view text, const std::string& what) {
    if (text.size() > kMaxJsonBytes)
        return failure(Errc::kLimit, what + " is " + base::format_size(text.size()) + " large (the limit is " +
                                         base::format_size(kMaxJsonBytes) + ")");
    if (depth_of(text) > kMaxJsonDepth)
        return failure(Errc::kLimit, what + " is nested more than " + std::to_string(kMaxJsonDepth) + " deep");
    auto document = json::parse(text, nullptr, false);
    if (document.is_discarded()) return failure(Errc::kCorrupt, what + " is not valid JSON");
    return document;
}

bool is_index_type(std::string_view media_type) {
    return media_type == kMediaIndex || media_type == "application/vnd.docker.distribution.manifest.list.v2+json";
}

bool is_manifest_type(std::string_view media_type) {
    return media_type == kMediaManifest || media_type == "application/vnd.docker.distribution.manifest.v2+json";
}

Result<std::string> document_type(std::string_view text, std::string_view claimed) {
    auto document = CAISSON_TRY(parse_json(text, "the image manifest"));
    Fields fields(document, "the image manifest");
    auto own = fields.text("mediaType");
    CAISSON_TRY(fields.done());
    const bool as_index = document.contains("manifests");
    const bool as_manifest = document.contains("layers") || document.contains("config");
    // Two readers may disagree on such a document, and so on what its digest stands for (CVE-2021-41190).
    if (as_index && as_manifest)
        return failure(Errc::kCorrupt, "the image manifest is both a manifest and a list of manifests");
    claimed = base::trim(claimed.substr(0, claimed.find(';')));
    const bool claim_counts = is_index_type(claimed) || is_manifest_type(claimed);
    if (own.empty()) own = claim_counts ? std::string(claimed) : std::string(as_index ? kMediaIndex : kMediaManifest);
    if (claim_counts && is_index_type(claimed) != is_index_type(own))
        return failure(Errc::kCorrupt, "the image manifest says it is \"" + printable(own, 200) + "\", the registry calls it \"" +
                                           printable(claimed, 200) + "\"");
    if (document.value("schemaVersion", json(2)) == json(1) || claimed.starts_with("application/vnd.docker.distribution.manifest.v1+"))
        return failure(Errc::kUnsupported, "the image has a manifest of Docker's schema 1, which is obsolete", "push it again with a newer tool");
    if ((!is_index_type(own) || !as_index) && (!is_manifest_type(own) || !as_manifest))
        return failure(Errc::kUnsupported, "\"" + printable(own, 200) + "\" is not an image");
    return own;
}

Result<Index> parse_index(std::string_view text) {
    auto document = CAISSON_TRY(parse_json(text, "the image index"));
    Fields fields(document, "the image index");
    Index index;
    const json* manifests = fields.array("manifests", kMaxManifestsPerIndex);
    CAISSON_TRY(fields.done());
    for (const auto& item : *manifests) {
        auto descriptor = CAISSON_TRY(read_descriptor(item, "a manifest of the image index"));
        index.manifests.push_back(std::move(descriptor));
    }
    return index;
}

Result<Manifest> parse_manifest(std::string_view text) {
    auto document = CAISSON_TRY(parse_json(text, "the image manifest"));
    Fields fields(document, "the image manifest");
    Manifest manifest;
    manifest.media_type = fields.text("mediaType");
    const json* config = fields.object("config", true);
    const json* layers = fields.array("layers", kMaxLayers);
    CAISSON_TRY(fields.done());
    manifest.config = CAISSON_TRY(read_descriptor(*config, "the config of the image manifest"));
    static constexpr std::string_view kConfigTypes[] = {kMediaConfig, "application/vnd.docker.container.image.v1+json", ""};
    bool known = false;
    for (auto type : kConfigTypes) known = known || manifest.config.media_type == type;
    if (!known)
        return failure(Errc::kUnsupported, "the manifest is of something else than a container image (its config is \"" +
                                               printable(manifest.config.media_type, 200) + "\")");
    for (const auto& item : *layers) {
        auto layer = CAISSON_TRY(read_descriptor(item, "a layer of the image manifest"));
        CAISSON_TRY(layer_type(layer));
        manifest.layers.push_back(std::move(layer));
    }
    return manifest;
}

namespace {

constexpr std::uint64_t kNanosecondsPerMillisecond = 1000000;
constexpr std::uint64_t kLongestCheckNanoseconds = 24ULL * 24 * 3600 * 1000 * kNanosecondsPerMillisecond;
constexpr std::uint64_t kMostRetries = 1000000;

// {"Test": ["CMD-SHELL", "curl ..."], "Interval": nanoseconds, ...}. As in docker, a kind of test that is not known is
// none.
Result<ImageHealthCheck> read_health(const json& object) {
    Fields fields(object, "the health check of the image config");
    auto test = fields.list("Test");
    ImageHealthCheck health;
    auto milliseconds = [&](const char* key) {
        // What is shorter than a millisecond is one: 0 would be "not said".
        return static_cast<std::int64_t>((fields.number(key, kLongestCheckNanoseconds) + kNanosecondsPerMillisecond - 1) /
                                         kNanosecondsPerMillisecond);
    };
    health.interval_ms = milliseconds("Interval");
    health.timeout_ms = milliseconds("Timeout");
    health.start_period_ms = milliseconds("StartPeriod");
    health.retries = static_cast<std::uint32_t>(fields.number("Retries", kMostRetries));
    CAISSON_TRY(fields.done());
    if (test.size() == 2 && test[0] == "CMD-SHELL") health.command = {"/bin/sh", "-c", test[1]};
    else if (test.size() > 1 && test[0] == "CMD") health.command.assign(test.begin() + 1, test.end());
    return health;
}

json write_health(const ImageHealthCheck& health) {
    json test = json::array({"CMD"});
    for (const auto& word : health.command) test.push_back(word);
    json object{{"Test", std::move(test)}};
    auto add = [&](const char* key, std::int64_t milliseconds) {
        if (milliseconds > 0) object[key] = milliseconds * static_cast<std::int64_t>(kNanosecondsPerMillisecond);
    };
    add("Interval", health.interval_ms);
    add("Timeout", health.timeout_ms);
    add("StartPeriod", health.start_period_ms);
    if (health.retries > 0) object["Retries"] = health.retries;
    return object;
}

}  // namespace

Result<ImageConfig> parse_config(std::string_view text) {
    auto document = CAISSON_TRY(parse_json(text, "the image config"));
    Fields fields(document, "the image config");
    ImageConfig result;
    Config& config = result.config;
    config.architecture = fields.text("architecture");
    config.os = fields.text("os");
    config.created = fields.text("created");
    const json* inner = fields.object("config", false);
    const json* rootfs = fields.object("rootfs", true);
    CAISSON_TRY(fields.done());
    if (inner != nullptr) {
        Fields process(*inner, "the image config");
        config.entrypoint = process.list("Entrypoint");
        config.cmd = process.list("Cmd");
        config.env = process.list("Env");
        config.working_directory = process.text("WorkingDir");
        config.user = process.text("User");
        config.stop_signal = process.text("StopSignal");
        config.labels = process.map("Labels");
        config.volumes = process.keys("Volumes");
        config.exposed_ports = process.keys("ExposedPorts");
        const json* health = process.object("Healthcheck", false);
        CAISSON_TRY(process.done());
        if (health != nullptr) config.health = CAISSON_TRY(read_health(*health));
    }
    Fields layers(*rootfs, "the image config");
    result.diff_ids = layers.list("diff_ids", kMaxLayers);
    CAISSON_TRY(layers.done());
    for (const auto& id : result.diff_ids) CAISSON_TRY_CTX(digest_hex(id), "the image config");
    return result;
}

Result<std::vector<DockerImage>> parse_docker_manifest(std::string_view text) {
    auto document = CAISSON_TRY(parse_json(text, "manifest.json"));
    if (!document.is_array() || document.size() > kMaxManifestsPerIndex)
        return failure(Errc::kCorrupt, "manifest.json is not a list of images");
    std::vector<DockerImage> images;
    for (const auto& item : document) {
        Fields fields(item, "an image of manifest.json");
        DockerImage image;
        image.config = fields.text("Config", true);
        image.repo_tags = fields.list("RepoTags");
        image.layers = fields.list("Layers", kMaxLayers);
        CAISSON_TRY(fields.done());
        images.push_back(std::move(image));
    }
    return images;
}

std::string write_index(const Index& index) {
    json manifests = json::array();
    for (const auto& descriptor : index.manifests) manifests.push_back(write_descriptor(descriptor));
    return dump({{"schemaVersion", 2}, {"mediaType", kMediaIndex}, {"manifests", manifests}}) + "\n";
}

std::string write_manifest(const Manifest& manifest) {
    json layers = json::array();
    for (const auto& layer : manifest.layers) layers.push_back(write_descriptor(layer));
    return dump({{"schemaVersion", 2},
                 {"mediaType", kMediaManifest},
                 {"config", write_descriptor(manifest.config)},
                 {"layers", layers}});
}

std::string write_config(const Config& config, const std::vector<std::string>& diff_ids) {
    json inner = json::object();
    auto keys = [](const std::vector<std::string>& names) {
        json object = json::object();
        for (const auto& name : names) object[name] = json::object();
        return object;
    };
    if (!config.entrypoint.empty()) inner["Entrypoint"] = config.entrypoint;
    if (!config.cmd.empty()) inner["Cmd"] = config.cmd;
    if (!config.env.empty()) inner["Env"] = config.env;
    if (!config.working_directory.empty()) inner["WorkingDir"] = config.working_directory;
    if (!config.user.empty()) inner["User"] = config.user;
    if (!config.stop_signal.empty()) inner["StopSignal"] = config.stop_signal;
    if (!config.health.command.empty()) inner["Healthcheck"] = write_health(config.health);
    if (!config.labels.empty()) inner["Labels"] = config.labels;
    if (!config.volumes.empty()) inner["Volumes"] = keys(config.volumes);
    if (!config.exposed_ports.empty()) inner["ExposedPorts"] = keys(config.exposed_ports);
    json document{{"architecture", config.architecture},
                  {"os", config.os},
                  {"config", inner},
                  {"rootfs", {{"type", "layers"}, {"diff_ids", diff_ids}}}};
    if (!config.created.empty()) document["created"] = config.created;
    return dump(document);
}

}  // namespace caisson::image
