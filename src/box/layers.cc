#include "box/layers.h"

#include <fcntl.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "base/text.h"
#include "jail/jail.h"
#include "os/fd.h"
#include "os/file.h"
#include "vmm/accelerator.h"

namespace caisson::box {

namespace {

using State = Layer::State;

Layer user_namespaces(const LayerFacts& facts) {
    if (facts.refusal.empty()) return {"user_namespaces", State::kOn, "each jail has its own user, mount, PID, IPC, UTS, cgroup and network", ""};
    return {"user_namespaces", State::kOff, facts.refusal, facts.refusal_fix};
}

Layer nested(const LayerFacts& facts) {
    if (facts.jail.can_forbid_user_namespaces && !facts.jail.bwrap.empty())
        return {"no_nested_user_namespaces", State::kOn, "a jailed program can make no user namespace", ""};
    return {"no_nested_user_namespaces", State::kOff, "a jailed program could make user namespaces: this bubblewrap cannot forbid it",
            facts.jail.bwrap_set_user_id ? "sudo chmod u-s " + facts.jail.bwrap : "install bubblewrap 0.8.0 or newer, not set-user-id"};
}

Layer filters(const LayerFacts& facts) {
    if (facts.filters) return {"system_call_filters", State::kOn, "seccomp", ""};
    return {"system_call_filters", State::kImpossible, "this kernel has no seccomp filters", "use a kernel with CONFIG_SECCOMP_FILTER=y"};
}

Layer landlock(const LayerFacts& facts) {
    if (facts.landlock_version > 0) return {"landlock", State::kOn, "version " + std::to_string(facts.landlock_version), ""};
    if (facts.landlock_version < 0)
        return {"landlock", State::kOff, "built into the kernel, but not among its active security modules",
                "add landlock to the kernel's lsm= parameter and boot again"};
    return {"landlock", State::kImpossible, "this kernel does not have it", "use a kernel with CONFIG_SECURITY_LANDLOCK=y"};
}

Layer limits(const LayerFacts& facts) {
    const auto& place = facts.groups;
    const auto nowhere = place.fix.empty() ? State::kImpossible : State::kOff;
    if (place.bases.empty()) return {"cgroup_limits", nowhere, "boxes are not limited on the host: " + place.reason, place.fix};
    std::vector<std::string> on;
    for (const char* name : {"memory", "cpu", "pids"})
        if (place.has(name)) on.push_back(name);
    const std::string found = base::join(on, ", ") + " of each box, below " + place.bases[0].directory;
    if (place.missing.empty()) return {"cgroup_limits", State::kOn, found, ""};
    return {"cgroup_limits", nowhere, found + "; not " + base::join(place.missing, ", ") + ": " + place.reason, place.fix};
}

Layer apparmor(const LayerFacts& facts) {
    const auto& jail = facts.jail;
    if (jail.apparmor_label.empty()) return {"apparmor", State::kImpossible, "this kernel does not use AppArmor", ""};
    const bool own = jail.apparmor_label.starts_with("caisson");
    const bool wanted = jail.apparmor_restriction == "1";
    if (own) return {"apparmor", State::kOn, "profile " + base::printable(jail.apparmor_label, 100), ""};
    const auto load = jail.apparmor_profile.empty() ? std::string()
                                                    : "sudo cp " + jail.apparmor_profile +
                                                          " /etc/apparmor.d/ && sudo apparmor_parser -r /etc/apparmor.d/caisson";
    return {"apparmor", State::kOff, wanted ? "no profile is loaded for caisson, and this host wants one for user namespaces"
                                            : "no profile is loaded for caisson; this host does not want one",
            wanted ? load : ""};
}

Layer kvm(const LayerFacts& facts) {
    if (!facts.cpu_virtualises)
        return {"kvm", State::kImpossible, "the CPU offers no virtualisation: guests are emulated, which is no hardware boundary", ""};
    if (facts.kvm_opens) return {"kvm", State::kOn, "guests run in hardware virtualisation", ""};
    if (facts.kvm_exists)
        return {"kvm", State::kOff, "/dev/kvm may not be opened: guests are emulated, which is no hardware boundary",
                "sudo usermod -aG kvm $USER, then log in again"};
    return {"kvm", State::kOff, "there is no /dev/kvm: guests are emulated, which is no hardware boundary", "sudo modprobe kvm_intel || sudo modprobe kvm_amd"};
}

}  // namespace

LayerFacts collect_layer_facts(const std::string& home, int cgroup_fd) {
    LayerFacts facts;
    facts.groups = choose_place(gather_group_facts(home, cgroup_fd));
    facts.jail = jail::collect_host_facts();
    if (auto ready = jail::preflight(); !ready) {
        facts.refusal = ready.error().to_string();
        facts.refusal_fix = ready.error().hint;
    }
    const std::uint32_t kill = SECCOMP_RET_KILL_PROCESS;
    facts.filters = ::syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &kill) == 0;
    facts.landlock_version = ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (facts.landlock_version < 0) facts.landlock_version = errno == EOPNOTSUPP ? -1 : 0;
    facts.cpu_virtualises = vmm::cpu_virtualises();
    facts.kvm_exists = os::exists("/dev/kvm");
    facts.kvm_opens = static_cast<bool>(os::Fd(::open("/dev/kvm", O_RDWR | O_CLOEXEC)));
    return facts;
}

std::vector<Layer> layers_of(const LayerFacts& facts) {
    return {user_namespaces(facts),
            nested(facts),
            filters(facts),
            landlock(facts),
            {"no_new_privs", State::kOn, "no jailed program gains rights from a file that it executes", ""},
            {"empty_keyring", State::kOn, "no jailed program has its user's keys", ""},
            {"no_core_dumps", State::kOn, "no memory of a guest comes to the disk that way", ""},
            limits(facts),
            apparmor(facts),
            kvm(facts)};
}

}  // namespace caisson::box
