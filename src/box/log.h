// The log of a box: what its command wrote, with times, in files that rotate. See log_format.h for what is in them.
//
// A box has several logs in its directory, each with files of its own: "output" (standard output and error of its
// command), "console" (the guest's kernel; apart, so that a chatty guest cannot rotate the output away) and
// "exec-ID" for each further execution.
#pragma once

#include <optional>

#include "box/log_format.h"
#include "os/fd.h"

namespace caisson::box {

class LogFile;

inline constexpr const char* kOutputLog = "output";
inline constexpr const char* kConsoleLog = "console";
inline std::string execution_log(const std::string& id) { return "exec-" + id; }

// How much one log may take: at most `files` files of at most `file_bytes` each.
struct LogLimits {
    std::uint64_t file_bytes = 10 << 20;  // at least kLeastLogFileBytes
    unsigned files = 3;                   // 1 to kMostLogFiles
};

// Writes one log. Owned by a box's supervisor, on whose one thread it is used; whoever holds the box's lock is the only
// writer. System calls in the life of a writer: openat2, fstat, pread, writev, write, ftruncate, renameat, unlinkat,
// close, getrandom. SIGXFSZ must be ignored in the process if its files are limited.
class LogWriter {
  public:
    // Makes the log `name` in `directory`, which must exist, or goes on with the one that is there: a record that a
    // killed writer left unfinished is cut off, and files beyond the limit are removed. kUsage: the name or the limits
    // cannot be; kNoSpace, kIo, kPermission: the first file cannot be made or read.
    static Result<LogWriter> open(const std::string& directory, const std::string& name, LogLimits limits = {});
    LogWriter(LogWriter&&) = default;
    LogWriter& operator=(LogWriter&&) = delete;
    ~LogWriter();

    // One write(2) for up to kMostLogRecordBytes. When it returns, the bytes are the kernel's: they survive the death
    // of this process, not that of the host. Never fails: what cannot be written is dropped and counted, and once
    // writing works again a record says how much is missing there, and why.
    void append(LogSource source, base::ByteView bytes, std::int64_t unix_ns);
    // The number that the next record will have; grows by at least one with every append of one byte or more that is
    // not lost. All records below it can be read.
    std::uint64_t position() const { return next_record_; }
    // Dropped since open().
    std::uint64_t lost_bytes() const { return lost_bytes_; }

  private:
    LogWriter(os::Fd directory, std::string name, LogLimits limits)
        : directory_(std::move(directory)), name_(std::move(name)), limits_(limits) {}
    Result<> resume();
    Result<> resume_after(LogFile& file, unsigned slot);
    // These return an errno, 0 for success.
    int begin_file();
    int make_room_for_file();
    int append_record(LogSource source, base::ByteView bytes, std::int64_t unix_ns);
    int write_records(LogSource source, base::ByteView bytes, std::int64_t unix_ns);
    bool exists(unsigned slot) const;
    std::string unfinished_name() const { return log_file_name(name_, 0) + ".new"; }

    struct Lost {
        LogSource source;
        std::int64_t unix_ns;
        LostNote note;
    };

    os::Fd directory_;
    std::string name_;
    LogLimits limits_;
    os::Fd file_;  // none: the next append has to begin one
    std::uint32_t salt_ = 0;
    std::uint64_t size_ = 0;  // of file_
    std::uint64_t next_file_ = 0;
    std::uint64_t next_record_ = 0;
    std::uint64_t lost_bytes_ = 0;
    std::optional<Lost> lost_;  // not yet said in the log
};

}  // namespace caisson::box
