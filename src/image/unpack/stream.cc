#include "image/unpack/stream.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <map>
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
constexpr unsigned kMaxStreamsAhead = 3;

base::Failure too_large(StreamLimits limits) {
    return failure(Errc::kLimit, "it unpacks to more than the " + base::format_size(limits.max_bytes) +
                                     " that are left for this image");
}

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
            return too_large(limits_);
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

// What threaded streams share: chunks that may lie ready besides the few that each may have anyway.
struct Pool {
    explicit Pool(std::size_t chunks) : left(chunks) {}
    std::mutex mutex;  // guards what follows, and what the streams have ready
    std::condition_variable changed;
    std::size_t left;
    std::vector<base::Bytes> spare;  // chunks to be filled again: fresh memory costs more than what is copied into it
};

// Owner of the thread that pulls `inner`; a few chunks may lie in between, and more as long as the pool has some.
// Whichever side has less to do hashes: with compression the consumer.
class ThreadedStream final : public Stream {
  public:
    ThreadedStream(std::unique_ptr<ArchiveStream> inner, std::shared_ptr<Pool> pool)
        : inner_(std::move(inner)), pool_(std::move(pool)), hash_here_(inner_->compressed()) {
        if (hash_here_) inner_->leave_hashing_to_caller();
        thread_ = std::thread([this] { produce(); });
    }
    ~ThreadedStream() override {
        {
            std::lock_guard lock(pool_->mutex);
            stopping_ = true;
            pool_->left += std::exchange(borrowed_, 0);
        }
        pool_->changed.notify_all();
        thread_.join();
    }

    // Before the first chunk is taken: fewer bytes than it was opened with.
    void narrow(StreamLimits limits) { limits_ = limits; }

    Result<base::ByteView> next() override {
        std::unique_lock lock(pool_->mutex);
        if (taken_) {
            taken_ = false;
            pool_->spare.push_back(std::move(filled_.front()));
            filled_.pop_front();
            if (borrowed_ > 0) {
                --borrowed_;
                ++pool_->left;
            }
            pool_->changed.notify_all();
        }
        pool_->changed.wait(lock, [&] { return !filled_.empty() || ended_; });
        if (filled_.empty()) {
            if (error_) return failure(base::Error(*error_));
            return base::ByteView{};
        }
        taken_ = true;
        const auto& chunk = filled_.front();
        lock.unlock();
        given_ += chunk.size();
        if (limits_ && given_ > limits_->max_bytes) return too_large(*limits_);
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
            std::unique_lock lock(pool_->mutex);
            if (!chunk) error_ = std::move(chunk).error();
            if (!chunk || chunk->empty()) {
                ended_ = true;
                pool_->changed.notify_all();
                return;
            }
            pool_->changed.wait(lock, [&] { return filled_.size() < kChunksBetween || pool_->left > 0 || stopping_; });
            if (stopping_) return;
            if (filled_.size() >= kChunksBetween) {
                --pool_->left;
                ++borrowed_;
            }
            base::Bytes copy;
            if (!pool_->spare.empty()) {
                copy = std::move(pool_->spare.back());
                pool_->spare.pop_back();
            }
            lock.unlock();
            copy.assign(chunk->begin(), chunk->end());
            lock.lock();
            filled_.push_back(std::move(copy));
            pool_->changed.notify_all();
        }
    }

    std::unique_ptr<ArchiveStream> inner_;
    std::shared_ptr<Pool> pool_;
    bool hash_here_;
    base::Sha256 hash_;
    std::optional<StreamLimits> limits_;
    std::uint64_t given_ = 0;
    // Guarded by the pool's mutex.
    std::deque<base::Bytes> filled_;
    std::size_t borrowed_ = 0;  // chunks of the pool
    bool taken_ = false;        // the consumer still looks at the first chunk
    bool ended_ = false;
    bool stopping_ = false;
    std::optional<base::Error> error_;
    std::thread thread_;
};

Result<std::unique_ptr<ThreadedStream>> open_threaded(int fd, StreamLimits limits, std::shared_ptr<Pool> pool) {
    auto stream = std::make_unique<ArchiveStream>(fd, base::ByteView{}, limits);
    CAISSON_TRY(stream->open());
    return std::make_unique<ThreadedStream>(std::move(stream), std::move(pool));
}

Result<std::unique_ptr<Stream>> open_any(int fd, base::ByteView memory, StreamLimits limits) {
    auto stream = std::make_unique<ArchiveStream>(fd, memory, limits);
    CAISSON_TRY(stream->open());
    return std::unique_ptr<Stream>(std::move(stream));
}

}  // namespace

Result<std::unique_ptr<Stream>> open_threaded_stream(int fd, StreamLimits limits) {
    return std::unique_ptr<Stream>(CAISSON_TRY(open_threaded(fd, limits, std::make_shared<Pool>(0))));
}

struct StreamsAhead::State {
    std::vector<int> fds;
    // One core is busy with the stream that is read.
    std::size_t most = std::clamp(std::thread::hardware_concurrency(), 2U, kMaxStreamsAhead + 1) - 1;
    std::shared_ptr<Pool> pool = std::make_shared<Pool>(kReadAheadBytes / kOutBytes);
    std::map<std::size_t, Result<std::unique_ptr<ThreadedStream>>> ready;

    Result<std::unique_ptr<ThreadedStream>> start(std::size_t index, StreamLimits limits) const {
        if (::lseek(fds[index], 0, SEEK_SET) != 0) return failure_errno("cannot rewind the layer");
        ::posix_fadvise(fds[index], 0, 0, POSIX_FADV_SEQUENTIAL);
        return open_threaded(fds[index], limits, pool);
    }
};

StreamsAhead::StreamsAhead(std::vector<int> fds) : state_(std::make_unique<State>()) { state_->fds = std::move(fds); }
StreamsAhead::~StreamsAhead() = default;

Result<std::unique_ptr<Stream>> StreamsAhead::open(std::size_t index, StreamLimits limits) {
    auto& ready = state_->ready;
    Result<std::unique_ptr<ThreadedStream>> stream;
    if (auto found = ready.find(index); found != ready.end()) {
        stream = std::move(found->second);
        ready.erase(found);
    } else {
        stream = state_->start(index, limits);
    }
    // What was started for another order only takes room.
    std::erase_if(ready, [&](const auto& item) { return item.first > index || item.first + state_->most < index; });
    for (std::size_t next = index; next > 0 && next + state_->most > index; --next)
        if (ready.find(next - 1) == ready.end()) ready.emplace(next - 1, state_->start(next - 1, limits));
    if (stream) (*stream)->narrow(limits);
    return std::unique_ptr<Stream>(CAISSON_TRY(std::move(stream)));
}

Result<std::unique_ptr<Stream>> open_stream(int fd, StreamLimits limits) { return open_any(fd, {}, limits); }
Result<std::unique_ptr<Stream>> open_stream(base::ByteView memory, StreamLimits limits) {
    return open_any(-1, memory, limits);
}

}  // namespace caisson::image::unpack
