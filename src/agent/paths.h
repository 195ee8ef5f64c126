// Where things are in the agent's own mount namespace, which no container process ever sees.
#pragma once

namespace caisson::agent {

// The guest's own file systems, under one mount so that a container gets rid of all of them at once.
inline constexpr char kGuest[] = "/guest";
inline constexpr char kDevices[] = "/guest/dev";
inline constexpr char kProc[] = "/guest/proc";
inline constexpr char kSys[] = "/guest/sys";
inline constexpr char kCgroup[] = "/guest/cgroup";
// The box's limits, and below them the container, for which its own group is the root: the files above are out of its
// reach even if it mounts control groups itself.
inline constexpr char kBoxCgroup[] = "/guest/cgroup/box";
inline constexpr char kContainerCgroup[] = "/guest/cgroup/box/container";
inline constexpr char kCopyCgroup[] = "/guest/cgroup/box/copy";  // of copies out of the container, which go on while it stands still
inline constexpr char kKernelLog[] = "/guest/dev/kmsg";
inline constexpr char kShares[] = "/guest/shares";
// The box's root disk.
inline constexpr char kDisk[] = "/disk";
// Parts of a container that are made before the template is saved: they are moved into it later.
inline constexpr char kStagedDev[] = "/stage/dev";
inline constexpr char kStagedSys[] = "/stage/sys";
inline constexpr char kStagedFiles[] = "/stage/files";
inline constexpr char kModules[] = "/modules";

}  // namespace caisson::agent
