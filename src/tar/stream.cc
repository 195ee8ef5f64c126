#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/bytes.h"
#include "os/file.h"
#include "tar/entry.h"

namespace caisson::tar {

namespace {
constexpr std::size_t kMostPieceBytes = 1 << 20;
}

Source read_from(int fd) {
    return [fd](std::span<std::uint8_t> buffer) -> Result<std::size_t> {
        for (;;) {
            ssize_t got = ::read(fd, buffer.data(), buffer.size());
            if (got >= 0) return static_cast<std::size_t>(got);
            if (errno != EINTR) return base::failure_errno("cannot read the archive");
        }
    };
}

Sink write_to(int fd) {
    return [fd](base::ByteView bytes) -> Result<> { return os::write_all(fd, bytes); };
}

Sink write_framed_to(int fd) {
    return [fd](base::ByteView bytes) -> Result<> {
        while (!bytes.empty()) {
            const auto piece = bytes.first(std::min<std::size_t>(bytes.size(), kMostPieceBytes));
            std::uint8_t length[4];
            base::store_le32(length, static_cast<std::uint32_t>(piece.size()));
            CAISSON_TRY(os::write_all(fd, base::ByteView(length)));
            CAISSON_TRY(os::write_all(fd, piece));
            bytes = bytes.subspan(piece.size());
        }
        return {};
    };
}

Result<> end_framed(int fd) {
    const std::uint8_t length[4]{};
    return os::write_all(fd, base::ByteView(length));
}

Result<bool> FramedArchives::next() {
    CAISSON_CHECK(ended_);
    if (!CAISSON_TRY(read_length())) return false;
    ended_ = left_ == 0;
    return true;
}

Source FramedArchives::source() {
    return [this](std::span<std::uint8_t> buffer) { return read(buffer); };
}

// false: the stream ends here.
Result<bool> FramedArchives::read_length() {
    std::uint8_t length[4];
    const auto source = read_from(fd_);
    for (std::size_t have = 0; have < sizeof length;) {
        const auto got = CAISSON_TRY(source(std::span(length).subspan(have)));
        if (got == 0 && have == 0) return false;
        if (got == 0) return base::failure(Errc::kCorrupt, "the stream of archives was cut off");
        have += got;
    }
    left_ = base::load_le32(length);
    return true;
}

Result<std::size_t> FramedArchives::read(std::span<std::uint8_t> buffer) {
    if (ended_) return 0;
    const auto got = CAISSON_TRY(read_from(fd_)(buffer.first(std::min<std::size_t>(buffer.size(), left_))));
    if (got == 0) return base::failure(Errc::kCorrupt, "the stream of archives was cut off");
    left_ -= static_cast<std::uint32_t>(got);
    if (left_ > 0) return got;
    if (!CAISSON_TRY(read_length())) return base::failure(Errc::kCorrupt, "the stream of archives was cut off");
    ended_ = left_ == 0;
    return got;
}

}  // namespace caisson::tar
