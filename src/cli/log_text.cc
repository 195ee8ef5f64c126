#include "cli/log_text.h"

#include <time.h>

#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/text.h"
#include "cli/json_text.h"

namespace caisson::cli {

namespace {

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::int64_t kMostSeconds = INT64_MAX / kSecond - 1;  // in the year 2262

base::Failure no_time(std::string_view text) {
    return base::failure(Errc::kUsage, "'" + base::printable(text, 64) + "' is not a time",
                         "use 2026-05-01T12:00:00Z, Unix seconds, or a duration such as 10m");
}

// Takes `digits` digits off the front of `text`.
std::optional<int> take_number(std::string_view& text, std::size_t digits) {
    if (text.size() < digits || text.substr(0, digits).find_first_not_of("0123456789") != std::string_view::npos)
        return {};
    int number = 0;
    std::from_chars(text.data(), text.data() + digits, number);
    text.remove_prefix(digits);
    return number;
}

bool take(std::string_view& text, std::string_view any_of) {
    if (text.empty() || any_of.find(text.front()) == std::string_view::npos) return false;
    text.remove_prefix(1);
    return true;
}

// ".5" is 500000000; nothing is 0. Digits beyond nine are read and dropped.
std::optional<std::int64_t> take_fraction(std::string_view& text) {
    if (!take(text, ".")) return 0;
    std::int64_t nanoseconds = 0, unit = kSecond;
    bool any = false;
    for (; !text.empty() && text.front() >= '0' && text.front() <= '9'; text.remove_prefix(1), any = true)
        nanoseconds += (unit /= 10) * (text.front() - '0');
    if (!any) return {};
    return nanoseconds;
}

// Seconds east of Greenwich. RFC 3339, time-offset.
std::optional<std::int64_t> take_zone(std::string_view& text) {
    if (take(text, "Zz")) return 0;
    const bool west = !text.empty() && text.front() == '-';
    if (!take(text, "+-")) return {};
    const auto hours = take_number(text, 2);
    if (!hours || *hours > 23 || !take(text, ":")) return {};
    const auto minutes = take_number(text, 2);
    if (!minutes || *minutes > 59) return {};
    return (west ? -1 : 1) * (*hours * 3600 + *minutes * 60);
}

// "2026-05-01", and behind 'T' or a blank "12:00", "12:00:00" or "12:00:00.5", and a zone.
std::optional<std::int64_t> parse_date(std::string_view text) {
    struct tm fields {};
    const auto year = take_number(text, 4);
    if (!year || !take(text, "-")) return {};
    const auto month = take_number(text, 2);
    if (!month || *month < 1 || *month > 12 || !take(text, "-")) return {};
    const auto day = take_number(text, 2);
    if (!day || *day < 1 || *day > 31) return {};
    fields.tm_year = *year - 1900;
    fields.tm_mon = *month - 1;
    fields.tm_mday = *day;
    std::int64_t nanoseconds = 0;
    std::optional<std::int64_t> zone;
    if (take(text, "Tt ")) {
        const auto hour = take_number(text, 2);
        if (!hour || *hour > 23 || !take(text, ":")) return {};
        const auto minute = take_number(text, 2);
        if (!minute || *minute > 59) return {};
        fields.tm_hour = *hour;
        fields.tm_min = *minute;
        if (take(text, ":")) {
            const auto second = take_number(text, 2);
            const auto fraction = take_fraction(text);
            if (!second || *second > 60 || !fraction) return {};
            fields.tm_sec = *second;
            nanoseconds = *fraction;
        }
        if (!text.empty()) {
            zone = take_zone(text);
            if (!zone) return {};
        }
    }
    if (!text.empty()) return {};
    fields.tm_isdst = -1;
    const struct tm asked = fields;
    const std::int64_t seconds = zone ? ::timegm(&fields) - *zone : ::mktime(&fields);
    if (fields.tm_mday != asked.tm_mday && asked.tm_sec != 60) return {};  // 30 February
    if (seconds < 0 || seconds > kMostSeconds) return {};
    return seconds * kSecond + nanoseconds;
}

std::optional<std::int64_t> parse_seconds(std::string_view text) {
    std::int64_t seconds = 0;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
    if (error != std::errc{} || seconds < 0 || seconds > kMostSeconds) return {};
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    const auto fraction = take_fraction(text);
    if (!fraction || !text.empty()) return {};
    return seconds * kSecond + *fraction;
}

std::string base64(std::string_view bytes) {
    static constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string text;
    text.reserve((bytes.size() + 2) / 3 * 4);
    for (std::size_t i = 0; i < bytes.size(); i += 3) {
        auto byte = [&](std::size_t k) { return i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0u; };
        const unsigned group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for (unsigned k = 0; k < 4; ++k) text += i + k > bytes.size() ? '=' : kDigits[group >> (18 - 6 * k) & 63];
    }
    return text;
}

const char* name_of(LogEntry::Source source) {
    switch (source) {
        case LogEntry::Source::kStdout: return "stdout";
        case LogEntry::Source::kStderr: return "stderr";
        case LogEntry::Source::kConsole: return "console";
    }
    return "stdout";
}

}  // namespace

std::int64_t now_ns() {
    struct timespec now {};
    ::clock_gettime(CLOCK_REALTIME, &now);
    return static_cast<std::int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

Result<std::int64_t> parse_log_time(std::string_view text, std::int64_t now_ns) {
    if (auto date = parse_date(text)) return *date;
    if (auto seconds = parse_seconds(text)) return *seconds;
    // A bare number would be seconds to the parser of durations; here it was a time that cannot be.
    if (text.find_first_not_of("0123456789.") == std::string_view::npos) return no_time(text);
    const auto ago = base::parse_duration(text);
    if (!ago) return no_time(text);
    const auto milliseconds = ago->count();
    if (milliseconds > now_ns / 1'000'000) return no_time(text);
    return now_ns - milliseconds * 1'000'000;
}

std::string format_log_time(std::int64_t unix_ns) {
    std::int64_t seconds = unix_ns / kSecond, nanoseconds = unix_ns % kSecond;
    if (nanoseconds < 0) --seconds, nanoseconds += kSecond;
    const time_t when = seconds;
    struct tm fields {};
    ::gmtime_r(&when, &fields);
    char text[64];
    const auto length = ::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &fields);
    std::snprintf(text + length, sizeof text - length, ".%09lldZ", static_cast<long long>(nanoseconds));
    return text;
}

std::string log_json_line(const LogEntry& entry) {
    nlohmann::ordered_json line;
    line["time"] = format_log_time(entry.unix_ns);
    line["unix_ns"] = entry.unix_ns;
    line["source"] = name_of(entry.source);
    switch (entry.kind) {
        case LogEntry::Kind::kBytes:
            if (base::is_utf8(entry.bytes)) line["text"] = entry.bytes;
            else line["base64"] = base64(entry.bytes);
            break;
        case LogEntry::Kind::kLost: line["lost_bytes"] = entry.lost_bytes; break;
        case LogEntry::Kind::kMissing: line["missing_entries"] = entry.missing_entries; break;
    }
    if (entry.kind != LogEntry::Kind::kBytes) line["reason"] = entry.reason;
    return json_text(line) + "\n";
}

std::string log_note(const LogEntry& entry) {
    const bool lost = entry.kind == LogEntry::Kind::kLost;
    const auto count = lost ? entry.lost_bytes : entry.missing_entries;
    return std::to_string(count) + (lost ? " byte" : " entr") +
           (lost ? (count == 1 ? "" : "s") : (count == 1 ? "y" : "ies")) + " of the log " +
           (count == 1 ? "was" : "were") + " lost here: " + std::string(entry.reason);
}

std::string LinePrefixer::prefixed(const LogEntry& entry) {
    bool& in_line = in_line_[static_cast<std::size_t>(entry.source)];
    const auto time = format_log_time(entry.unix_ns) + " ";
    std::string text;
    for (auto rest = entry.bytes; !rest.empty();) {
        if (!in_line) text += time;
        const auto end = rest.find('\n');
        const auto line = end == std::string_view::npos ? rest : rest.substr(0, end + 1);
        text += line;
        in_line = line.back() != '\n';
        rest.remove_prefix(line.size());
    }
    return text;
}

}  // namespace caisson::cli
