// Image names: "debian", "caisson/base:latest", "ghcr.io/owner/name:tag", "name@sha256:...".
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace caisson::image {

struct Reference {
    std::string repository;  // "debian", "caisson/base", "ghcr.io/owner/name"; "docker.io/library/" is dropped
    std::string tag;         // "latest" unless given; empty if only a digest was given
    std::string digest;      // "sha256:..." or empty

    // The normalised name under which the store keeps an image: "debian:latest".
    std::string name() const { return tag.empty() ? repository + "@" + digest : repository + ":" + tag; }
};

// Whether the part of a name before its first slash is a registry's host, not a part of a name on Docker's hub.
bool is_registry_part(std::string_view text);

// Grammar of distribution/reference (lower-case components, optional registry host and port, tag, digest), without
// looking anything up. kUsage says what is wrong with the name.
Result<Reference> parse_reference(std::string_view text);

}  // namespace caisson::image
