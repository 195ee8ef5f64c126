#include "agent/share_pump.h"

#include <linux/fuse.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <span>
#include <utility>

#include "agent/share_cache.h"
#include "agent/share_window.h"
#include "base/bytes.h"
#include "os/fd.h"

namespace caisson::agent {

using base::failure;
using base::failure_errno;

namespace {

constexpr std::size_t kMessageBytes = ShareWindow::kMessageBytes;

// What need not go at once goes with what does, or when it is this old: each way to the host costs as much as a small file.
constexpr int kLaterMilliseconds = 10;
constexpr std::size_t kMostLater = 16 << 10;
// Messages up to this length are joined with what waits.
constexpr std::size_t kMostJoined = 8 << 10;

// From the kernel, which gives one message a time, to the port.
class Requests {
  public:
    Requests(int fuse, int port, ShareCache& cache, ShareWindow& window) : fuse_(fuse), port_(port), cache_(cache), window_(window) {}
    // Something is on its way to the port, which has no room for it now.
    bool pending() const { return sent_ < sending_.size(); }
    bool later() const { return !later_.empty(); }
    // What was taken last was answered at once.
    bool answered() const { return !answer_.empty(); }
    // false: the file system is unmounted.
    Result<bool> take() {
        answer_.clear();
        const auto room = window_.message();
        const ssize_t got = ::read(fuse_, room.data(), room.size());
        if (got < 0 && errno == ENODEV) return false;
        // ENOENT: whoever asked was killed before we could fetch it.
        if (got < 0 && (errno == EAGAIN || errno == EINTR || errno == ENOENT)) return true;
        if (got < 0) return failure_errno("cannot read a request for a share");
        auto message = room.first(static_cast<std::size_t>(got));
        const auto way = cache_.request(message, answer_);
        // Refused if nobody waits for it any more.
        if (!answer_.empty()) static_cast<void>(!::write(fuse_, answer_.data(), answer_.size()));
        const bool own = take_own();
        if (!way.forward || !way.soon) {
            if (way.forward) later_.insert(later_.end(), message.begin(), message.end());
            if (own || later_.size() > kMostLater) CAISSON_TRY(send_later());
            return true;
        }
        message = window_.send(message);
        if (message.size() > kMostJoined) {
            if (later()) CAISSON_TRY(send_later());
            if (!pending()) CAISSON_TRY(send(message));
            else sending_.insert(sending_.end(), message.begin(), message.end());
            return true;
        }
        later_.insert(way.first ? later_.begin() : later_.end(), message.begin(), message.end());
        CAISSON_TRY(send_later());
        return true;
    }
    // What the cache wants of the server.
    Result<> send_own() {
        return take_own() ? send_later() : Result<>();
    }
    Result<> send_later() {
        sending_.insert(sending_.end(), later_.begin(), later_.end());
        later_.clear();
        return go_on();
    }
    Result<> go_on() {
        sent_ += CAISSON_TRY(put(base::ByteView(sending_).subspan(sent_)));
        if (pending()) return {};
        sending_.clear();
        sent_ = 0;
        return {};
    }

  private:
    // false: there is nothing.
    bool take_own() {
        const auto own = cache_.take_requests();
        later_.insert(later_.end(), own.begin(), own.end());
        return !own.empty();
    }
    Result<> send(base::ByteView message) {
        const auto done = CAISSON_TRY(put(message));
        sending_.assign(message.begin() + static_cast<std::ptrdiff_t>(done), message.end());
        return {};
    }
    // As much as the port takes.
    Result<std::size_t> put(base::ByteView bytes) {
        std::size_t done = 0;
        while (done < bytes.size()) {
            const ssize_t put = ::write(port_, bytes.data() + done, bytes.size() - done);
            if (put < 0 && errno == EINTR) continue;
            if (put < 0 && errno == EAGAIN) break;
            if (put < 0) return failure_errno("the host's share server is gone");
            done += static_cast<std::size_t>(put);
        }
        return done;
    }

    int fuse_, port_;
    ShareCache& cache_;
    ShareWindow& window_;
    base::Bytes later_, sending_, answer_;
    std::size_t sent_ = 0;
};

// From the port, where they follow each other without seams, to the kernel, which wants each in one write.
class Answers {
  public:
    Answers(int port, int fuse, ShareCache& cache, ShareWindow& window)
        : port_(port), fuse_(fuse), cache_(cache), window_(window), bytes_(kMessageBytes) {}
    Result<> move() {
        // Large answers come in small pieces, and the next one is there already.
        do {
            const ssize_t got = ::read(port_, bytes_.data() + filled_, bytes_.size() - filled_);
            if (got < 0 && (errno == EAGAIN || errno == EINTR)) return {};
            if (got <= 0) return failure(Errc::kCancelled, "the host's share server is gone");
            filled_ += static_cast<std::size_t>(got);
            CAISSON_TRY(hand_on());
        } while (filled_ > 0);
        return {};
    }

