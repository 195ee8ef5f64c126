// How log entries and their times are read and written. Pure functions.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "caisson/logs.h"

namespace caisson::cli {

// A point in time, as nanoseconds of Unix time: RFC 3339 ("2026-05-01T12:00:00.5Z", "…+02:00"; without a zone it is the
// local one, and without a time of day midnight), Unix seconds ("1777636800", "1777636800.5"), or a duration ("10m",
// "1h30m"), which is that long before `now_ns`. kUsage otherwise, and for times outside the years 1970 to 2262.
Result<std::int64_t> parse_log_time(std::string_view text, std::int64_t now_ns);
// What a TIME may be, for help texts.
inline constexpr const char* kTimeForms =
    "TIME is 2026-05-01T12:00:00Z (or without a zone, for local time), Unix seconds, or a duration: 10m is ten minutes ago.";
// The host's clock.
std::int64_t now_ns();
// "2026-05-01T12:00:00.000000000Z"
std::string format_log_time(std::int64_t unix_ns);

// One line, with its end: {"time":…,"unix_ns":…,"source":"stdout","text":"…"}, or "base64" where the bytes are no
// UTF-8, so that every byte comes back. Entries without bytes have "lost_bytes" or "missing_entries", and "reason".
std::string log_json_line(const LogEntry& entry);
// A sentence about an entry without bytes.
std::string log_note(const LogEntry& entry);

// Puts the time before each line: that at which the line began, however many entries it comes in. Each source has lines
// of its own. Besides the times nothing is added.
class LinePrefixer {
  public:
    std::string prefixed(const LogEntry& entry);

  private:
    std::array<bool, 3> in_line_{};
};

}  // namespace caisson::cli
