// QMP, QEMU's control protocol: lines of JSON. The VMM is not trusted, so what it says is parsed as hostile.
// Source: QEMU, docs/interop/qmp-spec.rst and qapi/.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/result.h"

namespace caisson::vmm {

struct QmpMessage {
    enum class Kind { kGreeting, kReturn, kError, kEvent };
    Kind kind = Kind::kReturn;
    std::string event;   // kEvent: "SHUTDOWN", "STOP", "RESUME", "BLOCK_IO_ERROR", "MIGRATION", ...
    std::string reason;  // SHUTDOWN: "guest-shutdown", "guest-reset", ...; kError: the description
    std::string status;  // MIGRATION and query-migrate: "completed", "failed", ...
    bool guest = false;  // SHUTDOWN: the guest itself asked for it
    bool no_space = false;  // BLOCK_IO_ERROR: ENOSPC
};

inline constexpr std::size_t kMaxQmpLine = 256 * 1024;
inline constexpr int kMaxQmpDepth = 32;
// An honest VMM says a handful of lines in a box's life, and one for each of ours.
inline constexpr std::uint64_t kMaxQmpLinesPerSecond = 10000;

class QmpParser {
  public:
    // kProtocol: a line too long; sticky.
    Result<> feed(base::ByteView data);
    // The next whole message; nullopt when more bytes are needed; kProtocol: not a QMP message.
    Result<std::optional<QmpMessage>> next();
    // Lines that next() has taken, empty ones too.
    std::uint64_t lines() const { return lines_; }

  private:
    std::string buffer_;
    std::size_t start_ = 0;    // of the first line that was not taken; what is before goes with the next feed()
    std::size_t scanned_ = 0;  // no line ends between start_ and here
    std::uint64_t lines_ = 0;
};

// Notices a VMM that never stops talking.
class QmpRate {
  public:
    // `lines` is the parser's count by now. kProtocol: more than kMaxQmpLinesPerSecond within a second.
    Result<> check(std::uint64_t lines, std::chrono::steady_clock::time_point now);

  private:
    std::chrono::steady_clock::time_point since_{};
    std::uint64_t lines_then_ = 0;
};

// {"execute": ...} lines.
std::string qmp_command(const std::string& name);
std::string qmp_block_resize(const std::string& device, std::uint64_t size_bytes);
// `device`: of the guest, by its id. Held: at most one write, of whatever size, passes; further ones wait. Source: qapi/block-core.json
std::string qmp_hold_writes(const std::string& device, bool held);
std::string qmp_migrate_to_file(const std::string& path_in_jail);

}  // namespace caisson::vmm
