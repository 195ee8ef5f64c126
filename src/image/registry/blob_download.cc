#include "image/registry/blob_download.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "image/limits.h"

namespace caisson::image::registry {

using base::failure;
using base::failure_errno;
using base::printable;

namespace {

constexpr std::chrono::milliseconds kLookAgain{100};  // at a file that another process writes; its size is the progress
constexpr std::size_t kReadBytes = 1 << 20;

bool has_size(const std::string& path, std::uint64_t size) {
    struct stat info {};
    return ::stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) && static_cast<std::uint64_t>(info.st_size) == size;
}

class Download {
  public:
    Download(Http& http, const BlobJob& job, const Descriptor& blob, std::string hex)
        : http_(http), job_(job), blob_(blob), hex_(std::move(hex)) {}

    Result<> run() {
        auto lock = CAISSON_TRY(obtain_lock());
        if (!lock) return {};  // somebody else has done it
        auto done = transfer();
        const bool keep = done || done.error().code == Errc::kIo || done.error().code == Errc::kTimeout ||
                          done.error().code == Errc::kCancelled;
        if (!keep || (!done && offset_ == 0)) discard_download(job_.downloads, hex_);
        else ::unlink(job_.downloads.lock_file(hex_).c_str());
        return done;
    }

  private:
    bool is_there() const {
        return has_size(job_.blobs_directory + "/" + hex_, blob_.size) || has_size(job_.downloads.complete(hex_), blob_.size);
    }
    void say(BlobState state) const {
        if (job_.progress) job_.progress(state, offset_);
    }
    bool cancelled() const { return job_.cancelled != nullptr && *job_.cancelled; }

    // None if the blob is there meanwhile.
    Result<std::optional<os::FileLock>> obtain_lock() {
        bool waited = false;
        for (;;) {
            if (is_there()) {
                offset_ = blob_.size;
                say(waited ? BlobState::kDone : BlobState::kPresent);
                return std::optional<os::FileLock>();
            }
            auto lock = lock_download(job_.downloads, hex_);
            if (lock && !is_there()) return std::optional<os::FileLock>(std::move(*lock));
            if (lock) {
                ::unlink(job_.downloads.lock_file(hex_).c_str());
                continue;
            }
            if (lock.error().code != Errc::kInUse) return failure(std::move(lock).error());
            waited = true;
            struct stat info {};
            if (::stat(job_.downloads.partial(hex_).c_str(), &info) == 0) offset_ = static_cast<std::uint64_t>(info.st_size);
            say(BlobState::kWaiting);
            offset_ = 0;
            if (!job_.wait(kLookAgain)) return failure(Errc::kCancelled, "cancelled");
        }
    }

    Result<> transfer() {
        const auto path = job_.downloads.partial(hex_);
        file_ = CAISSON_TRY(os::open_file(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600));
        CAISSON_TRY(hash_what_is_there());
        const bool resumed = offset_ > 0;
        auto done = fetch_rest();
        if (!done && done.error().code == Errc::kCorrupt && resumed && !cancelled()) {
            // The old piece may be what is wrong: once more from the beginning.
            CAISSON_TRY(restart());
            done = fetch_rest();
        }
        if (!done) return done;
        if (::fsync(file_.get()) != 0) return failure_errno("cannot sync " + path);
        if (::rename(path.c_str(), job_.downloads.complete(hex_).c_str()) != 0) return failure_errno("cannot rename " + path);
        // Only now: a part that nobody may write to could never be completed.
        if (::fchmod(file_.get(), 0444) != 0) return failure_errno("cannot set the mode of " + job_.downloads.complete(hex_));
        CAISSON_TRY(os::fsync_directory(job_.downloads.directory));
        say(BlobState::kDone);
        return {};
    }

    Result<> restart() {
        if (::ftruncate(file_.get(), 0) != 0 || ::lseek(file_.get(), 0, SEEK_SET) < 0) return failure_errno("cannot empty a download");
        hash_ = {};
        offset_ = 0;
        return {};
    }

