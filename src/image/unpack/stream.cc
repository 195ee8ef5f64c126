#include "image/unpack/stream.h"

#include <archive.h>
#include <archive_entry.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "base/sha256.h"
#include "base/text.h"
#include "image/limits.h"

namespace caisson::image::unpack {

using base::failure;
using base::failure_errno;

namespace {

constexpr std::size_t kReadBytes = 256 << 10;
constexpr std::size_t kOutBytes = 256 << 10;

// libarchive's filters below its "raw" format, which hands out one stream of bytes.
class ArchiveStream final : public Stream {
  public:
    ArchiveStream(int fd, base::ByteView memory, StreamLimits limits) : fd_(fd), memory_(memory), limits_(limits) {}
    ~ArchiveStream() override { ::archive_read_free(archive_); }

    Result<> open() {
        archive_ = ::archive_read_new();
        if (archive_ == nullptr) return failure(Errc::kIo, "out of memory");
        ::archive_read_support_filter_gzip(archive_);
        ::archive_read_support_filter_zstd(archive_);
        ::archive_read_support_filter_xz(archive_);
        ::archive_read_support_format_raw(archive_);
        ::archive_read_support_format_empty(archive_);
        if (fd_ >= 0) in_.resize(kReadBytes);
        out_.resize(kOutBytes);
        if (::archive_read_open(archive_, this, nullptr, &read_callback, nullptr) != ARCHIVE_OK) return fail();
        struct archive_entry* entry = nullptr;
        int got = ::archive_read_next_header(archive_, &entry);
        if (got == ARCHIVE_EOF) {
            ended_ = true;
            return {};
        }
        if (got < ARCHIVE_WARN) return fail();
        compressed_ = ::archive_filter_code(archive_, 0) != ARCHIVE_FILTER_NONE;
        return {};
    }
    bool compressed() const { return compressed_; }
    void leave_hashing_to_caller() { hashing_ = false; }

    Result<base::ByteView> next() override {
        if (ended_) return base::ByteView{};
        la_ssize_t got = ::archive_read_data(archive_, out_.data(), out_.size());
        if (got < 0) return fail();
        if (got == 0) {
            ended_ = true;
            return base::ByteView{};
        }
        produced_ += static_cast<std::uint64_t>(got);
        if (produced_ > limits_.max_bytes)
            return failure(Errc::kLimit, "it unpacks to more than the " + base::format_size(limits_.max_bytes) +
                                             " that are left for this image");
        if (produced_ > kRatioFreeBytes && produced_ / kMaxCompressionRatio > consumed_)
            return failure(Errc::kLimit, "it unpacks to more than " + std::to_string(kMaxCompressionRatio) +
                                             " times its size, which no real layer does");
        base::ByteView chunk(out_.data(), static_cast<std::size_t>(got));
        if (hashing_) hash_.update(chunk);
        return chunk;
    }

    std::uint64_t consumed_bytes() const override { return consumed_; }
    std::string digest() override { return "sha256:" + hash_.finish_hex(); }

  private:
    static la_ssize_t read_callback(struct archive* archive, void* self_pointer, const void** buffer) {
        auto* self = static_cast<ArchiveStream*>(self_pointer);
        if (self->fd_ < 0) {
            *buffer = self->memory_.data();
            auto size = std::exchange(self->memory_, {}).size();
            self->consumed_ += size;
            return static_cast<la_ssize_t>(size);
        }
        for (;;) {
            ssize_t got = ::read(self->fd_, self->in_.data(), self->in_.size());
            if (got < 0 && errno == EINTR) continue;
            if (got < 0) {
                self->read_errno_ = errno;
                ::archive_set_error(archive, errno, "cannot read");
                return -1;
            }
            self->consumed_ += static_cast<std::uint64_t>(got);
            *buffer = self->in_.data();
            return got;
        }
    }

    base::Failure fail() const {
        if (read_errno_ != 0) return failure_errno("cannot read it", read_errno_);
        const char* text = ::archive_error_string(archive_);
        return failure(Errc::kCorrupt,
                       std::string("it cannot be decompressed: ") + base::printable(text ? text : "unknown reason"));
    }

