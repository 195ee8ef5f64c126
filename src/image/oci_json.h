// The JSON documents of OCI images and of `docker save`, as plain structs. Parsers are pure and treat their input as
// hostile: kLimit for size, depth and counts, kCorrupt for anything that is not what the specification says,
// kUnsupported for media types that caisson cannot use.
//
// Source: OCI Image Format Specification 1.1; docker image specification 1.2.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "image/store.h"

namespace caisson::image {

inline constexpr std::string_view kMediaIndex = "application/vnd.oci.image.index.v1+json";
inline constexpr std::string_view kMediaManifest = "application/vnd.oci.image.manifest.v1+json";
inline constexpr std::string_view kMediaConfig = "application/vnd.oci.image.config.v1+json";
inline constexpr std::string_view kMediaLayerTar = "application/vnd.oci.image.layer.v1.tar";
inline constexpr std::string_view kMediaLayerGzip = "application/vnd.oci.image.layer.v1.tar+gzip";
inline constexpr std::string_view kMediaLayerZstd = "application/vnd.oci.image.layer.v1.tar+zstd";

inline constexpr std::string_view kAnnotationRefName = "org.opencontainers.image.ref.name";
inline constexpr std::string_view kAnnotationContainerdName = "io.containerd.image.name";
// In our own index: the digest that the registry's name stood for.
inline constexpr std::string_view kAnnotationSourceDigest = "io.caisson.source.digest";

struct Descriptor {
    std::string media_type;
    std::string digest;
    std::uint64_t size = 0;
    std::map<std::string, std::string> annotations;
    std::string os, architecture, variant;  // of its platform, empty if it has none
    std::string artifact_type;
};

struct Index {
    std::vector<Descriptor> manifests;
};

struct Manifest {
    std::string media_type;
    Descriptor config;
    std::vector<Descriptor> layers;  // lowest first
};

struct ImageConfig {
    Config config;
    std::vector<std::string> diff_ids;
};

// One image of docker's manifest.json.
struct DockerImage {
    std::string config;                  // path in the archive
    std::vector<std::string> repo_tags;
    std::vector<std::string> layers;     // paths, lowest first
};

// Any JSON from outside, within kMaxJsonBytes and kMaxJsonDepth. `what` names it in errors.
Result<nlohmann::json> parse_json(std::string_view text, const std::string& what);

// What a document is: its own "mediaType" if it has one, else what its fields make of it; `claimed` (a registry's
// Content-Type) must not say otherwise. kCorrupt for a document that could be read as either, kUnsupported for others.
Result<std::string> document_type(std::string_view text, std::string_view claimed);

Result<Index> parse_index(std::string_view text);
Result<Manifest> parse_manifest(std::string_view text);
Result<ImageConfig> parse_config(std::string_view text);
Result<std::vector<DockerImage>> parse_docker_manifest(std::string_view text);

bool is_index_type(std::string_view media_type);
bool is_manifest_type(std::string_view media_type);

std::string write_index(const Index& index);
std::string write_manifest(const Manifest& manifest);
std::string write_config(const Config& config, const std::vector<std::string>& diff_ids);

}  // namespace caisson::image
