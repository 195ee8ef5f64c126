// Runtime::logs(): from a box's name to the files of its log.
#include <cstring>

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
    auto find = [this](const std::string& box) {
        std::scoped_lock guard(state_->database_mutex);
        return state_->database->find_box(box);
    };
    const auto record = CAISSON_TRY(find(reference));
    const auto boot_id = CAISSON_TRY(os::boot_id());
    std::string name = options.console ? box::kConsoleLog : box::kOutputLog;
    if (!options.execution.empty()) {
        name = box::execution_log(options.execution);
        if (!box::check_log_name(name)) return failure(Errc::kUsage, "an execution cannot have this id");
    }

    box::LogQuery query;
    query.follow = options.follow;
    query.since_ns = options.since_ns;
    query.until_ns = options.until_ns;
    query.tail_lines = options.tail_lines;
    query.want_stdout = options.want_stdout;
    query.want_stderr = options.want_stderr;
    query.want_console = options.console;
    auto still_written = [&] {
        auto now = find(record.id);
        return now && (now->state == store::BoxState::kRunning || now->state == store::BoxState::kCreating) &&
               box::owner_lives(now->owner, boot_id);
    };
    bool found = false;  // an error of the sink is the sink's
    auto read = box::read_log(state_->home.box(record.id), name, query, still_written, [&](const box::LogRecord& next) {
        found = true;
        return sink(entry_of(next));
    });
    if (!read && !found && read.error().code == Errc::kNotFound) {
        if (options.execution.empty()) return {};  // it has not written anything yet
        return failure(Errc::kNotFound, "box " + record.name + " has no execution " + options.execution);
    }
    return read;
}

}  // namespace caisson
