// Processes of a box that lost their owner: its supervisor was killed, so nobody holds what ends them (jail::Init).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace caisson::box {

// SIGKILL to every process of this user that has the box's overlay among its mounts, to every bubblewrap that was cut
// short while it made the box's jail, to a VMM of the box that has no jail, and to the box's launcher; not to the caller. Returns how many were found. Source: proc(5).
int kill_strays(const std::string& box_directory);

struct BoxProcess {
    std::int64_t pid = 0;
    std::string box;       // id, as the process itself tells it: it need not have a record
    std::string program;   // what it is called, for people
    bool machine = false;  // its VMM, or what it is jailed with; else its launcher
};
// Those of all boxes below `boxes`, by the same rules, for who looks at them only.
std::vector<BoxProcess> processes_of_boxes(const std::string& boxes);

// A file or directory as /proc/PID/mountinfo shows it, wherever it is mounted: its file system, and its path in that. Two homes
// may hold boxes of the same id, if one is a copy of the other.
struct MountedPlace {
    std::string device;  // "MAJOR:MINOR"
    std::string path;
};
// Of a directory, which need not be there any more, as the calling process sees it. nullopt: the kernel does not tell.
std::optional<MountedPlace> mounted_place(const std::string& directory);
// The same from the text of /proc/self/mountinfo, for what the mount of this number shows at `path`. Pure.
std::optional<MountedPlace> mounted_place(std::string_view mountinfo, std::string_view mount_number, const std::string& path);

// Is the overlay of the box whose directory is `box` in this /proc/PID/mountinfo, also after it was deleted?
bool shows_overlay(std::string_view mountinfo, const MountedPlace& box);

// Is this /proc/PID/cmdline that of the VMM of the box in `box_directory`, started without a jail?
bool runs_unjailed(std::string_view command, const std::string& box_directory);

}  // namespace caisson::box
