// A layer's bytes on their way in: from a descriptor or memory, decompressed (gzip, zstd, xz or plain, told by the
// first bytes), hashed, and measured against the limits for decompression bombs.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/result.h"

namespace caisson::image::unpack {

struct StreamLimits {
    std::uint64_t max_bytes = 0;  // after decompression
};

// Pull one chunk after the other; single-threaded.
class Stream {
  public:
    virtual ~Stream() = default;
    // The next chunk, valid until the following call; empty at the end. kCorrupt for damaged compression, kLimit for
    // a bomb, kIo.
    virtual Result<base::ByteView> next() = 0;
    // Bytes taken from the source so far, for progress.
    virtual std::uint64_t consumed_bytes() const = 0;
};

// `fd` stays the caller's and is read from its current position. It need not be seekable.
Result<std::unique_ptr<Stream>> open_stream(int fd, StreamLimits limits);
Result<std::unique_ptr<Stream>> open_stream(base::ByteView memory, StreamLimits limits);

}  // namespace caisson::image::unpack
