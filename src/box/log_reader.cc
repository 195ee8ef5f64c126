#include "box/log_reader.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>

#include "box/log_file.h"
#include "os/file.h"
#include "os/host.h"

namespace caisson::box {

using base::failure;

namespace {

// The records of all files, in order. Files that it has seen stay open until they are read, so that a rotation takes
// nothing away from a reader that keeps up.
class Records {
  public:
    static Result<Records> open(const std::string& directory, const std::string& name) {
        return Records(CAISSON_TRY(os::open_file(directory, O_RDONLY | O_DIRECTORY)), name);
    }

    // Looks for files that are newer than those it knows. Whether it knows any.
    Result<bool> find_files();
    // The next record, or kMissing instead of those that are gone. False: there is none yet.
    Result<bool> next(LogRecord& out);
    // From here on next() ends where the log ends now.
    Result<> stop_at_end();
    void go_on() { stop_.reset(); }
    // Back to the first record; all files must have been kept.
    void rewind();
    void keep_files(bool keep) { keep_ = keep; }

    const os::Fd& directory() const { return directory_; }
    const LogFile* current() const { return at_ < files_.size() ? &files_[at_] : nullptr; }
    // What was in the way, though the rest could be read.
    const std::optional<Error>& trouble() const { return trouble_; }

  private:
    struct End {
        std::uint64_t file_sequence, size;
    };

    Records(os::Fd directory, std::string name) : directory_(std::move(directory)), name_(std::move(name)) {}
    Result<bool> next_parsed();
    Result<bool> go_to_next_file();
    bool beyond_stop() const {
        const auto& file = files_[at_];
        return stop_ && (file.header().file_sequence > stop_->file_sequence ||
                         (file.header().file_sequence == stop_->file_sequence && file.end() > stop_->size));
    }
    void note(Error error) {
        if (!trouble_) trouble_ = std::move(error);
    }

