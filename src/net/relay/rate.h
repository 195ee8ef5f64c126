// How much may pass in a second: a bucket that fills evenly (token bucket). Time is passed in; not thread-safe.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace caisson::net::relay {

class Rate {
  public:
    using Clock = std::chrono::steady_clock;
    // `per_second` 0: no limit. `at_once`: what a full bucket holds.
    explicit Rate(std::uint64_t per_second = 0, std::uint64_t at_once = 0)
        : per_second_(per_second), at_once_(static_cast<double>(at_once)), there_(static_cast<double>(at_once)) {}

    bool limits() const { return per_second_ > 0; }
    // What may pass now, at most `wanted`.
    std::uint64_t may(std::uint64_t wanted, Clock::time_point now) {
        if (!limits()) return wanted;
        fill(now);
        return std::min(wanted, static_cast<std::uint64_t>(std::max(there_, 0.0)));
    }
    void took(std::uint64_t amount) {
        if (limits()) there_ -= static_cast<double>(amount);
    }
    // Until `amount` may pass.
    std::chrono::milliseconds until(std::uint64_t amount) const {
        const double missing = std::min(static_cast<double>(amount), at_once_) - there_;
        if (!limits() || missing <= 0) return std::chrono::milliseconds(0);
        return std::chrono::milliseconds(1 + static_cast<std::int64_t>(missing * 1000 / static_cast<double>(per_second_)));
    }

  private:
    void fill(Clock::time_point now) {
        if (last_ != Clock::time_point())
            there_ = std::min(at_once_, there_ + std::chrono::duration<double>(now - last_).count() * static_cast<double>(per_second_));
        last_ = now;
    }
    std::uint64_t per_second_;
    double at_once_, there_;
    Clock::time_point last_;
};

}  // namespace caisson::net::relay
