// merge(): all layers of an image, read from the top down, into a Tree and a ContentSink.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "image/limits.h"
#include "image/unpack/stream.h"
#include "image/unpack/tree.h"

namespace caisson::image::unpack {

// Where file contents go while they stream by. One file at a time.
class ContentSink {
  public:
    virtual ~ContentSink() = default;
    // Returns the sink's number for this content.
    virtual Result<std::uint32_t> begin(std::uint64_t size, bool sparse) = 0;
    // Ascending offsets; what is left out is zero.
    virtual Result<> write(std::uint64_t offset, base::ByteView data) = 0;
    virtual Result<> end() = 0;
};

struct LayerSource {
    std::string digest;   // for messages
    std::string diff_id;  // verified unless empty
    // Opens the layer's stream from its start; called once, twice if hard links need it.
    std::function<Result<std::unique_ptr<Stream>>(StreamLimits)> open;
};

struct MergeLimits {
    std::uint64_t max_unpacked_bytes = kDefaultMaxUnpackedBytes;
    std::uint32_t max_entries = kMaxEntries;
};

// `layer` counts from 0 in the order of reading, `consumed_bytes` within that layer.
using MergeProgress = std::function<void(std::size_t layer, std::uint64_t consumed_bytes)>;

struct Merged {
    Tree tree;
    std::uint64_t unpacked_bytes = 0;
};

// `layers` are lowest first. Errors name the layer's digest and the entry: kCorrupt (damaged, escaping, digest wrong),
// kLimit, and whatever the sink says.
Result<Merged> merge(const std::vector<LayerSource>& layers, ContentSink& sink, const MergeLimits& limits,
                     const MergeProgress& progress);

}  // namespace caisson::image::unpack
