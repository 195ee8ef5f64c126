// The layers between a box and the host as this host has them: collected as facts, judged by a pure function.
#pragma once

#include <string>
#include <vector>

#include "box/host_limits.h"
#include "caisson/runtime.h"
#include "jail/host.h"

namespace caisson::box {

struct LayerFacts {
    jail::HostJailFacts jail;
    std::string refusal, refusal_fix;  // of jail::preflight(); empty: a jail can be made
    bool filters = true;               // the kernel has system call filters that kill
    long landlock_version = 0;         // 0: not in this kernel, -1: built in but not among the active security modules
    GroupPlace groups;                 // where boxes' control groups can be made
    bool cpu_virtualises = false;
    bool kvm_exists = false;
    bool kvm_opens = false;
};

// `home`: whose boxes; `cgroup_fd`: as in RuntimeOptions.
LayerFacts collect_layer_facts(const std::string& home, int cgroup_fd);
// Pure. Always the same layers in the same order.
std::vector<Layer> layers_of(const LayerFacts& facts);

}  // namespace caisson::box
