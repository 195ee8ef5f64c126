#include "wire/connection.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>

namespace caisson::wire {

void Connection::begin_session(const Marker& marker) {
    append_preamble(out_, marker);
    seeker_ = PreambleSeeker::expecting(marker);
}

Result<> Connection::flush() {
    while (sent_ < out_.size()) {
        ssize_t put = ::send(fd_, out_.data() + sent_, out_.size() - sent_, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
        if (put < 0) return base::failure_errno("cannot send to the peer");
        sent_ += static_cast<std::size_t>(put);
    }
    if (sent_ == out_.size()) {
        out_.clear();
        sent_ = 0;
    } else if (sent_ > 256 * 1024) {
        out_.erase(out_.begin(), out_.begin() + static_cast<std::ptrdiff_t>(sent_));
        sent_ = 0;
    }
    return {};
}

Result<bool> Connection::fill() {
    // A few rounds at the most, so that one busy peer does not starve the loop's other descriptors.
    for (int round = 0; round < 2; ++round) {
        auto space = decoder_.prepare();
        if (space.empty()) return true;  // full of frames that next() has to take out first
        ssize_t got = ::recv(fd_, space.data(), space.size(), MSG_DONTWAIT);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return true;
        if (got < 0 && errno == ECONNRESET) return false;
        if (got < 0) return base::failure_errno("cannot receive from the peer");
        if (got == 0) return false;
        if (seeker_) {
            // The bytes were only lent: what lies behind the preamble is fed once it has been found.
            base::Bytes bytes(space.begin(), space.begin() + got);
            auto rest = CAISSON_TRY(seeker_->feed(bytes));
            if (rest) {
                decoder_.feed(*rest);
                seeker_.reset();
            }
        } else {
            decoder_.commit(static_cast<std::size_t>(got));
        }
        if (static_cast<std::size_t>(got) < space.size()) return true;
    }
    return true;
}

std::uint32_t Connection::wanted_events(bool reading) const {
    return (reading ? static_cast<std::uint32_t>(EPOLLIN) : 0u) |
           (queued_bytes() > 0 ? static_cast<std::uint32_t>(EPOLLOUT) : 0u);
}

}  // namespace caisson::wire
