// Runs caisson-fetch: turns an image's name, the home's settings and what the caller has into its request, starts it
// in its jail, and passes its answer on. Internal to src/image.
#pragma once

#include <functional>
#include <string>

#include "caisson/registry.h"
#include "image/downloads.h"
#include "image/name.h"
#include "image/oci_json.h"
#include "image/registry/settings.h"
#include "image/store.h"
#include "jail/jail.h"

namespace caisson::image::registry {

// The registry that a normalised repository belongs to, and its path there: "debian" is "docker.io", "library/debian".
struct Place {
    std::string registry, repository;
};
Place place_of(const Reference& reference);
// Where the registry of that name answers: https://registry-1.docker.io for docker.io.
Result<Url> url_of(const std::string& registry);

struct Answer {
    Descriptor manifest;
    std::string source_digest;
};

// The jail of caisson-fetch, which may write to `downloads_directory` (host path; empty: to nothing). Descriptors are the
// caller's to add.
jail::Description client_jail(const Store::Options& options, const std::string& downloads_directory);

Result<Answer> run_fetch(const Store::Options& options, const Downloads& downloads, const Reference& reference,
                         const std::string& os, const std::string& architecture, const std::string& variant,
                         const PullOptions& pull);
Result<> run_login_check(const Store::Options& options, const std::string& registry, const RegistryAccess& access, bool plain_http);

}  // namespace caisson::image::registry
