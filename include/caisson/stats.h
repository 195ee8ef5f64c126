// What boxes take of the host right now.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "caisson/export.h"

namespace caisson {

// One look at one box. What cannot be found out is not set: a figure of a box that does not run, or one that neither a
// control group nor /proc tells. Processor and memory are those of the box's machine and of the server of its volumes.
struct BoxStats {
    std::string id, name, state, health;
    std::int64_t time_ms = 0;                          // Unix time of this look
    std::chrono::steady_clock::time_point looked;      // the same, for differences
    std::optional<std::uint64_t> cpu_microseconds;     // used since the box was started
    std::optional<std::uint64_t> memory_bytes;         // in use; what the kernel could take back at once is left out
    std::optional<std::uint64_t> disk_bytes;           // of the host's disk, taken by its root disk
    // Through its network card since it was started, with the headers of packets; nullopt: it has none, or does not run.
    std::optional<std::uint64_t> network_received_bytes, network_sent_bytes;
    // "cgroup" or "processes": who told. Of processes it is what they have in memory, with its share of what several have.
    std::string cpu_source, memory_source;
    std::uint32_t cpu_limit_millis = 0;                // as the box was asked to be: 1500 is one and a half CPUs
    std::uint64_t memory_limit_bytes = 0, disk_limit_bytes = 0;
    std::int64_t started_ms = 0;                       // of the life that runs; 0: none does
    std::int64_t restarts = 0;                         // by its restart policy, since somebody started it
};

// Percent of one CPU that a box used between two looks at it. Not set if one of them does not say, or if the box was
// started anew in between.
CAISSON_API std::optional<double> cpu_percent(const BoxStats& before, const BoxStats& after);

}  // namespace caisson
