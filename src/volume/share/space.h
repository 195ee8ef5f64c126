// The limit of one volume: how much of the host's disk its files take, kept up to date by whoever writes them.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "volume/share/presence.h"

namespace caisson::volume::share {

// Shared by all mounts of a volume in one server. `used` lies in memory that other boxes' servers count in as well.
//
// A removed file takes its space until nobody has it open, and a server sees only what its own guest has open. So what a
// removed file took is not free before this server is the only one that has the volume: two boxes that share one could
// else keep files open for each other and write without end. What is left of it when this server goes is free again when
// the volume is counted anew.
class Space {
  public:
    // `server`: the same object for all mounts of the volume in this server. Null: there are no others.
    Space(std::atomic<std::int64_t>& used, std::uint64_t limit_bytes, std::shared_ptr<Presence> server = {})
        : used_(used), limit_(limit_bytes), server_(std::move(server)) {}
    bool is_of_same_volume(const Space& other) const { return this == &other || (server_ && server_ == other.server_); }

    std::uint64_t limit_bytes() const { return limit_; }
    std::uint64_t free_bytes() {
        if (freed_ > 0 && is_alone()) used_ -= std::exchange(freed_, 0);
        const auto used = used_.load();
        return used >= static_cast<std::int64_t>(limit_) ? 0 : limit_ - static_cast<std::uint64_t>(std::max<std::int64_t>(used, 0));
    }
    void add(std::int64_t bytes) { used_ += bytes; }
    // A file without a name is gone, as far as this server's guest goes.
    void free(std::int64_t bytes) {
        if (is_alone()) used_ -= bytes;
        else freed_ += bytes;
    }

  private:
    bool is_alone() const { return !server_ || !server_->has_company(); }

    std::atomic<std::int64_t>& used_;
    std::uint64_t limit_;
    std::shared_ptr<Presence> server_;
    std::int64_t freed_ = 0;
};

}  // namespace caisson::volume::share
