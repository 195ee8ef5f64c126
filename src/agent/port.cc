#include "agent/port.h"

#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "agent/log.h"
#include "wire/control.h"

namespace caisson::agent {

using base::ByteView;

namespace {
// The driver takes at most this much in one write, as one buffer of its own.
constexpr std::size_t kWriteBytes = 32 * 1024;
}  // namespace

Port::Port(os::Fd fd, os::Loop& loop, Handlers handlers)
    : fd_(std::move(fd)), loop_(loop), handlers_(std::move(handlers)), seeker_(wire::PreambleSeeker::any()) {}

Port::~Port() { loop_.unwatch(fd_.get()); }

Result<> Port::start() {
    // Edge-triggered: while no host is connected the port is permanently "hung up", which must not keep the guest busy.
    return loop_.watch(fd_.get(), EPOLLIN | EPOLLOUT | EPOLLET, [this](std::uint32_t) {
        readable();
        flush();
    });
}

void Port::readable() {
    for (;;) {
        auto room = decoder_.prepare();
        ssize_t got = ::read(fd_.get(), room.data(), room.size());
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && errno == EAGAIN) return;
        read_at_ = os::Loop::Clock::now();
        if (got <= 0) {  // the host has disconnected
            end_session({});
            return;
        }
        take(static_cast<std::size_t>(got));
        if (broken_) return;
    }
}

void Port::take(std::size_t count) {
    decoder_.commit(count);
    if (seeker_) {
        base::Bytes bytes(decoder_.unread().begin(), decoder_.unread().end());
        decoder_.reset();
        seek(bytes);
    }
    while (!seeker_) {
        auto frame = decoder_.next();
        Result<> handled;
        if (frame && !*frame) return;
        if (frame)
            handled = handlers_.frame(**frame);
        else
            handled = base::failure(std::move(frame).error());
        if (handled) continue;
        // Either a new session's preamble, or nonsense.
        base::Bytes rest(decoder_.unread().begin(), decoder_.unread().end());
        if (rest.size() < wire::kMagic.size() || !std::equal(wire::kMagic.begin(), wire::kMagic.end(), rest.begin())) {
            loop_.unwatch(fd_.get());
            broken_ = true;
            handlers_.session_broken(handled.error());
            return;
        }
        end_session(rest);
    }
}

void Port::seek(ByteView bytes) {
    auto rest = seeker_->feed(bytes);
    if (!rest || !*rest) return;  // the guest's seeker has no limit, hence no error
    out_.clear();
    sent_ = 0;
    wire::append_preamble(out_, seeker_->marker());
    seeker_.reset();
    decoder_.reset();
    decoder_.feed(**rest);
    handlers_.session_began();
}

void Port::end_session(ByteView unread) {
    decoder_.reset();
    out_.clear();
    sent_ = 0;
    above_low_water_ = false;
    seeker_ = wire::PreambleSeeker::any();
    handlers_.session_ended();
    while (!unread.empty() && seeker_) {
        // In pieces that the decoder takes in one go, should a session begin in them.
        auto piece = unread.first(std::min(unread.size(), wire::kMaxFeedBytes));
        unread = unread.subspan(piece.size());
        seek(piece);
        if (!seeker_ && !unread.empty()) {
            decoder_.feed(unread.first(std::min(unread.size(), wire::kMaxFeedBytes)));
            break;
        }
    }
}

std::size_t Port::write_some(ByteView bytes) {
    std::size_t done = 0;
    while (done < bytes.size()) {
        auto piece = bytes.subspan(done, std::min(kWriteBytes, bytes.size() - done));
        ssize_t put = ::write(fd_.get(), piece.data(), piece.size());
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) break;  // EAGAIN: an edge will come; a host that is gone shows as end of file
        done += static_cast<std::size_t>(put);
    }
    return done;
}

void Port::send(const wire::FromAgent& message) {
    if (seeker_ || broken_) return;
    if (auto sent = wire::append_control(out_, message); !sent) log_failure(sent.error().to_string());
}

void Port::send_frame(ByteView frame) {
    if (backlog() == 0) frame = frame.subspan(write_some(frame));
    out_.insert(out_.end(), frame.begin(), frame.end());
    if (backlog() > kLowWater) above_low_water_ = true;
}

void Port::flush() {
    if (backlog() > kLowWater) above_low_water_ = true;
    if (backlog() > 0) sent_ += write_some(ByteView(out_).subspan(sent_));
    if (sent_ == out_.size()) {
        out_.clear();
        sent_ = 0;
    } else if (sent_ > kHighWater) {
        out_.erase(out_.begin(), out_.begin() + static_cast<std::ptrdiff_t>(sent_));
        sent_ = 0;
    }
    if (above_low_water_ && backlog() < kLowWater) {
        above_low_water_ = false;
        handlers_.drained();
    }
}

void Port::flush_before_end(std::chrono::milliseconds deadline) {
    auto end = os::Loop::Clock::now() + deadline;
    flush();
    while (backlog() > 0 && os::Loop::Clock::now() < end) {
        pollfd entry{fd_.get(), POLLOUT, 0};
        if (::poll(&entry, 1, 50) > 0 && (entry.revents & POLLHUP)) return;
        flush();
    }
}

}  // namespace caisson::agent
