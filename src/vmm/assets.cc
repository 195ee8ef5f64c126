#include "vmm/assets.h"

#include <unistd.h>

#include <bit>

#include "base/text.h"
#include "os/file.h"
#include "vmm/shape.h"

namespace caisson::vmm {

using base::failure;

Result<Shape> shape_for(std::uint32_t cpu_millis, std::uint64_t memory_bytes) {
    std::uint32_t cpus = std::bit_ceil((std::max(cpu_millis, 1u) + 999) / 1000);
    if (cpus > kMaxCpus)
        return failure(Errc::kUsage, "a box has at most " + std::to_string(kMaxCpus) + " CPUs");
    std::uint64_t mib = (memory_bytes + (1 << 20) - 1) >> 20;
    if (mib > kMaxMemoryMib)
        return failure(Errc::kUsage, "a box has at most " + std::to_string(kMaxMemoryMib) + " MiB of memory");
    auto memory = std::bit_ceil(std::max(static_cast<std::uint32_t>(mib), kMinMemoryMib));
    return Shape{cpus, memory};
}

namespace {

// Empty when complete, else what is missing.
std::string missing_part(const std::string& directory) {
    for (const char* part : {"/vmm.version", "/kernel/version", "/kernel/vmlinux", "/kernel/modules.list"})
        if (::access((directory + part).c_str(), R_OK) != 0) return directory + part;
    if (::access((directory + "/vmm" + kQemuPath).c_str(), X_OK) != 0) return directory + "/vmm" + kQemuPath;
    return {};
}

}  // namespace

Result<Assets> find_assets(const std::string& override_directory, const std::vector<std::string>& candidates,
                           const std::string& libexec) {
    auto sought = override_directory.empty() ? candidates : std::vector<std::string>{override_directory};
    std::string missing;
    for (const auto& directory : sought) {
        missing = missing_part(directory);
        if (!missing.empty()) continue;
        Assets assets;
        assets.directory = directory;
        assets.vmm_root = directory + "/vmm";
        assets.kernel = directory + "/kernel/vmlinux";
        assets.modules = directory + "/kernel/modules";
        assets.modules_list = directory + "/kernel/modules.list";
        assets.agent = libexec + "/caisson-agent";
        assets.vmm_version = std::string(base::trim(CAISSON_TRY(os::read_file(directory + "/vmm.version", 4096))));
        assets.kernel_version =
            std::string(base::trim(CAISSON_TRY(os::read_file(directory + "/kernel/version", 4096))));
        if (::access(assets.agent.c_str(), R_OK) != 0)
            return failure(Errc::kHostMissing, "the guest agent " + assets.agent + " is missing",
                           "build or install caisson again: make build");
        return assets;
    }
    return failure(Errc::kHostMissing,
                   "the VMM and the guest kernel are not set up (looked in " + base::join(sought, ", ") + ")",
                   "run 'make run' in caisson's source tree, or tools/setup/assets DIRECTORY and set "
                   "CAISSON_ASSETS=DIRECTORY");
}

}  // namespace caisson::vmm
