#include "vmm/qmp.h"

#include <nlohmann/json.hpp>

#include "base/text.h"

namespace caisson::vmm {

using base::failure;
using nlohmann::json;

namespace {

// The JSON library recurses; nesting is bounded before it sees the text.
bool too_deep(std::string_view line) {
    int depth = 0;
    bool in_string = false;
    for (std::size_t i = 0; i < line.size(); ++i) {
        char c = line[i];
        if (in_string) {
            if (c == '\\') ++i;
            else if (c == '"') in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > kMaxQmpDepth) return true;
        } else if (c == '}' || c == ']') {
            --depth;
        }
    }
    return false;
}

std::string text_of(const json& object, const char* key) {
    auto found = object.find(key);
    return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

Result<QmpMessage> parse(std::string_view line) {
    auto bad = [&](const char* why) {
        return failure(Errc::kProtocol, std::string("the VMM sent ") + why + ": " + base::printable(line, 200));
    };
    if (too_deep(line)) return bad("JSON nested too deeply");
    json message = json::parse(line, nullptr, false);
    if (message.is_discarded() || !message.is_object()) return bad("something that is not a JSON object");
    QmpMessage result;
    if (message.contains("QMP")) {
        result.kind = QmpMessage::Kind::kGreeting;
    } else if (message.contains("return")) {
        result.kind = QmpMessage::Kind::kReturn;
        if (message["return"].is_object()) result.status = text_of(message["return"], "status");
    } else if (message.contains("error") && message["error"].is_object()) {
        result.kind = QmpMessage::Kind::kError;
        result.reason = base::printable(text_of(message["error"], "desc"), 1000);
    } else if (message.contains("event") && message["event"].is_string()) {
        result.kind = QmpMessage::Kind::kEvent;
        result.event = message["event"].get<std::string>();
        auto data = message.find("data");
        if (data != message.end() && data->is_object()) {
            result.reason = base::printable(text_of(*data, "reason"), 200);
            result.status = text_of(*data, "status");
            auto flag = [&](const char* key) {
                auto found = data->find(key);
                return found != data->end() && found->is_boolean() && found->get<bool>();
            };
            result.guest = flag("guest");
            result.no_space = flag("nospace");
        }
    } else {
        return bad("an unknown message");
    }
    return result;
}

}  // namespace

Result<> QmpParser::feed(base::ByteView data) {
    // Moved once for all lines that were taken: a VMM may send as many empty ones as fit.
    buffer_.erase(0, start_);
    scanned_ -= start_;
    start_ = 0;
    if (buffer_.size() + data.size() > 2 * kMaxQmpLine) return failure(Errc::kProtocol, "the VMM sent an endless line");
    buffer_ += base::as_text(data);
    return {};
}

Result<std::optional<QmpMessage>> QmpParser::next() {
    for (;;) {
        const auto end = buffer_.find('\n', scanned_);
        const auto length = (end == std::string::npos ? buffer_.size() : end) - start_;
        if (length > kMaxQmpLine) return failure(Errc::kProtocol, "the VMM sent an endless line");
        if (end == std::string::npos) {
            scanned_ = buffer_.size();
            return std::optional<QmpMessage>();
        }
        auto line = base::trim(std::string_view(buffer_).substr(start_, length));
        start_ = scanned_ = end + 1;
        ++lines_;
        if (!line.empty()) return std::optional<QmpMessage>(CAISSON_TRY(parse(line)));
    }
}

Result<> QmpRate::check(std::uint64_t lines, std::chrono::steady_clock::time_point now) {
    if (now - since_ >= std::chrono::seconds(1)) {
        since_ = now;
        lines_then_ = lines;
    }
    if (lines - lines_then_ > kMaxQmpLinesPerSecond)
        return failure(Errc::kProtocol, "the VMM sent more than " + std::to_string(kMaxQmpLinesPerSecond) + " lines in a second");
    return {};
}

std::string qmp_command(const std::string& name) { return json{{"execute", name}}.dump() + "\n"; }

std::string qmp_block_resize(const std::string& device, std::uint64_t size_bytes) {
    return json{{"execute", "block_resize"}, {"arguments", {{"node-name", device}, {"size", size_bytes}}}}.dump() + "\n";
}

std::string qmp_hold_writes(const std::string& device, bool held) {
    // A byte in a second. All six numbers have to be there.
    return json{{"execute", "block_set_io_throttle"},
                {"arguments",
                 {{"id", device}, {"bps", 0}, {"bps_rd", 0}, {"bps_wr", held ? 1 : 0}, {"iops", 0}, {"iops_rd", 0}, {"iops_wr", 0}}}}
               .dump() +
           "\n";
}

std::string qmp_migrate_to_file(const std::string& path_in_jail) {
    return json{{"execute", "migrate"}, {"arguments", {{"uri", "file:" + path_in_jail}}}}.dump() + "\n";
}

}  // namespace caisson::vmm
