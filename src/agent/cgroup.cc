#include "agent/cgroup.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "agent/devices.h"
#include "agent/paths.h"
#include "base/text.h"
#include "os/file.h"

namespace caisson::agent {

using base::failure_errno;

namespace {

Result<> write_setting(const os::Fd& directory, const std::string& name, const std::string& value) {
    auto fd = CAISSON_TRY(os::open_at(directory, name, O_WRONLY));
    CAISSON_TRY_CTX(os::write_all(fd.get(), value), "setting " + name + " to " + value);
    return {};
}

// 0: no limit.
std::string memory_text(std::uint64_t bytes) { return bytes == 0 ? "max" : std::to_string(bytes); }
std::string cpu_text(std::uint32_t millis) { return (millis == 0 ? std::string("max") : std::to_string(millis * 100ULL)) + " 100000"; }
std::string pids_text(std::uint32_t pids) { return pids == 0 ? "max" : std::to_string(pids); }

}  // namespace

Result<BoxCgroup> BoxCgroup::create() {
    auto root = CAISSON_TRY(os::open_file(kCgroup, O_RDONLY | O_DIRECTORY));
    CAISSON_TRY(write_setting(root, "cgroup.subtree_control", "+cpu +memory +pids"));
    if (::mkdir(kBoxCgroup, 0755) != 0) return failure_errno("cannot make the box's cgroup");
    auto box = CAISSON_TRY(os::open_file(kBoxCgroup, O_RDONLY | O_DIRECTORY));
    CAISSON_TRY(write_setting(box, "cgroup.subtree_control", "+cpu +memory +pids"));
    if (::mkdir(kContainerCgroup, 0755) != 0) return failure_errno("cannot make the container's cgroup");
    auto container = CAISSON_TRY(os::open_file(kContainerCgroup, O_RDONLY | O_DIRECTORY));
    if (::mkdir(kCopyCgroup, 0755) != 0) return failure_errno("cannot make the cgroup of copies");
    auto copies = CAISSON_TRY(os::open_file(kCopyCgroup, O_RDONLY | O_DIRECTORY));
    auto program = CAISSON_TRY(load_device_program(device_program(default_device_rules())));
    CAISSON_TRY(attach_device_program(program, box));
    auto events = CAISSON_TRY(os::open_at(box, "memory.events", O_RDONLY));
    return BoxCgroup(std::move(box), std::move(container), std::move(copies), std::move(program), std::move(events));
}

Result<> BoxCgroup::set(const std::string& file, const std::string& value) const {
    for (const auto* group : {&box_, &container_}) CAISSON_TRY(write_setting(*group, file, value));
    return {};
}

Result<> BoxCgroup::limit(const wire::Configure& configure) const {
    if (configure.memory_limit_bytes() != 0) CAISSON_TRY(set("memory.max", memory_text(configure.memory_limit_bytes())));
    if (configure.cpu_limit_millis() != 0) CAISSON_TRY(set("cpu.max", cpu_text(configure.cpu_limit_millis())));
    if (configure.pids_limit() != 0) CAISSON_TRY(set("pids.max", pids_text(configure.pids_limit())));
    return {};
}

Result<> BoxCgroup::change(const wire::SetLimits& limits) const {
    // First what can be refused.
    if (limits.has_memory_bytes()) {
        if (limits.memory_bytes() != 0) CAISSON_TRY(make_room(limits.memory_bytes()));
        CAISSON_TRY(set("memory.max", memory_text(limits.memory_bytes())));
    }
    if (limits.has_cpu_millis()) CAISSON_TRY(set("cpu.max", cpu_text(limits.cpu_millis())));
    if (limits.has_pids()) CAISSON_TRY(set("pids.max", pids_text(limits.pids())));
    return {};
}

Result<std::uint64_t> BoxCgroup::used_bytes() const {
    auto fd = CAISSON_TRY(os::open_at(box_, "memory.current", O_RDONLY));
    return base::parse_u64(base::trim(CAISSON_TRY(os::read_fd(fd.get(), 64, "memory.current"))));
}

Result<> BoxCgroup::make_room(std::uint64_t limit_bytes) const {
    auto used = CAISSON_TRY(used_bytes());
    if (used <= limit_bytes) return {};
    // Caches first. The kernel says EAGAIN if it finds less than was asked for; what is left decides.
    static_cast<void>(write_setting(box_, "memory.reclaim", std::to_string(used - limit_bytes)));
    used = CAISSON_TRY(used_bytes());
    if (used <= limit_bytes) return {};
    return base::failure(Error{.code = Errc::kInUse,
                               .message = "the box uses " + base::format_size(used) + " of memory, more than the " +
                                          base::format_size(limit_bytes) + " that it is to have",
                               .sys_errno = EBUSY});
}

Result<> BoxCgroup::freeze(bool still) const { return write_setting(container_, "cgroup.freeze", still ? "1" : "0"); }

Result<> BoxCgroup::allow_every_device() const { return detach_device_program(filter_, box_); }

bool BoxCgroup::killed_since_last_asked() {
    char buffer[512];
    ssize_t got = ::pread(events_.get(), buffer, sizeof buffer, 0);
    std::uint64_t kills = got <= 0 ? 0 : parse_oom_kills({buffer, static_cast<std::size_t>(got)});
    return std::exchange(kills_seen_, kills) < kills;
}

std::uint64_t parse_oom_kills(std::string_view events) {
    constexpr std::string_view kName = "oom_kill ";
    for (const auto& line : base::split(events, '\n'))
        if (base::starts_with(line, kName)) return base::parse_u64(std::string_view(line).substr(kName.size())).value_or(0);
    return 0;
}

}  // namespace caisson::agent
