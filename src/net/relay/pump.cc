#include "net/relay/pump.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "net/relay/limits.h"

namespace caisson::net::relay {

using base::failure_errno;

namespace {
// Buffers full, before others have their turn.
constexpr int kTurns = 4;
constexpr std::uint32_t kNotWatched = ~std::uint32_t{0};
}  // namespace

Pump::Pump(os::Loop& loop, Options options, Ended ended)
    : loop_(loop), sockets_{std::move(options.inside), std::move(options.outside)}, watched_{kNotWatched, kNotWatched},
      stages_(std::move(options.stages)), rates_{options.rates[0], options.rates[1]}, scratch_(options.scratch), ended_(std::move(ended)),
      sides_{{.way = Way::kOut, .from = 0, .to = 1}, {.way = Way::kIn, .from = 1, .to = 0}} {
    sides_[0].waiting = std::move(options.first);
    sides_[0].bytes = sides_[0].waiting.size();
    scratch_->resize(kBufferBytes);
}

Pump::~Pump() {
    for (std::size_t i = 0; i < 2; ++i)
        if (watched_[i] != kNotWatched) loop_.unwatch(sockets_[i].get());
    if (timer_ != 0) loop_.cancel(timer_);
}

Result<> Pump::start() {
    const int on = 1;
    for (auto& socket : sockets_) ::setsockopt(socket.get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    if (!sides_[0].waiting.empty() && !stages_.empty()) {
        auto first = std::move(sides_[0].waiting);
        sides_[0].waiting.clear();
        CAISSON_TRY(pass(sides_[0], std::move(first)));
    }
    for (std::size_t i = 0; i < 2; ++i) {
        CAISSON_TRY(loop_.watch(sockets_[i].get(), EPOLLIN, [this, i](std::uint32_t events) { on_event(i, events); }));
        watched_[i] = EPOLLIN;
    }
    watch();
    return {};
}

void Pump::on_event(std::size_t socket, std::uint32_t events) {
    // Reported whether they are asked for or not: whoever cannot read just now would hear of it for ever.
    if ((events & EPOLLHUP) != 0) hung_up_[socket] = true;
    step();
}

// False: it waits for room.
Result<bool> Pump::flush(Side& side) {
    while (side.written < side.waiting.size()) {
        const auto sent = ::send(sockets_[side.to].get(), side.waiting.data() + side.written, side.waiting.size() - side.written, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0 && errno == EAGAIN) return false;
        if (sent < 0) return failure_errno("writing");
        side.written += static_cast<std::size_t>(sent);
    }
    side.waiting.clear();
    side.written = 0;
    return true;
}

Result<> Pump::pass(Side& side, base::Bytes bytes) {
    auto ask = [&](Stage& stage) { return stage.pass(side.way, bytes, side.ended); };
    if (side.way == Way::kOut)
        for (auto& stage : stages_) CAISSON_TRY(ask(*stage));
    else
        for (auto stage = stages_.rbegin(); stage != stages_.rend(); ++stage) CAISSON_TRY(ask(**stage));
    base::append(side.waiting, bytes);
    return {};
}

// False: there is nothing to take just now.
Result<bool> Pump::take(Side& side) {
    auto& rate = *rates_[static_cast<std::size_t>(side.way)];
    const auto most = rate.may(kBufferBytes, Rate::Clock::now());
    if (most == 0) {
        wait_for_rate(side);
        return false;
    }
    const auto got = ::recv(sockets_[side.from].get(), scratch_->data(), most, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return false;
    if (got < 0) return failure_errno("reading");
    side.ended = got == 0;
    side.bytes += static_cast<std::uint64_t>(got);
    rate.took(static_cast<std::uint64_t>(got));
    if (!stages_.empty()) {
        CAISSON_TRY(pass(side, base::Bytes(scratch_->begin(), scratch_->begin() + got)));
        return true;
    }
    // Straight on; what does not fit is kept.
    auto sent = got > 0 ? ::send(sockets_[side.to].get(), scratch_->data(), static_cast<std::size_t>(got), MSG_NOSIGNAL) : 0;
    if (sent < 0 && errno != EAGAIN && errno != EINTR) return failure_errno("writing");
    side.waiting.assign(scratch_->begin() + std::max<ssize_t>(sent, 0), scratch_->begin() + got);
    return true;
}

Result<> Pump::move(Side& side) {
    for (int turn = 0; turn < kTurns; ++turn) {
        if (!CAISSON_TRY(flush(side))) return {};
        if (side.ended) {
            if (!side.told) ::shutdown(sockets_[side.to].get(), SHUT_WR);
            side.told = true;
            return {};
        }
        if (!CAISSON_TRY(take(side))) return {};
    }
    CAISSON_TRY(flush(side));
    return {};
}

void Pump::wait_for_rate(Side& side) {
    constexpr std::uint64_t kWorthWaking = 16384;
    side.waits = true;
    if (timer_ != 0) return;
    timer_ = loop_.after(rates_[static_cast<std::size_t>(side.way)]->until(kWorthWaking), [this] {
        timer_ = 0;
        for (auto& one : sides_) one.waits = false;
        step();
    });
}

void Pump::step() {
    for (auto& side : sides_)
        if (!side.waits)
            if (auto moved = move(side); !moved) return finish(moved.error().sys_errno != 0 ? moved.error().sys_errno : EPROTO);
    if (sides_[0].told && sides_[1].told) return finish(0);
    watch();
}

void Pump::watch() {
    for (std::size_t i = 0; i < 2; ++i) {
        const auto& reads = sides_[i];       // the side that reads from sockets_[i]
        const auto& writes = sides_[1 - i];
        std::uint32_t wanted = 0;
        if (!reads.ended && !reads.waits && reads.waiting.empty()) wanted |= EPOLLIN;
        if (!writes.waiting.empty()) wanted |= EPOLLOUT;
        if (hung_up_[i] && wanted == 0) {
            if (watched_[i] != kNotWatched) loop_.unwatch(sockets_[i].get());
            watched_[i] = kNotWatched;
        } else if (watched_[i] == kNotWatched) {
            if (auto watched = loop_.watch(sockets_[i].get(), wanted, [this, i](std::uint32_t events) { on_event(i, events); })) watched_[i] = wanted;
        } else if (watched_[i] != wanted && loop_.modify(sockets_[i].get(), wanted)) {
            watched_[i] = wanted;
        }
    }
}

void Pump::cut() {
    const linger at_once{1, 0};
    for (std::size_t i = 0; i < 2; ++i) {
        if (!sockets_[i]) continue;
        if (watched_[i] != kNotWatched) loop_.unwatch(sockets_[i].get());
        watched_[i] = kNotWatched;
        ::setsockopt(sockets_[i].get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        sockets_[i].reset();
    }
}

void Pump::finish(int error) {
    if (error != 0) cut();
    auto ended = std::move(ended_);
    if (ended) ended(error);
}

}  // namespace caisson::net::relay
