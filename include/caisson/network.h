// What a box's network is made of.
#pragma once

#include <cstdint>
#include <string>

#include "caisson/export.h"

namespace caisson {

// A port of the host's that leads to one of the box's.
struct PublishedPort {
    std::string address = "127.0.0.1";  // of the host
    std::uint16_t host_port = 0;        // 0: one that is free, chosen at each start
    std::uint16_t guest_port = 0;
    bool udp = false;
};

// 0: the default, which docs/limits.md names; of bytes: no limit.
struct NetworkLimits {
    std::uint32_t connections = 0, flows = 0;  // at once, of TCP and of UDP
    std::uint32_t connects_per_second = 0;
    std::uint64_t bytes_per_second_in = 0, bytes_per_second_out = 0;  // to the box, and from it
    // That may pass at once, each way that has a rate; 0: half of what may pass in a second, 65536 at least. Without a rate kUsage.
    std::uint64_t burst_bytes = 0;
};

}  // namespace caisson
