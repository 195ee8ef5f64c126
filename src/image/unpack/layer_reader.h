// The tar archive inside a layer, entry by entry: libarchive behind our own Entry.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "image/unpack/entry.h"
#include "image/unpack/stream.h"

struct archive;
struct archive_entry;

namespace caisson::image::unpack {

// ustar, PAX, GNU and old v7 archives with their long names, sparse files and extended attributes. Names are handed
// out byte for byte. Single-threaded.
class LayerReader {
  public:
    // Must run in the "C" locale: with any other, libarchive would re-encode names.
    static Result<std::unique_ptr<LayerReader>> open(std::unique_ptr<Stream> stream);
    ~LayerReader();
    LayerReader(const LayerReader&) = delete;
    LayerReader& operator=(const LayerReader&) = delete;

    // False at the end of the archive.
    Result<bool> next(Entry& entry);
    using DataCallback = std::function<Result<>(std::uint64_t offset, base::ByteView data)>;
    // The current file's bytes in ascending order; holes are left out.
    Result<> read_data(const DataCallback& callback);
    // Reads the stream to its end; the digest ("sha256:...") and size of all its uncompressed bytes.
    struct Sum {
        std::string diff_id;
        std::uint64_t bytes;
    };
    Result<Sum> finish();
    std::uint64_t consumed_bytes() const { return stream_->consumed_bytes(); }

  private:
    explicit LayerReader(std::unique_ptr<Stream> stream) : stream_(std::move(stream)) {}
    base::Failure fail() const;
    static long read_callback(::archive* archive, void* self, const void** buffer);

    std::unique_ptr<Stream> stream_;
    ::archive* archive_ = nullptr;
    ::archive_entry* current_ = nullptr;
    std::uint64_t bytes_ = 0;
    base::Error stream_error_;
    bool stream_failed_ = false;
    std::uint64_t entries_ = 0;
};

}  // namespace caisson::image::unpack