    os::Fd directory_;
    std::string name_;
    std::deque<LogFile> files_;  // oldest first
    std::size_t at_ = 0;         // which of them is being read
    bool keep_ = false;
    bool complete_ = false;  // a newer file was there when we last began to read at the current one's end
    std::optional<std::uint64_t> newest_file_;
    std::optional<std::uint64_t> expected_;  // number of the next record
    bool skipped_file_ = false;              // between the current file and the one before
    std::optional<ParsedRecord> held_;       // behind a gap that was just given out
    ParsedRecord parsed_;
    std::optional<End> stop_;
    std::optional<Error> trouble_;
};

Result<bool> Records::find_files() {
    std::vector<LogFile> found;
    // From the newest slot to the oldest: a rotation meanwhile moves files in the same direction, so that none can slip
    // past; one may be seen twice.
    for (unsigned slot = 0; slot < kMostLogFiles; ++slot) {
        const auto file_name = log_file_name(name_, slot);
        auto file = LogFile::open(directory_, file_name);
        if (!file && file.error().code == Errc::kNotFound) continue;
        if (!file && (file.error().code == Errc::kCorrupt || file.error().code == Errc::kUnsupported)) {
            note(std::move(file).error());
            continue;
        }
        if (!file) return failure(std::move(file).error());
        const auto sequence = file->header().file_sequence;
        if (newest_file_ && sequence <= *newest_file_) break;  // and so are all older ones
        if (found.empty() || sequence < found.back().header().file_sequence) found.push_back(std::move(*file));
    }
    if (!found.empty()) newest_file_ = found.front().header().file_sequence;
    for (auto file = found.rbegin(); file != found.rend(); ++file) files_.push_back(std::move(*file));
    if (!expected_ && !files_.empty()) expected_ = files_.front().header().first_record;
    return !files_.empty();
}

Result<> Records::stop_at_end() {
    if (files_.empty()) return {};
    stop_ = End{files_.back().header().file_sequence, CAISSON_TRY(files_.back().size())};
    return {};
}

void Records::rewind() {
    for (auto& file : files_) file.rewind();
    at_ = 0;
    complete_ = skipped_file_ = false;
    held_.reset();
    if (!files_.empty()) expected_ = files_.front().header().first_record;
}

// Whether there is a file after the current one, which then is complete and read to its end.
Result<bool> Records::go_to_next_file() {
    if (at_ + 1 >= files_.size()) {
        if (files_[at_].is_at(directory_, log_file_name(name_, 0))) return false;
        CAISSON_TRY(find_files());
        if (at_ + 1 >= files_.size()) return false;
    }
    // It was complete before its successor came, but perhaps not yet when we read its end.
    if (!std::exchange(complete_, true)) return true;
    complete_ = false;
    const auto before = files_[at_].header().file_sequence;
    if (files_[at_].damaged()) note({Errc::kCorrupt, "a file of the log is damaged"});
    files_[at_].release_buffer();
    if (keep_) ++at_;
    else files_.pop_front();
    skipped_file_ = files_[at_].header().file_sequence > before + 1;
    return true;
}

Result<bool> Records::next_parsed() {
    if (held_) {
        parsed_ = *std::exchange(held_, std::nullopt);
        return true;
    }
    if (files_.empty() && !CAISSON_TRY(find_files())) return false;
    for (;;) {
        if (CAISSON_TRY(files_[at_].next(parsed_))) {
            if (parsed_.header.sequence < *expected_) continue;  // only damage can do that
            return true;
        }
        if (files_[at_].damaged()) note({Errc::kCorrupt, "a file of the log is damaged"});
        if (!CAISSON_TRY(go_to_next_file())) return false;
    }
}

Result<bool> Records::next(LogRecord& out) {
    if (!CAISSON_TRY(next_parsed())) return false;
    if (beyond_stop()) {
        held_ = parsed_;
        return false;
    }
    const auto& header = parsed_.header;
    out = {};
    out.source = header.source;
    out.unix_ns = header.unix_ns;
    if (header.sequence > *expected_) {
        out.kind = LogKind::kMissing;
        out.sequence = *expected_;
        out.missing_records = header.sequence - *expected_;
        out.damaged = !skipped_file_;
        expected_ = header.sequence;
        held_ = parsed_;
        return true;
    }
    skipped_file_ = false;
    expected_ = header.sequence + 1;
    out.kind = header.kind;
    out.sequence = header.sequence;
    if (header.kind == LogKind::kBytes) out.bytes = parsed_.payload;
    out.lost_bytes = parsed_.lost.bytes;
    out.error_number = parsed_.lost.error_number;
    return true;
}

// Wakes when the current file grows or another one comes. Without inotify (there is a limit for each user) it only
// waits: then followers are kLogPollMs late.
class Wake {
  public:
    // Whether it is another file than before: then it may have grown before we looked.
    bool watch(const Records& records) {
        if (!inotify_) {
            inotify_ = os::Fd(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
            add(records.directory().get(), IN_MOVED_TO);
        }
        const auto* file = records.current();
        if (file == nullptr || file_sequence_ == file->header().file_sequence) return false;
        if (file_watch_ >= 0) ::inotify_rm_watch(inotify_.get(), file_watch_);
        file_watch_ = add(file->fd().get(), IN_MODIFY);
        file_sequence_ = file->header().file_sequence;
        return true;
    }
    void wait(std::chrono::milliseconds longest) {
        struct pollfd poll_fd {
            inotify_.get(), POLLIN, 0
        };  // a negative descriptor is ignored
        ::poll(&poll_fd, 1, static_cast<int>(longest.count()));
        char events[4096];
        while (inotify_ && ::read(inotify_.get(), events, sizeof events) > 0) {}
    }

  private:
    // By descriptor: the path may name another file by now.
    int add(int fd, std::uint32_t events) {
        return ::inotify_add_watch(inotify_.get(), ("/proc/self/fd/" + std::to_string(fd)).c_str(), events);
    }
    os::Fd inotify_;
    int file_watch_ = -1;
    std::optional<std::uint64_t> file_sequence_;
};

// One call of read_log().
class Reading {
  public:
    Reading(Records records, const LogQuery& query, const std::function<Result<bool>(const LogRecord&)>& sink)
        : records_(std::move(records)), query_(query), sink_(sink) {}

    Result<> read(const std::function<bool()>& still_written);

  private:
    enum class Verdict { kGive, kPass, kEnd };
    Verdict judge(const LogRecord& record) const;
    Result<> select_lines();
    // Gives all there is. False: the sink or the query ends the reading.
    Result<bool> drain();
    Result<bool> give(LogRecord& record);

