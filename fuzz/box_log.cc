// The files of a box's log: records that the guest's bytes are in, and what a damaged disk makes of them. What is read
// must be what was checked, and what the command line makes of it must keep every byte.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "base/text.h"
#include "box/log_format.h"
#include "box/log_reader.h"
#include "cli/log_text.h"

using namespace caisson;

namespace {

constexpr std::size_t kMostShown = 16;  // JSON is slow under sanitizers

void check(bool fine) {
    if (!fine) std::abort();
}

void check_record(const box::ParsedRecord& parsed, base::ByteView input, std::uint32_t salt) {
    check(parsed.payload.size() <= box::kMostLogRecordBytes && parsed.size() <= input.size());
    std::uint8_t header[box::kLogRecordHeaderBytes];
    box::encode(parsed.header, salt, header);
    check(std::equal(std::begin(header), std::end(header), input.begin()));
    check(box::crc32c(parsed.payload, salt) == parsed.header.payload_crc);
}

void check_text(const box::LogRecord& record, cli::LinePrefixer& prefixer) {
    LogEntry entry;
    entry.source = record.source == box::LogSource::kStderr ? LogEntry::Source::kStderr : LogEntry::Source::kStdout;
    entry.unix_ns = record.unix_ns;
    entry.bytes = base::as_text(record.bytes);
    const auto line = cli::log_json_line(entry);
    check(base::is_utf8(line) && line.find('\n') == line.size() - 1);
    check(prefixer.prefixed(entry).size() >= entry.bytes.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    base::ByteView rest(data, size);
    std::uint32_t salt = 0;
    if (auto header = box::parse_file_header(rest)) {
        std::uint8_t again[box::kLogFileHeaderBytes];
        box::encode(*header, again);
        auto parsed = box::parse_file_header(again);
        check(parsed && parsed->salt == header->salt && parsed->first_record == header->first_record);
        salt = header->salt;
        rest = rest.subspan(box::kLogFileHeaderBytes);
    }
    std::vector<box::LogRecord> records;
    cli::LinePrefixer prefixer;
    while (!rest.empty()) {
        const auto parsed = box::parse_record(rest, salt);
        if (parsed.what != box::Parsed::kRecord) {
            // What an attacker without checksums can do ends above; this goes on without them.
            const auto piece = rest.first(std::min<std::size_t>(rest.size(), 1 + rest[0] % 16));
            records.push_back({.source = static_cast<box::LogSource>(1 + rest[0] % 3), .unix_ns = 1, .bytes = piece});
            rest = rest.subspan(piece.size());
        } else {
            check_record(parsed, rest, salt);
            if (parsed.header.kind == box::LogKind::kBytes)
                records.push_back(
                    {.source = parsed.header.source, .unix_ns = parsed.header.unix_ns, .bytes = parsed.payload});
            rest = rest.subspan(parsed.size());
        }
        if (!records.empty() && records.size() <= kMostShown) check_text(records.back(), prefixer);
    }
    // The last N lines are never more than N, and for a large N everything.
    for (std::uint64_t tail : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{3}, UINT64_MAX}) {
        box::LineCut cut(tail);
        for (const auto& record : records) cut.count(record);
        cut.begin_selection();
        std::size_t all = 0, selected = 0, ends = 0;
        for (const auto& record : records) {
            const auto bytes = cut.selected(record);
            check(bytes.size() <= record.bytes.size());
            all += record.bytes.size();
            selected += bytes.size();
            ends += static_cast<std::size_t>(std::count(bytes.begin(), bytes.end(), '\n'));
        }
        check(ends <= tail && (tail > 0 || selected == 0) && (tail < UINT64_MAX || selected == all));
    }
    return 0;
}
