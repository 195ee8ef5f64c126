#include "box/strays.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "base/id.h"
#include "base/text.h"
#include "box/launcher.h"
#include "jail/unfinished.h"
#include "os/file.h"

namespace caisson::box {

namespace {

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

namespace {

// proc(5): space, tab, newline and backslash are three octal digits behind a backslash.
std::string unescaped(std::string_view field) {
    std::string text;
    for (std::size_t at = 0; at < field.size(); ++at) {
        const auto digits = field.substr(at + 1, 3);
        if (field[at] == '\\' && digits.size() == 3 && digits.find_first_not_of("01234567") == std::string_view::npos) {
            text += static_cast<char>((digits[0] - '0') * 64 + (digits[1] - '0') * 8 + (digits[2] - '0'));
            at += 3;
        } else {
            text += field[at];
        }
    }
    return text;
}

// Whether it is the directory itself or lies below it.
bool lies_in(std::string_view path, std::string_view directory) {
    return directory == "/" || path == directory || (base::starts_with(path, directory) && path[directory.size()] == '/');
}

}  // namespace

std::optional<MountedPlace> mounted_place(std::string_view mountinfo, std::string_view mount_number, const std::string& path) {
    // "36 35 98:0 /root /mount/point rw,noatime ..."
    for (const auto& line : base::split(mountinfo, '\n')) {
        const auto fields = base::split(line, ' ');
        if (fields.size() < 5 || fields[0] != mount_number) continue;
        const auto root = unescaped(fields[3]), point = unescaped(fields[4]);
        if (!lies_in(path, point)) return std::nullopt;
        const auto rest = point == "/" ? path : path.substr(point.size());
        return MountedPlace{fields[2], root == "/" ? rest : root + rest};
    }
    return std::nullopt;
}

std::optional<MountedPlace> mounted_place(const std::string& directory) {
    // Of a directory that is gone, what is left above it says where it was.
    auto there = directory;
    os::Fd fd;
    while (!fd) {
        auto opened = os::open_file(there.empty() ? "/" : there, O_PATH | O_DIRECTORY);
        if (opened) fd = std::move(*opened);
        else if (there.empty()) return std::nullopt;
        else there.resize(there.rfind('/') == std::string::npos ? 0 : there.rfind('/'));
    }
    char real[4096];
    const auto number = std::to_string(fd.get());
    const auto length = ::readlink(("/proc/self/fd/" + number).c_str(), real, sizeof real);
    auto about = os::read_file("/proc/self/fdinfo/" + number, 4096);
    auto mounts = os::read_file("/proc/self/mountinfo", 16 << 20);
    if (length <= 0 || static_cast<std::size_t>(length) == sizeof real || !about || !mounts) return std::nullopt;
    constexpr std::string_view kMount = "mnt_id:";
    for (const auto& line : base::split(*about, '\n')) {
        if (!base::starts_with(line, kMount)) continue;
        std::string path(real, static_cast<std::size_t>(length));
        if (path == "/") path.clear();
        path += directory.substr(there.size());
        return mounted_place(*mounts, base::trim(std::string_view(line).substr(kMount.size())), path.empty() ? "/" : path);
    }
    return std::nullopt;
}

bool shows_overlay(std::string_view mountinfo, const MountedPlace& box) {
    const auto overlay = box.path + "/disk.qcow2";
    for (std::size_t at = 0; at < mountinfo.size();) {
        const auto end = std::min(mountinfo.find('\n', at), mountinfo.size());
        const auto line = mountinfo.substr(at, end - at);
        at = end + 1;
        // Most lines have nothing to do with boxes.
        if (line.find("/disk.qcow2") == std::string_view::npos) continue;
        const auto fields = base::split(line, ' ');
        if (fields.size() < 5 || fields[2] != box.device) continue;
        const auto root = unescaped(fields[3]);
        // A box that is removed loses its directory before its processes.
        if (root == overlay || root == overlay + "//deleted") return true;
    }
    return false;
}

bool runs_unjailed(std::string_view command, const std::string& box_directory) {
    const auto program = command.substr(0, command.find('\0'));
    return program.ends_with("/ld-linux-x86-64.so.2") &&
           command.find("\"filename\":\"" + box_directory + "/disk.qcow2\"") != std::string_view::npos;
}

int kill_strays(const std::string& box_directory) {
    const auto place = mounted_place(box_directory);
    return jail::kill_own_processes([&](const std::string& process) {
        const auto mounts = os::read_file(process + "/mountinfo", 1 << 20);
        // "<dir>/" so that one box's name cannot be the beginning of another's.
        return (mounts && place && shows_overlay(*mounts, *place)) || jail::is_unfinished_jail(process, box_directory + "/") ||
               is_unjailed_vmm(process, box_directory) || is_launcher(process, box_directory);
    });
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
    const auto place = mounted_place(boxes);
    for (const auto& name : os::list_directory("/proc").value_or(std::vector<std::string>())) {
        auto pid = base::parse_u64(name);
        const std::string process = "/proc/" + name;
        if (!pid || static_cast<pid_t>(*pid) == ::getpid() || !jail::is_own_process(process)) continue;
        const auto mounts = os::read_file(process + "/mountinfo", 1 << 20).value_or("");
        const auto command = os::read_file(process + "/cmdline", 1 << 20).value_or("");
        auto ids = boxes_in(mounts);
        ids.merge(boxes_in(command));
        for (const auto& id : ids) {
            const auto directory = boxes + "/" + id;
            const bool machine = (place && shows_overlay(mounts, {place->device, place->path + "/" + id})) || jail::is_unfinished_jail(process, directory + "/") || runs_unjailed(command, directory);
            if (machine || is_launcher(process, directory)) {
                const auto program = os::read_file(process + "/comm", 64).value_or("");
                found.push_back({static_cast<std::int64_t>(*pid), id, std::string(base::trim(program)), machine});
            }
        }
    }
    return found;
}

}  // namespace caisson::box
