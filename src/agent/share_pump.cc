#include "agent/share_pump.h"

#include <linux/fuse.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/bytes.h"
#include "os/fd.h"

namespace caisson::agent {

using base::failure;
using base::failure_errno;

namespace {

// The largest message either way: a megabyte and what stands before it. The kernel refuses reads into less.
constexpr std::size_t kMessageBytes = (1 << 20) + 8192;

// From the kernel, which gives one message a time, to the port.
class Requests {
  public:
    Requests(int fuse, int port) : fuse_(fuse), port_(port), message_(kMessageBytes) {}
    bool pending() const { return sent_ < length_; }
    // false: the file system is unmounted.
    Result<bool> move() {
        if (!pending()) {
            const ssize_t got = ::read(fuse_, message_.data(), message_.size());
            if (got < 0 && errno == ENODEV) return false;
            // ENOENT: whoever asked was killed before we could fetch it.
            if (got < 0 && (errno == EAGAIN || errno == EINTR || errno == ENOENT)) return true;
            if (got < 0) return failure_errno("cannot read a request for a share");
            length_ = static_cast<std::size_t>(got);
            sent_ = 0;
        }
        const ssize_t put = ::write(port_, message_.data() + sent_, length_ - sent_);
        if (put < 0 && errno != EAGAIN && errno != EINTR) return failure_errno("the host's share server is gone");
        if (put > 0) sent_ += static_cast<std::size_t>(put);
        return true;
    }

  private:
    int fuse_, port_;
    base::Bytes message_;
    std::size_t length_ = 0, sent_ = 0;
};

// From the port, where they follow each other without seams, to the kernel, which wants each in one write.
class Answers {
  public:
    Answers(int port, int fuse) : port_(port), fuse_(fuse), bytes_(kMessageBytes) {}
    Result<> move() {
        const ssize_t got = ::read(port_, bytes_.data() + filled_, bytes_.size() - filled_);
        if (got < 0 && (errno == EAGAIN || errno == EINTR)) return {};
        if (got <= 0) return failure(Errc::kCancelled, "the host's share server is gone");
        filled_ += static_cast<std::size_t>(got);
        std::size_t done = 0;
        while (filled_ - done >= sizeof(fuse_out_header)) {
            fuse_out_header header{};
            std::memcpy(&header, bytes_.data() + done, sizeof header);
            if (header.len < sizeof header || header.len > kMessageBytes)
                return failure(Errc::kProtocol, "the host's share server sent nonsense");
            if (filled_ - done < header.len) break;
            // Refused if nobody waits for it any more.
            static_cast<void>(!::write(fuse_, bytes_.data() + done, header.len));
            done += header.len;
        }
        std::memmove(bytes_.data(), bytes_.data() + done, filled_ - done);
        filled_ -= done;
        return {};
    }

  private:
    int port_, fuse_;
    base::Bytes bytes_;
    std::size_t filled_ = 0;
};

}  // namespace

Result<> pump_share(int fuse, int port) {
    CAISSON_TRY(os::set_nonblocking(fuse, true));
    CAISSON_TRY(os::set_nonblocking(port, true));
    Requests requests(fuse, port);
    Answers answers(port, fuse);
    for (;;) {
        const bool sending = requests.pending();
        struct pollfd ready[2] = {{sending ? -1 : fuse, POLLIN, 0},
                                  {port, static_cast<short>(POLLIN | (sending ? POLLOUT : 0)), 0}};
        if (::poll(ready, 2, -1) < 0) {
            if (errno == EINTR) continue;
            return failure_errno("waiting for a share");
        }
        if ((ready[1].revents & POLLIN) != 0) CAISSON_TRY(answers.move());
        else if ((ready[1].revents & (POLLHUP | POLLERR)) != 0) return failure(Errc::kCancelled, "the host's share server is gone");
        if ((ready[0].revents & POLLERR) != 0) return {};  // unmounted
        if (ready[0].revents != 0 || (ready[1].revents & POLLOUT) != 0)
            if (!CAISSON_TRY(requests.move())) return {};
    }
}

}  // namespace caisson::agent
