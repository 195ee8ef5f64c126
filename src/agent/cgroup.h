// The container's control group: limits, devices, out-of-memory kills. Made before the template is saved; its limits
// are written at Configure.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "os/fd.h"
#include "wire/agent.pb.h"

namespace caisson::agent {

class BoxCgroup {
  public:
    // Makes the group with its device filter. Nothing runs in it yet.
    static Result<BoxCgroup> create();

    Result<> limit(const wire::Configure& configure) const;
    // A directory descriptor for CLONE_INTO_CGROUP.
    const os::Fd& fd() const { return directory_; }
    // Whether the group's memory limit has killed a process since this was last asked.
    bool killed_since_last_asked();

  private:
    BoxCgroup(os::Fd directory, os::Fd events) : directory_(std::move(directory)), events_(std::move(events)) {}
    os::Fd directory_;
    os::Fd events_;
    std::uint64_t kills_seen_ = 0;
};

// The value of the line "oom_kill N" of a memory.events file; pure.
std::uint64_t parse_oom_kills(std::string_view events);

}  // namespace caisson::agent
