#include "net/dns/tcp_session.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>

namespace caisson::net::dns {

namespace {
constexpr std::size_t kLengthBytes = 2;
}

Result<std::unique_ptr<TcpSession>> TcpSession::create(os::Fd connection, Options options) {
    CAISSON_TRY(os::set_nonblocking(connection.get(), true));
    std::unique_ptr<TcpSession> session(new TcpSession(std::move(connection), std::move(options)));
    CAISSON_TRY(session->options_.loop->watch(session->connection_.get(), EPOLLIN,
                                              [raw = session.get()](std::uint32_t events) { raw->on_event(events); }));
    session->used();
    return session;
}

TcpSession::~TcpSession() {
    options_.loop->cancel(timer_);
    options_.loop->unwatch(connection_.get());
}

// The time until it counts as idle begins anew.
void TcpSession::used() {
    if (is_ending_) return;
    last_used_ = os::Loop::Clock::now();
    options_.loop->cancel(timer_);
    timer_ = options_.loop->after(options_.idle, [this] { end(); });
}

// Later, so that nobody up the stack has a session that is gone.
void TcpSession::end() {
    if (is_ending_) return;
    is_ending_ = true;
    options_.loop->unwatch(connection_.get());
    options_.loop->cancel(timer_);
    timer_ = options_.loop->after(std::chrono::milliseconds(0), [on_end = options_.on_end] { on_end(); });
}

void TcpSession::on_event(std::uint32_t events) {
    if ((events & (EPOLLERR | EPOLLHUP)) != 0) return end();  // nobody hears answers any more
    if ((events & EPOLLOUT) != 0) write_some();
    take_queries();
    if ((events & EPOLLIN) != 0) read_some();
    adjust();
}

bool TcpSession::may_take() const { return !is_ending_ && unanswered_ < kMostSessionQuestions && outgoing_.size() < kMostSessionUnsentBytes; }

// No more than a few questions are held that have not been asked: what is behind them stays in the kernel.
void TcpSession::read_some() {
    std::uint8_t room[kLengthBytes + kMostQueryBytes];
    while (!is_over_ && may_take()) {
        const auto size = ::recv(connection_.get(), room, sizeof room, 0);
        if (size < 0 && errno == EINTR) continue;
        if (size < 0 && errno == EAGAIN) return;
        if (size < 0) return end();
        if (size == 0) is_over_ = true;
        base::append(incoming_, base::ByteView(room).first(static_cast<std::size_t>(size)));
        take_queries();
    }
}

void TcpSession::take_queries() {
    if (is_taking_) return;
    is_taking_ = true;
    std::size_t at = 0;
    while (may_take() && incoming_.size() - at >= kLengthBytes) {
        const std::size_t length = static_cast<std::size_t>(incoming_[at]) << 8 | incoming_[at + 1];
        if (length > kMostQueryBytes) end();
        if (is_ending_ || incoming_.size() - at < kLengthBytes + length) break;
        const base::Bytes query(incoming_.begin() + static_cast<long>(at + kLengthBytes),
                                incoming_.begin() + static_cast<long>(at + kLengthBytes + length));
        at += kLengthBytes + length;
        ++unanswered_;
        used();
        options_.on_query(query);
    }
    incoming_.erase(incoming_.begin(), incoming_.begin() + static_cast<long>(at));
    is_taking_ = false;
}

void TcpSession::reply(base::ByteView message) {
    if (is_ending_) return;
    --unanswered_;
    outgoing_.push_back(static_cast<std::uint8_t>(message.size() >> 8));
    outgoing_.push_back(static_cast<std::uint8_t>(message.size()));
    base::append(outgoing_, message);
    write_some();
    take_queries();
    adjust();
}

void TcpSession::write_some() {
    while (!is_ending_ && !outgoing_.empty()) {
        const auto size = ::send(connection_.get(), outgoing_.data(), outgoing_.size(), MSG_NOSIGNAL);
        if (size < 0 && errno == EINTR) continue;
        if (size < 0 && errno == EAGAIN) return;
        if (size < 0) return end();
        outgoing_.erase(outgoing_.begin(), outgoing_.begin() + size);
        used();
    }
}

// Waits for what it can make use of.
void TcpSession::adjust() {
    if (is_ending_) return;
    if (is_over_ && unanswered_ == 0 && outgoing_.empty()) return end();
    const std::uint32_t events = (!is_over_ && may_take() ? EPOLLIN : 0u) | (outgoing_.empty() ? 0u : EPOLLOUT);
    if (!options_.loop->modify(connection_.get(), events)) end();
}

}  // namespace caisson::net::dns