  private:
    // What is complete.
    Result<> hand_on() {
        std::size_t done = 0;
        while (filled_ - done >= sizeof(fuse_out_header)) {
            fuse_out_header header{};
            std::memcpy(&header, bytes_.data() + done, sizeof header);
            if (header.len < sizeof header || header.len > kMessageBytes)
                return failure(Errc::kProtocol, "the host's share server sent nonsense");
            if (filled_ - done < header.len) break;
            const auto message = window_.receive({bytes_.data() + done, header.len});
            // Refused if nobody waits for it any more.
            if (message && cache_.is_for_kernel(*message)) static_cast<void>(!::write(fuse_, message->data(), message->size()));
            if (const auto answer = cache_.take_answer(); !answer.empty()) static_cast<void>(!::write(fuse_, answer.data(), answer.size()));
            done += header.len;
        }
        if (done > 0) std::memmove(bytes_.data(), bytes_.data() + done, filled_ - done);
        filled_ -= done;
        return {};
    }

    int port_, fuse_;
    ShareCache& cache_;
    ShareWindow& window_;
    base::Bytes bytes_;
    std::size_t filled_ = 0;
};

// In a process of its own, see ShareCache::take_notices(). Without one the kernel goes on believing for as long as it was told.
void tell_kernel(int fuse, base::ByteView notices) {
    if (::fork() != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (fuse_out_header header{}; notices.size() >= sizeof header; notices = notices.subspan(header.len)) {
        std::memcpy(&header, notices.data(), sizeof header);
        static_cast<void>(!::write(fuse, notices.data(), header.len));
    }
    ::_exit(0);
}

// Whoever was answered goes on first: it closes what it had, forgets it, and asks again, and all of that is then taken in
// one turn, for each turn costs the machine an address space. Not while others compute: they would go first as well.
class Turns {
  public:
    void give() {
        const auto before = Clock::now();
        if (before < not_before_) return;
        ::sched_yield();
        if (const auto after = Clock::now(); after - before > kLong) not_before_ = after + kPause;
    }

  private:
    using Clock = std::chrono::steady_clock;
    static constexpr std::chrono::milliseconds kLong{1}, kPause{100};
    Clock::time_point not_before_;
};

}  // namespace

Result<> pump_share(int fuse, int port, os::Fd window_device) {
    CAISSON_TRY(os::set_nonblocking(fuse, true));
    CAISSON_TRY(os::set_nonblocking(port, true));
    ShareCache cache;
    ShareWindow window(std::move(window_device));
    Requests requests(fuse, port, cache, window);
    Answers answers(port, fuse, cache, window);
    Turns turns;
    // Of those who tell the kernel: nobody asks how they ended.
    ::signal(SIGCHLD, SIG_IGN);
    for (;;) {
        const bool sending = requests.pending();
        struct pollfd ready[2] = {{sending ? -1 : fuse, POLLIN, 0},
                                  {port, static_cast<short>(POLLIN | (sending ? POLLOUT : 0)), 0}};
        const int found = ::poll(ready, 2, requests.later() && !sending ? kLaterMilliseconds : -1);
        if (found < 0) {
            if (errno == EINTR) continue;
            return failure_errno("waiting for a share");
        }
        if (found == 0) CAISSON_TRY(requests.send_later());
        bool answered = (ready[1].revents & POLLIN) != 0;
        if (answered) {
            CAISSON_TRY(answers.move());
            CAISSON_TRY(requests.send_own());
            if (const auto notices = cache.take_notices(); !notices.empty()) tell_kernel(fuse, notices);
        }
        else if ((ready[1].revents & (POLLHUP | POLLERR)) != 0) return failure(Errc::kCancelled, "the host's share server is gone");
        if ((ready[0].revents & POLLERR) != 0) return {};  // unmounted
        if ((ready[1].revents & POLLOUT) != 0) CAISSON_TRY(requests.go_on());
        if (ready[0].revents != 0) {
            if (!CAISSON_TRY(requests.take())) return {};
            answered |= requests.answered();
        }
        if (answered) turns.give();
    }
}

}  // namespace caisson::agent
