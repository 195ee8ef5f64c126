#include "audit/event.h"

#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "audit/limits.h"
#include "base/sha256.h"
#include "base/text.h"

namespace caisson::audit {

using base::failure;
using nlohmann::ordered_json;

namespace {

constexpr std::size_t kHashDigits = 64;
constexpr std::string_view kHashKey = ",\"hash\":\"";
constexpr std::string_view kLineEnd = "\"}";
constexpr std::size_t kTailBytes = kHashKey.size() + kHashDigits + kLineEnd.size();

const std::string& no_hash() {
    static const std::string zeros(kHashDigits, '0');
    return zeros;
}

// At most `most` bytes, valid UTF-8, and marked where something is missing.
std::string bounded(std::string_view text, std::size_t most) {
    const bool cut = text.size() > most;
    if (cut) {
        text = text.substr(0, most);
        // Not in the middle of a character; one has up to three bytes after its first.
        for (int i = 0; i < 3 && !text.empty() && (static_cast<unsigned char>(text.back()) & 0xC0) == 0x80; ++i) text.remove_suffix(1);
        if (!text.empty() && static_cast<unsigned char>(text.back()) >= 0xC0) text.remove_suffix(1);
    }
    std::string made = base::is_utf8(text) ? std::string(text) : base::printable(text, most);
    return cut ? made + "..." : made;
}

ordered_json to_json(const std::vector<std::string>& words) {
    auto list = ordered_json::array();
    std::size_t left = limits::kLongestList;
    for (const auto& word : words) {
        if (list.size() == limits::kMostWords || left == 0) {
            list.push_back("...");
            break;
        }
        list.push_back(bounded(word, std::min(left, limits::kLongestText)));
        left -= std::min(left, word.size() + 1);
    }
    return list;
}

ordered_json to_json(const Value& value) {
    if (const auto* text = std::get_if<std::string>(&value)) return bounded(*text, limits::kLongestText);
    if (const auto* number = std::get_if<std::int64_t>(&value)) return *number;
    if (const auto* flag = std::get_if<bool>(&value)) return *flag;
    return to_json(std::get<std::vector<std::string>>(value));
}

std::string hash_of(std::string_view line_without_hash) {
    base::Sha256 hash;
    hash.update(base::as_bytes(line_without_hash));
    hash.update(base::as_bytes(std::string_view("}")));
    return hash.finish_hex();
}

std::string dump(const ordered_json& document) { return document.dump(-1, ' ', true, ordered_json::error_handler_t::replace); }

bool is_hash(std::string_view text) {
    return text.size() == kHashDigits && base::is_hex(text);
}

// Of format_time(), and nothing else.
bool parse_time(std::string_view text, std::int64_t& unix_ms) {
    constexpr std::string_view kForm = "0000-00-00T00:00:00.000Z";
    if (text.size() != kForm.size()) return false;
    for (std::size_t i = 0; i < kForm.size(); ++i)
        if (kForm[i] == '0' ? text[i] < '0' || text[i] > '9' : text[i] != kForm[i]) return false;
    auto number = [text](std::size_t at, std::size_t digits) {
        int value = 0;
        for (char digit : text.substr(at, digits)) value = value * 10 + (digit - '0');
        return value;
    };
    struct tm parts {};
    parts.tm_year = number(0, 4) - 1900;
    parts.tm_mon = number(5, 2) - 1;
    parts.tm_mday = number(8, 2);
    parts.tm_hour = number(11, 2);
    parts.tm_min = number(14, 2);
    parts.tm_sec = number(17, 2);
    unix_ms = static_cast<std::int64_t>(::timegm(&parts)) * 1000 + number(20, 3);
    return true;
}

bool read_text(const ordered_json& document, const char* key, std::string& text) {
    auto found = document.find(key);
    if (found == document.end()) return true;
    if (!found->is_string()) return false;
    text = found->get_ref<const std::string&>();
    return true;
}

template <typename Number>
bool read_integer(const ordered_json& document, const char* key, Number& number) {
    auto found = document.find(key);
    if (found == document.end() || !found->is_number_integer()) return false;
    number = found->get<Number>();
    return true;
}

}  // namespace

Actor this_actor() { return {static_cast<std::int64_t>(::getuid()), static_cast<std::int64_t>(::getpid()), program_invocation_short_name}; }

std::string format_time(std::int64_t unix_ms) {
    auto seconds = static_cast<time_t>(unix_ms / 1000);
    struct tm parts {};
    char text[80];
    // Years of four digits only: a clock that is further off is shown as near as that can be.
    constexpr time_t kLast = 253402300799;
    seconds = std::clamp<time_t>(seconds, 0, kLast);
    ::gmtime_r(&seconds, &parts);
    std::snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday,
                  parts.tm_hour, parts.tm_min, parts.tm_sec, static_cast<int>((unix_ms % 1000 + 1000) % 1000));
    return text;
}

