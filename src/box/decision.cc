#include "box/decision.h"

#include <algorithm>

#include "base/text.h"
#include "box/disks.h"
#include "box/mounts.h"
#include "box/network.h"
#include "box/plan.h"
#include "image/disks.h"
#include "image/host.h"
#include "vmm/qcow2.h"

namespace caisson::box {

using internal::RuntimeState;

namespace {

// What a box of this image is likely to touch first: its own command, the loader and C library that nearly every
// program needs, shells, the small commands of scripts, the usual interpreters. A name without a slash is looked up in
// the guest along the usual PATH; what an image lacks costs nothing.
std::vector<std::string> warm_paths(const image::Config& config) {
    std::vector<std::string> paths{"/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc.so.6",
                                   "/lib/ld-musl-x86_64.so.1",    "/etc/ld.so.cache",                "/etc/passwd",
                                   "/etc/group",                  "/etc/nsswitch.conf"};
    if (!config.entrypoint.empty()) paths.push_back(config.entrypoint[0]);
    if (!config.cmd.empty()) paths.push_back(config.cmd[0]);
    for (const char* name : {"sh", "bash", "true", "false", "cat", "echo", "env", "id", "ls", "uname", "sleep", "head",
                             "/lib/x86_64-linux-gnu/libtinfo.so.6", "/lib/x86_64-linux-gnu/libselinux.so.1",
                             "python3", "/lib/x86_64-linux-gnu/libm.so.6", "/lib/x86_64-linux-gnu/libz.so.1",
                             "/lib/x86_64-linux-gnu/libexpat.so.1", "node"})
        paths.push_back(name);
    std::erase(paths, std::string());
    return paths;
}

}  // namespace

Result<Decision> decide(const RuntimeState& runtime, const BoxOptions& options) {
    CAISSON_TRY(validate(options));
    Decision decision;
    decision.image = CAISSON_TRY(runtime.images->find(options.image));
    image::ImageConfig config;
    config.config = decision.image.config;
    CAISSON_TRY_CTX(image::check_platform(config, image::host_architecture()), "image " + decision.image.name);
    decision.mounts = CAISSON_TRY_CTX(plan_mounts(options, decision.image.config), "image " + decision.image.name);
    CAISSON_TRY(check_parts(runtime.home, decision.mounts));
    decision.exec = CAISSON_TRY(plan_exec(options, decision.image.config));
    decision.shape = CAISSON_TRY(vmm::shape_for(options.cpu_millis, options.memory_bytes));
    decision.disks = disks_of(runtime.home, decision.mounts);
    decision.shape.disks = places_for(decision.disks.size());
    decision.network = CAISSON_TRY(network_of(options));
    decision.shape.network = decision.network.has_value();
    decision.engine = CAISSON_TRY(choose_engine(runtime));
    // A larger disk is the usual base disk grown in the guest; a smaller one needs a base disk of its own.
    decision.base_disk_bytes = std::min(options.disk_bytes, vmm::kDefaultDiskBytes);
    return decision;
}

Result<std::optional<std::string>> cached_base_disk(const RuntimeState& runtime, Decision& decision,
                                                    std::uint64_t disk_bytes) {
    auto usual = CAISSON_TRY(runtime.images->cached_base_disk(decision.image, decision.base_disk_bytes));
    if (usual || disk_bytes == decision.base_disk_bytes) return usual;
    auto large = CAISSON_TRY(runtime.images->cached_base_disk(decision.image, disk_bytes));
    if (large) decision.base_disk_bytes = disk_bytes;
    return large;
}

Result<std::string> ensure_base_disk(RuntimeState& runtime, Decision& decision, std::uint64_t disk_bytes) {
    auto cached = CAISSON_TRY(cached_base_disk(runtime, decision, disk_bytes));
    if (cached) return *cached;
    auto disk = runtime.images->base_disk(decision.image, decision.base_disk_bytes, runtime.image_progress());
    if (!disk && disk.error().code == Errc::kLimit && disk_bytes > decision.base_disk_bytes) {
        decision.base_disk_bytes = disk_bytes;
        disk = runtime.images->base_disk(decision.image, disk_bytes, runtime.image_progress());
    }
    runtime.progress("");
    if (!disk) return base::failure(std::move(disk.error()).with_context("making the root disk of " + decision.image.name));
    return disk->path;
}

Result<std::string> recorded_base_disk(const store::Home& home, const store::BoxRecord& record) {
    const auto name = record.base_disk.substr(record.base_disk.rfind('/') + 1);
    const auto parts = image::parse_disk_name(name);
    if (parts && !parts->unfinished && !parts->lock) return home.disks() + "/" + name;
    return base::failure(Errc::kCorrupt, "the root disk of box " + record.name + " is recorded to be " + base::printable(record.base_disk, 300) +
                                             ", which is none of this home's",
                         "remove the box: caisson rm " + record.name);
}

TemplateImage template_image(const image::Image& image, const std::string& base_disk, std::uint64_t disk_bytes) {
    return {image.name, base_disk, disk_bytes, warm_paths(image.config)};
}

}  // namespace caisson::box
