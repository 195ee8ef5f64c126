#include "box/strays.h"

#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <set>

#include "base/id.h"
#include "base/text.h"
#include "box/launcher.h"
#include "jail/jail.h"
#include "os/file.h"

namespace caisson::box {

namespace {

// Told by status, which everybody may read: a process that may not be dumped has its /proc entry owned by root.
bool is_ours(const std::string& process) {
    auto status = os::read_file(process + "/status", 1 << 16);
    if (!status) return false;
    auto at = status->find("\nUid:\t");
    return at != std::string::npos && base::starts_with(status->substr(at + 6), std::to_string(::geteuid()) + "\t");
}

// bubblewrap that was cut short before it made any mount, told by its arguments. It must be bubblewrap, not a program
// that only mentions it: somebody's editor or grep.
bool is_unfinished_jail(const std::string& process, const std::string& below) {
    auto bwrap = jail::find_bwrap();
    char program[4096];
    ssize_t length = ::readlink((process + "/exe").c_str(), program, sizeof program);
    if (!bwrap || length <= 0 || std::string_view(program, static_cast<std::size_t>(length)) != *bwrap) return false;
    auto command = os::read_file(process + "/cmdline", 1 << 20);
    return command && command->find(below) != std::string::npos;
}

// Told by how it was started; its dynamic loader is the program, and only the box's own VMM writes to this disk.
bool is_unjailed_vmm(const std::string& process, const std::string& box_directory) {
    auto command = os::read_file(process + "/cmdline", 1 << 20);
    return command && runs_unjailed(*command, box_directory);
}

// Told by its arguments; nobody else has a reason to be called like that.
bool is_launcher(const std::string& process, const std::string& box_directory) {
    auto command = os::read_file(process + "/cmdline", 1 << 14);
    return command && *command == kLauncherName + std::string(1, '\0') + box_directory + '\0';
}

}  // namespace

bool shows_overlay(std::string_view mountinfo, const std::string& box_directory) {
    // A bind mount shows its source relative to the file system that the home is on: compare the box's own part.
    auto boxes = box_directory.rfind("/boxes/");
    if (boxes == std::string::npos) return false;
    const std::string overlay = box_directory.substr(boxes) + "/disk.qcow2";
    for (auto at = mountinfo.find(overlay); at != std::string_view::npos; at = mountinfo.find(overlay, at + 1)) {
        auto rest = mountinfo.substr(at + overlay.size());
        // A box that is removed loses its directory before its processes.
        if (base::starts_with(rest, " ") || base::starts_with(rest, "//deleted ")) return true;
    }
    return false;
}

bool runs_unjailed(std::string_view command, const std::string& box_directory) {
    const auto program = command.substr(0, command.find('\0'));
    return program.ends_with("/ld-linux-x86-64.so.2") &&
           command.find("\"filename\":\"" + box_directory + "/disk.qcow2\"") != std::string_view::npos;
}

int kill_strays(const std::string& box_directory) {
    int found = 0;
    auto names = os::list_directory("/proc");
    if (!names) return 0;
    for (const auto& name : *names) {
        auto pid = base::parse_u64(name);
        if (!pid || static_cast<pid_t>(*pid) == ::getpid()) continue;
        const std::string process = "/proc/" + name;
        os::Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, static_cast<pid_t>(*pid), 0)));
        if (!pidfd || !is_ours(process)) continue;
        auto mounts = os::read_file(process + "/mountinfo", 1 << 20);
        // "<dir>/" so that one box's name cannot be the beginning of another's.
        if (!(mounts && shows_overlay(*mounts, box_directory)) && !is_unfinished_jail(process, box_directory + "/") &&
            !is_unjailed_vmm(process, box_directory) && !is_launcher(process, box_directory))
            continue;
        ::syscall(SYS_pidfd_send_signal, pidfd.get(), SIGKILL, nullptr, 0);
        ++found;
    }
    return found;
}

namespace {

// Ids of boxes that this text has in paths.
std::set<std::string> boxes_in(std::string_view text) {
    constexpr std::string_view kMark = "/boxes/";
    constexpr std::size_t kIdLength = 26;
    std::set<std::string> ids;
    for (auto at = text.find(kMark); at != std::string_view::npos; at = text.find(kMark, at + 1))
        if (auto id = text.substr(at + kMark.size(), kIdLength); base::is_ulid(id)) ids.emplace(id);
    return ids;
}

}  // namespace

std::vector<BoxProcess> processes_of_boxes(const std::string& boxes) {
    std::vector<BoxProcess> found;
    for (const auto& name : os::list_directory("/proc").value_or(std::vector<std::string>())) {
        auto pid = base::parse_u64(name);
        const std::string process = "/proc/" + name;
        if (!pid || static_cast<pid_t>(*pid) == ::getpid() || !is_ours(process)) continue;
        const auto mounts = os::read_file(process + "/mountinfo", 1 << 20).value_or("");
        const auto command = os::read_file(process + "/cmdline", 1 << 20).value_or("");
        auto ids = boxes_in(mounts);
        ids.merge(boxes_in(command));
        for (const auto& id : ids) {
            const auto directory = boxes + "/" + id;
            const bool machine = shows_overlay(mounts, directory) || is_unfinished_jail(process, directory + "/") || runs_unjailed(command, directory);
            if (machine || is_launcher(process, directory)) found.push_back({static_cast<std::int64_t>(*pid), id, machine});
        }
    }
    return found;
}

}  // namespace caisson::box
