// One blob from a registry into the downloads directory: shared with other pulls, resumed, verified while it streams.
#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <vector>

#include "image/downloads.h"
#include "image/oci_json.h"
#include "image/registry/session.h"

namespace caisson::image::registry {

enum class BlobState { kWaiting, kDownloading, kDone, kPresent };

struct BlobJob {
    Downloads downloads;
    std::string blobs_directory;        // of the store: what is there need not be fetched
    std::vector<Session*> sessions;     // tried in this order
    Session::Wait wait;
    const std::atomic<bool>* cancelled = nullptr;
    // Called often; from the calling thread.
    std::function<void(BlobState, std::uint64_t done)> progress;
};

// Errors: kCorrupt if the bytes are not what the digest or the size says (nothing of them is kept), kCancelled, and
// those of Session::get() (what has arrived is kept for the next try).
Result<> download_blob(Http& http, const BlobJob& job, const Descriptor& blob);

}  // namespace caisson::image::registry
