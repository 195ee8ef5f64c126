// The limit of one volume: how much of the host's disk its files take, kept up to date by whoever writes them.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace caisson::volume::share {

// Shared by all mounts of a volume. `used` may lie in memory that other boxes' share servers count in as well.
class Space {
  public:
    Space(std::atomic<std::int64_t>& used, std::uint64_t limit_bytes) : used_(used), limit_(limit_bytes) {}

    std::uint64_t limit_bytes() const { return limit_; }
    std::uint64_t free_bytes() const {
        const auto used = used_.load();
        return used >= static_cast<std::int64_t>(limit_) ? 0 : limit_ - static_cast<std::uint64_t>(std::max<std::int64_t>(used, 0));
    }
    void add(std::int64_t bytes) { used_ += bytes; }

  private:
    std::atomic<std::int64_t>& used_;
    std::uint64_t limit_;
};

}  // namespace caisson::volume::share
