// A layer's bytes on their way in: from a descriptor or memory, decompressed (gzip, zstd, xz or plain, told by the
// first bytes), hashed, and measured against the limits for decompression bombs.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace caisson::image::unpack {

struct StreamLimits {
    std::uint64_t max_bytes = 0;  // after decompression
};

// Pull one chunk after the other. Used by one thread at a time.
class Stream {
  public:
    virtual ~Stream() = default;
    // The next chunk, valid until the following call; empty at the end. kCorrupt for damaged compression, kLimit for
    // a bomb, kIo.
    virtual Result<base::ByteView> next() = 0;
    // Bytes taken from the source so far, for progress.
    virtual std::uint64_t consumed_bytes() const = 0;
    // "sha256:..." of everything that next() returned; once, after its end.
    virtual std::string digest() = 0;
};

// `fd` stays the caller's and is read from its current position. It need not be seekable.
Result<std::unique_ptr<Stream>> open_stream(int fd, StreamLimits limits);
Result<std::unique_ptr<Stream>> open_stream(base::ByteView memory, StreamLimits limits);
// The same, with reading and decompression on a thread of its own. Only for regular files: the destructor waits until
// a read under way has returned.
Result<std::unique_ptr<Stream>> open_threaded_stream(int fd, StreamLimits limits);

// Threaded streams of several regular files that are needed one after the other, the last one first: while one is read,
// the next few are decompressed already, up to kReadAheadBytes together. Used by one thread.
class StreamsAhead {
  public:
    // The descriptors stay the caller's, each with a position of its own.
    explicit StreamsAhead(std::vector<int> fds);
    ~StreamsAhead();
    StreamsAhead(const StreamsAhead&) = delete;
    StreamsAhead& operator=(const StreamsAhead&) = delete;
    // The stream of the file with this index, from its start. Any file may be asked for again. The streams may outlive
    // this.
    Result<std::unique_ptr<Stream>> open(std::size_t index, StreamLimits limits);

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace caisson::image::unpack
