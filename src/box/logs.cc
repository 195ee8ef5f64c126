// Runtime::logs(): from a box's name to the files of its log.
#include <cstring>

#include "box/lifecycle.h"
#include "box/log.h"
#include "box/log_reader.h"
#include "box/owner.h"
#include "box/state.h"
#include "os/host.h"

namespace caisson {

using base::failure;

namespace {

LogEntry::Source source_of(box::LogSource source) {
    switch (source) {
        case box::LogSource::kStdout: return LogEntry::Source::kStdout;
        case box::LogSource::kStderr: return LogEntry::Source::kStderr;
        case box::LogSource::kConsole: return LogEntry::Source::kConsole;
    }
    return LogEntry::Source::kStdout;
}

LogEntry entry_of(const box::LogRecord& record) {
    LogEntry entry;
    entry.source = source_of(record.source);
    entry.sequence = record.sequence;
    entry.unix_ns = record.unix_ns;
    entry.bytes = base::as_text(record.bytes);
    entry.lost_bytes = record.lost_bytes;
    entry.missing_entries = record.missing_records;
    if (record.kind == box::LogKind::kLost) {
        entry.kind = LogEntry::Kind::kLost;
        const char* reason = ::strerrordesc_np(record.error_number);
        entry.reason = reason == nullptr ? "unknown error" : reason;
    } else if (record.kind == box::LogKind::kMissing) {
        entry.kind = LogEntry::Kind::kMissing;
        entry.reason = record.damaged ? "the log is damaged" : "rotated away";
    }
    return entry;
}

}  // namespace

Result<> Runtime::logs(const std::string& reference, const LogOptions& options,
                       const std::function<Result<bool>(const LogEntry&)>& sink) const {
    if (options.console && !options.execution.empty())
        return failure(Errc::kUsage, "the console is the box's, not an execution's");
    const auto record = CAISSON_TRY(internal::find_record(*state_, reference));
    const auto boot_id = CAISSON_TRY(os::boot_id());
    std::string name = options.console ? box::kConsoleLog : box::kOutputLog;
    std::string execution;
    if (!options.execution.empty()) {
        execution = CAISSON_TRY(internal::find_execution(*state_, record.id, options.execution)).id;
        name = box::execution_log(execution);
    }

    box::LogQuery query;
    query.follow = options.follow;
    query.since_ns = options.since_ns;
    query.until_ns = options.until_ns;
    query.tail_lines = options.tail_lines;
    query.want_stdout = options.want_stdout;
    query.want_stderr = options.want_stderr;
    query.want_console = options.console;
    query.up_to_position = options.before_sequence;
    auto still_written = [&] {
        auto now = internal::find_record(*state_, record.id);
        if (!now || !store::is_live(now->state) || !box::owner_lives(now->owner, boot_id)) return false;
        if (execution.empty()) return true;
        auto running = internal::find_execution(*state_, record.id, execution);
        return running && running->running;
    };
    bool found = false;  // an error of the sink is the sink's
    auto read = box::read_log(state_->home.box(record.id), name, query, still_written, [&](const box::LogRecord& next) {
        found = true;
        return sink(entry_of(next));
    });
    if (!read && !found && read.error().code == Errc::kNotFound) return {};  // it has not written anything yet
    return read;
}

}  // namespace caisson
