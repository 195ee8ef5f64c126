#include "os/cgroup.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <thread>

#include "base/text.h"
#include "os/file.h"

namespace caisson::os {

using base::failure_errno;

namespace {

// How long what was killed may take to be gone; a process in a system call that cannot be interrupted takes longer.
constexpr std::chrono::milliseconds kEmptyPatience{2000};
constexpr std::chrono::milliseconds kPoll{1};
constexpr std::size_t kMaxFileBytes = 1 << 20;

// mountinfo writes space, tab, newline and backslash as three octal digits.
std::string unescape(std::string_view text) {
    std::string plain;
    for (std::size_t i = 0; i < text.size(); ++i) {
        auto digit = [&](std::size_t at) { return at < text.size() && text[at] >= '0' && text[at] <= '7'; };
        if (text[i] == '\\' && digit(i + 1) && digit(i + 2) && digit(i + 3)) {
            plain += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
            i += 3;
        } else {
            plain += text[i];
        }
    }
    return plain;
}

bool is_controller(std::string_view option) {
    static constexpr std::string_view kKnown[] = {"memory", "cpu", "cpuacct", "pids", "blkio", "cpuset", "freezer", "devices"};
    return std::find(std::begin(kKnown), std::end(kKnown), option) != std::end(kKnown);
}

struct Membership {
    std::vector<std::string> controllers;  // none: version 2
    std::string path;
};

// "4:memory:/a/b", "0::/a/b"
std::vector<Membership> parse_membership(std::string_view text) {
    std::vector<Membership> all;
    for (const auto& line : base::split(text, '\n')) {
        auto first = line.find(':');
        auto second = first == std::string::npos ? first : line.find(':', first + 1);
        if (second == std::string::npos) continue;
        const auto names = line.substr(first + 1, second - first - 1);
        all.push_back({names.empty() ? std::vector<std::string>() : base::split(names, ','), line.substr(second + 1)});
    }
    return all;
}

// Where `path` of a hierarchy is found if the hierarchy's `root` is mounted on `directory`.
std::string below_mount(const std::string& directory, const std::string& root, const std::string& path) {
    // A process outside its cgroup namespace's root is shown as "/../..".
    if (path.empty() || path[0] != '/' || base::starts_with(path, "/..")) return "";
    std::string rest = path;
    if (root != "/") {
        if (path != root && !base::starts_with(path, root + "/")) return "";
        rest = path.substr(root.size());
    }
    return rest.empty() || rest == "/" ? directory : directory + rest;
}

// One number of a file of "NAME NUMBER" lines; 0 if it is not there.
std::uint64_t counter(const std::string& file, std::string_view name) {
    auto text = read_file(file, kMaxFileBytes);
    if (!text) return 0;
    for (const auto& line : base::split(*text, '\n'))
        if (base::starts_with(line, std::string(name) + " "))
            return base::parse_u64(base::trim(std::string_view(line).substr(name.size() + 1))).value_or(0);
    return 0;
}

Result<> write_setting(const std::string& directory, const CgroupPlan::Setting& setting) {
    const auto path = directory + "/" + setting.file;
    auto file = open_file(path, O_WRONLY);
    if (!file) return setting.optional ? Result<>() : base::failure(std::move(file.error()));
    if (::write(file->get(), setting.value.data(), setting.value.size()) < 0 && !setting.optional)
        return failure_errno("cannot write " + setting.value + " to " + path);
    return {};
}

// Whether there was somebody in it.
bool kill_members(const std::string& directory) {
    auto members = read_file(directory + "/cgroup.procs", kMaxFileBytes);
    if (!members) return false;
    bool found = false;
    for (const auto& line : base::split(*members, '\n')) {
        auto pid = base::parse_u64(line);
        // 0 is somebody whom this process's namespace does not show.
        if (!pid || *pid == 0 || static_cast<pid_t>(*pid) == ::getpid()) continue;
        found = true;
        // Opened first and looked up again then, so that a number that was given away meanwhile hits nobody else.
        Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, static_cast<pid_t>(*pid), 0)));
        if (!pidfd) continue;
        auto again = read_file(directory + "/cgroup.procs", kMaxFileBytes);
        if (again && ("\n" + *again).find("\n" + line + "\n") == std::string::npos) continue;
        ::syscall(SYS_pidfd_send_signal, pidfd.get(), SIGKILL, nullptr, 0);
    }
    return found;
}

Result<> empty_and_remove(const std::string& directory) {
    const auto give_up = std::chrono::steady_clock::now() + kEmptyPatience;
    for (;;) {
        const bool somebody = kill_members(directory);
        if (::rmdir(directory.c_str()) == 0 || errno == ENOENT) return {};
        if (errno != EBUSY) return failure_errno("cannot remove the control group " + directory);
        if (std::chrono::steady_clock::now() > give_up)
            return base::failure(Errc::kTimeout, "the control group " + directory + " cannot be removed: " +
                                                     (somebody ? "what was killed in it does not end" : "it is in use"));
        std::this_thread::sleep_for(kPoll);  // version 1 tells nobody when a group becomes empty
    }
}

}  // namespace

bool CgroupMount::has(std::string_view controller) const {
    return std::find(controllers.begin(), controllers.end(), controller) != controllers.end();
}

