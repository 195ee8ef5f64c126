// Shape: what of a virtual machine is fixed when its template is made. Requests are rounded up to a ladder so that
// few templates serve all boxes; the exact request is enforced by cgroups in the guest.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace caisson::vmm {

struct Shape {
    std::uint32_t cpus = 1;          // 1, 2, 4, 8
    std::uint32_t memory_mib = 512;  // 256 ... 8192, powers of two
    std::uint32_t disks = 0;         // beside the root disk: 0 or kVolumeDisks, so that boxes without them pay for none
    bool network = false;            // has a card
    bool operator==(const Shape&) const = default;
    std::string to_string() const {
        return std::to_string(cpus) + "cpu-" + std::to_string(memory_mib) + "m" + (disks > 0 ? "-" + std::to_string(disks) + "disks" : "") +
               (network ? "-net" : "");
    }
};

inline constexpr std::uint32_t kMaxCpus = 8;
// As many as a box may have. None can be added to a microvm while it runs, so all are there from the start.
inline constexpr std::uint32_t kVolumeDisks = 4;
inline constexpr std::uint32_t kMinMemoryMib = 256;
inline constexpr std::uint32_t kMaxMemoryMib = 8192;
// Virtual size of every base disk and of the template's placeholder: the usual box needs no resize.
inline constexpr std::uint64_t kDefaultDiskBytes = 10ull << 30;

// The smallest rung that holds the request. `cpu_millis`: 1500 is one and a half CPUs. kUsage beyond the ladder.
Result<Shape> shape_for(std::uint32_t cpu_millis, std::uint64_t memory_bytes);

}  // namespace caisson::vmm
