#include "agent/boot.h"

#include <fcntl.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "agent/mounts.h"
#include "agent/network.h"
#include "agent/paths.h"
#include "agent/uevents.h"
#include "base/text.h"
#include "os/file.h"

namespace caisson::agent {

using base::failure;
using base::failure_errno;

namespace {

constexpr std::chrono::seconds kPortDeadline{20};

Result<> load_modules() {
    const std::string directory = kModules;
    auto list = os::read_file(directory + "/modules.list", 64 * 1024);
    if (!list) return {};  // a kernel with everything built in
    for (const auto& line : base::split(*list, '\n')) {
        std::string name(base::trim(line));
        if (name.empty() || name[0] == '#') continue;
        auto module = CAISSON_TRY(os::open_file(directory + "/" + name, O_RDONLY));
        if (::syscall(SYS_finit_module, module.get(), "", 0) != 0 && errno != EEXIST)
            return failure_errno("cannot load the kernel module " + name);
        module.reset();
        ::unlink((directory + "/" + name).c_str());  // its memory is of more use to the box
    }
    ::unlink((directory + "/modules.list").c_str());
    ::rmdir(directory.c_str());
    return {};
}

}  // namespace

std::string find_port(std::string_view wanted) {
    const std::string ports = std::string(kSys) + "/class/virtio-ports";
    auto names = os::list_directory(ports);
    if (!names) return {};
    for (const auto& name : *names) {
        auto label = os::read_file(ports + "/" + name + "/name", 4096);
        if (label && base::trim(*label) == wanted) return std::string(kDevices) + "/" + name;
    }
    return {};
}

namespace {

Result<> prepare_process() {
    ::umask(022);
    // What container processes inherit: the agent changes nothing of it for each of them.
    rlimit files{1024, 524288};
    rlimit unlimited{RLIM_INFINITY, RLIM_INFINITY};
    if (::setrlimit(RLIMIT_NOFILE, &files) != 0 || ::setrlimit(RLIMIT_NPROC, &unlimited) != 0)
        return failure_errno("cannot set resource limits");
    // Container processes must not look into the agent, nor into a child of it before its exec.
    if (::prctl(PR_SET_DUMPABLE, 0) != 0) return failure_errno("cannot protect the agent's memory");
    auto score = CAISSON_TRY(os::open_file(std::string(kProc) + "/self/oom_score_adj", O_WRONLY));
    return os::write_all(score.get(), "-1000");
}

Result<> bring_up_loopback() {
    // Any socket takes interface requests; a local one needs no inet code. The kernel gives lo its addresses itself.
    os::Fd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!socket) return failure_errno("cannot make a socket");
    ifreq request{};
    std::strcpy(request.ifr_name, "lo");
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    if (::ioctl(socket.get(), SIOCSIFFLAGS, &request) != 0) return failure_errno("cannot bring up the loopback interface");
    return {};
}

// Groups of processes by session mean nothing inside a cgroup with its own CPU share, but cost every setsid(2).
void switch_off_autogroups() {
    auto setting = os::open_file(std::string(kProc) + "/sys/kernel/sched_autogroup_enabled", O_WRONLY);
    if (setting) static_cast<void>(os::write_all(setting->get(), "0"));
}

// 0, 1 and 2 may be the console, or nothing at all: they become /dev/null.
Result<> quiet_standard_streams() {
    auto null = CAISSON_TRY(os::open_file(std::string(kDevices) + "/null", O_RDWR));
    for (int fd = 0; fd <= 2; ++fd)
        if (null.get() != fd && ::dup2(null.get(), fd) < 0) return failure_errno("cannot open the standard streams");
    if (null.get() <= 2) static_cast<void>(null.release());
    return {};
}

}  // namespace

Result<BootedGuest> boot() {
    CAISSON_TRY(apply(guest_mounts()));
    CAISSON_TRY(quiet_standard_streams());
    CAISSON_TRY(prepare_process());
    switch_off_autogroups();
    CAISSON_TRY(load_modules());
    CAISSON_TRY(bring_up_loopback());
    CAISSON_TRY_CTX(bring_up_network(), "bringing up the network card");
    auto stage = CAISSON_TRY(Stage::create());
    std::string path;
    CAISSON_TRY(wait_for_device([&path] { return !(path = find_port("agent")).empty(); }, kPortDeadline, "the agent's port"));
    // The name is announced before devtmpfs may have made the node.
    CAISSON_TRY(wait_for_device([&path] { return os::exists(path); }, kPortDeadline, "the agent's port"));
    auto port = CAISSON_TRY(os::open_file(path, O_RDWR | O_NONBLOCK | O_NOCTTY));
    // The file system that the agent itself was unpacked to: nothing below a container's root can be changed.
    if (::mount(nullptr, "/", nullptr, MS_REMOUNT | MS_RDONLY, nullptr) != 0)
        return failure_errno("cannot make the initial file system read-only");
    return BootedGuest{std::move(port), std::move(stage)};
}

void power_off() {
    ::reboot(RB_POWER_OFF);
    // Not reached where the kernel can power off; a reset ends the machine as well.
    ::reboot(RB_AUTOBOOT);
    ::_exit(1);
}

}  // namespace caisson::agent
