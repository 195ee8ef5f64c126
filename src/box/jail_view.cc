#include "box/jail_view.h"

#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <map>

#include "base/text.h"
#include "box/strays.h"
#include "os/file.h"
#include "os/landlock.h"

namespace caisson::box {

namespace {

using Status = std::map<std::string, std::string, std::less<>>;

Status read_status(const std::string& process) {
    Status status;
    auto text = os::read_file(process + "/status", 1 << 16);
    if (!text) return status;
    for (const auto& line : base::split(*text, '\n'))
        if (auto at = line.find(":\t"); at != std::string::npos) status[line.substr(0, at)] = std::string(base::trim(line.substr(at + 2)));
    return status;
}

std::string link_of(const std::string& path) {
    char target[4096];
    const ssize_t length = ::readlink(path.c_str(), target, sizeof target);
    return length <= 0 ? std::string() : std::string(target, static_cast<std::size_t>(length));
}

// Namespaces that are not this process's.
std::vector<std::string> own_namespaces(const std::string& process) {
    std::vector<std::string> own;
    for (const std::string name : {"user", "mnt", "pid", "ipc", "uts", "cgroup", "net"}) {
        const auto its = link_of(process + "/ns/" + name);
        if (!its.empty() && its != link_of("/proc/self/ns/" + name)) own.push_back(name);
    }
    return own;
}

// "/box/disk.qcow2 rw" for each mount.
std::vector<std::string> mounts_of(const std::string& process) {
    std::vector<std::string> mounts;
    auto text = os::read_file(process + "/mountinfo", 1 << 20);
    if (!text) return mounts;
    for (const auto& line : base::split(*text, '\n')) {
        auto fields = base::split(line, ' ');
        if (fields.size() > 5) mounts.push_back(fields[4] + " " + fields[5].substr(0, 2));
    }
    return mounts;
}

std::vector<std::string> descriptors_of(const std::string& process) {
    std::vector<std::string> descriptors;
    auto names = os::list_directory(process + "/fd");
    if (!names) return descriptors;
    for (const auto& name : *names) descriptors.push_back(name + " " + link_of(process + "/fd/" + name));
    return descriptors;
}

JailedProcess view(const std::string& kind, std::int64_t pid, const Status& status) {
    const std::string process = "/proc/" + std::to_string(pid);
    auto value = [&](const char* name) {
        auto found = status.find(name);
        return found == status.end() ? std::string() : found->second;
    };
    JailedProcess seen;
    seen.kind = kind;
    seen.pid = pid;
    seen.user = value("Uid").substr(0, value("Uid").find('\t'));
    seen.namespaces = own_namespaces(process);
    if (!seen.namespaces.empty()) seen.mounts = mounts_of(process);
    seen.descriptors = descriptors_of(process);
    seen.capabilities = value("CapPrm");
    seen.no_new_privileges = value("NoNewPrivs") == "1";
    // Mode 2 is a filter; kernels before 5.9 do not count them.
    if (value("Seccomp") == "2") seen.call_filters = static_cast<unsigned>(base::parse_u64(value("Seccomp_filters")).value_or(1));
    return seen;
}

// The kernel does not tell of Landlock; both apply what there is, or do not start.
JailedProcess with_landlock(JailedProcess process) {
    const int version = os::landlock_version();
    process.landlock = version > 0 ? "version " + std::to_string(version) : "impossible: this kernel has none, files are not restricted";
    return process;
}

// The kernel tells how many filters there are, and not which; what a process of this kind loads is known.
JailedProcess named(JailedProcess process, const char* filter) {
    if (process.call_filters > 0) process.filter = filter;
    return process;
}

bool is_vmm_without_jail(const std::string& pid, const std::string& box_directory) {
    auto command = os::read_file("/proc/" + pid + "/cmdline", 1 << 20);
    return command && runs_unjailed(*command, box_directory);
}

std::string parent_of(const std::string& pid) {
    auto status = read_status("/proc/" + pid);
    return status["PPid"];
}

// What works for the box beside its machine, and shows no file of it.
struct Helper {
    const char* program;
    const char* kind;
    const char* filter;
    const char* landlock;  // why it has none; empty: it has it
};
constexpr Helper kHelpers[] = {{"caisson-share", "share", "share", "not used: each volume is a mount of its own"},
                               {"caisson-netd", "network", "netd", "not used: it opens no file"},
                               {"caisson-netns", "network_namespace", "netns", ""}};

// Each is a child of the box's launcher, which has the box's directory among its words; or of bubblewrap's inner process, and
// that of the outer one, and that of the launcher.
const Helper* helper_of(const std::string& pid, const std::string& box_directory) {
    auto name = os::read_file("/proc/" + pid + "/comm", 64);
    const auto* helper = std::find_if(std::begin(kHelpers), std::end(kHelpers), [&](const Helper& each) { return name && base::trim(*name) == each.program; });
    if (helper == std::end(kHelpers)) return nullptr;
    std::string above = pid;
    constexpr int kGenerations = 3;
    for (int i = 0; i < kGenerations && !above.empty(); ++i) {
        above = parent_of(above);
        auto command = os::read_file("/proc/" + above + "/cmdline", 1 << 16);
        if (command && command->find(std::string(1, '\0') + box_directory + std::string(1, '\0')) != std::string::npos) return helper;
    }
    return nullptr;
}

}  // namespace

std::vector<JailedProcess> jail_of(const std::string& box_directory, std::int64_t supervisor) {
    std::vector<JailedProcess> found;
    if (supervisor > 0)
        if (auto status = read_status("/proc/" + std::to_string(supervisor)); !status.empty())
            found.push_back(named(with_landlock(view("supervisor", supervisor, status)), "shim"));
    auto names = os::list_directory("/proc");
    if (!names) return found;
    const auto place = mounted_place(box_directory);
    for (const auto& name : *names) {
        auto pid = base::parse_u64(name);
        if (!pid) continue;
        if (const auto* helper = helper_of(name, box_directory)) {
            auto seen = view(helper->kind, static_cast<std::int64_t>(*pid), read_status("/proc/" + name));
            if (*helper->landlock == '\0') seen = with_landlock(std::move(seen));
            else seen.landlock = helper->landlock;
            found.push_back(named(std::move(seen), helper->filter));
            continue;
        }
        auto mounts = os::read_file("/proc/" + name + "/mountinfo", 1 << 20);
        const bool jailed = mounts && place && shows_overlay(*mounts, *place);
        if (!jailed && !is_vmm_without_jail(name, box_directory)) continue;
        auto status = read_status("/proc/" + name);
        if (status.empty() || status["Name"] == "bwrap") continue;
        auto seen = view("vmm", static_cast<std::int64_t>(*pid), status);
        if (jailed) seen = named(with_landlock(std::move(seen)), "vmm");
        found.push_back(std::move(seen));
    }
    return found;
}

}  // namespace caisson::box
