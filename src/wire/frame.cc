#include "wire/frame.h"

#include <algorithm>
#include <cstring>
#include <string>

namespace caisson::wire {

using base::Bytes;
using base::ByteView;
using base::failure;

namespace {

constexpr std::size_t kBufferBytes = kMaxFeedBytes;
// A prepare() that offers less than this moves what is unread to the front first.
constexpr std::size_t kWorthReading = 16 * 1024;

// nullptr if the header is one that the protocol allows, else what is wrong with it.
const char* header_fault(std::uint32_t length, std::uint32_t stream, std::uint8_t type) {
    switch (type) {
        case static_cast<std::uint8_t>(FrameType::kControl):
            if (stream != 0) return "a control frame on a data stream";
            if (length == 0) return "an empty control frame";
            if (length > kMaxControlBytes) return "a control frame beyond the size limit";
            return nullptr;
        case static_cast<std::uint8_t>(FrameType::kData):
            if (length == 0) return "an empty data frame";
            if (length > kMaxDataBytes) return "a data frame beyond the size limit";
            break;
        case static_cast<std::uint8_t>(FrameType::kEof):
            if (length != 0) return "an end-of-file frame with a payload";
            break;
        case static_cast<std::uint8_t>(FrameType::kCredit):
            if (length != 4) return "a credit frame of a wrong size";
            break;
        default: return "a frame of an unknown type";
    }
    if (stream < 4 || stream % 4 == 3) return "a frame on a stream that cannot exist";
    return nullptr;
}

}  // namespace

std::span<std::uint8_t> Decoder::prepare() {
    if (start_ == end_) {
        start_ = end_ = 0;
        if (buffer_.size() > 4 * kBufferBytes) Bytes().swap(buffer_);  // after a large control frame
    }
    if (buffer_.empty()) buffer_.resize(kBufferBytes);
    if (buffer_.size() - end_ < kWorthReading) {
        if (start_ > 0) {
            std::memmove(buffer_.data(), buffer_.data() + start_, end_ - start_);
            end_ -= start_;
            start_ = 0;
        }
        // Grows with what really arrived, not with what a header promises.
        if (buffer_.size() - end_ < kWorthReading)
            buffer_.resize(std::min(buffer_.size() * 2, kHeaderBytes + kMaxControlBytes + kBufferBytes));
    }
    return {buffer_.data() + end_, buffer_.size() - end_};
}

void Decoder::commit(std::size_t count) {
    CAISSON_CHECK(count <= buffer_.size() - end_);
    end_ += count;
}

void Decoder::feed(ByteView bytes) {
    while (!bytes.empty()) {
        auto room = prepare();
        CAISSON_CHECK(!room.empty());  // the caller feeds without taking frames out
        auto count = std::min(room.size(), bytes.size());
        std::memcpy(room.data(), bytes.data(), count);
        commit(count);
        bytes = bytes.subspan(count);
    }
}

Result<std::optional<FrameView>> Decoder::next() {
    if (broken_) return failure(Errc::kProtocol, "the peer broke the frame protocol before");
    auto bytes = unread();
    if (bytes.size() < kHeaderBytes) return std::optional<FrameView>();
    std::uint32_t length = base::load_le32(bytes.data());
    std::uint32_t stream = base::load_le32(bytes.data() + 4);
    std::uint8_t type = bytes[8];
    if (const char* fault = header_fault(length, stream, type)) {
        broken_ = true;
        return failure(Errc::kProtocol, std::string("the peer sent ") + fault);
    }
    if (bytes.size() - kHeaderBytes < length) return std::optional<FrameView>();
    auto payload = bytes.subspan(kHeaderBytes, length);
    if (type == static_cast<std::uint8_t>(FrameType::kCredit)) {
        std::uint32_t amount = base::load_le32(payload.data());
        if (amount == 0 || amount > kMaxCredit) {
            broken_ = true;
            return failure(Errc::kProtocol, "the peer granted an impossible amount of credit");
        }
    }
    start_ += kHeaderBytes + length;
    return FrameView{stream, static_cast<FrameType>(type), payload};
}

void Decoder::reset() {
    start_ = end_ = 0;
    broken_ = false;
}

void store_header(std::uint8_t* out, std::uint32_t length, std::uint32_t stream, FrameType type) {
    base::store_le32(out, length);
    base::store_le32(out + 4, stream);
    out[8] = static_cast<std::uint8_t>(type);
}

void append_frame(Bytes& out, std::uint32_t stream, FrameType type, ByteView payload) {
    CAISSON_CHECK(payload.size() <= kMaxControlBytes);
    auto length = static_cast<std::uint32_t>(payload.size());
    CAISSON_CHECK(header_fault(length, stream, static_cast<std::uint8_t>(type)) == nullptr);
    std::size_t at = out.size();
    out.resize(at + kHeaderBytes);
    store_header(out.data() + at, length, stream, type);
    out.insert(out.end(), payload.begin(), payload.end());
}

void append_data(Bytes& out, std::uint32_t stream, ByteView payload) {
    append_frame(out, stream, FrameType::kData, payload);
}

void append_eof(Bytes& out, std::uint32_t stream) { append_frame(out, stream, FrameType::kEof, {}); }

void append_credit(Bytes& out, std::uint32_t stream, std::uint32_t bytes) {
    CAISSON_CHECK(bytes > 0 && bytes <= kMaxCredit);
    std::uint8_t payload[4];
    base::store_le32(payload, bytes);
    append_frame(out, stream, FrameType::kCredit, payload);
}

std::uint32_t credit_of(const FrameView& frame) {
    CAISSON_CHECK(frame.type == FrameType::kCredit && frame.payload.size() == 4);
    return base::load_le32(frame.payload.data());
}

void append_preamble(Bytes& out, const Marker& marker) {
    out.insert(out.end(), kMagic.begin(), kMagic.end());
    out.insert(out.end(), marker.begin(), marker.end());
}

PreambleSeeker PreambleSeeker::expecting(const Marker& marker) {
    PreambleSeeker seeker;
    seeker.wanted_ = marker;
    seeker.limited_ = true;
    return seeker;
}

PreambleSeeker PreambleSeeker::any() { return {}; }

Result<std::optional<ByteView>> PreambleSeeker::feed(ByteView bytes) {
    while (!bytes.empty()) {
        if (tail_bytes_ == 0) {
            // The fast way over stale bytes: only the magic's first byte can begin anything.
            const void* hit = std::memchr(bytes.data(), kMagic[0], bytes.size());
            std::size_t skip = hit == nullptr
                                   ? bytes.size()
                                   : static_cast<std::size_t>(static_cast<const std::uint8_t*>(hit) - bytes.data());
            discarded_ += skip;
            bytes = bytes.subspan(skip);
            if (limited_ && discarded_ > kMaxStaleBytes)
                return failure(Errc::kProtocol, "the peer sent too much before its session began");
            if (bytes.empty()) break;
        }
        tail_[tail_bytes_++] = bytes[0];
        bytes = bytes.subspan(1);
        // Drops bytes from the front until the tail is again a possible beginning of the preamble.
        auto possible = [this] {
            for (std::size_t i = 0; i < tail_bytes_; ++i) {
                if (i < kMagic.size() ? tail_[i] != kMagic[i]
                                      : wanted_ && tail_[i] != (*wanted_)[i - kMagic.size()])
                    return false;
            }
            return true;
        };
        while (tail_bytes_ > 0 && !possible()) {
            std::memmove(tail_.data(), tail_.data() + 1, --tail_bytes_);
            ++discarded_;
        }
        if (limited_ && discarded_ > kMaxStaleBytes)
            return failure(Errc::kProtocol, "the peer sent too much before its session began");
        if (tail_bytes_ == kPreambleBytes) {
            std::copy(tail_.begin() + kMagic.size(), tail_.end(), marker_.begin());
            tail_bytes_ = 0;
            return std::optional<ByteView>(bytes);
        }
    }
    return std::optional<ByteView>();
}

void SendWindow::consume(std::uint32_t bytes) {
    CAISSON_CHECK(bytes <= available_);
    available_ -= bytes;
}

Result<> SendWindow::add(std::uint32_t bytes) {
    if (bytes > kMaxCredit - available_) return failure(Errc::kProtocol, "the peer granted more credit than allowed");
    available_ += bytes;
    return {};
}

Result<> ReceiveWindow::receive(std::size_t bytes) {
    if (bytes > remaining_) return failure(Errc::kProtocol, "the peer sent more than it had credit for");
    remaining_ -= static_cast<std::uint32_t>(bytes);
    held_ += static_cast<std::uint32_t>(bytes);
    return {};
}

std::uint32_t ReceiveWindow::consume(std::size_t bytes) {
    CAISSON_CHECK(bytes <= held_);
    held_ -= static_cast<std::uint32_t>(bytes);
    ungranted_ += static_cast<std::uint32_t>(bytes);
    if (ungranted_ < kInitialCredit / 2) return 0;
    std::uint32_t grant = ungranted_;
    remaining_ += grant;
    ungranted_ = 0;
    return grant;
}

}  // namespace caisson::wire
