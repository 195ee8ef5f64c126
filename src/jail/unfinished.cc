#include "jail/unfinished.h"

#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/text.h"
#include "jail/jail.h"
#include "os/fd.h"
#include "os/file.h"

namespace caisson::jail {

bool is_own_process(const std::string& process) {
    auto status = os::read_file(process + "/status", 1 << 16);
    if (!status) return false;
    auto at = status->find("\nUid:\t");
    return at != std::string::npos && base::starts_with(status->substr(at + 6), std::to_string(::geteuid()) + "\t");
}

bool is_unfinished_jail(const std::string& process, const std::string& path) {
    auto bwrap = find_bwrap();
    char program[4096];
    ssize_t length = ::readlink((process + "/exe").c_str(), program, sizeof program);
    if (!bwrap || length <= 0 || std::string_view(program, static_cast<std::size_t>(length)) != *bwrap) return false;
    auto command = os::read_file(process + "/cmdline", 1 << 20);
    return command && command->find(path) != std::string::npos;
}

int kill_own_processes(const std::function<bool(const std::string& process)>& meant) {
    int found = 0;
    for (const auto& name : os::list_directory("/proc").value_or(std::vector<std::string>())) {
        auto pid = base::parse_u64(name);
        if (!pid || static_cast<pid_t>(*pid) == ::getpid()) continue;
        const std::string process = "/proc/" + name;
        // Opened before it is looked at: the number may be another process's at once.
        os::Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, static_cast<pid_t>(*pid), 0)));
        if (!pidfd || !is_own_process(process) || !meant(process)) continue;
        ::syscall(SYS_pidfd_send_signal, pidfd.get(), SIGKILL, nullptr, 0);
        ++found;
    }
    return found;
}

int kill_unfinished_jails(const std::string& path) {
    return kill_own_processes([&](const std::string& process) { return is_unfinished_jail(process, path); });
}

}  // namespace caisson::jail
