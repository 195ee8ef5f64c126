#include "image/unpack/block_writer.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace caisson::image::unpack {

namespace {
constexpr std::size_t kBufferBytes = 1 << 20;

bool is_zero(const std::uint8_t* block) {
    return block[0] == 0 && std::memcmp(block, block + 1, kBlockBytes - 1) == 0;
}
}  // namespace

BlockWriter::BlockWriter(int fd) : fd_(fd), buffer_(kBufferBytes) {}

Result<> BlockWriter::write(std::uint64_t offset, base::ByteView data) {
    while (!data.empty()) {
        std::uint64_t end = start_ + used_;
        // The tail of the last block is zero on disk, so a gap of less than a block may be filled with zeros.
        bool follows = used_ > 0 && offset >= end && offset - end < kBlockBytes && offset - start_ < kBufferBytes;
        if (!follows) {
            CAISSON_TRY(flush());
            start_ = offset / kBlockBytes * kBlockBytes;
            end = start_;
        }
        auto gap = static_cast<std::size_t>(offset - end);
        std::memset(buffer_.data() + used_, 0, gap);
        used_ += gap;
        std::size_t take = std::min(data.size(), kBufferBytes - used_);
        std::memcpy(buffer_.data() + used_, data.data(), take);
        used_ += take;
        offset += take;
        data = data.subspan(take);
        if (used_ == kBufferBytes) CAISSON_TRY(flush());
    }
    return {};
}

Result<> BlockWriter::flush() {
    std::size_t padded = (used_ + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
    std::memset(buffer_.data() + used_, 0, padded - used_);
    used_ = 0;
    std::size_t run = 0;
    for (std::size_t i = 0; i < padded; i += kBlockBytes) {
        if (!is_zero(buffer_.data() + i)) continue;
        if (run < i) CAISSON_TRY(put(start_ + run, {buffer_.data() + run, i - run}));
        run = i + kBlockBytes;
    }
    if (run < padded) CAISSON_TRY(put(start_ + run, {buffer_.data() + run, padded - run}));
    return {};
}

Result<> BlockWriter::put(std::uint64_t offset, base::ByteView data) {
    written_bytes_ += data.size();
    while (!data.empty()) {
        ssize_t got = ::pwrite(fd_, data.data(), data.size(), static_cast<off_t>(offset));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return base::failure_errno("cannot write the disk");
        offset += static_cast<std::uint64_t>(got);
        data = data.subspan(static_cast<std::size_t>(got));
    }
    return {};
}

}  // namespace caisson::image::unpack