std::vector<CgroupMount> parse_cgroup_mounts(std::string_view mountinfo, std::string_view membership,
                                             const std::function<std::string(const std::string&)>& read) {
    const auto memberships = parse_membership(membership);
    std::vector<CgroupMount> mounts;
    for (const auto& line : base::split(mountinfo, '\n')) {
        // 36 35 0:31 /ROOT /MOUNTPOINT OPTIONS [TAG...] - TYPE SOURCE SUPEROPTIONS
        auto separator = line.find(" - ");
        if (separator == std::string::npos) continue;
        auto front = base::split(line.substr(0, separator), ' ');
        auto back = base::split(line.substr(separator + 3), ' ');
        if (front.size() < 6 || back.size() < 3 || (back[0] != "cgroup" && back[0] != "cgroup2")) continue;
        CgroupMount mount;
        mount.version = back[0] == "cgroup2" ? 2 : 1;
        mount.directory = unescape(front[4]);
        const auto options = base::split(front[5], ',');
        const auto super_options = base::split(back[2], ',');
        auto says_read_only = [](const auto& words) { return std::find(words.begin(), words.end(), "ro") != words.end(); };
        mount.read_only = says_read_only(options) || says_read_only(super_options);
        if (mount.version == 2) {
            for (const auto& name : base::split(base::trim(read(mount.directory + "/cgroup.controllers")), ' '))
                if (!name.empty()) mount.controllers.push_back(name);
        } else {
            for (const auto& option : super_options)
                if (is_controller(option)) mount.controllers.push_back(option);
            if (mount.controllers.empty()) continue;  // a hierarchy that only has a name
        }
        for (const auto& member : memberships) {
            const bool this_one = mount.version == 2 ? member.controllers.empty()
                                                     : !member.controllers.empty() && mount.has(member.controllers[0]);
            if (this_one) mount.own = below_mount(mount.directory, unescape(front[3]), member.path);
        }
        mounts.push_back(std::move(mount));
    }
    return mounts;
}

std::vector<CgroupMount> cgroup_mounts() {
    auto mountinfo = read_file("/proc/self/mountinfo", kMaxFileBytes);
    auto membership = read_file("/proc/self/cgroup", kMaxFileBytes);
    if (!mountinfo || !membership) return {};
    return parse_cgroup_mounts(*mountinfo, *membership,
                               [](const std::string& path) { return read_file(path, kMaxFileBytes).value_or(""); });
}

Result<Cgroup> Cgroup::create(CgroupPlan plan) {
    Cgroup made;
    for (auto& group : plan.groups) {
        if (::mkdir(group.directory.c_str(), 0755) != 0) {
            if (errno != EEXIST) return failure_errno("cannot make the control group " + group.directory);
            CAISSON_TRY(remove_cgroups({group.directory}));
            if (::mkdir(group.directory.c_str(), 0755) != 0)
                return failure_errno("cannot make the control group " + group.directory);
        }
        made.plan_.groups.push_back(std::move(group));
        const auto& here = made.plan_.groups.back();
        for (const auto& setting : here.settings) CAISSON_TRY(write_setting(here.directory, setting));
        if (here.version == 2) made.directory_ = CAISSON_TRY(open_file(here.directory, O_RDONLY | O_DIRECTORY));
        else made.procs_.push_back(CAISSON_TRY(open_file(here.directory + "/cgroup.procs", O_WRONLY)));
    }
    return made;
}

Cgroup::Cgroup(Cgroup&& other) noexcept
    : plan_(std::exchange(other.plan_, {})), procs_(std::move(other.procs_)), directory_(std::move(other.directory_)) {}

Cgroup& Cgroup::operator=(Cgroup&& other) noexcept {
    if (this != &other) {
        static_cast<void>(remove());
        plan_ = std::exchange(other.plan_, {});
        procs_ = std::move(other.procs_);
        directory_ = std::move(other.directory_);
    }
    return *this;
}

Cgroup::~Cgroup() { static_cast<void>(remove()); }

GroupEntry Cgroup::entry() const {
    GroupEntry entry;
    for (const auto& procs : procs_) entry.procs.push_back(procs.get());
    entry.directory = directory_.get();
    return entry;
}

std::uint64_t Cgroup::memory_kills() const {
    std::uint64_t kills = 0;
    for (const auto& group : plan_.groups)
        kills += counter(group.directory + (group.version == 2 ? "/memory.events" : "/memory.oom_control"), "oom_kill");
    return kills;
}

std::uint64_t Cgroup::refused_processes() const {
    std::uint64_t refused = 0;
    for (const auto& group : plan_.groups) refused += counter(group.directory + "/pids.events", "max");
    return refused;
}

Result<> Cgroup::remove() {
    procs_.clear();
    directory_.reset();
    std::vector<std::string> directories;
    for (auto& group : std::exchange(plan_, {}).groups) directories.push_back(std::move(group.directory));
    return remove_cgroups(directories);
}

Result<> remove_cgroups(const std::vector<std::string>& directories) {
    std::vector<std::string> inhabited;
    Result<> result;
    for (const auto& directory : directories) {
        if (::rmdir(directory.c_str()) == 0 || errno == ENOENT) continue;
        if (!exists(directory + "/cgroup.kill")) static_cast<void>(write_setting(directory, {"pids.max", "0", true}));
        else static_cast<void>(write_setting(directory, {"cgroup.kill", "1", true}));
        inhabited.push_back(directory);
    }
    // All are tried: one that stays must not keep the others.
    for (const auto& directory : inhabited)
        if (auto removed = empty_and_remove(directory); !removed) result = std::move(removed);
    return result;
}

}  // namespace caisson::os
