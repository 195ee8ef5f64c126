// Small text work that several rooms share: numbers from outside, sizes, durations, splitting, safe quoting.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace caisson::base {

// Whole decimal number, nothing before or after it; kUsage otherwise.
Result<std::uint64_t> parse_u64(std::string_view text);
// "512", "512b", "64k", "256M", "1g", "10GiB", "2T": bytes; powers of 1024. kUsage otherwise.
Result<std::uint64_t> parse_size(std::string_view text);
// "500ms", "1s", "2m", "1h30m", "90" (seconds), "1.5s". kUsage otherwise.
Result<std::chrono::milliseconds> parse_duration(std::string_view text);
// 1536 -> "1.5 KiB".
std::string format_size(std::uint64_t bytes);
std::vector<std::string> split(std::string_view text, char separator);
bool starts_with(std::string_view text, std::string_view prefix);
// Digits 0 to 9 and a to f, at least one, and nothing else.
bool is_hex(std::string_view text);
std::string_view trim(std::string_view text);
std::string join(const std::vector<std::string>& parts, std::string_view separator);
// One word for a POSIX shell: quoted only where needed.
std::string shell_quote(std::string_view word);
// RFC 3629.
bool is_utf8(std::string_view bytes);
// Bytes from a guest or image made fit for a terminal: control characters and broken UTF-8 become \xNN.
std::string printable(std::string_view bytes, std::size_t max_bytes = 4096);

}  // namespace caisson::base
