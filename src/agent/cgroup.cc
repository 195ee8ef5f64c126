#include "agent/cgroup.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

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

}  // namespace

Result<BoxCgroup> BoxCgroup::create() {
    auto root = CAISSON_TRY(os::open_file(kCgroup, O_RDONLY | O_DIRECTORY));
    CAISSON_TRY(write_setting(root, "cgroup.subtree_control", "+cpu +memory +pids"));
    if (::mkdir(kBoxCgroup, 0755) != 0) return failure_errno("cannot make the box's cgroup");
    auto box = CAISSON_TRY(os::open_file(kBoxCgroup, O_RDONLY | O_DIRECTORY));
    CAISSON_TRY(write_setting(box, "cgroup.subtree_control", "+cpu +memory +pids"));
    if (::mkdir(kContainerCgroup, 0755) != 0) return failure_errno("cannot make the container's cgroup");
    auto container = CAISSON_TRY(os::open_file(kContainerCgroup, O_RDONLY | O_DIRECTORY));
    auto program = CAISSON_TRY(load_device_program(device_program(default_device_rules())));
    CAISSON_TRY(attach_device_program(program, box));
    auto events = CAISSON_TRY(os::open_at(box, "memory.events", O_RDONLY));
    return BoxCgroup(std::move(box), std::move(container), std::move(program), std::move(events));
}

Result<> BoxCgroup::limit(const wire::Configure& configure) const {
    for (const auto* group : {&box_, &container_}) {
        if (configure.memory_limit_bytes() != 0)
            CAISSON_TRY(write_setting(*group, "memory.max", std::to_string(configure.memory_limit_bytes())));
        if (configure.cpu_limit_millis() != 0)
            CAISSON_TRY(write_setting(*group, "cpu.max", std::to_string(configure.cpu_limit_millis() * 100ULL) + " 100000"));
        if (configure.pids_limit() != 0)
            CAISSON_TRY(write_setting(*group, "pids.max", std::to_string(configure.pids_limit())));
    }
    return {};
}

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
