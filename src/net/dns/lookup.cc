#include "net/dns/lookup.h"

#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

namespace caisson::net::dns {

namespace {
constexpr std::size_t kLengthBytes = 2;  // before each message over TCP, RFC 1035 4.2.2
}

Lookup::Lookup(Options options, std::string name, Type type, Done done)
    : options_(std::move(options)), name_(std::move(name)), type_(type), done_(std::move(done)), gave_up_(options_.servers.size(), false) {
    deadline_ = os::Loop::Clock::now() + options_.deadline;
    timer_ = options_.loop->after(std::chrono::milliseconds(0), [this] { begin_try(); });
}

Lookup::~Lookup() { close_socket(); }

// Asks the next server that may be asked; with none left, or no time, it ends.
void Lookup::begin_try() {
    const auto servers = options_.servers.size();
    for (; try_ < servers * kMostRounds && os::Loop::Clock::now() < deadline_; ++try_) {
        if (gave_up_[try_ % servers]) continue;
        strays_ = 0;
        if (ask(false)) return;
        gave_up_[try_ % servers] = true;
    }
    finish();
}

// Sends the question to the server of this try and waits for it until the try's end. false: it cannot be asked.
bool Lookup::ask(bool over_tcp) {
    close_socket();
    over_tcp_ = over_tcp;
    sent_ = false;
    incoming_.clear();
    if (!make_question() || !open_socket(over_tcp ? SOCK_STREAM : SOCK_DGRAM)) {
        close_socket();
        return false;
    }
    const auto end = std::min(os::Loop::Clock::now() + options_.try_timeout, deadline_);
    timer_ = options_.loop->at(end, [this] {
        close_socket();
        next_try();
    });
    ++options_.counts->queries;
    return true;
}

Result<> Lookup::make_question() {
    std::uint8_t random[2];
    CAISSON_TRY(options_.random(random));
    id_ = static_cast<std::uint16_t>(random[0] << 8 | random[1]);
    question_ = build_query(id_, name_, type_, edns_);
    return {};
}

bool Lookup::open_socket(int type) {
    const auto& server = options_.servers[try_ % options_.servers.size()];
    socket_ = os::Fd(::socket(server.address.is_v4() ? AF_INET : AF_INET6, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!socket_) return false;
    const auto address = to_socket(server);
    if (::connect(socket_.get(), address.get(), address.length) != 0 && errno != EINPROGRESS) return false;
    if (type == SOCK_STREAM) return options_.loop->watch(socket_.get(), EPOLLOUT, [this](std::uint32_t events) { on_tcp(events); }).has_value();
    if (::send(socket_.get(), question_.data(), question_.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(question_.size())) return false;
    return options_.loop->watch(socket_.get(), EPOLLIN, [this](std::uint32_t) { on_udp(); }).has_value();
}

void Lookup::close_socket() {
    options_.loop->cancel(timer_);
    if (!socket_) return;
    options_.loop->unwatch(socket_.get());
    socket_.reset();
}

void Lookup::on_udp() {
    std::uint8_t room[kMostUdpAnswerBytes];
    auto after = After::kWait;
    while (after == After::kWait) {
        const auto size = ::recv(socket_.get(), room, sizeof room, MSG_TRUNC);
        if (size < 0 && errno == EINTR) continue;
        if (size < 0 && errno == EAGAIN) return;
        if (size < 0) {
            after = failed(Resolved::Kind::kTimeout);  // nobody is there
            break;
        }
        auto answer = parse_answer(base::ByteView(room).first(std::min(static_cast<std::size_t>(size), sizeof room)), id_, name_, type_);
        // More than it was told to send: the rest is lost, as if it had said so.
        if (static_cast<std::size_t>(size) > sizeof room && answer.kind != Answer::Kind::kNotOurs) answer.kind = Answer::Kind::kTruncated;
        after = take(answer, false);
    }
    go_on(after);
}

void Lookup::on_tcp(std::uint32_t events) {
    if (!sent_) {
        if (!send_over_tcp()) return go_on(failed(Resolved::Kind::kTimeout));
        return;
    }
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) go_on(read_tcp());
}

bool Lookup::send_over_tcp() {
    base::Bytes message{static_cast<std::uint8_t>(question_.size() >> 8), static_cast<std::uint8_t>(question_.size())};
    base::append(message, question_);
    // A connection's first bytes go out whole, or it does not stand.
    if (::send(socket_.get(), message.data(), message.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(message.size())) return false;
    sent_ = true;
    return options_.loop->modify(socket_.get(), EPOLLIN).has_value();
}

Lookup::After Lookup::read_tcp() {
    std::uint8_t room[4096];
    while (true) {
        const auto size = ::recv(socket_.get(), room, sizeof room, 0);
        if (size < 0 && errno == EINTR) continue;
        if (size < 0 && errno == EAGAIN) return After::kWait;
        if (size <= 0) return failed(Resolved::Kind::kServerFailure);
        base::append(incoming_, base::ByteView(room).first(static_cast<std::size_t>(size)));
        if (incoming_.size() < kLengthBytes) continue;
        const std::size_t length = static_cast<std::size_t>(incoming_[0]) << 8 | incoming_[1];
        if (length > kMostTcpAnswerBytes) return failed(Resolved::Kind::kServerFailure);
        if (incoming_.size() < kLengthBytes + length) continue;
        return take(parse_answer(base::ByteView(incoming_).subspan(kLengthBytes, length), id_, name_, type_), true);
    }
}

void Lookup::go_on(After after) {
    if (after == After::kNextTry) return next_try();
    if (after == After::kDone) return finish();
}

Lookup::After Lookup::take(const Answer& answer, bool over_tcp) {
    using Kind = Answer::Kind;
    switch (answer.kind) {
        case Kind::kNotOurs:
            ++options_.counts->strays;
            // Somebody guesses ids: a fresh socket makes him begin anew.
            if (!over_tcp && ++strays_ <= kMostStrayAnswers) return After::kWait;
            close_socket();
            return After::kNextTry;
        case Kind::kTruncated:
            if (!over_tcp && ask(true)) return After::kAsked;
            return failed(Resolved::Kind::kServerFailure);
        case Kind::kFailed:
            // A server from before there was EDNS.
            if (edns_ && (answer.code == Code::kFormatError || answer.code == Code::kNotImplemented)) {
                edns_ = false;
                if (ask(false)) return After::kAsked;
            }
            return failed(answer.code == Code::kRefused ? Resolved::Kind::kRefused : Resolved::Kind::kServerFailure);
        case Kind::kMalformed: return failed(Resolved::Kind::kServerFailure);
        case Kind::kAddresses: found_ = {Resolved::Kind::kAddresses, answer.addresses, answer.ttl}; break;
        case Kind::kNoData: found_ = {Resolved::Kind::kNoData, {}, answer.ttl}; break;
        case Kind::kNoSuchName: found_ = {Resolved::Kind::kNoSuchName, {}, answer.ttl}; break;
    }
    return After::kDone;
}

// This server has no answer, and will not have one if it is asked again.
Lookup::After Lookup::failed(Resolved::Kind why) {
    close_socket();
    gave_up_[try_ % gave_up_.size()] = true;
    if (why != Resolved::Kind::kTimeout) found_.kind = why;
    return After::kNextTry;
}

void Lookup::next_try() {
    ++try_;
    begin_try();
}

void Lookup::finish() {
    close_socket();
    auto done = std::move(done_);  // it may destroy this
    done(std::move(found_));
}

}  // namespace caisson::net::dns
