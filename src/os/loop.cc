#include "os/loop.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>

#include <algorithm>
#include <cerrno>

namespace caisson::os {

using base::failure_errno;

Result<Loop> Loop::create() {
    int fd = ::epoll_create1(EPOLL_CLOEXEC);
    if (fd < 0) return failure_errno("cannot create an event queue");
    return Loop(Fd(fd));
}

Result<> Loop::watch(int fd, std::uint32_t events, Callback callback) {
    struct epoll_event event {};
    event.events = events;
    // The generation travels with the event: a number that was closed and reused within one round must not
    // deliver the old descriptor's event to the new watch.
    std::uint64_t generation = next_generation_++ & 0xffffffff;
    event.data.u64 = generation << 32 | static_cast<std::uint32_t>(fd);
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return failure_errno("cannot watch a descriptor");
    watches_[fd] = Watch{events, generation, std::make_shared<Callback>(std::move(callback))};
    return {};
}

Result<> Loop::modify(int fd, std::uint32_t events) {
    auto found = watches_.find(fd);
    if (found == watches_.end()) return base::failure(Errc::kInternal, "changing a descriptor that is not watched");
    if (found->second.events == events) return {};
    struct epoll_event event {};
    event.events = events;
    event.data.u64 = found->second.generation << 32 | static_cast<std::uint32_t>(fd);
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event) != 0) return failure_errno("cannot watch a descriptor");
    found->second.events = events;
    return {};
}

void Loop::unwatch(int fd) {
    if (watches_.erase(fd) > 0) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

Loop::TimerId Loop::at(Clock::time_point when, std::function<void()> callback) {
    TimerId id = next_timer_++;
    by_id_[id] = timers_.emplace(when, Timer{id, std::move(callback)});
    return id;
}

void Loop::cancel(TimerId id) {
    const auto found = by_id_.find(id);
    if (found == by_id_.end()) return;
    timers_.erase(found->second);
    by_id_.erase(found);
}

Result<> Loop::step(std::chrono::milliseconds limit) {
    auto wait_ms = static_cast<int>(limit.count());
    if (!timers_.empty()) {
        auto left = timers_.begin()->first - Clock::now();
        // Rounded up, so that a timer is due when the wait ends.
        auto ms = std::chrono::ceil<std::chrono::milliseconds>(left).count();
        int timer_ms = static_cast<int>(std::clamp<long long>(ms, 0, 1 << 30));
        wait_ms = wait_ms < 0 ? timer_ms : std::min(wait_ms, timer_ms);
    }
    struct epoll_event events[32];
    int count = ::epoll_wait(epoll_.get(), events, 32, wait_ms);
    if (count < 0 && errno != EINTR) return failure_errno("cannot wait for events");
    for (int i = 0; i < count && !stopping_; ++i) {
        int fd = static_cast<int>(events[i].data.u64 & 0xffffffff);
        auto found = watches_.find(fd);
        if (found == watches_.end() || found->second.generation != events[i].data.u64 >> 32) continue;
        auto callback = found->second.callback;  // keeps it alive should it unwatch itself
        (*callback)(events[i].events);
    }
    auto now = Clock::now();
    while (!stopping_ && !timers_.empty() && timers_.begin()->first <= now) {
        auto callback = std::move(timers_.begin()->second.callback);
        by_id_.erase(timers_.begin()->second.id);
        timers_.erase(timers_.begin());
        callback();
    }
    return {};
}

Result<> Loop::run() {
    stopping_ = false;
    while (!stopping_) CAISSON_TRY(step(std::chrono::milliseconds(-1)));
    return {};
}

Result<Fd> make_signal_fd(std::initializer_list<int> signals) {
    sigset_t set;
    ::sigemptyset(&set);
    for (int signal : signals) ::sigaddset(&set, signal);
    if (::pthread_sigmask(SIG_BLOCK, &set, nullptr) != 0) return failure_errno("cannot block signals");
    int fd = ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0) return failure_errno("cannot make a signal descriptor");
    return Fd(fd);
}

}  // namespace caisson::os
