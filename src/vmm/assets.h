// Assets: the programs and files of others that a virtual machine is made of, unpacked as data.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace caisson::vmm {

struct Assets {
    std::string directory;      // holds the three below; made by tools/setup/assets
    std::string vmm_root;       // <directory>/vmm: QEMU and its libraries, the VMM's whole file system
    std::string kernel;         // <directory>/kernel/vmlinux
    std::string modules;        // <directory>/kernel/modules, with modules.list beside it
    std::string modules_list;   // load order, one file name a line
    std::string agent;          // the guest's PID 1, static; caisson-enter is beside it
    std::string vmm_version;    // "1:10.0.2+ds-2..."
    std::string kernel_version;
};

// Host path of caisson-enter; empty if the agent's is.
std::string enter_program(const Assets& assets);

// Path of QEMU inside vmm_root.
inline constexpr const char* kQemuPath = "/usr/bin/qemu-system-x86_64";

struct AssetsSearch {
    std::string override_directory;       // if not empty, the only place
    std::vector<std::string> candidates;  // else these, in order
    std::string libexec;                  // caisson's own helper programs
    std::string setup_program;            // makes the assets of an installed caisson; empty in a source tree
};
// kHostMissing names what is missing, where it was sought and the command that makes it.
Result<Assets> find_assets(const AssetsSearch& search);

}  // namespace caisson::vmm
