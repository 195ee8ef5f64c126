// What an update of a box comes to: pure, so that every rule is tested without a box.
#pragma once

#include <optional>

#include "caisson/runtime.h"
#include "vmm/shape.h"
#include "wire/shim.pb.h"

namespace caisson::box {

// A machine that runs.
struct RunningMachine {
    vmm::Shape shape;
    bool detached = true;  // it does not end with whoever started it
    bool can_change = true;  // its supervisor is new enough
    bool can_change_network = true;
    bool network_died = false;
    std::vector<wire::NetworkSpec::Port> ports;  // as they were chosen
};

struct UpdatePlan {
    wire::BoxSpec spec;                        // what the box is to be
    std::vector<BoxChange> changes;
    std::optional<wire::UpdateBox> to_running; // what its supervisor has to hear
    std::optional<wire::UpdateBox> undo;       // that it is to be as it was
    std::optional<wire::UpdateBox> network, network_undo;  // the same of its network, which is told by itself
    bool cpus_now = false;                     // the host's own limit changes, too
};

// `running`: nullopt if it does not. `settle`: the network that is recorded may not be in force, so it is told again. kUsage:
// what is wanted cannot be.
Result<UpdatePlan> plan_update(const wire::BoxSpec& spec, const std::optional<RunningMachine>& running, const BoxUpdate& update, bool settle = false);

}  // namespace caisson::box
