#include "base/text.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <limits>

#include "base/bytes.h"

namespace caisson::base {

std::string to_hex(ByteView bytes) {
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string text;
    text.reserve(bytes.size() * 2);
    for (auto byte : bytes) {
        text += kDigits[byte >> 4];
        text += kDigits[byte & 15];
    }
    return text;
}

Result<std::uint64_t> parse_u64(std::string_view text) {
    std::uint64_t value = 0;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 10);
    if (text.empty() || error != std::errc{} || end != text.data() + text.size())
        return failure(Errc::kUsage, "'" + printable(text, 64) + "' is not a whole number");
    return value;
}

Result<std::uint64_t> parse_size(std::string_view text) {
    std::size_t digits = 0;
    while (digits < text.size() && text[digits] >= '0' && text[digits] <= '9') ++digits;
    auto bad = [&] {
        return failure(Errc::kUsage, "'" + printable(text, 64) + "' is not a size",
                       "write a number with an optional unit, such as 512M or 10G");
    };
    auto number = parse_u64(text.substr(0, digits));
    if (!number) return bad();
    std::string unit;
    for (char c : text.substr(digits)) unit += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
    if (unit.size() > 1 && unit.ends_with("ib")) unit.resize(unit.size() - 2);
    else if (unit.size() > 1 && unit.ends_with("b")) unit.resize(unit.size() - 1);
    unsigned shift = 0;
    if (unit.empty() || unit == "b") shift = 0;
    else if (unit == "k") shift = 10;
    else if (unit == "m") shift = 20;
    else if (unit == "g") shift = 30;
    else if (unit == "t") shift = 40;
    else return bad();
    if (shift > 0 && *number > (std::numeric_limits<std::uint64_t>::max() >> shift)) return bad();
    return *number << shift;
}

Result<std::chrono::milliseconds> parse_duration(std::string_view text) {
    auto bad = [&] {
        return failure(Errc::kUsage, "'" + printable(text, 64) + "' is not a duration",
                       "write for example 500ms, 30s, 5m or 1h30m");
    };
    if (text.empty()) return bad();
    double total_ms = 0;
    std::string_view rest = text;
    while (!rest.empty()) {
        double number = 0;
        auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), number, std::chars_format::fixed);
        if (error != std::errc{} || number < 0) return bad();
        rest.remove_prefix(static_cast<std::size_t>(end - rest.data()));
        double unit_ms = 1000;
        if (starts_with(rest, "ms")) unit_ms = 1, rest.remove_prefix(2);
        else if (starts_with(rest, "s")) rest.remove_prefix(1);
        else if (starts_with(rest, "m")) unit_ms = 60e3, rest.remove_prefix(1);
        else if (starts_with(rest, "h")) unit_ms = 3600e3, rest.remove_prefix(1);
        else if (starts_with(rest, "d")) unit_ms = 86400e3, rest.remove_prefix(1);
        else if (!rest.empty()) return bad();
        total_ms += number * unit_ms;
    }
    if (!(total_ms <= 1e15)) return bad();
    return std::chrono::milliseconds(static_cast<std::int64_t>(std::llround(total_ms)));
}

