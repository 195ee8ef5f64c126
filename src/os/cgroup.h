// Control groups (cgroups(7)), version 1, version 2 and hosts that have both: which hierarchies there are, and one
// set of groups for one jail. Where groups may be made is decided elsewhere (box/host_limits.h); here they are made,
// entered, emptied and removed.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "os/fd.h"
#include "os/process.h"

namespace caisson::os {

// One mounted hierarchy.
struct CgroupMount {
    int version = 0;                       // 1 or 2
    std::string directory;                 // the mount point
    std::vector<std::string> controllers;  // "memory", "cpu", "pids", ...
    std::string own;                       // the calling process's group as a directory; empty: it lies outside the mount
    bool read_only = false;
    bool has(std::string_view controller) const;
};

// From the texts of /proc/self/mountinfo (proc(5)) and /proc/self/cgroup (cgroups(7)). Pure; what cannot be understood
// is left out. The controllers of version 2 are in no text: `read` is asked for DIRECTORY/cgroup.controllers.
std::vector<CgroupMount> parse_cgroup_mounts(std::string_view mountinfo, std::string_view membership,
                                             const std::function<std::string(const std::string&)>& read);
// Those of this host. Empty where nothing is mounted.
std::vector<CgroupMount> cgroup_mounts();

// What is to be made, as plain data: one group per hierarchy that takes part.
struct CgroupPlan {
    struct Setting {
        std::string file, value;
        bool optional = false;  // a kernel that does not know it, or refuses, is no error
    };
    struct Group {
        int version = 0;
        std::string directory;  // absolute; its parent exists
        std::vector<Setting> settings;
    };
    std::vector<Group> groups;
};

// Owner of the groups of one plan. The destructor kills what is in them and removes them.
class Cgroup {
  public:
    Cgroup() = default;
    // Makes the groups and writes their settings; nothing stays if one fails. A group that is there already is that
    // of an earlier life: what is left in it is killed first. Errors name the file; kPermission, kNotFound: the host
    // is not as it was when the plan was made.
    static Result<Cgroup> create(CgroupPlan plan);
    Cgroup(Cgroup&& other) noexcept;
    Cgroup& operator=(Cgroup&& other) noexcept;
    ~Cgroup();

    // How a child enters. The descriptors are this object's.
    GroupEntry entry() const;
    // How many processes were killed in it because it reached its memory limit.
    std::uint64_t memory_kills() const;
    // How often a process or thread could not be made because there were too many.
    std::uint64_t refused_processes() const;
    // Kills everything in it and removes it. kTimeout: somebody in it does not die, or enters anew; it stays then.
    Result<> remove();

  private:
    CgroupPlan plan_;
    std::vector<Fd> procs_;
    Fd directory_;
};

// SIGKILL to everything in these groups of one jail, over and over until nothing is left, then rmdir(2). By cgroup.kill
// in version 2. In version 1 pids.max first becomes 0, so that nothing in them can be faster than the killing. The
// caller itself is never killed. A group that is not there is fine. kTimeout as above; the others are gone then.
Result<> remove_cgroups(const std::vector<std::string>& directories);

}  // namespace caisson::os
