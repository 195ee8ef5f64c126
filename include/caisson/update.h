// Changing a box that is there.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "caisson/export.h"
#include "caisson/network.h"

namespace caisson {

enum class RestartPolicy;

// What is not set stays as it is.
struct BoxUpdate {
    std::optional<std::uint32_t> cpu_millis;    // 1500 is one and a half CPUs
    std::optional<std::uint64_t> memory_bytes;
    std::optional<std::uint32_t> pids_limit;    // 0: none
    std::optional<RestartPolicy> restart;
    std::uint32_t restart_limit = 0;            // with kOnFailure; 0: none
    std::map<std::string, std::string> labels;  // set, whether they are there or not
    std::vector<std::string> removed_labels;    // those that are not there do not matter
    // What it reaches, as in BoxOptions: any of these says it anew and as a whole. A box that runs has a network card or
    // none: from "none", or to it, is kInUse then.
    std::optional<std::string> network;
    std::vector<std::string> allow_network, deny_network;
    std::string network_policy;
    std::optional<NetworkLimits> network_limits;  // all of them: what is 0 has its default again
    std::vector<PublishedPort> published, unpublished;  // the latter as they were published, or with the port that was chosen
    bool restart_network = false;               // another network process; what is open ends
    bool dry_run = false;                       // says what would change
};

// One thing that changes.
struct BoxChange {
    std::string what;       // "cpus", "memory", "pids_limit", "restart", "label KEY", "network_policy", "network_limits", "port", "network_process"
    std::string from, to;   // as the options are written; empty: it is not there
    bool now = true;        // else when the box is started next by `caisson start` or `restart`
    std::string reason;     // why not now
};

struct BoxUpdatePlan {
    std::string id, name;
    std::vector<BoxChange> changes;  // none: everything is so already
};

}  // namespace caisson
