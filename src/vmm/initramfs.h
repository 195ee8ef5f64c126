// The guest's first file system: the agent as /init and the kernel modules that it loads. Format: cpio "newc"
// (Linux, Documentation/driver-api/early-userspace/buffer-format.rst). Deterministic.
#pragma once

#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "vmm/assets.h"

namespace caisson::vmm {

struct CpioEntry {
    std::string name;     // relative, no leading slash
    std::uint32_t mode;   // with the file type bits
    std::string content;
    std::uint32_t device_major = 0;  // for device nodes
    std::uint32_t device_minor = 0;
};

// Pure.
std::string make_cpio(const std::vector<CpioEntry>& entries);
// Pads with zeros (which the kernel skips) so that the last page is almost empty. The microvm firmware puts the ACPI
// tables into the last 1-2 KiB of low memory, QEMU the initramfs into the last whole pages below the same address: a
// last page that is more than half full overwrites the tables, and the guest then finds no device or hangs. Pure.
std::string fit_below_acpi_tables(std::string archive);
// Reads agent and modules. Errors name the file.
Result<std::string> make_initramfs(const Assets& assets);

}  // namespace caisson::vmm
