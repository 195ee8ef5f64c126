// BlockWriter: many small writes to a disk image become few large ones, and blocks of zeros none at all.
#pragma once

#include <cstdint>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace caisson::image::unpack {

inline constexpr std::uint32_t kBlockBytes = 4096;

// The image behind `fd` must read as zeros wherever nothing was written. Single-threaded; flush() before anybody else
// reads the image.
class BlockWriter {
  public:
    explicit BlockWriter(int fd);
    // Ascending runs are cheapest; anything else works.
    Result<> write(std::uint64_t offset, base::ByteView data);
    Result<> flush();
    std::uint64_t written_bytes() const { return written_bytes_; }

  private:
    Result<> put(std::uint64_t offset, base::ByteView data);

    int fd_;
    std::uint64_t start_ = 0;  // of what is buffered; a multiple of the block size
    std::vector<std::uint8_t> buffer_;
    std::size_t used_ = 0;
    std::uint64_t written_bytes_ = 0;
};

}  // namespace caisson::image::unpack
