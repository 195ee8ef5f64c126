#include "net/space/server.h"

#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <linux/netlink.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "net/space/limits.h"
#include "net/space/queue.h"
#include "net/space/rules.h"

namespace caisson::net {

using base::failure;
using Verdict = NetnsMessage::Verdict;

namespace {

constexpr std::chrono::seconds kTidyEvery{5};
// What one round takes from the queue, before others have their turn.
constexpr int kPacketsPerRound = 64;

Mark mark_of(Verdict verdict) {
    switch (verdict) {
        case Verdict::kAccept: return Mark::kAccept;
        case Verdict::kRefuse: return Mark::kRefuse;
        case Verdict::kHostUnreachable: return Mark::kHostUnreachable;
        case Verdict::kNetUnreachable: return Mark::kNetUnreachable;
        case Verdict::kProhibited: return Mark::kProhibited;
        case Verdict::kSilence: break;
    }
    return Mark::kNone;
}

bool is_verdict(Verdict verdict) { return verdict >= Verdict::kAccept && verdict <= Verdict::kSilence; }

bool send_message(const os::Fd& to, const NetnsMessage& message, const std::vector<os::Fd>& descriptors = {}) {
    return os::send_packet(to.get(), base::as_text(base::bytes_of(message)), descriptors);
}

}  // namespace

SpaceServer::SpaceServer(os::Loop& loop, os::Fd launcher, os::Fd ask, os::Fd queue, Refusals refusals)
    : loop_(loop), launcher_(std::move(launcher)), ask_(std::move(ask)), queue_(std::move(queue)), refusals_(std::move(refusals)) {}

Result<> SpaceServer::start() {
    CAISSON_TRY(loop_.watch(launcher_.get(), EPOLLIN, [this](std::uint32_t) { on_launcher(); }));
    CAISSON_TRY(loop_.watch(queue_.get(), EPOLLIN, [this](std::uint32_t) { on_queue(); }));
    tidy();
    return watch_ask();
}

Result<> SpaceServer::watch_ask() {
    if (!ask_) return {};
    CAISSON_TRY(os::set_nonblocking(ask_.get(), true));
    return loop_.watch(ask_.get(), EPOLLIN, [this](std::uint32_t events) { on_ask(events); });
}

void SpaceServer::end(Result<> why) {
    ended_ = std::move(why);
    loop_.stop();
}

// Nothing that waits will be decided any more, and nothing that was decided leads anywhere.
void SpaceServer::drop_ask() {
    if (ask_) loop_.unwatch(ask_.get());
    ask_.reset();
    for (auto packet : gate_.give_up()) give(packet, Verdict::kNetUnreachable);
    if (std::exchange(unsent_, std::nullopt)) static_cast<void>(loop_.modify(queue_.get(), EPOLLIN));
}

void SpaceServer::on_launcher() {
    char room[1];
    auto packet = os::receive_packet(launcher_.get(), room);
    if (packet.length <= 0) return end({});
    if (packet.descriptors.size() != 1) return end(failure(Errc::kProtocol, "the launcher sent what is no socket"));
    drop_ask();
    ask_ = std::move(packet.descriptors[0]);
    if (auto watched = watch_ask(); !watched) end(std::move(watched));
}

void SpaceServer::tidy() {
    for (auto packet : gate_.expire(os::Loop::Clock::now())) drop(packet);
    loop_.after(kTidyEvery, [this] { tidy(); });
}

void SpaceServer::on_queue() {
    alignas(nlmsghdr) std::uint8_t room[4096];
    for (int i = 0; i < kPacketsPerRound && !unsent_; ++i) {
        const ssize_t got = ::recv(queue_.get(), room, sizeof room, 0);
        if (got < 0 && (errno == EAGAIN || errno == EINTR || errno == ENOBUFS)) return;
        if (got <= 0) return end(base::failure_errno("cannot read from the queue of packets"));
        for (const auto& queued : parse_queue(base::ByteView(room, static_cast<std::size_t>(got)))) {
            if (auto beginning = parse_beginning(queued.bytes)) arrived(queued.number, *beginning);
            else drop(queued.number);
        }
    }
}

void SpaceServer::arrived(std::uint32_t packet, const Beginning& beginning) {
    if (!ask_) return give(packet, Verdict::kNetUnreachable);
    const auto arrival = gate_.arrive(packet, beginning, os::Loop::Clock::now());
    if (arrival.replaced) drop(*arrival.replaced);
    using What = Gate::Arrival::What;
    switch (arrival.what) {
        case What::kAsk:
            if (ask(arrival.number, beginning)) return;
            gate_.forget(arrival.number);
            return drop(packet);
        case What::kWait: return;
        case What::kDrop: return drop(packet);
        case What::kDecided: return give(packet, arrival.verdict);
    }
}

bool SpaceServer::ask(std::uint64_t number, const Beginning& beginning) {
    if (unsent_) return false;
    NetnsMessage question;
    question.kind = NetnsMessage::Kind::kBegins;
    question.number = number;
    question.guest = beginning.guest;
    question.outside = beginning.outside;
    if (send_message(ask_, question)) return true;
    if (errno != EAGAIN) {
        drop_ask();
        return true;
    }
    // The kernel keeps what arrives meanwhile, up to the queue's length.
    unsent_ = question;
    static_cast<void>(loop_.modify(ask_.get(), EPOLLIN | EPOLLOUT));
    static_cast<void>(loop_.modify(queue_.get(), 0));
    return true;
}

void SpaceServer::on_ask(std::uint32_t events) {
    if ((events & EPOLLOUT) != 0 && unsent_) {
        if (send_message(ask_, *unsent_)) {
            unsent_.reset();
            static_cast<void>(loop_.modify(ask_.get(), EPOLLIN));
            static_cast<void>(loop_.modify(queue_.get(), EPOLLIN));
        } else if (errno != EAGAIN) {
            return drop_ask();
        }
    }
    if ((events & ~static_cast<std::uint32_t>(EPOLLOUT)) == 0) return;
    NetnsMessage message;
    char room[sizeof message + 1];
    auto packet = os::receive_packet(ask_.get(), room);
    if (packet.length < 0 && errno == EAGAIN) return;
    if (packet.length <= 0) return drop_ask();
    if (packet.length != sizeof message || !packet.descriptors.empty()) return drop_ask();
    std::memcpy(&message, room, sizeof message);
    answer(message);
}

void SpaceServer::answer(const NetnsMessage& message) {
    switch (message.kind) {
        case NetnsMessage::Kind::kVerdict: {
            if (!is_verdict(message.verdict)) return drop_ask();
            if (auto packet = gate_.decide(message.number, message.verdict, os::Loop::Clock::now())) give(*packet, message.verdict);
            return;
        }
        case NetnsMessage::Kind::kMakeUdp: return made(message, make_datagram_socket(message.guest, message.outside));
        case NetnsMessage::Kind::kDial:
            if (message.protocol != Protocol::kTcp && message.protocol != Protocol::kUdp) return drop_ask();
            return made(message, dial_guest(message.protocol, message.guest, message.outside));
        case NetnsMessage::Kind::kRefuseUdp:
            if (!refuse_datagrams(refusals_, message.guest, message.outside)) drop_ask();
            return;
        case NetnsMessage::Kind::kBegins:
        case NetnsMessage::Kind::kMade: break;
    }
    drop_ask();
}

void SpaceServer::made(const NetnsMessage& message, Result<os::Fd> socket) {
    NetnsMessage reply = message;
    reply.kind = NetnsMessage::Kind::kMade;
    reply.error = socket ? 0 : socket.error().sys_errno != 0 ? socket.error().sys_errno : EIO;
    std::vector<os::Fd> descriptors;
    if (socket) descriptors.push_back(std::move(*socket));
    // Whoever asks takes the answers: nothing else is done for it until it has.
    while (!send_message(ask_, reply, descriptors)) {
        if (errno == ETOOMANYREFS && !descriptors.empty()) {
            reply.error = EMFILE;
            descriptors.clear();
            continue;
        }
        if (errno != EAGAIN) return drop_ask();
        struct pollfd waited[] = {{ask_.get(), POLLOUT, 0}, {launcher_.get(), 0, 0}};
        static_cast<void>(::poll(waited, 2, -1));
        if (waited[1].revents != 0) return end({});
    }
}

void SpaceServer::give(std::uint32_t packet, Verdict verdict) {
    if (verdict == Verdict::kSilence) return drop(packet);
    send_verdict(packet, NF_ACCEPT, static_cast<std::uint32_t>(mark_of(verdict)));
}

void SpaceServer::drop(std::uint32_t packet) { send_verdict(packet, NF_DROP, 0); }

// A packet that is gone already (its link went down) is no error.
void SpaceServer::send_verdict(std::uint32_t packet, std::uint32_t verdict, std::uint32_t mark) {
    const auto message = verdict_message(packet, verdict, mark);
    static_cast<void>(::send(queue_.get(), message.data(), message.size(), MSG_NOSIGNAL));
}

}  // namespace caisson::net