    int fd_;
    base::ByteView memory_;
    StreamLimits limits_;
    struct archive* archive_ = nullptr;
    std::vector<std::uint8_t> in_, out_;
    base::Sha256 hash_;
    bool hashing_ = true;
    bool compressed_ = false;
    std::atomic<std::uint64_t> consumed_ = 0;
    std::uint64_t produced_ = 0;
    int read_errno_ = 0;
    bool ended_ = false;
};

// Owner of the thread that pulls `inner`; a few chunks may lie in between. Whichever side has less to do hashes: with
// compression the consumer.
class ThreadedStream final : public Stream {
  public:
    explicit ThreadedStream(std::unique_ptr<ArchiveStream> inner)
        : inner_(std::move(inner)), hash_here_(inner_->compressed()) {
        if (hash_here_) inner_->leave_hashing_to_caller();
        thread_ = std::thread([this] { produce(); });
    }
    ~ThreadedStream() override {
        {
            std::lock_guard lock(mutex_);
            stopping_ = true;
        }
        changed_.notify_all();
        thread_.join();
    }

    Result<base::ByteView> next() override {
        std::unique_lock lock(mutex_);
        if (taken_) {
            taken_ = false;
            filled_.pop_front();
            changed_.notify_all();
        }
        changed_.wait(lock, [&] { return !filled_.empty() || ended_; });
        if (filled_.empty()) {
            if (error_) return failure(base::Error(*error_));
            return base::ByteView{};
        }
        taken_ = true;
        const auto& chunk = filled_.front();
        lock.unlock();
        if (hash_here_) hash_.update(chunk);
        return base::ByteView(chunk);
    }
    std::uint64_t consumed_bytes() const override { return inner_->consumed_bytes(); }
    std::string digest() override {
        if (hash_here_) return "sha256:" + hash_.finish_hex();
        return inner_->digest();
    }

  private:
    static constexpr std::size_t kChunksBetween = 4;

    void produce() {
        for (;;) {
            auto chunk = inner_->next();
            std::unique_lock lock(mutex_);
            if (!chunk) error_ = std::move(chunk).error();
            if (!chunk || chunk->empty()) {
                ended_ = true;
                changed_.notify_all();
                return;
            }
            changed_.wait(lock, [&] { return filled_.size() < kChunksBetween || stopping_; });
            if (stopping_) return;
            filled_.emplace_back(chunk->begin(), chunk->end());
            changed_.notify_all();
        }
    }

    std::unique_ptr<ArchiveStream> inner_;
    bool hash_here_;
    base::Sha256 hash_;
    std::mutex mutex_;  // guards what follows
    std::condition_variable changed_;
    std::deque<base::Bytes> filled_;
    bool taken_ = false;  // the consumer still looks at the first chunk
    bool ended_ = false;
    bool stopping_ = false;
    std::optional<base::Error> error_;
    std::thread thread_;
};

Result<std::unique_ptr<Stream>> open_any(int fd, base::ByteView memory, StreamLimits limits) {
    auto stream = std::make_unique<ArchiveStream>(fd, memory, limits);
    CAISSON_TRY(stream->open());
    return std::unique_ptr<Stream>(std::move(stream));
}

}  // namespace

Result<std::unique_ptr<Stream>> open_threaded_stream(int fd, StreamLimits limits) {
    auto stream = std::make_unique<ArchiveStream>(fd, base::ByteView{}, limits);
    CAISSON_TRY(stream->open());
    return std::unique_ptr<Stream>(std::make_unique<ThreadedStream>(std::move(stream)));
}

Result<std::unique_ptr<Stream>> open_stream(int fd, StreamLimits limits) { return open_any(fd, {}, limits); }
Result<std::unique_ptr<Stream>> open_stream(base::ByteView memory, StreamLimits limits) {
    return open_any(-1, memory, limits);
}

}  // namespace caisson::image::unpack
