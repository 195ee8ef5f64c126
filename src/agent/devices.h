// Which devices a container may use: a rule list, and the BPF program for its cgroup that enforces it.
#pragma once

#include <linux/bpf.h>

#include <optional>
#include <vector>

#include "base/result.h"
#include "os/fd.h"

namespace caisson::agent {

struct DeviceRule {
    bool block = false;
    std::optional<unsigned> major;  // none: every device of the kind
    std::optional<unsigned> minor;
    bool read_write = false;
    bool make_node = false;
};

// Docker's default list: device nodes may be made of anything, but only the harmless ones open. So the root disk and
// the agent's port cannot be used, whatever node a container makes for them: open(2) fails with EPERM.
std::vector<DeviceRule> default_device_rules();

// A BPF_PROG_TYPE_CGROUP_DEVICE program: returns 1 when one rule allows everything that is asked for, else 0.
// Source: Documentation of struct bpf_cgroup_dev_ctx in linux/bpf.h. Pure.
std::vector<bpf_insn> device_program(const std::vector<DeviceRule>& rules);

// Loads the program into the kernel; failure says that the kernel refused and why.
Result<os::Fd> load_device_program(const std::vector<bpf_insn>& program);
// Attaches it to a cgroup; nothing below the cgroup can override it, and only what has CAP_NET_ADMIN or CAP_SYS_ADMIN in
// the guest's first user namespace can take it away.
Result<> attach_device_program(const os::Fd& program, const os::Fd& cgroup);
Result<> detach_device_program(const os::Fd& program, const os::Fd& cgroup);

}  // namespace caisson::agent
