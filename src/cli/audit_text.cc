#include "cli/audit_text.h"

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cli/json_text.h"
#include "cli/log_text.h"

namespace caisson::cli {

using base::failure;
using nlohmann::ordered_json;

namespace {

constexpr std::size_t kHashDigits = 64;
constexpr std::size_t kShownValue = 500;

ordered_json details_of(const AuditEvent& event) {
    auto details = ordered_json::parse(event.details, nullptr, false);
    return details.is_object() ? details : ordered_json::object();
}

// "2026-05-01T12:00:00.123Z"
std::string time_text(std::int64_t unix_ms) {
    auto text = format_log_time(unix_ms * 1'000'000);
    return text.substr(0, text.size() - 7) + "Z";
}

std::string value_text(const ordered_json& value) {
    if (value.is_array()) {
        std::vector<std::string> words;
        for (const auto& word : value) words.push_back(word.is_string() ? base::shell_quote(word.get<std::string>()) : json_text(word));
        return "[" + base::join(words, " ") + "]";
    }
    return value.is_string() ? base::shell_quote(value.get<std::string>()) : json_text(value);
}

}  // namespace

std::string audit_json_line(const AuditEvent& event) {
    ordered_json document;
    document["chain"] = event.chain;
    document["seq"] = event.sequence;
    document["time"] = time_text(event.time_ms);
    document["kind"] = event.kind;
    document["box"] = event.box_id.empty() ? ordered_json(nullptr) : ordered_json(event.box_id);
    document["name"] = event.box_name.empty() ? ordered_json(nullptr) : ordered_json(event.box_name);
    document["uid"] = event.uid;
    document["pid"] = event.pid;
    document["process"] = event.process.empty() ? ordered_json(nullptr) : ordered_json(event.process);
    document["details"] = details_of(event);
    document["prev"] = event.previous_hash;
    document["hash"] = event.hash;
    return json_text(document) + "\n";
}

std::string audit_text_line(const AuditEvent& event, bool full) {
    std::string text = time_text(event.time_ms) + "  " + event.kind;
    if (!event.box_id.empty()) text += "  " + (event.box_name.empty() ? "" : event.box_name + " ") + "(" + event.box_id + ")";
    const auto details = details_of(event);
    for (const auto& [key, value] : details.items()) text += "  " + key + "=" + base::printable(value_text(value), kShownValue);
    if (full)
        text += "  by uid " + std::to_string(event.uid) + " pid " + std::to_string(event.pid) + (event.process.empty() ? "" : " " + event.process) +
                "  " + (event.chain == "home" ? "home" : "box") + "#" + std::to_string(event.sequence);
    return base::printable(text, 64 << 10);
}

Result<AuditHead> parse_audit_head(std::string_view text) {
    auto wrong = [&] {
        return failure(Errc::kUsage, "'" + base::printable(text, 100) + "' is not the head of a journal", "it is SEQUENCE:HASH, as caisson audit head prints it");
    };
    const auto colon = text.find(':');
    if (colon == std::string_view::npos) return wrong();
    auto sequence = base::parse_u64(text.substr(0, colon));
    const auto hash = text.substr(colon + 1);
    if (!sequence || *sequence == 0 || hash.size() != kHashDigits || !base::is_hex(hash)) return wrong();
    return AuditHead{"", *sequence, std::string(hash)};
}

std::string audit_head_text(const AuditHead& head) { return std::to_string(head.sequence) + ":" + head.hash; }

}  // namespace caisson::cli
