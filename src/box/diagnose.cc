// caisson doctor: what this host has, what it lacks, and the exact command that helps.
#include <fcntl.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/text.h"
#include "box/engine.h"
#include "box/layers.h"
#include "box/state.h"
#include "jail/jail.h"
#include "net/host.h"
#include "os/file.h"
#include "store/reserve.h"

namespace caisson {

namespace {

using Level = Check::Level;

Check failed(const std::string& name, const Error& error) { return {Level::kBad, name, error.to_string(), error.hint}; }

// Why a file in `directory` cannot have an attribute of its user's; empty: it can.
std::string refused_attributes(const std::string& directory) {
    os::Fd file(::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    if (!file || ::fsetxattr(file.get(), "user.caisson", "x", 1, 0) == 0) return "";
    return std::strerror(errno);
}

// Makes one, and lets it go.
Check check_network(const internal::RuntimeState& state) {
    const auto tried = [&]() -> Result<> {
        const auto tun = CAISSON_TRY(box::open_tun(state, {.network = true}));
        CAISSON_TRY(net::NetworkHost::open({.netns_program = state.libexec + "/caisson-netns", .tun_fd = tun.get()}));
        return {};
    }();
    if (tried) return {Level::kGood, "network", "a box's network can be made", ""};
    return {Level::kBad, "network", "boxes can have no network, so they run with --net none only: " + tried.error().to_string(), tried.error().hint};
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
    }

    auto runtime = Runtime::open(options);
    if (!runtime) {
        checks.push_back(failed("home", runtime.error()));
        return checks;
    }
    const auto& state = *runtime->state_;
    std::string room;
    bool scarce = false;
    if (const auto found = store::file_system_of(state.home.root)) {
        room = ", " + base::format_size(found->free_bytes) + " free";
        scarce = found->free_bytes < (1ull << 30);
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
    checks.push_back(check_network(state));
    if (auto refused = refused_attributes(state.home.root); !refused.empty())
        checks.push_back({Level::kInfo, "user_attributes", "the home's file system has no extended attributes of users (" + refused + "); nothing needs them yet",
                          "set CAISSON_HOME to a directory on ext4, xfs or btrfs"});
    return checks;
}

std::vector<Layer> Runtime::layers(const RuntimeOptions& options) {
    auto home = options.home;
    if (home.empty())
        if (auto usual = store::default_home(::getenv("CAISSON_HOME"), ::getenv("HOME"), false)) home = *usual;
    return box::layers_of(box::collect_layer_facts(home, options.cgroup_fd));
}

}  // namespace caisson
