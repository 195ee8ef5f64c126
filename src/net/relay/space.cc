#include "net/relay/space.h"

#include <sys/epoll.h>

#include <cerrno>
#include <cstring>

#include "base/bytes.h"
#include "net/space/limits.h"

namespace caisson::net::relay {

namespace {
// Of the guest's connections, before what is open already has its turn.
constexpr int kMessagesAtOnce = 64;
}  // namespace

Space::~Space() { loop_.unwatch(socket_.get()); }

Result<> Space::start() {
    CAISSON_TRY(os::set_nonblocking(socket_.get(), true));
    return loop_.watch(socket_.get(), EPOLLIN, [this](std::uint32_t events) {
        if ((events & EPOLLOUT) != 0) send_verdicts();
        if ((events & ~static_cast<std::uint32_t>(EPOLLOUT)) != 0) on_readable();
    });
}

Result<> Space::send(const NetnsMessage& message) {
    const auto bytes = base::bytes_of(message);
    if (os::send_packet(socket_.get(), base::as_text(bytes))) return {};
    return base::failure_errno("caisson-netns does not listen");
}

void Space::give_verdict(std::uint64_t number, NetnsMessage::Verdict verdict) {
    // None may be lost: its connection would wait for it until caisson-netns gives up, which holds no more than these.
    if (verdicts_.size() >= kMostHeldConnections) return;
    verdicts_.push_back({.kind = NetnsMessage::Kind::kVerdict, .verdict = verdict, .number = number});
    if (verdicts_.size() == 1) send_verdicts();
}

void Space::send_verdicts() {
    while (!verdicts_.empty() && send(verdicts_.front())) verdicts_.pop_front();
    // An end of the other side is heard of by reading.
    if (!verdicts_.empty() && errno != EAGAIN) verdicts_.clear();
    static_cast<void>(loop_.modify(socket_.get(), verdicts_.empty() ? EPOLLIN : EPOLLIN | EPOLLOUT));
}

void Space::ask(NetnsMessage message, Made made) {
    message.number = next_++;
    if (auto sent = send(message); !sent) {
        loop_.after(std::chrono::milliseconds(0), [made = std::move(made)] { made(os::Fd(), ENOBUFS); });
        return;
    }
    asked_.emplace(message.number, std::move(made));
}

void Space::make_udp(const Endpoint& outside, const Endpoint& guest, Made made) {
    ask({.kind = NetnsMessage::Kind::kMakeUdp, .protocol = Protocol::kUdp, .guest = guest, .outside = outside}, std::move(made));
}

void Space::refuse_udp(const Endpoint& guest, const Endpoint& outside) {
    if (!verdicts_.empty()) return;  // those have precedence; the guest's next datagram is refused
    static_cast<void>(send({.kind = NetnsMessage::Kind::kRefuseUdp, .protocol = Protocol::kUdp, .guest = guest, .outside = outside}));
}

void Space::dial(const Endpoint& guest, Protocol protocol, Made made) {
    ask({.kind = NetnsMessage::Kind::kDial, .protocol = protocol, .guest = guest}, std::move(made));
}

void Space::on_readable() {
    for (int i = 0; i < kMessagesAtOnce; ++i) {
        NetnsMessage message;
        static_assert(std::is_trivially_copyable_v<NetnsMessage>);
        char bytes[sizeof message + 1];
        auto packet = os::receive_packet(socket_.get(), bytes);
        if (packet.length < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (packet.length != sizeof message) {
            loop_.unwatch(socket_.get());
            return told_.gone();
        }
        std::memcpy(static_cast<void*>(&message), bytes, sizeof message);
        if (message.kind == NetnsMessage::Kind::kBegins) {
            told_.begins(message.number, message.guest, message.outside);
        } else if (auto asked = asked_.find(message.number); message.kind == NetnsMessage::Kind::kMade && asked != asked_.end()) {
            auto made = std::move(asked->second);
            asked_.erase(asked);
            const bool there = message.error == 0 && packet.descriptors.size() == 1;
            // Cut: there was no room for another descriptor here.
            const int error = message.error != 0 ? message.error : packet.cut ? EMFILE : EPROTO;
            made(there ? std::move(packet.descriptors[0]) : os::Fd(), there ? 0 : error);
        }
    }
}

}  // namespace caisson::net::relay
