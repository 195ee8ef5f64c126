// What all host processes of one box may take together: the figures, and where on this host the control groups that
// enforce them can be made. Whoever launches a box decides it; its supervisor makes the groups (os/cgroup.h).
//
// Each home has a group in each hierarchy, and each box one below that, named by its id: so whatever a killed process
// left is found again. Root makes the home's groups before it becomes the service user, and gives them to that user. An
// ordinary user needs a group that systemd, or whoever runs the container, has delegated.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "box/state.h"
#include "os/cgroup.h"
#include "os/user.h"

namespace caisson::box {

struct HostFigures {
    std::uint64_t memory_bytes = 0;
    std::uint32_t cpu_millis = 0;
    std::uint32_t pids = 0;
};
// Of a box: its machine, and what QEMU needs beside it. `disk_in_memory_bytes` is the size of its disk if the home lies
// on a file system that is memory, else 0. Pure.
HostFigures host_figures(vmm::Shape shape, vmm::Accelerator accelerator, std::uint32_t cpu_millis,
                         std::uint64_t disk_in_memory_bytes);

// Where the boxes' groups of one home are made.
struct GroupPlace {
    struct Base {
        int version = 0;
        std::string directory;                 // the home's group; boxes' are made in it
        std::vector<std::string> controllers;  // of the three below, those that it can hand on
        std::string parent;                    // not empty: `directory` may have to be made, here
    };
    std::vector<Base> bases;  // empty: nowhere
    // Of "memory", "cpu" and "pids", those that cannot be limited; why, and what would help.
    std::vector<std::string> missing;
    std::string reason, fix;
    bool has(std::string_view controller) const;
};

// What the decision depends on. The functions are the kernel's answers, or a test's.
struct GroupFacts {
    std::vector<os::CgroupMount> mounts;
    std::string tag;                                          // names the home, see group_tag()
    bool enters_by_descriptor = false;                        // RuntimeOptions::cgroup_fd is there
    std::function<bool(const std::string&)> writable;         // by this process
    std::function<std::string(const std::string&)> read;      // a file's content, empty if there is none
};
GroupPlace choose_place(const GroupFacts& facts);
GroupFacts gather_group_facts(const std::string& home, int cgroup_fd);

// 16 hex digits, the same for the same home.
std::string group_tag(const std::string& home);

// The groups of a box, made by os::Cgroup::create().
os::CgroupPlan plan_groups(const GroupPlace& place, const std::string& box_id, const HostFigures& figures);

// kHostMissing, with the fix, unless memory, CPU and processes can all be limited.
Result<> check_required(const GroupPlace& place);

// What a launch is told: the groups, or why there are none. Makes the home's own groups if they are missing. With
// `required`, kHostMissing unless memory, CPU and processes can all be limited.
Result<wire::HostLimits> decide_limits(const internal::RuntimeState& runtime, bool required);
// Has the kernel's waiting for processes that enter groups done in advance, while the box is being made. Keep it until
// the box runs. Best effort: without it a start takes up to 40 ms longer.
os::Process hasten_entry(const wire::HostLimits& limits, int cgroup_fd);
// Completes a decision for one box.
void set_figures(wire::HostLimits& limits, const std::string& box_id, const HostFigures& figures);
// 0 unless the home lies on a tmpfs.
std::uint64_t disk_in_memory_bytes(const std::string& home, std::uint64_t disk_bytes);

// Gives a running box another limit of CPU time, in the group that it has; best effort where it has none. Whoever looks at
// kLimitsFile sees it. Errors: the kernel does not take it.
Result<> change_cpu_limit(const store::Home& home, const std::string& box_id, std::uint32_t box_cpu_millis);

// Written into the box's directory before its groups are made, for `inspect`.
inline constexpr const char* kLimitsFile = "limits";

// As root, before the drop: makes the home's groups and gives them to `identity`. Returns the descriptor through which
// supervisors enter the version 2 group in which they may make groups; -1: none is needed, or none can be had. What
// cannot be made is no error here: choose_place() finds it missing and says so.
int prepare_groups_as_root(const std::string& home, os::Identity identity);

// Directories of the groups that there are, by the ids of their boxes.
std::map<std::string, std::vector<std::string>> groups_of_boxes(const store::Home& home);

// Removes the groups of boxes that nobody runs any more, with whatever is left in them.
Result<> sweep_groups(const store::Home& home, store::Database& database);

// The same for one box, whose lock the caller holds.
void remove_groups(const store::Home& home, const std::string& box_id);

}  // namespace caisson::box
