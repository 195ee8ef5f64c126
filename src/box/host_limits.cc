#include "box/host_limits.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>

#include "base/id.h"
#include "base/sha256.h"
#include "base/text.h"
#include "box/limits.h"
#include "os/file.h"
#include "vmm/machine.h"

namespace caisson::box {

using base::failure;

namespace {

constexpr const char* kWanted[] = {"memory", "cpu", "pids"};
constexpr const char* kRootGroup = "/caisson";
constexpr const char* kSupervisors = "/supervisors";
constexpr const char* kEntry = "/entry";  // nobody stays in it, see hasten_entry()
constexpr std::uint64_t kCpuPeriodMicroseconds = 100000;

bool lists(const std::string& text, const std::string& name) {
    const auto words = base::split(base::trim(text), ' ');
    return std::find(words.begin(), words.end(), name) != words.end();
}

bool may_make_groups(const GroupFacts& facts, const std::string& directory) {
    return facts.writable(directory) && facts.writable(directory + "/cgroup.procs") &&
           facts.writable(directory + "/cgroup.subtree_control");
}

// The controllers that `directory` hands on, or could: not while it holds processes itself (cgroups(7), "no internal
// processes"), unless it is the hierarchy's root, which has no such file as cgroup.type.
std::vector<std::string> handed_on(const GroupFacts& facts, const std::string& directory) {
    const auto on = facts.read(directory + "/cgroup.subtree_control");
    const auto possible = facts.read(directory + "/cgroup.controllers");
    const bool is_free = base::trim(facts.read(directory + "/cgroup.procs")).empty();
    std::vector<std::string> names;
    for (const char* name : kWanted)
        if (lists(on, name) || (is_free && lists(possible, name))) names.push_back(name);
    return names;
}

// The topmost group, from the mount point down to the process's own, in which this user may make groups: the same one
// wherever below it caisson is started. Empty if there is none.
std::string delegated(const GroupFacts& facts, const os::CgroupMount& mount) {
    if (!base::starts_with(mount.own, mount.directory)) return "";
    std::string directory = mount.directory;
    auto rest = base::split(mount.own.substr(mount.directory.size()), '/');
    for (std::size_t i = 0;; ++i) {
        if (may_make_groups(facts, directory)) return directory;
        while (i < rest.size() && rest[i].empty()) ++i;
        if (i >= rest.size()) return "";
        directory += "/" + rest[i];
    }
}

void add_version_1(const GroupFacts& facts, const os::CgroupMount& mount, GroupPlace& place) {
    GroupPlace::Base base{1, mount.directory + kRootGroup + "/" + facts.tag, {}, ""};
    if (mount.read_only || !facts.writable(base.directory)) return;
    for (const char* name : kWanted)
        if (mount.has(name) && !place.has(name)) base.controllers.push_back(name);
    if (!base.controllers.empty()) place.bases.push_back(std::move(base));
}

void add_version_2(const GroupFacts& facts, const os::CgroupMount& mount, GroupPlace& place) {
    if (mount.read_only) return;
    const auto by_root = mount.directory + kRootGroup + "/" + facts.tag;
    GroupPlace::Base base{2, by_root, {}, ""};
    // A supervisor enters a group only from below a group that its user may write to.
    const bool can_enter = facts.enters_by_descriptor || base::starts_with(mount.own + "/", by_root + "/");
    if (can_enter && may_make_groups(facts, by_root)) {
        base.controllers = handed_on(facts, by_root);
    } else {
        base.parent = delegated(facts, mount);
        if (base.parent.empty()) return;
        base.directory = base.parent + "/caisson-" + facts.tag;
        base.controllers = handed_on(facts, base.parent);
    }
    std::erase_if(base.controllers, [&](const auto& name) { return place.has(name); });
    if (!base.controllers.empty()) place.bases.push_back(std::move(base));
}

// Why something cannot be limited, and what would help.
void explain(const GroupFacts& facts, GroupPlace& place) {
    const std::string which = place.bases.empty() ? "" : " for " + base::join(place.missing, ", ");
    const auto& mounts = facts.mounts;
    const auto unified = std::find_if(mounts.begin(), mounts.end(), [](const auto& mount) { return mount.version == 2; });
    const bool v2_counts = unified != mounts.end() && std::any_of(std::begin(kWanted), std::end(kWanted),
                                                                 [&](const char* name) { return unified->has(name); });
    if (mounts.empty()) {
        place.reason = "no control groups are mounted";
        place.fix = "mount them at /sys/fs/cgroup (in a container: start it with --cgroupns=private and /sys/fs/cgroup writable)";
    } else if (std::all_of(mounts.begin(), mounts.end(), [](const auto& mount) { return mount.read_only; })) {
        place.reason = "control groups are mounted read-only, as in most containers";
        place.fix = "start the container with /sys/fs/cgroup writable";
    } else if (v2_counts && !delegated(facts, *unified).empty()) {
        place.reason = "the control group " + delegated(facts, *unified) + " hands on no limits" + which;
        place.fix = "let systemd delegate them: sudo systemctl edit user@.service, add [Service] Delegate=cpu memory pids io, "
                    "and log in again; a service of your own also needs DelegateSubgroup=main";
    } else if (v2_counts) {
        place.reason = "this session's control group was not given to this user";
        place.fix = "start caisson in your own systemd: systemd-run --user --scope -p Delegate=yes caisson ...; or as root";
    } else {
        place.reason = "only root may make control groups on this host (version 1)";
        place.fix = "start caisson as root (it drops to a service user by itself), or boot the host with "
                    "systemd.unified_cgroup_hierarchy=1";
    }
}

std::string number(std::uint64_t value) { return std::to_string(value); }

void write_quietly(const std::string& path, const std::string& text) {
    auto file = os::open_file(path, O_WRONLY);
    if (file) static_cast<void>(!::write(file->get(), text.data(), text.size()));
}

// One at a time: one that the group above does not have must not keep the others.
void hand_on_controllers(const std::string& directory) {
    const auto on = os::read_file(directory + "/cgroup.subtree_control", 4096).value_or("");
    for (const char* name : kWanted)
        if (!lists(on, name)) write_quietly(directory + "/cgroup.subtree_control", "+" + std::string(name));
}

std::vector<os::CgroupPlan::Setting> settings(int version, const std::string& controller, const HostFigures& figures) {
    const auto memory = number(figures.memory_bytes);
    const auto quota = number(figures.cpu_millis * kCpuPeriodMicroseconds / 1000);
    const auto period = number(kCpuPeriodMicroseconds);
    if (controller == "pids") return {{"pids.max", number(figures.pids)}};
    // Swap counts too, or a box could fill that instead. Version 2 has no limit for both together.
    if (controller == "memory" && version == 1)
        return {{"memory.limit_in_bytes", memory}, {"memory.memsw.limit_in_bytes", memory, true}};
    if (controller == "memory")
        return {{"memory.max", memory}, {"memory.swap.max", memory, true}, {"memory.oom.group", "1", true}};
    if (version == 1) return {{"cpu.cfs_period_us", period}, {"cpu.cfs_quota_us", quota}};
    return {{"cpu.max", quota + " " + period}};
}

}  // namespace

namespace {
// What a box's processes may have of the host's CPUs: its own, and what QEMU needs.
std::uint32_t host_cpu_millis(std::uint32_t box_cpu_millis) { return box_cpu_millis + limits::kVmmCpuMillis; }
}  // namespace

HostFigures host_figures(vmm::Shape shape, vmm::Accelerator accelerator, std::uint32_t cpu_millis,
                         std::uint64_t disk_in_memory_bytes) {
    HostFigures figures;
    // The whole machine, also of a box that may use less of it: the guest keeps that limit, and what its kernel once
    // touched stays in the host's memory.
    std::uint64_t mib = shape.memory_mib + limits::kVmmMib + limits::kVmmMibPerCpu * shape.cpus +
                        shape.memory_mib / limits::kVmmMemoryShare;
    if (accelerator == vmm::Accelerator::kTcg) mib += vmm::kTranslationMib;
    figures.memory_bytes = (mib << 20) + disk_in_memory_bytes;
    figures.cpu_millis = host_cpu_millis(cpu_millis);
    figures.pids = limits::kVmmThreads + shape.cpus;
    return figures;
}

bool GroupPlace::has(std::string_view controller) const {
    return std::any_of(bases.begin(), bases.end(), [&](const Base& base) {
        return std::find(base.controllers.begin(), base.controllers.end(), controller) != base.controllers.end();
    });
}

GroupPlace choose_place(const GroupFacts& facts) {
    GroupPlace place;
    for (const auto& mount : facts.mounts)
        if (mount.version == 1) add_version_1(facts, mount, place);
    for (const auto& mount : facts.mounts)
        if (mount.version == 2) add_version_2(facts, mount, place);
    for (const char* name : kWanted)
        if (!place.has(name)) place.missing.push_back(name);
    if (!place.missing.empty()) explain(facts, place);
    return place;
}

GroupFacts gather_group_facts(const std::string& home, int cgroup_fd) {
    return {os::cgroup_mounts(), group_tag(home), cgroup_fd >= 0,
            [](const std::string& path) { return ::access(path.c_str(), W_OK) == 0; },
            [](const std::string& path) { return os::read_file(path, 1 << 20).value_or(""); }};
}

std::string group_tag(const std::string& home) { return base::sha256_hex(base::as_bytes(home)).substr(0, 16); }

os::CgroupPlan plan_groups(const GroupPlace& place, const std::string& box_id, const HostFigures& figures) {
    os::CgroupPlan plan;
    for (const auto& base : place.bases) {
        os::CgroupPlan::Group group{base.version, base.directory + "/" + box_id, {}};
        for (const auto& controller : base.controllers)
            for (auto& setting : settings(base.version, controller, figures)) group.settings.push_back(std::move(setting));
        plan.groups.push_back(std::move(group));
    }
    return plan;
}

namespace {
// The group of a home that was delegated to an ordinary user, unless it is there. What it hands on in the end counts.
Result<> make_base(GroupPlace::Base& base) {
    if (base.parent.empty()) return {};
    hand_on_controllers(base.parent);
    if (::mkdir(base.directory.c_str(), 0755) != 0 && errno != EEXIST)
        return base::failure_errno("cannot make the control group " + base.directory);
    hand_on_controllers(base.directory);
    const auto on = os::read_file(base.directory + "/cgroup.subtree_control", 4096).value_or("");
    std::erase_if(base.controllers, [&](const auto& name) { return !lists(on, name); });
    return {};
}
}  // namespace

Result<> check_required(const GroupPlace& place) {
    if (place.missing.empty()) return {};
    return failure(Errc::kHostMissing,
                   "limits are required, but " + base::join(place.missing, ", ") + " of a box cannot be limited on this host: " + place.reason,
                   place.fix);
}

Result<wire::HostLimits> decide_limits(const internal::RuntimeState& runtime, bool required) {
    auto facts = gather_group_facts(runtime.home.root, runtime.options.cgroup_fd);
    auto place = choose_place(facts);
    for (auto& base : place.bases) CAISSON_TRY(make_base(base));
    std::erase_if(place.bases, [](const auto& base) { return base.controllers.empty(); });
    place.missing.clear();
    for (const char* name : kWanted)
        if (!place.has(name)) place.missing.push_back(name);
    if (!place.missing.empty() && place.reason.empty()) explain(facts, place);
    if (required) CAISSON_TRY(check_required(place));
    wire::HostLimits limits;
    limits.set_applied(!place.bases.empty());
    limits.set_reason(place.reason);
    limits.set_fix(place.fix);
    for (const auto& base : place.bases) {
        auto* group = limits.add_groups();
        group->set_version(static_cast<std::uint32_t>(base.version));
        group->set_directory(base.directory);
        for (const auto& controller : base.controllers) group->add_controllers(controller);
    }
    return limits;
}

os::Process hasten_entry(const wire::HostLimits& limits, int cgroup_fd) {
    // Longer than a box usually takes to come to its machine; whoever has to make a template first waits anyway.
    constexpr std::chrono::milliseconds kLongest{250};
    if (!limits.applied()) return {};
    os::Fd own;
    if (limits.groups_size() > 0 && limits.groups(0).version() == 1) {
        const auto entry = limits.groups(0).directory() + kEntry;
        static_cast<void>(::mkdir(entry.c_str(), 0755));
        auto procs = os::open_file(entry + "/cgroup.procs", O_WRONLY);
        if (!procs) return {};
        own = std::move(*procs);
        cgroup_fd = own.get();
    }
    // In version 2 a machine is born in its group; only a supervisor that root's descriptor lets in has to enter.
    if (cgroup_fd < 0) return {};
    auto keeper = os::spawn_group_keeper(cgroup_fd, kLongest);
    return keeper ? std::move(*keeper) : os::Process();
}

void set_figures(wire::HostLimits& limits, const std::string& box_id, const HostFigures& figures) {
    GroupPlace place;
    for (const auto& group : limits.groups())
        place.bases.push_back({static_cast<int>(group.version()), group.directory(),
                               {group.controllers().begin(), group.controllers().end()}, ""});
    const auto plan = plan_groups(place, box_id, figures);
    for (std::size_t i = 0; i < plan.groups.size(); ++i) {
        auto* group = limits.mutable_groups(static_cast<int>(i));
        group->set_directory(plan.groups[i].directory);
        for (const auto& setting : plan.groups[i].settings) {
            auto* written = group->add_settings();
            written->set_file(setting.file);
            written->set_value(setting.value);
            written->set_optional(setting.optional);
        }
    }
    if (place.has("memory")) limits.set_memory_bytes(figures.memory_bytes);
    if (place.has("cpu")) limits.set_cpu_millis(figures.cpu_millis);
    if (place.has("pids")) limits.set_pids(figures.pids);
}

std::uint64_t disk_in_memory_bytes(const std::string& home, std::uint64_t disk_bytes) {
    struct statfs system {};
    return ::statfs(home.c_str(), &system) == 0 && system.f_type == TMPFS_MAGIC ? disk_bytes : 0;
}

namespace {
// A group, unless it is there, that others may pass whatever the umask says.
bool make_passable(const std::string& directory) {
    return (::mkdir(directory.c_str(), 0755) == 0 || errno == EEXIST) && ::chmod(directory.c_str(), 0755) == 0;
}
}  // namespace

int prepare_groups_as_root(const std::string& home, os::Identity identity) {
    int enters = -1;
    for (const auto& mount : os::cgroup_mounts()) {
        const bool counts = std::any_of(std::begin(kWanted), std::end(kWanted), [&](const char* name) { return mount.has(name); });
        if (mount.read_only || !counts) continue;
        const auto ours = mount.directory + kRootGroup;
        const auto homes = ours + "/" + group_tag(home);
        if (mount.version == 2) hand_on_controllers(mount.directory);
        if (!make_passable(ours)) continue;
        if (mount.version == 2) hand_on_controllers(ours);
        if (!make_passable(homes)) continue;
        auto give = [&](const std::string& path) { return ::chown(path.c_str(), identity.user, identity.group) == 0; };
        if (mount.version == 1) {
            give(homes);
            continue;
        }
        hand_on_controllers(homes);
        const auto supervisors = homes + kSupervisors;
        if (!make_passable(supervisors)) continue;
        // As cgroups(7) says of delegation: the directory and these files, never the limits of the group itself.
        for (const char* name : {"", "/cgroup.procs", "/cgroup.subtree_control", "/cgroup.threads", "/supervisors",
                                 "/supervisors/cgroup.procs"})
            give(homes + name);
        // Opened as root: whoever writes to it moves with root's rights, out of a group that only root may change.
        if (auto procs = os::open_file(supervisors + "/cgroup.procs", O_WRONLY)) enters = procs->release();
    }
    return enters;
}

std::map<std::string, std::vector<std::string>> groups_of_boxes(const store::Home& home) {
    const auto place = choose_place(gather_group_facts(home.root, 0));
    std::map<std::string, std::vector<std::string>> found;
    for (const auto& base : place.bases)
        for (const auto& name : os::list_directory(base.directory).value_or(std::vector<std::string>()))
            if (base::is_ulid(name)) found[name].push_back(base.directory + "/" + name);
    return found;
}

Result<> sweep_groups(const store::Home& home, store::Database& database) {
    for (const auto& [id, directories] : groups_of_boxes(home)) {
        // Records are written before groups are made, and looked up after the groups were found.
        auto record = database.find_box(id);
        if (record && store::is_live(record->state)) continue;
        if (!record && record.error().code != Errc::kNotFound) return base::failure(std::move(record.error()));
        // A box that does not run has its machine started for its files, too: then its lock is held.
        if (auto lock = os::FileLock::try_acquire(home.box(id) + "/lock"); !lock && lock.error().code == Errc::kInUse) continue;
        // What cannot be removed keeps nobody from the other boxes; the next one tries again.
        static_cast<void>(os::remove_cgroups(directories));
    }
    return {};
}

Result<> change_cpu_limit(const store::Home& home, const std::string& box_id, std::uint32_t box_cpu_millis) {
    const HostFigures figures{0, host_cpu_millis(box_cpu_millis), 0};
    bool changed = false;
    // Not where the box's directory says: its supervisor can write there.
    for (const auto& base : choose_place(gather_group_facts(home.root, 0)).bases) {
        const auto group = base.directory + "/" + box_id;
        if (std::find(base.controllers.begin(), base.controllers.end(), "cpu") == base.controllers.end() || !os::exists(group)) continue;
        for (const auto& setting : settings(base.version, "cpu", figures)) {
            auto file = CAISSON_TRY(os::open_file(group + "/" + setting.file, O_WRONLY));
            CAISSON_TRY_CTX(os::write_all(file.get(), setting.value), "limiting the CPU time of box " + box_id + " on the host");
        }
        changed = true;
    }
    if (!changed) return {};
    const auto path = home.box(box_id) + "/" + kLimitsFile;
    wire::HostLimits written;
    if (!written.ParseFromString(CAISSON_TRY(os::read_file(path, 1 << 16)))) return {};
    written.set_cpu_millis(figures.cpu_millis);
    return os::write_file_atomic(path, written.SerializeAsString(), 0600);
}

void remove_groups(const store::Home& home, const std::string& box_id) {
    std::vector<std::string> directories;
    for (const auto& base : choose_place(gather_group_facts(home.root, 0)).bases) directories.push_back(base.directory + "/" + box_id);
    static_cast<void>(os::remove_cgroups(directories));  // what stays is for the next process that opens the home
}

}  // namespace caisson::box