std::pair<std::string, Head> make_line(const Event& event, const Actor& actor, std::int64_t unix_ms, const Head& previous) {
    Head made;
    made.sequence = previous.sequence + 1;
    ordered_json document;
    document["seq"] = made.sequence;
    document["time"] = format_time(unix_ms);
    document["kind"] = bounded(event.kind, limits::kLongestText);
    if (!event.box_id.empty()) document["box"] = bounded(event.box_id, limits::kLongestText);
    if (!event.box_name.empty()) document["name"] = bounded(event.box_name, limits::kLongestText);
    document["uid"] = actor.uid;
    document["pid"] = actor.pid;
    if (!actor.process.empty()) document["process"] = bounded(actor.process, limits::kLongestText);
    auto& details = document["details"] = ordered_json::object();
    for (const auto& [key, value] : event.details) details[key] = to_json(value);
    document["prev"] = previous.hash.empty() ? no_hash() : previous.hash;
    auto line = dump(document);
    if (line.size() + kTailBytes > limits::kLongestLine) {
        // Many long texts, all of them escaped: what it was about is kept.
        document["details"] = {{"too_long", true}};
        line = dump(document);
    }
    line.pop_back();
    made.hash = hash_of(line);
    line.append(kHashKey).append(made.hash).append(kLineEnd).push_back('\n');
    return {std::move(line), std::move(made)};
}

namespace {

// What a supervisor wrote that was taken over: without bounds it could be nested until whoever prints it has no stack left,
// and have as many keys as make looking for one take seconds.
ordered_json parse_bounded(std::string_view line) {
    constexpr int kDeepest = 4;  // an entry, its details, a list
    constexpr std::size_t kMostKeys = 100;
    std::size_t keys = 0;
    bool fits = true;
    auto document = ordered_json::parse(
        line,
        [&](int depth, ordered_json::parse_event_t event, ordered_json&) {
            if (event == ordered_json::parse_event_t::key) ++keys;
            fits = fits && depth <= kDeepest && keys <= kMostKeys;
            return fits;
        },
        false);
    return fits ? document : ordered_json(nullptr);
}

}  // namespace

Result<Entry> parse_line(std::string_view line) {
    auto broken = [] { return failure(Errc::kCorrupt, "this line is no entry of a journal"); };
    if (line.size() > limits::kLongestLine || line.size() <= kTailBytes) return broken();
    const auto tail = line.substr(line.size() - kTailBytes);
    const auto hash = tail.substr(kHashKey.size(), kHashDigits);
    if (tail.substr(0, kHashKey.size()) != kHashKey || tail.substr(tail.size() - kLineEnd.size()) != kLineEnd || !is_hash(hash)) return broken();
    const auto document = parse_bounded(line);
    if (!document.is_object()) return broken();
    Entry entry;
    std::string time;
    const auto details = document.find("details");
    if (!read_integer(document, "seq", entry.sequence) || !read_integer(document, "uid", entry.actor.uid) ||
        !read_integer(document, "pid", entry.actor.pid) || !read_text(document, "time", time) || !parse_time(time, entry.unix_ms) ||
        !read_text(document, "kind", entry.kind) || entry.kind.empty() || !read_text(document, "box", entry.box_id) ||
        !read_text(document, "name", entry.box_name) || !read_text(document, "process", entry.actor.process) ||
        !read_text(document, "prev", entry.previous) || !is_hash(entry.previous) || details == document.end() || !details->is_object())
        return broken();
    entry.details = dump(*details);
    entry.hash = hash;
    entry.intact = hash_of(line.substr(0, line.size() - kTailBytes)) == hash;
    return entry;
}

}  // namespace caisson::audit
