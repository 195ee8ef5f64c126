// Loop: one thread's events. epoll(7) with timers; the shim and the agent each run exactly one.
// Level-triggered. Callbacks run on the thread that calls run(); no other thread may touch the loop.
// A callback may remove any watch, its own included.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <unordered_map>

#include "base/result.h"
#include "os/fd.h"

namespace caisson::os {

class Loop {
  public:
    using Clock = std::chrono::steady_clock;
    // `events` are EPOLLIN, EPOLLOUT, EPOLLHUP, ... as epoll reports them.
    using Callback = std::function<void(std::uint32_t events)>;

    static Result<Loop> create();

    // Watches `fd`, which stays the caller's and must be unwatched before it is closed.
    Result<> watch(int fd, std::uint32_t events, Callback callback);
    // Changes what a watched fd waits for; 0 pauses it (errors and hang-ups still arrive).
    Result<> modify(int fd, std::uint32_t events);
    void unwatch(int fd);

    using TimerId = std::uint64_t;
    TimerId at(Clock::time_point when, std::function<void()> callback);
    TimerId after(std::chrono::milliseconds delay, std::function<void()> callback) {
        return at(Clock::now() + delay, std::move(callback));
    }
    void cancel(TimerId id);

    // Runs until stop(). Errors only if epoll itself fails.
    Result<> run();
    void stop() { stopping_ = true; }
    // One round: waits for at most `limit`, handles what is ready.
    Result<> step(std::chrono::milliseconds limit);

  private:
    explicit Loop(Fd epoll) : epoll_(std::move(epoll)) {}
    struct Watch {
        std::uint32_t events;
        std::uint64_t generation;
        std::shared_ptr<Callback> callback;
    };
    Fd epoll_;
    std::unordered_map<int, Watch> watches_;
    std::uint64_t next_generation_ = 1;
    struct Timer {
        TimerId id;
        std::function<void()> callback;
    };
    using Timers = std::multimap<Clock::time_point, Timer>;
    Timers timers_;
    std::unordered_map<TimerId, Timers::iterator> by_id_;
    TimerId next_timer_ = 1;
    bool stopping_ = false;
};

// Blocks `signals` for the calling thread and returns a non-blocking signalfd(2) for them.
Result<Fd> make_signal_fd(std::initializer_list<int> signals);

}  // namespace caisson::os
