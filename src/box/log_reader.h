// Reads the log of a box, in order and through all its files, also while its supervisor writes and rotates it.
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <string>

#include "box/log_format.h"

namespace caisson::box {

// Valid while the sink runs.
struct LogRecord {
    LogKind kind = LogKind::kBytes;
    LogSource source = LogSource::kStdout;  // of a kLost record: whose bytes were the first that were lost
    std::uint64_t sequence = 0;             // of a kMissing record: the number of the first one that is missing
    std::int64_t unix_ns = 0;               // of a kMissing record: of the one behind the gap
    base::ByteView bytes;                   // kBytes
    std::uint64_t lost_bytes = 0;           // kLost: of all sources
    int error_number = 0;                   // kLost: why
    std::uint64_t missing_records = 0;      // kMissing
    bool damaged = false;                   // kMissing: they could not be read; else they were rotated away
};

struct LogQuery {
    bool follow = false;                             // go on until nobody writes any more
    std::optional<std::int64_t> since_ns, until_ns;  // Unix time, both inclusive
    std::optional<std::uint64_t> tail_lines;         // only the last lines of what is there and wanted; see LineCut
    bool want_stdout = true, want_stderr = true, want_console = false;
    std::optional<std::uint64_t> up_to_position;  // only records below this number (LogWriter::position())
};

// Between two questions whether the log is still written, and at most how late a follower notices what no event told.
inline constexpr int kLogPollMs = 200;

// Gives the records of the log `name` in `directory` to `sink` until it says false. Without `follow` that is what was
// there at the beginning; with it, what comes as well, until `still_written` says no (it is asked about every
// kLogPollMs) or a record beyond until_ns or up_to_position comes.
//
// No record is given twice, and none is left out silently: where some are gone (a reader that is slower than all files
// rotate; damage), a kMissing record says how many. Memory: one buffer of kLogReadBytes, and a descriptor for each
// file.
//
// kNotFound: there is no such log. kUsage: not a name. kIo: reading failed. kCorrupt, kUnsupported: all that can be
// read was given, but there was something that cannot. Errors of the sink.
Result<> read_log(const std::string& directory, const std::string& name, const LogQuery& query,
                  const std::function<bool()>& still_written,
                  const std::function<Result<bool>(const LogRecord&)>& sink);

// Which part of the records are the last N lines. Standard output and error are cut into lines each by itself, at '\n';
// an unfinished line at the end counts. Lines are in the order of their beginnings; what was begun before the last N,
// and goes on between them, is left out. First count() all records, then ask selected() about the same ones.
class LineCut {
  public:
    explicit LineCut(std::uint64_t last_lines) : last_lines_(last_lines) {}
    void count(const LogRecord& record);
    void begin_selection();
    // The end of the record's bytes, or nothing.
    base::ByteView selected(const LogRecord& record);
    // Whether the lines that selected() was asked about have reached those that are wanted.
    bool reached() const { return lines_ >= first_line_ && last_lines_ > 0; }

  private:
    struct Line {
        bool unfinished = false;
        bool wanted = true;
    };
    std::uint64_t last_lines_;
    std::uint64_t lines_ = 0;       // begun so far
    std::uint64_t first_line_ = 0;  // that is wanted
    std::array<Line, 4> current_;   // by LogSource
};

}  // namespace caisson::box
