#include "audit/chain.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <limits>

#include "base/sha256.h"
#include "base/text.h"
#include "os/file.h"
#include "os/lasting.h"

namespace caisson::audit {

using base::failure;

namespace {

constexpr std::string_view kSuffix = ".jsonl";
constexpr std::size_t kNameDigits = 20;
constexpr std::size_t kReadBytes = 16 << 10;
constexpr std::size_t kShownTornBytes = 1024;
constexpr std::uint64_t kFirstTailBytes = 4096;
constexpr std::chrono::milliseconds kLockPatience{2000};
// For who only asks for the last line that can be read.
constexpr std::uint64_t kAllAcknowledged = std::numeric_limits<std::uint64_t>::max() - 1;
// A chain is cut to kMostFiles; more than this nobody wrote who means well.
constexpr std::size_t kMostListed = 64;

class Lock {
  public:
    static Result<Lock> take(const os::Fd& directory, const std::string& path) {
        // Others have it for the time of a write. A supervisor that was taken over could keep its chain's for ever.
        if (!CAISSON_TRY_CTX(os::lock_within(directory, LOCK_EX, kLockPatience), "the journal " + path))
            return failure(Errc::kInUse, "another process holds the lock of the journal " + path, "see which one: cat /proc/locks");
        return Lock(directory.get());
    }
    Lock(Lock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Lock& operator=(Lock&&) = delete;
    ~Lock() {
        if (fd_ >= 0) ::flock(fd_, LOCK_UN);
    }

  private:
    explicit Lock(int fd) : fd_(fd) {}
    int fd_;
};

base::Failure not_on_disk(const std::string& path) { return base::failure_errno("cannot write the journal " + path + " to the disk"); }

Result<std::string> read_range(int fd, std::uint64_t offset, std::size_t most, const std::string& path) {
    std::string text(most, '\0');
    std::size_t done = 0;
    while (done < most) {
        const auto got = ::pread(fd, text.data() + done, most - done, static_cast<off_t>(offset + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return base::failure_errno("cannot read the journal " + path);
        if (got == 0) break;
        done += static_cast<std::size_t>(got);
    }
    text.resize(done);
    return text;
}

// Whether what was read of a file's end goes back to what was acknowledged.
bool goes_back_to(std::string_view text, std::uint64_t acknowledged) {
    const auto begin = text.find('\n') + 1;
    const auto entry = parse_line(text.substr(begin, text.find('\n', begin) - begin));
    return entry && entry->sequence <= acknowledged + 1;
}

// The end of a file with at least one whole line, if there is one, and with all that was not acknowledged; mostly that is a
// few hundred bytes.
Result<std::pair<std::uint64_t, std::string>> read_end(int fd, std::uint64_t size, std::uint64_t acknowledged, const std::string& path) {
    for (std::uint64_t wanted = kFirstTailBytes;; wanted *= 8) {
        const auto from = size > wanted ? size - wanted : 0;
        auto text = CAISSON_TRY(read_range(fd, from, static_cast<std::size_t>(size - from), path));
        const auto end = text.rfind('\n');
        const bool whole = end != std::string::npos && end > 0 && text.rfind('\n', end - 1) != std::string::npos;
        if (from == 0 || wanted > 4 * limits::kFileBytes || (whole && goes_back_to(text, acknowledged))) return std::pair(from, std::move(text));
    }
}

Result<std::uint64_t> size_of(int fd, const std::string& path) {
    struct stat info {};
    if (::fstat(fd, &info) != 0) return base::failure_errno("cannot look at the journal " + path);
    return static_cast<std::uint64_t>(info.st_size);
}

}  // namespace

std::string file_name(std::uint64_t first_sequence) {
    auto digits = std::to_string(first_sequence);
    return std::string(kNameDigits - digits.size(), '0') + digits + std::string(kSuffix);
}

Result<std::vector<std::uint64_t>> list_files(const os::Fd& directory) {
    // From the descriptor: a supervisor cannot reach the directories above.
    auto listing = CAISSON_TRY(os::open_listing(CAISSON_TRY(os::open_at(directory, ".", O_RDONLY | O_DIRECTORY)), "a journal"));
    std::vector<std::uint64_t> files;
    while (const auto* found = ::readdir(listing.get())) {
        std::string_view name = found->d_name;
        if (name.size() != kNameDigits + kSuffix.size() || name.substr(kNameDigits) != kSuffix) continue;
        if (auto first = base::parse_u64(name.substr(0, kNameDigits)); first && *first > 0) files.push_back(*first);
        if (files.size() > kMostListed) return failure(Errc::kCorrupt, "the journal has more files than it can have");
    }
    std::sort(files.begin(), files.end());
    return files;
}

// ---- Writer ----

Result<Writer> Writer::open(const std::string& directory, ChainLimits limits) {
    auto opened = os::open_file(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (!opened && opened.error().sys_errno == ENOENT) {
        // The chain's own name is made lasting with its first entries, see sync(); what is above it must be already.
        CAISSON_TRY(os::make_lasting_directories(directory.substr(0, directory.rfind('/'))));
        CAISSON_TRY(os::make_directories(directory, 0700));
        opened = os::open_file(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    }
    auto held = CAISSON_TRY(std::move(opened));
    auto parent = CAISSON_TRY(os::open_file(directory.substr(0, directory.rfind('/')), O_RDONLY | O_DIRECTORY));
    return Writer(std::move(held), std::move(parent), directory, limits);
}

bool was_never_written(std::string_view line) { return line.find('\0') != std::string_view::npos; }

// Of one file, the last one if `tail` is that of nothing: what its end says. False: no line of it can be read.
Result<bool> Writer::read_end_of(std::uint64_t file, std::uint64_t acknowledged, Tail& tail, std::uint64_t& damaged) const {
    auto fd = CAISSON_TRY(os::open_at(directory_, file_name(file), O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
    const auto size = CAISSON_TRY(size_of(fd.get(), path_));
    const auto [from, text] = CAISSON_TRY(read_end(fd.get(), size, acknowledged, path_));
    const bool is_last = tail.file == 0;
    if (is_last) tail.file = file;
    // The first line of what was read may be the end of one.
    std::size_t at = from == 0 ? 0 : text.find('\n') + 1;
    std::uint64_t expected = from == 0 ? file : 0, unreadable = 0;  // 0: not known yet
    for (std::size_t end; (end = text.find('\n', at)) != std::string::npos; at = end + 1) {
        const auto line = std::string_view(text).substr(at, end - at);
        if (auto entry = parse_line(line)) {
            expected = entry->sequence + 1;
            unreadable = 0;
            tail.last = std::move(*entry);
            continue;
        }
        if (is_last && expected > acknowledged && was_never_written(line)) break;  // nor is anything behind it
        ++unreadable;
        if (expected != 0) ++expected;
    }
    if (is_last) {
        tail.bytes = from + at;
        tail.torn = text.substr(at);
    }
    damaged += unreadable;
    return tail.last.has_value();
}

// `acknowledged`: what stands behind it may have come to the disk only in parts.
Result<Writer::Tail> Writer::read_tail(std::uint64_t acknowledged) const {
    const auto files = CAISSON_TRY(list_files(directory_));
    Tail tail;
    // Damaged lines at the end count, but only a whole one says what comes after it.
    std::uint64_t damaged = 0;
    for (auto file = files.rbegin(); file != files.rend(); ++file)
        if (CAISSON_TRY(read_end_of(*file, acknowledged, tail, damaged))) {
            tail.head = {tail.last->sequence + damaged, tail.last->hash};
            break;
        }
    return tail;
}

bool Writer::is_as_left() const {
    if (!tail_ || tail_->file == 0) return false;
    struct stat info {};
    const bool same = ::fstatat(directory_.get(), file_name(tail_->file).c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0 &&
                      static_cast<std::uint64_t>(info.st_size) == tail_->bytes;
    // Another file begins with the entry after the head, whoever makes it.
    return same && ::faccessat(directory_.get(), file_name(tail_->head.sequence + 1).c_str(), F_OK, AT_SYMLINK_NOFOLLOW) != 0;
}

// Whole or not at all: what a full disk took of it is taken back.
Result<> Writer::write_line(const std::string& line) {
    auto& tail = *tail_;
    if (tail.file != 0 && tail.bytes > 0 && tail.bytes + line.size() > limits_.file_bytes) {
        // The next file's first entry names the last one of this, which must not be missing then.
        auto old = CAISSON_TRY(os::open_at(directory_, file_name(tail.file), O_RDONLY | O_NOFOLLOW));
        if (::fdatasync(old.get()) != 0) return not_on_disk(path_);
        tail.file = 0;
    }
    const auto file = tail.file != 0 ? tail.file : tail.head.sequence + 1;
    auto fd = CAISSON_TRY(os::open_at(directory_, file_name(file), O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW, 0600));
    if (tail.file == 0) tail.bytes = 0;
    const auto written = ::write(fd.get(), line.data(), line.size());
    if (written == static_cast<ssize_t>(line.size())) {
        tail.file = file;
        tail.bytes += line.size();
        return {};
    }
    const int error = written < 0 ? errno : ENOSPC;  // a short write of a regular file: there was no room for the rest
    // Should that fail as well, the next writer finds half a line, and mends it.
    if (written > 0 && ::ftruncate(fd.get(), static_cast<off_t>(tail.bytes)) != 0) errno = error;
    tail_.reset();
    return base::failure_errno("cannot write the journal " + path_, error);
}

Result<> Writer::put(const Event& event, const Actor& actor, std::int64_t unix_ms) {
    auto [line, head] = make_line(event, actor, unix_ms, tail_->head);
    CAISSON_TRY(write_line(line));
    tail_->head = std::move(head);
    return {};
}

Result<Head> Writer::append(const Event& event, const Actor& actor, std::int64_t unix_ms, const std::function<Result<Head>()>& acknowledged) {
    const auto lock = CAISSON_TRY(Lock::take(directory_, path_));
    Head committed;
    if (!is_as_left()) {
        tail_.reset();
        committed = CAISSON_TRY(acknowledged());
        tail_ = CAISSON_TRY(read_tail(committed.sequence));
    }
    auto tail = std::move(*tail_);
    tail_.reset();
    const auto torn = std::move(tail.torn);
    tail.torn.clear();
    if (!torn.empty()) {
        auto fd = CAISSON_TRY(os::open_at(directory_, file_name(tail.file), O_WRONLY | O_NOFOLLOW));
        if (::ftruncate(fd.get(), static_cast<off_t>(tail.bytes)) != 0) return base::failure_errno("cannot mend the journal " + path_);
    }
    std::optional<std::pair<std::uint64_t, std::uint64_t>> missing;
    if (committed.sequence > tail.head.sequence) {
        missing = {tail.head.sequence + 1, committed.sequence};
        tail.head = std::move(committed);
        tail.file = 0;  // the sequence jumps, and a file's name says where it begins
    }
    tail_ = std::move(tail);
    if (!torn.empty())
        CAISSON_TRY(put({"journal_torn", event.box_id, event.box_name,
                         {{"bytes", static_cast<std::int64_t>(torn.size())}, {"sha256", base::sha256_hex(base::as_bytes(std::string_view(torn)))},
                          {"text", torn.substr(0, kShownTornBytes)}}}, actor, unix_ms));
    if (missing)
        CAISSON_TRY(put({"journal_gap", event.box_id, event.box_name,
                         {{"missing_from", static_cast<std::int64_t>(missing->first)},
                          {"missing_to", static_cast<std::int64_t>(missing->second)}}}, actor, unix_ms));
    CAISSON_TRY(put(event, actor, unix_ms));
    return tail_->head;
}

Result<std::optional<Entry>> Writer::last() const {
    const auto lock = CAISSON_TRY(Lock::take(directory_, path_));
    return std::move(CAISSON_TRY(read_tail(kAllAcknowledged)).last);
}

Result<> Writer::sync(bool whole) {
    const auto files = CAISSON_TRY(list_files(directory_));
    if (files.empty()) return {};
    auto fd = CAISSON_TRY(os::open_at(directory_, file_name(files.back()), O_RDONLY | O_NOFOLLOW));
    if (::fdatasync(fd.get()) != 0) return not_on_disk(path_);
    if (!whole && files.size() == 1) return {};
    if (::fsync(directory_.get()) != 0) return not_on_disk(path_);
    if (whole && ::fsync(parent_.get()) != 0) return not_on_disk(path_);
    return {};
}

Result<> Writer::trim(const std::function<Result<>(std::uint64_t first)>& keep) {
    const auto files = CAISSON_TRY(list_files(directory_));
    if (files.size() <= limits_.files) return {};
    const auto gone = files.size() - limits_.files;
    CAISSON_TRY(keep(files[gone]));
    for (std::size_t i = 0; i < gone; ++i)
        if (::unlinkat(directory_.get(), file_name(files[i]).c_str(), 0) != 0 && errno != ENOENT)
            return base::failure_errno("cannot remove the oldest part of the journal " + path_);
    return {};
}

// ---- Cursor ----

// More of the file that is read, or the next one. False: there is nothing more.
Result<bool> Cursor::fill() {
    auto directory = os::open_file(directory_, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (!directory && directory.error().code == Errc::kNotFound) return false;
    if (!directory) return base::failure(std::move(directory.error()));
    for (;;) {
        // Looked for first: once there is a further file nobody appends to this one.
        const auto files = CAISSON_TRY(list_files(*directory));
        const auto next = std::upper_bound(files.begin(), files.end(), file_);
        if (std::binary_search(files.begin(), files.end(), file_)) {
            auto fd = os::open_at(*directory, file_name(file_), O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
            if (!fd && fd.error().code != Errc::kNotFound) return base::failure(std::move(fd.error()));
            auto more = fd ? CAISSON_TRY(read_range(fd->get(), offset_, kReadBytes, directory_)) : std::string();
            offset_ += more.size();
            buffer_ = buffer_.substr(used_) + more;
            used_ = 0;
            if (!more.empty()) return true;
        }
        if (next == files.end()) return false;
        if (used_ < buffer_.size()) ++unreadable_;  // half a line, and a further file
        file_ = *next;
        offset_ = 0;
        buffer_.clear();
        used_ = 0;
    }
}

Result<std::optional<Entry>> Cursor::next() {
    for (;;) {
        const auto end = buffer_.find('\n', used_);
        if (end == std::string::npos) {
            // Longer than any line is: it is none.
            if (buffer_.size() - used_ > 2 * limits::kLongestLine) used_ = buffer_.size();
            if (!CAISSON_TRY(fill())) return std::optional<Entry>();
            continue;
        }
        auto entry = parse_line(std::string_view(buffer_).substr(used_, end - used_));
        used_ = end + 1;
        if (entry) return std::optional(std::move(*entry));
        ++unreadable_;
    }
}

}  // namespace caisson::audit