    Result<> hash_what_is_there() {
        struct stat info {};
        if (::fstat(file_.get(), &info) != 0) return failure_errno("cannot look at a download");
        if (static_cast<std::uint64_t>(info.st_size) > blob_.size) return restart();
        base::Bytes buffer(kReadBytes);
        for (;;) {
            if (cancelled()) return failure(Errc::kCancelled, "cancelled");
            ssize_t got = ::read(file_.get(), buffer.data(), buffer.size());
            if (got < 0 && errno == EINTR) continue;
            if (got < 0) return failure_errno("cannot read a download");
            if (got == 0) return {};
            hash_.update({buffer.data(), static_cast<std::size_t>(got)});
            offset_ += static_cast<std::uint64_t>(got);
            say(BlobState::kDownloading);
        }
    }

    Result<> fetch_rest() {
        Result<> last = failure(Errc::kInternal, "no registry to ask");
        for (auto* session : job_.sessions) {
            last = fetch_from(*session);
            if (last || last.error().code == Errc::kCancelled || last.error().code == Errc::kNoSpace) break;
            if (last.error().code == Errc::kCorrupt && session != job_.sessions.back()) CAISSON_TRY(restart());
        }
        return last;
    }

    Result<> fetch_from(Session& session) {
        int idle_tries = 0;
        while (offset_ < blob_.size) {
            const auto before = offset_;
            auto answer = ask(session);
            if (cancelled()) return failure(Errc::kCancelled, "cancelled");
            if (!answer && answer.error().code != Errc::kIo && answer.error().code != Errc::kTimeout) return answer;
            if (answer && offset_ < blob_.size)  // the connection ended politely, but too early
                answer = failure(Errc::kIo, session.endpoint().name + " sent only " + base::format_size(offset_) + " of " + base::format_size(blob_.size));
            if (answer) break;
            idle_tries = offset_ > before ? 0 : idle_tries + 1;
            if (idle_tries >= kMaxTries) return failure(std::move(answer).error());
            if (!job_.wait(std::chrono::milliseconds(300 << idle_tries))) return failure(Errc::kCancelled, "cancelled");
        }
        auto digest = "sha256:" + base::Sha256(hash_).finish_hex();
        if (digest != blob_.digest)
            return failure(Errc::kCorrupt, "what " + session.endpoint().name + " sent has the digest " + digest);
        return {};
    }

    Result<> ask(Session& session) {
        HttpRequest request;
        request.authorities_pem = session.endpoint().authorities_pem;
        request.max_body_bytes = kMaxErrorBodyBytes;
        if (offset_ > 0) request.headers.push_back("Range: bytes=" + std::to_string(offset_) + "-");
        request.on_head = [&](const HttpHead& head) { return begin(session, head); };
        request.on_data = [&](base::ByteView data) { return take(session, data); };
        auto answer = session.get(http_, "blobs/" + blob_.digest, std::move(request));
        if (!answer) return failure(std::move(answer).error());
        return {};
    }

    Result<> begin(const Session& session, const HttpHead& head) {
        if (head.status == 206) {
            auto range = head.header("content-range");
            if (offset_ > 0 && range.starts_with("bytes " + std::to_string(offset_) + "-")) return {};
            // Another piece than the one that was asked for.
            CAISSON_TRY(restart());
            return failure(Errc::kIo, session.endpoint().name + " answers with the wrong part of a layer");
        }
        if (offset_ > 0) CAISSON_TRY(restart());  // it cannot resume: everything comes again
        if (auto length = base::parse_u64(head.header("content-length")); length && *length != blob_.size)
            return failure(Errc::kCorrupt, session.endpoint().name + " has " + std::to_string(*length) + " bytes, but the image says " +
                                               std::to_string(blob_.size));
        return {};
    }

    Result<> take(const Session& session, base::ByteView data) {
        if (cancelled()) return failure(Errc::kCancelled, "cancelled");
        if (data.size() > blob_.size - offset_)
            return failure(Errc::kCorrupt, session.endpoint().name + " sends more than the " + std::to_string(blob_.size) + " bytes that the image says");
        CAISSON_TRY(os::write_all(file_.get(), data));
        hash_.update(data);
        offset_ += data.size();
        say(BlobState::kDownloading);
        return {};
    }

    Http& http_;
    const BlobJob& job_;
    const Descriptor& blob_;
    std::string hex_;
    os::Fd file_;
    base::Sha256 hash_;
    std::uint64_t offset_ = 0;
};

}  // namespace

Result<> download_blob(Http& http, const BlobJob& job, const Descriptor& blob) {
    return Download(http, job, blob, CAISSON_TRY(digest_hex(blob.digest))).run();
}

}  // namespace caisson::image::registry
