// <home>/images/downloads: blobs on their way from a registry into the store, each under its digest, so that several
// pulls share one download and a broken one goes on where it stopped.
//
//   HEX.part   what has arrived so far; written by whoever holds HEX.lock
//   HEX        complete and verified, 0444; waits for the commit that moves it among the store's blobs
//
// Internal to src/image; caisson-fetch writes here, the store commits from here.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "base/result.h"
#include "image/layout.h"
#include "os/file.h"

namespace caisson::image {

struct Downloads {
    std::string directory;
    std::string complete(const std::string& hex) const { return directory + "/" + hex; }
    std::string partial(const std::string& hex) const { return directory + "/" + hex + ".part"; }
    std::string lock_file(const std::string& hex) const { return directory + "/" + hex + ".lock"; }
};

// Whoever holds it is the one that downloads this blob. kInUse if somebody else is.
Result<os::FileLock> lock_download(const Downloads& downloads, const std::string& hex);
// Removes what there is of one blob; its lock is held, and goes with it.
void discard_download(const Downloads& downloads, const std::string& hex);
// The same, unless somebody else works on it.
void discard_idle_download(const Downloads& downloads, const std::string& hex);
// Removes downloads that nobody works on and nobody has written to for `options.grace`. Bytes freed.
Result<std::uint64_t> sweep_downloads(const Downloads& downloads, const RemoveOptions& options);

}  // namespace caisson::image
