#include "box/strays.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/text.h"
#include "os/file.h"

namespace caisson::box {

namespace {

bool was_given(const std::string& process, const std::string& directory) {
    // "<dir>/" so that one box's name cannot be the beginning of another's.
    const std::string below = directory + "/";
    auto command = os::read_file(process + "/cmdline", 1 << 20);
    if (command && command->find("bwrap") != std::string::npos && command->find(below) != std::string::npos) return true;
    auto mounts = os::read_file(process + "/mountinfo", 1 << 20);
    // A bind mount shows its source relative to the file system that the home is on: compare the box's own part.
    auto boxes = directory.rfind("/boxes/");
    if (!mounts || boxes == std::string::npos) return false;
    return mounts->find(below.substr(boxes) + "disk.qcow2 ") != std::string::npos;
}

}  // namespace

int kill_strays(const std::string& box_directory) {
    int found = 0;
    auto names = os::list_directory("/proc");
    if (!names) return 0;
    for (const auto& name : *names) {
        auto pid = base::parse_u64(name);
        if (!pid || static_cast<pid_t>(*pid) == ::getpid()) continue;
        const std::string process = "/proc/" + name;
        os::Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, static_cast<pid_t>(*pid), 0)));
        struct stat info {};
        if (!pidfd || ::stat(process.c_str(), &info) != 0 || info.st_uid != ::geteuid()) continue;
        if (!was_given(process, box_directory)) continue;
        ::syscall(SYS_pidfd_send_signal, pidfd.get(), SIGKILL, nullptr, 0);
        ++found;
    }
    return found;
}

}  // namespace caisson::box
