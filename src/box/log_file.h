// One file of a log, read record by record. The file may be damaged, and may be written to meanwhile.
#pragma once

#include "box/log_format.h"
#include "os/fd.h"

namespace caisson::box {

// Not shared between threads. Holds at most kLogReadBytes of the file.
class LogFile {
  public:
    // kNotFound: there is no such file, or its first bytes are yet to be written. kCorrupt, kUnsupported: it is no log.
    static Result<LogFile> open(const os::Fd& directory, const std::string& file_name);

    const LogFileHeader& header() const { return header_; }
    // Reads the next record, of which the payload is valid until the next call. False: the file ends here, for now.
    // What is damaged is passed over; that shows in the records' numbers and in damaged().
    Result<bool> next(ParsedRecord& record);
    // Where the last record that next() read or passed over ends.
    std::uint64_t end() const { return end_; }
    // Whether anything was passed over, other than a record cut short at the very end.
    bool damaged() const { return damaged_; }

    void rewind();
    // The buffer comes back with the next call of next().
    void release_buffer();
    Result<std::uint64_t> size() const;
    // Whether `file_name` is this very file.
    bool is_at(const os::Fd& directory, const std::string& file_name) const;
    const os::Fd& fd() const { return fd_; }

  private:
    LogFile(os::Fd fd, const LogFileHeader& header) : fd_(std::move(fd)), header_(header) {}
    base::ByteView view() const { return base::ByteView(buffer_).subspan(begin_, filled_ - begin_); }
    std::uint64_t position() const { return buffer_offset_ + begin_; }
    Result<bool> load();
    void pass_over_byte();

    os::Fd fd_;
    LogFileHeader header_;
    base::Bytes buffer_;
    std::uint64_t buffer_offset_ = kLogFileHeaderBytes;  // where in the file the buffer begins
    std::size_t begin_ = 0, filled_ = 0;                 // of the buffer: what is not parsed yet
    std::uint64_t end_ = kLogFileHeaderBytes;
    bool searching_ = false;  // for a record, since there was none at end_
    bool damaged_ = false;
};

// Of one file at a time; a few records of the largest size.
inline constexpr std::size_t kLogReadBytes = 4 * (kMostLogRecordBytes + kLogRecordHeaderBytes);

}  // namespace caisson::box
