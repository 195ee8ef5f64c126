// The container's control groups: limits, devices, out-of-memory kills. Made before the template is saved; its limits
// are written at Configure.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "os/fd.h"
#include "wire/agent.pb.h"

namespace caisson::agent {

class BoxCgroup {
  public:
    // Makes the groups with their device filter. Nothing runs in them yet.
    static Result<BoxCgroup> create();

    // The same limits are written to the container's own group as well, where programs look for them.
    Result<> limit(const wire::Configure& configure) const;
    // The same while processes run in it; what is absent stays. kInUse with EBUSY: they use more memory than they are to
    // have, and nothing has changed. Otherwise the kernel would kill some of them.
    Result<> change(const wire::SetLimits& limits) const;
    // Takes the device filter away, for a privileged box.
    Result<> allow_every_device() const;
    // A directory descriptor for CLONE_INTO_CGROUP.
    const os::Fd& fd() const { return container_; }
    // The same of a group beside the container's, under the same limits: freeze() leaves it alone.
    const os::Fd& copies() const { return copies_; }
    // The container's processes stand still, or go on. The kernel does it by and by.
    Result<> freeze(bool still) const;
    // Whether the group's memory limit has killed a process since this was last asked.
    bool killed_since_last_asked();

  private:
    Result<> set(const std::string& file, const std::string& value) const;
    Result<> make_room(std::uint64_t limit_bytes) const;
    Result<std::uint64_t> used_bytes() const;
    BoxCgroup(os::Fd box, os::Fd container, os::Fd copies, os::Fd filter, os::Fd events)
        : box_(std::move(box)), container_(std::move(container)), copies_(std::move(copies)), filter_(std::move(filter)), events_(std::move(events)) {}
    os::Fd box_, container_, copies_;
    os::Fd filter_;  // the BPF program
    os::Fd events_;
    std::uint64_t kills_seen_ = 0;
};

// The value of the line "oom_kill N" of a memory.events file; pure.
std::uint64_t parse_oom_kills(std::string_view events);

}  // namespace caisson::agent
