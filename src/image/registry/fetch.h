// An image from a registry into the downloads directory: which manifest it is, and all of its blobs.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "image/downloads.h"
#include "image/oci_json.h"
#include "image/registry/blob_download.h"

namespace caisson::image::registry {

struct Platform {
    std::string os = "linux", architecture, variant;
    std::string to_string() const { return os + "/" + architecture + (variant.empty() ? "" : "/" + variant); }
};

struct LayerNews {
    std::size_t number = 0, count = 0;  // from 1
    std::string digest;
    BlobState state = BlobState::kWaiting;
    std::uint64_t done = 0, total = 0;
};

struct FetchPlan {
    std::vector<Endpoint> endpoints;  // mirrors first
    std::string tag, digest;          // the digest wins
    Platform platform;
    Downloads downloads;
    std::string blobs_directory;
    std::size_t parallel = 4;
    std::function<std::unique_ptr<Http>()> http;
    std::function<void(const LayerNews&)> news;  // called from several threads, one at a time
};

struct Fetched {
    Descriptor manifest;          // of the one image
    std::string source_digest;    // of what the name stands for: the manifest, or the list it was chosen from
};

// Manifest, config and layers lie in `downloads` afterwards (or were in the store already). If it fails because the
// image is not what it should be, nothing of it stays there; if the network failed, what has arrived stays.
Result<Fetched> fetch_image(const FetchPlan& plan);

// Whether the first endpoint accepts its login.
Result<> check_login(const FetchPlan& plan);

}  // namespace caisson::image::registry
