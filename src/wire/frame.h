// Frames: how bytes are cut on the one virtio-serial port between shim and agent, and on the shim's own socket.
//
//   session  = preamble frame*                      (in each direction)
//   preamble = magic (8 bytes) marker (16 bytes)    the host draws the marker, the guest echoes it
//   frame    = length u32 | stream u32 | type u8 | payload[length]        (little-endian)
//
// Control frames (schema'd messages, control.h) travel on stream 0; all others belong to an execution's stream.
// Data is bounded by credit: each side may send kInitialCredit bytes on a stream and direction, and then what the
// receiver has granted. So nobody ever buffers more than one window for a peer that does not read.
//
// Everything here is pure: no system calls, no clock, no exceptions. The peer is hostile: every violation is
// kProtocol, and sticky. The magic is an impossible frame header (its length is beyond every limit), so that a new
// session is recognised wherever a frame header is expected.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/bytes.h"
#include "base/result.h"

namespace caisson::wire {

inline constexpr std::uint32_t kVersionMajor = 1;
inline constexpr std::uint32_t kVersionMinor = 0;

inline constexpr std::size_t kHeaderBytes = 9;
inline constexpr std::size_t kMaxDataBytes = 32 * 1024;         // payload of one data frame
inline constexpr std::size_t kMaxControlBytes = 4 << 20;        // payload of one control frame
inline constexpr std::uint32_t kInitialCredit = 256 * 1024;     // per stream and direction, granted by nobody
inline constexpr std::uint32_t kMaxCredit = 16 * 1024 * 1024;   // no window ever grows beyond this

enum class FrameType : std::uint8_t { kControl = 1, kData = 2, kEof = 3, kCredit = 4 };

// Streams of execution n (n >= 1) are n*4 + channel. Channel 3 is reserved.
enum class Channel : std::uint32_t { kStdin = 0, kStdout = 1, kStderr = 2 };  // kStdout is also the terminal
inline constexpr std::uint32_t kMaxExecutionId = 0x3fffffff;
constexpr std::uint32_t stream_of(std::uint32_t execution, Channel channel) {
    return execution * 4 + static_cast<std::uint32_t>(channel);
}
constexpr std::uint32_t execution_of(std::uint32_t stream) { return stream / 4; }
constexpr Channel channel_of(std::uint32_t stream) { return static_cast<Channel>(stream % 4); }

struct FrameView {
    std::uint32_t stream = 0;
    FrameType type = FrameType::kControl;
    base::ByteView payload;  // valid until the decoder's next prepare(), feed() or reset()
};

inline constexpr std::size_t kMaxFeedBytes = 64 * 1024;

// Bytes in, frames out. Either feed() copies, or prepare()/commit() let read(2) fill the decoder's own buffer.
// After each of them the caller takes out what next() has, until nullopt; at most kMaxFeedBytes go in between.
// Memory: about 64 KiB, more only while a larger control frame is arriving, never beyond kMaxControlBytes + 64 KiB.
class Decoder {
  public:
    // Where to write; empty while whole frames fill the buffer. Valid until the next call of prepare(), feed() or reset().
    std::span<std::uint8_t> prepare();
    // `count` bytes of the last prepare() were filled.
    void commit(std::size_t count);
    void feed(base::ByteView bytes);

    // The next whole frame; nullopt when more bytes are needed; kProtocol on a violation, and then for ever.
    Result<std::optional<FrameView>> next();

    // What has been fed and not been returned as a frame. After a violation it begins with the offending header.
    base::ByteView unread() const { return {buffer_.data() + start_, end_ - start_}; }
    // Forgets everything, violations too.
    void reset();

  private:
    base::Bytes buffer_;
    std::size_t start_ = 0;  // first byte that was not returned
    std::size_t end_ = 0;    // one past the last byte that was fed
    bool broken_ = false;
};

// Appends one frame. The caller keeps payloads within the limits (CAISSON_CHECK); for control frames see control.h.
void append_frame(base::Bytes& out, std::uint32_t stream, FrameType type, base::ByteView payload);
void append_data(base::Bytes& out, std::uint32_t stream, base::ByteView payload);
void append_eof(base::Bytes& out, std::uint32_t stream);
void append_credit(base::Bytes& out, std::uint32_t stream, std::uint32_t bytes);
// Writes the 9 bytes of a header at `out`: for callers that read(2) a payload straight behind it.
void store_header(std::uint8_t* out, std::uint32_t length, std::uint32_t stream, FrameType type);
// The amount of a kCredit frame that a Decoder returned.
std::uint32_t credit_of(const FrameView& frame);

inline constexpr std::size_t kMarkerBytes = 16;
using Marker = std::array<std::uint8_t, kMarkerBytes>;
inline constexpr std::array<std::uint8_t, 8> kMagic = {0xf5, 'C', 'A', 'I', 'S', 'S', 0x0d, 0xf6};
inline constexpr std::size_t kPreambleBytes = kMagic.size() + kMarkerBytes;
inline constexpr std::size_t kMaxStaleBytes = 1 << 20;

void append_preamble(base::Bytes& out, const Marker& marker);

// Finds the beginning of a session in a stream that may still carry the tail of an earlier one.
class PreambleSeeker {
  public:
    // Host: only `marker` counts; kProtocol after more than kMaxStaleBytes of anything else.
    static PreambleSeeker expecting(const Marker& marker);
    // Guest: any marker counts, and the search never gives up (the host is trusted, old bytes may be many).
    static PreambleSeeker any();

    // nullopt: all of `bytes` was consumed and more are needed. Else the rest of `bytes` behind the preamble.
    Result<std::optional<base::ByteView>> feed(base::ByteView bytes);
    // Once found.
    const Marker& marker() const { return marker_; }

  private:
    std::optional<Marker> wanted_;
    Marker marker_{};
    std::array<std::uint8_t, kPreambleBytes> tail_{};  // the last bytes seen, a possible beginning
    std::size_t tail_bytes_ = 0;
    std::size_t discarded_ = 0;
    bool limited_ = false;
};

// What we may still send on a stream.
class SendWindow {
  public:
    std::uint32_t available() const { return available_; }
    // `bytes` were sent; at most available() (CAISSON_CHECK).
    void consume(std::uint32_t bytes);
    // The peer granted more; kProtocol when the window would exceed kMaxCredit.
    Result<> add(std::uint32_t bytes);

  private:
    std::uint32_t available_ = kInitialCredit;
};

// What the peer may still send on a stream, and when to grant more.
class ReceiveWindow {
  public:
    // The peer sent `bytes`; kProtocol when it had no credit for them.
    Result<> receive(std::size_t bytes);
    // `bytes` of what was received have been passed on. Returns what to grant now: 0, or at least half a window,
    // so that credit frames stay few.
    std::uint32_t consume(std::size_t bytes);
    // Bytes received and not yet passed on.
    std::uint32_t held() const { return held_; }

  private:
    std::uint32_t remaining_ = kInitialCredit;
    std::uint32_t held_ = 0;
    std::uint32_t ungranted_ = 0;
};

}  // namespace caisson::wire
