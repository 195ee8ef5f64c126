#include "jail/host.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/text.h"
#include "jail/jail.h"
#include "os/file.h"
#include "os/probe.h"

namespace caisson::jail {

namespace {

// Where the profile of tools/package/apparmor is installed.
constexpr const char* kInstalledProfiles[] = {"/usr/share/caisson/apparmor/caisson", "/usr/local/share/caisson/apparmor/caisson"};
// Below this an ordinary session gets into the limit with a few boxes: a box takes about five processes and threads.
constexpr unsigned long long kFewProcesses = 64;

std::optional<std::string> setting(const std::string& path) {
    auto text = os::read_file(path, 4096);
    if (!text) return std::nullopt;
    return std::string(base::trim(*text));
}

std::string container_name() {
    if (os::exists("/.dockerenv")) return "Docker";
    if (os::exists("/run/.containerenv")) return "Podman";
    // Only root may read the environment of process 1; that of systemd is told here.
    auto systemd = setting("/run/systemd/container");
    return systemd ? "a container (" + base::printable(*systemd, 40) + ")" : "";
}

bool is_filtered() {
    auto status = os::read_file("/proc/self/status", 1 << 16);
    return status && status->find("\nSeccomp:\t2") != std::string::npos;
}

std::vector<std::string> exhausted_namespaces() {
    std::vector<std::string> names;
    for (const char* kind : {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"}) {
        auto name = std::string("user.max_") + kind + "_namespaces";
        if (setting(std::string("/proc/sys/user/max_") + kind + "_namespaces") == "0") names.push_back(name);
    }
    return names;
}

Error missing(std::string message, std::string hint) {
    Error error;
    error.code = Errc::kHostMissing;
    error.message = std::move(message);
    error.hint = std::move(hint);
    return error;
}

constexpr const char* kInstall = "install it: sudo apt-get install bubblewrap";

std::optional<Error> refused_namespaces(const HostJailFacts& facts) {
    const std::string what = "the jail cannot be made on this host: user namespaces are refused by ";
    if (facts.unprivileged_userns_clone == "0")
        return missing(what + "the setting kernel.unprivileged_userns_clone",
                       "run: sudo sysctl -w kernel.unprivileged_userns_clone=1");
    if (!facts.exhausted.empty())
        return missing(what + "the limit " + base::join(facts.exhausted, ", ") + " = 0",
                       "run: sudo sysctl -w " + base::join(facts.exhausted, "=15000 ") + "=15000");
    // A program under a profile of its own has what that says, whatever the setting.
    const bool unconfined = facts.apparmor_label.empty() || facts.apparmor_label == "unconfined" ||
                            facts.apparmor_label.starts_with("unprivileged_userns");
    if (facts.apparmor_restriction == "1" && unconfined) {
        auto hint = facts.apparmor_profile.empty()
                        ? std::string("run: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0")
                        : "run: sudo cp " + facts.apparmor_profile +
                              " /etc/apparmor.d/ && sudo apparmor_parser -r /etc/apparmor.d/caisson";
        return missing(what + "AppArmor, which wants a profile for programs that make them (as on Ubuntu 24.04)", hint);
    }
    if (facts.user_namespace_errno == ENOSPC || facts.user_namespace_errno == EUSERS)
        return missing(what + "a limit: all that this user may have are in use, or this program runs in a jail that forbids them",
                       "run: sudo sysctl -w user.max_user_namespaces=15000");
    if (facts.user_namespace_errno == EPERM && (facts.filtered || !facts.container.empty())) {
        const auto who = facts.container.empty() ? std::string("a system call filter of whoever started this program")
                                                 : "the system call filter of " + facts.container;
        const bool podman = facts.container == "Podman";
        return missing(what + who, std::string("start the container with: ") + (podman ? "podman" : "docker") +
                                       " run --security-opt seccomp=unconfined" + (podman ? " --security-opt unmask=ALL" : " --security-opt systempaths=unconfined"));
    }
    if (facts.user_namespace_errno == EINVAL || facts.user_namespace_errno == ENOSYS)
        return missing(what + "the kernel " + facts.kernel + ", which was built without them", "use a kernel with CONFIG_USER_NS=y");
    if (facts.user_namespace_errno == EAGAIN)
        return missing("the jail cannot be made on this host: this user may have no more processes" +
                           (facts.process_limit ? " (limit " + std::to_string(*facts.process_limit) + ")" : std::string()),
                       "end some, or raise the limit: ulimit -u 4096 (lasting: nproc in /etc/security/limits.conf)");
    if (facts.user_namespace_errno != 0)
        return missing(what + "this host (" + std::strerror(facts.user_namespace_errno) + ")", "let ordinary users make user namespaces");
    return std::nullopt;
}

}  // namespace

std::vector<std::string> missing_calls() {
    std::vector<std::string> names;
    // ENOSYS: the kernel does not have it. EPERM: a filter. All other answers come from the call itself, which is given
    // a descriptor that cannot exist, a null pointer or a size of 0.
    auto probe = [&](const char* name, long number, long first, long second, long third, long fourth, long fifth) {
        errno = 0;
        if (::syscall(number, first, second, third, fourth, fifth) < 0 && (errno == ENOSYS || errno == EPERM)) names.emplace_back(name);
    };
    probe("clone3", SYS_clone3, 0, 0, 0, 0, 0);
    probe("pidfd_open", SYS_pidfd_open, 0, 0, 0, 0, 0);
    probe("pidfd_send_signal", SYS_pidfd_send_signal, -1, 0, 0, 0, 0);
    probe("openat2", SYS_openat2, -1, 0, 0, 0, 0);
    probe("close_range", SYS_close_range, 1, 0, 0, 0, 0);
    probe("execveat", SYS_execveat, -1, 0, 0, 0, 0);
    probe("memfd_create", SYS_memfd_create, 0, 0, 0, 0, 0);
    probe("copy_file_range", SYS_copy_file_range, -1, 0, -1, 0, 0);
    probe("statx", SYS_statx, -1, 0, 0, 0, 0);
    probe("getrandom", SYS_getrandom, 0, 0, ~0L, 0, 0);
    probe("seccomp", SYS_seccomp, ~0L, 0, 0, 0, 0);
    return names;
}

namespace {
// What can be read off the host, at little cost, and decides alone.
HostJailFacts plain_facts() {
    HostJailFacts facts;
    facts.missing_calls = missing_calls();
    facts.unprivileged_userns_clone = setting("/proc/sys/kernel/unprivileged_userns_clone");
    facts.exhausted = exhausted_namespaces();
    facts.container = container_name();
    facts.filtered = is_filtered();
    return facts;
}
}  // namespace

HostJailFacts collect_host_facts() {
    auto facts = plain_facts();
    if (auto bwrap = find_bwrap()) {
        struct stat info {};
        facts.bwrap = *bwrap;
        facts.bwrap_set_user_id = ::stat(bwrap->c_str(), &info) == 0 && (info.st_mode & S_ISUID) != 0;
        facts.can_forbid_user_namespaces = can_forbid_user_namespaces(*bwrap);
    }
    facts.apparmor_restriction = setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns");
    facts.apparmor_label = setting("/proc/self/attr/apparmor/current").value_or("");
    for (const char* path : kInstalledProfiles)
        if (facts.apparmor_profile.empty() && os::exists(path)) facts.apparmor_profile = path;
    rlimit processes{};
    if (::getrlimit(RLIMIT_NPROC, &processes) == 0 && processes.rlim_cur != RLIM_INFINITY) facts.process_limit = processes.rlim_cur;
    utsname name{};
    if (::uname(&name) == 0) facts.kernel = name.release;
    facts.user_namespace_errno = os::try_user_namespace();
    return facts;
}

std::optional<Error> refusal(const HostJailFacts& facts, const std::string& said) {
    if (!facts.missing_calls.empty()) {
        const bool filtered = facts.filtered || !facts.container.empty();
        return missing("caisson needs system calls of Linux 6.1 that are " +
                           (filtered ? std::string("refused by a system call filter") : "missing in kernel " + facts.kernel) + ": " +
                           base::join(facts.missing_calls, ", "),
                       filtered ? "run it outside of the container, or start that with: --security-opt seccomp=unconfined"
                                : "use a kernel of Linux 6.1 or newer");
    }
    if (facts.bwrap.empty()) return missing("bubblewrap (bwrap) is not installed", kInstall);
    if (auto refused = refused_namespaces(facts)) return refused;
    if (said.empty()) return std::nullopt;
    if (facts.bwrap_set_user_id)
        return missing("the jail cannot be made on this host: " + said + " (" + facts.bwrap + " is installed set-user-id)",
                       "run: sudo chmod u-s " + facts.bwrap);
    if (!facts.container.empty())
        return missing("the jail cannot be made in " + facts.container + ": " + said,
                       "start the container with: --security-opt seccomp=unconfined --security-opt systempaths=unconfined");
    if (facts.process_limit && *facts.process_limit < kFewProcesses)
        return missing("the jail cannot be made on this host: " + said + " (this user may have " +
                           std::to_string(*facts.process_limit) + " processes)",
                       "raise the limit: ulimit -u 4096");
    return missing("the jail cannot be made on this host: " + said, "run: caisson doctor");
}

Result<> ready() {
    // What can be read off decides alone; whether AppArmor or a container's filter lets a jail be made shows only a jail.
    auto facts = plain_facts();
    facts.bwrap = CAISSON_TRY(find_bwrap());
    if (auto refused = refusal(facts, "")) return base::failure(std::move(*refused));
    const bool doubtful = facts.filtered || !facts.container.empty() ||
                          setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1";
    return doubtful ? preflight() : Result<>();
}

}  // namespace caisson::jail
