#include "box/log_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "os/file.h"

namespace caisson::box {

using base::failure;
using base::failure_errno;

namespace {

Result<std::size_t> read_at(int fd, std::span<std::uint8_t> out, std::uint64_t offset) {
    for (;;) {
        ssize_t got = ::pread(fd, out.data(), out.size(), static_cast<off_t>(offset));
        if (got >= 0) return static_cast<std::size_t>(got);
        if (errno != EINTR) return failure_errno("cannot read the log");
    }
}

}  // namespace

Result<LogFile> LogFile::open(const os::Fd& directory, const std::string& file_name) {
    // Without O_NONBLOCK a pipe in the file's place would stop us.
    auto fd = CAISSON_TRY(os::open_beneath(directory, file_name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW));
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0) return failure_errno("cannot look at " + file_name);
    if (!S_ISREG(status.st_mode)) return failure(Errc::kCorrupt, file_name + " is not a file");
    std::uint8_t bytes[kLogFileHeaderBytes];
    const auto got = CAISSON_TRY(read_at(fd.get(), bytes, 0));
    if (got < sizeof bytes) return failure(Errc::kNotFound, file_name + " has no beginning yet");
    auto header = CAISSON_TRY_CTX(parse_file_header(bytes), file_name);
    return LogFile(std::move(fd), header);
}

Result<bool> LogFile::load() {
    buffer_.resize(kLogReadBytes);
    buffer_offset_ = position();
    begin_ = filled_ = 0;
    filled_ = CAISSON_TRY(read_at(fd_.get(), buffer_, buffer_offset_));
    return filled_ > 0;
}

void LogFile::pass_over_byte() {
    // Zeros at the end are what a host leaves that lost its power; they were no record.
    if (buffer_[begin_] != 0) damaged_ = true;
    ++begin_;
}

Result<bool> LogFile::next(ParsedRecord& record) {
    // While a writer cuts off a torn record and writes another in its place, a read may see half of each. What looks
    // damaged is therefore read again before it counts as damaged.
    int read_again = 2;
    for (;;) {
        record = parse_record(view(), header_.salt);
        switch (record.what) {
            case Parsed::kRecord:
                if (searching_) damaged_ = true;
                searching_ = false;
                begin_ += record.size();
                end_ = position();
                return true;
            case Parsed::kShort: {
                const auto had = view().size();
                if (begin_ > 0 || filled_ < buffer_.size() || buffer_.empty()) CAISSON_TRY(load());
                if (view().size() > had) continue;
                // Whatever stands here may be another record's beginning tomorrow.
                filled_ = begin_;
                if (searching_ && CAISSON_TRY(size()) < position()) {  // a writer cut off what we searched
                    buffer_offset_ = end_;
                    begin_ = filled_ = 0;
                    searching_ = false;
                }
                return false;
            }
            case Parsed::kBadPayload:
                if (read_again-- > 0 && !searching_) {
                    CAISSON_TRY(load());
                    continue;
                }
                damaged_ = true;
                searching_ = false;
                begin_ += record.size();
                end_ = position();
                continue;
            case Parsed::kNone:
                if (!searching_ && read_again-- > 0) {
                    CAISSON_TRY(load());
                    continue;
                }
                searching_ = true;
                pass_over_byte();
                continue;
        }
    }
}

void LogFile::rewind() {
    release_buffer();
    buffer_offset_ = end_ = kLogFileHeaderBytes;
    searching_ = damaged_ = false;
}

void LogFile::release_buffer() {
    buffer_offset_ = position();
    begin_ = filled_ = 0;
    buffer_ = {};
}

Result<std::uint64_t> LogFile::size() const {
    struct stat status {};
    if (::fstat(fd_.get(), &status) != 0) return failure_errno("cannot look at the log");
    return static_cast<std::uint64_t>(status.st_size);
}

bool LogFile::is_at(const os::Fd& directory, const std::string& file_name) const {
    struct stat here {
    }, there{};
    return ::fstat(fd_.get(), &here) == 0 &&
           ::fstatat(directory.get(), file_name.c_str(), &there, AT_SYMLINK_NOFOLLOW) == 0 &&
           here.st_dev == there.st_dev && here.st_ino == there.st_ino;
}

}  // namespace caisson::box