    Records records_;
    const LogQuery& query_;
    const std::function<Result<bool>(const LogRecord&)>& sink_;
    std::optional<LineCut> cut_;  // as long as it is about lines from before the beginning
    bool enough_ = false;         // said the sink
};

Reading::Verdict Reading::judge(const LogRecord& record) const {
    if (query_.up_to_position && record.sequence >= *query_.up_to_position) return Verdict::kEnd;
    if (query_.until_ns && record.unix_ns > *query_.until_ns)
        return query_.follow ? Verdict::kEnd : Verdict::kPass;  // the host's clock may have been set back behind it
    if (query_.since_ns && record.unix_ns < *query_.since_ns) return Verdict::kPass;
    if (record.kind != LogKind::kBytes) return Verdict::kGive;
    const bool wanted = record.source == LogSource::kStdout   ? query_.want_stdout
                        : record.source == LogSource::kStderr ? query_.want_stderr
                                                              : query_.want_console;
    return wanted ? Verdict::kGive : Verdict::kPass;
}

// Counts the lines of what is there, in a first pass. Only numbers are kept, so a tail of any length costs no memory.
Result<> Reading::select_lines() {
    cut_.emplace(*query_.tail_lines);
    records_.keep_files(true);
    LogRecord record;
    while (CAISSON_TRY(records_.next(record))) {
        const auto verdict = judge(record);
        if (verdict == Verdict::kEnd) break;
        if (verdict == Verdict::kGive) cut_->count(record);
    }
    records_.rewind();
    records_.keep_files(false);
    cut_->begin_selection();
    return {};
}

Result<bool> Reading::give(LogRecord& record) {
    if (cut_ && record.kind != LogKind::kBytes && !cut_->reached()) return true;
    if (cut_ && record.kind == LogKind::kBytes) {
        record.bytes = cut_->selected(record);
        if (record.bytes.empty()) return true;
    }
    enough_ = !CAISSON_TRY(sink_(record));
    return !enough_;
}

Result<bool> Reading::drain() {
    LogRecord record;
    while (CAISSON_TRY(records_.next(record))) {
        const auto verdict = judge(record);
        if (verdict == Verdict::kEnd) return false;
        if (verdict == Verdict::kGive && !CAISSON_TRY(give(record))) return false;
    }
    return true;
}

Result<> Reading::read(const std::function<bool()>& still_written) {
    using Clock = std::chrono::steady_clock;
    constexpr std::chrono::milliseconds kPoll(kLogPollMs);
    auto asked = Clock::now();
    bool written = query_.follow && still_written();
    bool found = CAISSON_TRY(records_.find_files());
    CAISSON_TRY(records_.stop_at_end());
    if (query_.tail_lines) CAISSON_TRY(select_lines());
    Wake wake;
    bool more = CAISSON_TRY(drain());
    records_.go_on();
    cut_.reset();
    // Until drain() has given everything that was there after the writer had gone.
    while (more && query_.follow) {
        if (written) wake.watch(records_);
        do more = CAISSON_TRY(drain());
        while (more && written && wake.watch(records_));
        found = found || records_.current() != nullptr;
        if (!more || !written || (query_.until_ns && os::unix_ms() > *query_.until_ns / 1'000'000)) break;
        const auto since = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - asked);
        if (since < kPoll) wake.wait(kPoll - since);
        if (Clock::now() - asked >= kPoll) {
            asked = Clock::now();
            written = still_written();
        }
    }
    if (enough_) return {};
    if (records_.trouble()) return failure(Error(*records_.trouble()));
    if (!found) return failure(Errc::kNotFound, "there is no such log");
    return {};
}

}  // namespace

void LineCut::count(const LogRecord& record) {
    if (record.kind != LogKind::kBytes) return;
    auto& line = current_[static_cast<std::size_t>(record.source)];
    auto rest = record.bytes;
    while (!rest.empty()) {
        if (!line.unfinished) ++lines_;
        const auto* end = static_cast<const std::uint8_t*>(std::memchr(rest.data(), '\n', rest.size()));
        line.unfinished = end == nullptr;
        if (line.unfinished) return;
        rest = rest.subspan(static_cast<std::size_t>(end - rest.data()) + 1);
    }
}

void LineCut::begin_selection() {
    first_line_ = lines_ > last_lines_ ? lines_ - last_lines_ : 0;
    lines_ = 0;
    current_ = {};
}

base::ByteView LineCut::selected(const LogRecord& record) {
    auto& line = current_[static_cast<std::size_t>(record.source)];
    base::ByteView rest = record.bytes, wanted;
    while (!rest.empty()) {
        if (!line.unfinished) line.wanted = lines_++ >= first_line_;
        // Once one line is wanted, so are those that begin after it.
        if (line.wanted && wanted.empty()) wanted = rest;
        const auto* end = static_cast<const std::uint8_t*>(std::memchr(rest.data(), '\n', rest.size()));
        line.unfinished = end == nullptr;
        if (line.unfinished) break;
        rest = rest.subspan(static_cast<std::size_t>(end - rest.data()) + 1);
    }
    return wanted;
}

Result<> read_log(const std::string& directory, const std::string& name, const LogQuery& query,
                  const std::function<bool()>& still_written,
                  const std::function<Result<bool>(const LogRecord&)>& sink) {
    CAISSON_TRY(check_log_name(name));
    return Reading(CAISSON_TRY(Records::open(directory, name)), query, sink).read(still_written);
}

}  // namespace caisson::box
