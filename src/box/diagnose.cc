// caisson doctor: what this host has, what it lacks, and the exact command that helps.
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/text.h"
#include "box/engine.h"
#include "box/host_limits.h"
#include "box/state.h"
#include "jail/jail.h"

namespace caisson {

namespace {

using Level = Check::Level;

Check failed(const std::string& name, const Error& error) { return {Level::kBad, name, error.to_string(), error.hint}; }

Check limits_check(const box::GroupPlace& place) {
    constexpr const char* kName = "host_limits";
    if (place.bases.empty()) return {Level::kInfo, kName, "boxes are not limited on the host: " + place.reason, place.fix};
    std::vector<std::string> on;
    for (const char* name : {"memory", "cpu", "pids"})
        if (place.has(name)) on.push_back(name);
    const std::string found = base::join(on, ", ") + " of each box, below " + place.bases[0].directory;
    if (place.missing.empty()) return {Level::kGood, kName, found, ""};
    return {Level::kInfo, kName, found + "; not " + base::join(place.missing, ", ") + ": " + place.reason, place.fix};
}

}  // namespace

std::vector<Check> Runtime::diagnose(const RuntimeOptions& options) {
    std::vector<Check> checks;
    checks.push_back({Level::kGood, "version", "caisson " + std::string(version()), ""});

    auto bwrap = jail::find_bwrap();
    if (bwrap) checks.push_back({Level::kGood, "bubblewrap", *bwrap, ""});
    else checks.push_back(failed("bubblewrap", bwrap.error()));
    if (bwrap) {
        auto jail = jail::preflight();
        if (jail) checks.push_back({Level::kGood, "user_namespaces", "the jail's namespaces can be made", ""});
        else checks.push_back(failed("user_namespaces", jail.error()));
        if (!jail::can_forbid_user_namespaces(*bwrap))
            checks.push_back({Level::kInfo, "nested_user_namespaces",
                              "a jailed program could make user namespaces: this bubblewrap cannot forbid it",
                              "install bubblewrap 0.8.0 or newer, not set-user-id"});
    }

    auto runtime = Runtime::open(options);
    if (!runtime) {
        checks.push_back(failed("home", runtime.error()));
        return checks;
    }
    const auto& state = *runtime->state_;
    struct statvfs space {};
    std::string room;
    bool scarce = false;
    if (::statvfs(state.home.root.c_str(), &space) == 0) {
        auto free_bytes = static_cast<std::uint64_t>(space.f_bavail) * space.f_frsize;
        room = ", " + base::format_size(free_bytes) + " free";
        scarce = free_bytes < (1ull << 30);
    }
    checks.push_back({scarce ? Level::kBad : Level::kGood, "home", state.home.root + room,
                      scarce ? "free at least 1 GiB, or set CAISSON_HOME to another file system" : ""});

    auto engine = box::choose_engine(state);
    if (!engine) {
        checks.push_back(failed("engine", engine.error()));
    } else {
        const bool kvm = engine->choice.accelerator == vmm::Accelerator::kKvm;
        checks.push_back({kvm ? Level::kGood : Level::kInfo, "accelerator", engine->choice.reason,
                          kvm || engine->choice.reason.find("opened") == std::string::npos
                              ? ""
                              : "sudo usermod -aG kvm $USER, then log in again"});
        checks.push_back({Level::kGood, "vmm", "QEMU " + engine->assets.vmm_version + " in " + engine->assets.vmm_root, ""});
        checks.push_back({Level::kGood, "guest_kernel", engine->assets.kernel_version, ""});
        auto templates = runtime->templates();
        std::size_t ready = 0;
        for (const auto& info : templates.value_or(std::vector<TemplateInfo>())) ready += info.current ? 1 : 0;
        checks.push_back({Level::kInfo, "templates", std::to_string(ready) + " ready; others are made at an image's first run", ""});
    }
    auto images = runtime->images();
    if (images) checks.push_back({Level::kGood, "images", std::to_string(images->size()) + " in the store", ""});
    else checks.push_back(failed("images", images.error()));
    checks.push_back(limits_check(box::choose_place(box::gather_group_facts(state.home.root, state.options.cgroup_fd))));
    return checks;
}

}  // namespace caisson
