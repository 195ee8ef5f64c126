#include "box/log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "box/log_file.h"
#include "os/file.h"
#include "os/random.h"

namespace caisson::box {

using base::failure;
using base::failure_errno;

namespace {

constexpr std::size_t kLostRecordBytes = kLogRecordHeaderBytes + kLostNoteBytes;

struct EncodedHeader {
    EncodedHeader(LogSource source, LogKind kind, base::ByteView payload, std::uint64_t sequence, std::int64_t unix_ns,
                  std::uint32_t salt) {
        encode({static_cast<std::uint32_t>(payload.size()), source, kind, sequence, unix_ns, crc32c(payload, salt)},
               salt, bytes);
    }
    std::uint8_t bytes[kLogRecordHeaderBytes];
};

struct iovec part(base::ByteView bytes) {
    return {const_cast<std::uint8_t*>(bytes.data()), bytes.size()};
}

// All of `parts`, or an errno: a short write is followed by another one, which says why.
int write_parts(int fd, struct iovec* parts, int count) {
    while (count > 0) {
        ssize_t put = ::writev(fd, parts, count);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return errno;
        auto left = static_cast<std::size_t>(put);
        for (; count > 0 && left >= parts->iov_len; ++parts, --count) left -= parts->iov_len;
        if (count == 0) break;
        parts->iov_base = static_cast<std::uint8_t*>(parts->iov_base) + left;
        parts->iov_len -= left;
    }
    return 0;
}

}  // namespace

Result<LogWriter> LogWriter::open(const std::string& directory, const std::string& name, LogLimits limits) {
    CAISSON_TRY(check_log_name(name));
    if (limits.files < 1 || limits.files > kMostLogFiles)
        return failure(Errc::kUsage, "a log has 1 to " + std::to_string(kMostLogFiles) + " files");
    if (limits.file_bytes < kLeastLogFileBytes)
        return failure(Errc::kUsage, "a file of a log has at least " + std::to_string(kLeastLogFileBytes) + " bytes");
    LogWriter writer(CAISSON_TRY(os::open_file(directory, O_RDONLY | O_DIRECTORY)), name, limits);
    CAISSON_TRY_CTX(writer.resume(), "opening the log " + name + " in " + directory);
    return writer;
}

LogWriter::~LogWriter() {
    if (lost_ && directory_) static_cast<void>(append_record(lost_->source, {}, lost_->unix_ns));
}

bool LogWriter::exists(unsigned slot) const {
    struct stat status {};
    return ::fstatat(directory_.get(), log_file_name(name_, slot).c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0;
}

Result<> LogWriter::resume() {
    std::uint64_t unreadable_bytes = 0;
    for (unsigned slot = 0; slot < kMostLogFiles; ++slot) {
        const auto file_name = log_file_name(name_, slot);
        auto file = LogFile::open(directory_, file_name);
        if (file) {
            CAISSON_TRY(resume_after(*file, slot));
            break;
        }
        const auto code = file.error().code;
        if (code != Errc::kNotFound && code != Errc::kCorrupt) return failure(std::move(file).error());
        struct stat status {};
        if (::fstatat(directory_.get(), file_name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) continue;
        unreadable_bytes += static_cast<std::uint64_t>(status.st_size);
        // A host without power may leave this; it would only take up a slot.
        if (code == Errc::kNotFound && ::unlinkat(directory_.get(), file_name.c_str(), 0) != 0)
            return failure_errno("cannot remove " + file_name);
    }
    // What cannot be read may have been records, whose numbers must not be given again.
    next_record_ += unreadable_bytes / kLogRecordHeaderBytes;
    ::unlinkat(directory_.get(), unfinished_name().c_str(), 0);
    if (!file_)
        if (int error = begin_file(); error != 0) return failure_errno("cannot begin a file", error);
    for (unsigned slot = limits_.files; slot < kMostLogFiles; ++slot)
        if (::unlinkat(directory_.get(), log_file_name(name_, slot).c_str(), 0) != 0 && errno != ENOENT)
            return failure_errno("cannot remove an old file");
    return {};
}

// Takes the numbers from the newest file, and goes on with it if it is in the first slot.
Result<> LogWriter::resume_after(LogFile& file, unsigned slot) {
    next_file_ = file.header().file_sequence + 1;
    next_record_ = file.header().first_record;
    ParsedRecord record;
    while (CAISSON_TRY(file.next(record))) next_record_ = std::max(next_record_, record.header.sequence + 1);
    const auto size = CAISSON_TRY(file.size());
    if (file.damaged()) next_record_ += (size - file.end()) / kLogRecordHeaderBytes;
    if (slot > 0) return {};
    auto writable =
        CAISSON_TRY(os::open_beneath(directory_, log_file_name(name_, 0), O_WRONLY | O_APPEND | O_NOFOLLOW));
    if (size > file.end() && ::ftruncate(writable.get(), static_cast<off_t>(file.end())) != 0)
        return failure_errno("cannot cut a torn end off");
    file_ = std::move(writable);
    size_ = file.end();
    salt_ = file.header().salt;
    return {};
}

// Moves every file one slot on. The oldest goes, unless a slot is free (a rotation was cut short).
int LogWriter::make_room_for_file() {
    // A single file is removed only when its successor is there, which takes up its numbers.
    const unsigned slots = std::max(limits_.files, 2u);
    unsigned free_slot = 0;
    while (free_slot < slots - 1 && exists(free_slot)) ++free_slot;
    for (unsigned slot = free_slot; slot > 0; --slot) {
        if (::renameat(directory_.get(), log_file_name(name_, slot - 1).c_str(), directory_.get(),
                       log_file_name(name_, slot).c_str()) != 0)
            return errno;
    }
    return 0;
}

int LogWriter::begin_file() {
    file_.reset();
    LogFileHeader header{0, next_file_, next_record_};
    std::uint8_t salt[4];
    if (!os::fill_random(salt)) return EIO;
    header.salt = base::load_le32(salt);
    if (int error = make_room_for_file(); error != 0) return error;
    // It gets its name when its header is complete: readers need not know half a file, and wake when there is a whole
    // one.
    const auto unfinished = unfinished_name();
    auto file = os::open_beneath(directory_, unfinished, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_NOFOLLOW, 0600);
    if (!file) return file.error().sys_errno != 0 ? file.error().sys_errno : EIO;
    std::uint8_t bytes[kLogFileHeaderBytes];
    encode(header, bytes);
    auto whole = part(bytes);
    int error = write_parts(file->get(), &whole, 1);
    if (error == 0 &&
        ::renameat(directory_.get(), unfinished.c_str(), directory_.get(), log_file_name(name_, 0).c_str()) != 0)
        error = errno;
    if (error != 0) {
        ::unlinkat(directory_.get(), unfinished.c_str(), 0);
        return error;
    }
    if (limits_.files == 1) ::unlinkat(directory_.get(), log_file_name(name_, 1).c_str(), 0);
    file_ = std::move(*file);
    size_ = kLogFileHeaderBytes;
    salt_ = header.salt;
    ++next_file_;
    return 0;
}

void LogWriter::append(LogSource source, base::ByteView bytes, std::int64_t unix_ns) {
    // So that a file with one record and a note about lost ones stays within its size.
    const auto most = std::min<std::uint64_t>(
        kMostLogRecordBytes, limits_.file_bytes - kLogFileHeaderBytes - kLogRecordHeaderBytes - kLostRecordBytes);
    while (!bytes.empty()) {
        const auto record = bytes.first(std::min<std::size_t>(bytes.size(), most));
        bytes = bytes.subspan(record.size());
        const int error = append_record(source, record, unix_ns);
        if (error == 0) continue;
        lost_bytes_ += record.size();
        if (!lost_) lost_ = Lost{source, unix_ns, {}};
        lost_->note.bytes += record.size();
        lost_->note.error_number = error;
    }
}

int LogWriter::append_record(LogSource source, base::ByteView bytes, std::int64_t unix_ns) {
    const auto needed = (lost_ ? kLostRecordBytes : 0) + kLogRecordHeaderBytes + bytes.size();
    if (file_ && size_ > kLogFileHeaderBytes && size_ + needed > limits_.file_bytes) file_.reset();
    if (!file_)
        if (int error = begin_file(); error != 0) return error;
    const int error = write_records(source, bytes, unix_ns);
    // A torn record in the middle would hide what follows it: without a way to cut it off the file is given up.
    if (error != 0 && ::ftruncate(file_.get(), static_cast<off_t>(size_)) != 0) file_.reset();
    return error;
}

// What was lost before, if anything, and `bytes`, if any: in one write, so that either all of it is there or nothing.
int LogWriter::write_records(LogSource source, base::ByteView bytes, std::int64_t unix_ns) {
    struct iovec parts[4];
    int count = 0;
    std::uint64_t sequence = next_record_, size = size_;
    std::optional<EncodedHeader> lost_header, header;
    std::uint8_t note[kLostNoteBytes];
    if (lost_) {
        encode(lost_->note, note);
        lost_header.emplace(lost_->source, LogKind::kLost, note, sequence++, lost_->unix_ns, salt_);
        parts[count++] = part(lost_header->bytes);
        parts[count++] = part(note);
        size += kLostRecordBytes;
    }
    if (!bytes.empty()) {
        header.emplace(source, LogKind::kBytes, bytes, sequence++, unix_ns, salt_);
        parts[count++] = part(header->bytes);
        parts[count++] = part(bytes);
        size += kLogRecordHeaderBytes + bytes.size();
    }
    if (int error = write_parts(file_.get(), parts, count); error != 0) return error;
    next_record_ = sequence;
    size_ = size;
    lost_.reset();
    return 0;
}

}  // namespace caisson::box
