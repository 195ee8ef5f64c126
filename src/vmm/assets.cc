#include "vmm/assets.h"

#include <sys/stat.h>
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
    return Shape{.cpus = cpus, .memory_mib = memory};
}

namespace {

// Empty when complete, else what is missing.
std::string missing_part(const std::string& directory) {
    for (const char* part : {"/vmm.version", "/kernel/version", "/kernel/vmlinux", "/kernel/modules.list"})
        if (::access((directory + part).c_str(), R_OK) != 0) return directory + part;
    if (::access((directory + "/vmm" + kQemuPath).c_str(), X_OK) != 0) return directory + "/vmm" + kQemuPath;
    return {};
}

// Assets that nobody named are used only if they come from root, from this user or from whoever owns caisson's own
// programs, and nobody else can change them: unpacked below /tmp, caisson has a neighbour there that anybody may make.
bool is_trusted(const std::string& directory, const std::string& libexec) {
    struct stat info {};
    struct stat programs {};
    if (::stat(directory.c_str(), &info) != 0) return true;  // then it is missing, which is told otherwise
    const bool owner = info.st_uid == 0 || info.st_uid == ::geteuid() ||
                       (::stat(libexec.c_str(), &programs) == 0 && info.st_uid == programs.st_uid);
    // Where every user has a group of their own, that group may write.
    const bool group = (info.st_mode & S_IWGRP) == 0 || info.st_gid == info.st_uid;
    return owner && group && (info.st_mode & S_IWOTH) == 0;
}

}  // namespace

std::string enter_program(const Assets& assets) {
    if (assets.agent.empty()) return {};
    return assets.agent.substr(0, assets.agent.rfind('/') + 1) + "caisson-enter";
}

Result<Assets> find_assets(const AssetsSearch& search) {
    auto sought = search.override_directory.empty() ? search.candidates
                                                    : std::vector<std::string>{search.override_directory};
    std::string missing;
    std::string distrusted;
    for (const auto& directory : sought) {
        missing = missing_part(directory);
        if (!missing.empty()) continue;
        if (search.override_directory.empty() && !is_trusted(directory, search.libexec)) {
            distrusted += " (" + directory + " belongs to somebody else or others can write to it: not used)";
            continue;
        }
        Assets assets;
        assets.directory = directory;
        assets.vmm_root = directory + "/vmm";
        assets.kernel = directory + "/kernel/vmlinux";
        assets.modules = directory + "/kernel/modules";
        assets.modules_list = directory + "/kernel/modules.list";
        assets.agent = search.libexec + "/caisson-agent";
        assets.vmm_version = std::string(base::trim(CAISSON_TRY(os::read_file(directory + "/vmm.version", 4096))));
        assets.kernel_version =
            std::string(base::trim(CAISSON_TRY(os::read_file(directory + "/kernel/version", 4096))));
        if (::access(enter_program(assets).c_str(), X_OK) != 0)
            return failure(Errc::kHostMissing, "caisson's program " + enter_program(assets) + " is missing",
                           "install caisson again, or in its source tree: make build");
        if (::access(assets.agent.c_str(), R_OK) != 0)
            return failure(Errc::kHostMissing, "the guest agent " + assets.agent + " is missing",
                           "install caisson again, or in its source tree: make build");
        return assets;
    }
    std::string remedy =
        "run 'make run' in caisson's source tree, or tools/setup/assets DIRECTORY and set CAISSON_ASSETS=DIRECTORY";
    if (!search.setup_program.empty()) {
        // Where the search began is also where set-up puts them, but for a place that the user has named.
        remedy = "sudo " + search.setup_program;
        if (!search.override_directory.empty()) remedy += " " + search.override_directory;
    }
    return failure(Errc::kHostMissing,
                   "the VMM and the guest kernel are not set up (looked in " + base::join(sought, ", ") + ")" + distrusted,
                   remedy);
}

}  // namespace caisson::vmm