std::string format_size(std::uint64_t bytes) {
    static constexpr std::array<const char*, 5> kUnits{"B", "KiB", "MiB", "GiB", "TiB"};
    double value = static_cast<double>(bytes);
    std::size_t unit = 0;
    while (value >= 1024 && unit + 1 < kUnits.size()) value /= 1024, ++unit;
    char text[32];
    std::snprintf(text, sizeof text, unit == 0 || value >= 100 ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
    return text;
}

std::vector<std::string> split(std::string_view text, char separator) {
    std::vector<std::string> parts;
    std::size_t from = 0;
    for (;;) {
        auto at = text.find(separator, from);
        parts.emplace_back(text.substr(from, at == std::string_view::npos ? at : at - from));
        if (at == std::string_view::npos) return parts;
        from = at + 1;
    }
}

bool is_hex(std::string_view text) { return !text.empty() && text.find_first_not_of("0123456789abcdef") == std::string_view::npos; }

bool starts_with(std::string_view text, std::string_view prefix) { return text.substr(0, prefix.size()) == prefix; }

std::string_view trim(std::string_view text) {
    static constexpr std::string_view kBlank = " \t\r\n";
    auto from = text.find_first_not_of(kBlank);
    if (from == std::string_view::npos) return {};
    return text.substr(from, text.find_last_not_of(kBlank) - from + 1);
}

std::string join(const std::vector<std::string>& parts, std::string_view separator) {
    std::string text;
    for (std::size_t i = 0; i < parts.size(); ++i) {
        if (i > 0) text += separator;
        text += parts[i];
    }
    return text;
}

std::string shell_quote(std::string_view word) {
    static constexpr std::string_view kPlain =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./:@%,";
    if (!word.empty() && word.find_first_not_of(kPlain) == std::string_view::npos) return std::string(word);
    std::string text = "'";
    for (char c : word) {
        if (c == '\'') text += "'\\''";
        else text += c;
    }
    return text + "'";
}

namespace {
// Length of the valid UTF-8 sequence at the start of `bytes`, 0 if there is none. RFC 3629.
std::size_t utf8_length(std::string_view bytes) {
    auto byte = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
    auto follows = [&](std::size_t i) { return i < bytes.size() && (byte(i) & 0xC0) == 0x80; };
    unsigned char first = byte(0);
    if (first < 0x80) return 1;
    if (first >= 0xC2 && first <= 0xDF) return follows(1) ? 2 : 0;
    if (first >= 0xE0 && first <= 0xEF) {
        if (!follows(1) || !follows(2)) return 0;
        if (first == 0xE0 && byte(1) < 0xA0) return 0;
        if (first == 0xED && byte(1) > 0x9F) return 0;
        return 3;
    }
    if (first >= 0xF0 && first <= 0xF4) {
        if (!follows(1) || !follows(2) || !follows(3)) return 0;
        if (first == 0xF0 && byte(1) < 0x90) return 0;
        if (first == 0xF4 && byte(1) > 0x8F) return 0;
        return 4;
    }
    return 0;
}
}  // namespace

bool is_utf8(std::string_view bytes) {
    while (!bytes.empty()) {
        const auto length = utf8_length(bytes);
        if (length == 0) return false;
        bytes.remove_prefix(length);
    }
    return true;
}

std::string printable(std::string_view bytes, std::size_t max_bytes) {
    std::string text;
    bool cut = bytes.size() > max_bytes;
    bytes = bytes.substr(0, max_bytes);
    while (!bytes.empty()) {
        auto first = static_cast<unsigned char>(bytes[0]);
        auto length = utf8_length(bytes);
        // C0, DEL and C1 (U+0080..U+009F, which terminals obey as well) must not reach a terminal.
        bool control = first < 0x20 || first == 0x7F ||
                       (length == 2 && first == 0xC2 && static_cast<unsigned char>(bytes[1]) < 0xA0);
        // U+2028 to U+202E and U+2066 to U+2069 break lines or turn the direction of writing: a line would read otherwise.
        auto byte = [&](std::size_t at) { return static_cast<unsigned char>(bytes[at]); };
        control = control || (length == 3 && first == 0xE2 && byte(1) == 0x80 && byte(2) >= 0xA8 && byte(2) <= 0xAE) ||
                  (length == 3 && first == 0xE2 && byte(1) == 0x81 && byte(2) >= 0xA6 && byte(2) <= 0xA9);
        if (length == 0 || control) {
            if (length == 0) length = 1;
            for (std::size_t i = 0; i < length; ++i) {
                constexpr char kDigits[] = "0123456789abcdef";
                const auto value = static_cast<unsigned char>(bytes[i]);
                for (char c : {'\\', 'x', kDigits[value >> 4], kDigits[value & 15]}) text += c;
            }
        } else {
            text += bytes.substr(0, length);
        }
        bytes.remove_prefix(length);
    }
    if (cut) text += "...";
    return text;
}

}  // namespace caisson::base
