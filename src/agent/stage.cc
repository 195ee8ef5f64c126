#include "agent/stage.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>

#include "agent/paths.h"
#include "base/text.h"
#include "os/file.h"

namespace caisson::agent {

using base::failure_errno;

namespace {

// Nodes for the guest's disks in the initial file system's own /dev: the root disk is mounted from inside the
// container's mount namespace, where devtmpfs is not. The disk then covers them, and the cgroup's device filter keeps
// every container process from opening such a node anyway.
Result<> make_disk_nodes() {
    if (::mkdir("/dev", 0755) != 0 && errno != EEXIST) return failure_errno("cannot make /dev");
    const std::string disks = std::string(kSys) + "/class/block";
    auto names = os::list_directory(disks);
    if (!names) return {};  // no disk at all
    for (const auto& name : *names) {
        auto numbers = os::read_file(disks + "/" + name + "/dev", 64);
        if (!numbers) continue;
        auto parts = base::split(base::trim(*numbers), ':');
        if (parts.size() != 2) continue;
        auto major = static_cast<unsigned>(CAISSON_TRY(base::parse_u64(parts[0])));
        auto minor = static_cast<unsigned>(CAISSON_TRY(base::parse_u64(parts[1])));
        if (::mknod(("/dev/" + name).c_str(), S_IFBLK | 0600, ::makedev(major, minor)) != 0 && errno != EEXIST)
            return failure_errno("cannot make a node for the disk " + name);
    }
    return {};
}

Result<os::Fd> own_mount_namespace() { return os::open_file(std::string(kProc) + "/self/ns/mnt", O_RDONLY); }

}  // namespace

Result<FileSlot> make_slot(int number) {
    const std::string path = std::string(kStagedFiles) + "/" + std::to_string(number);
    auto file = CAISSON_TRY(os::open_file(path, O_WRONLY | O_CREAT | O_EXCL, 0644));
    long tree = ::syscall(SYS_open_tree, AT_FDCWD, path.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (tree < 0) return failure_errno("cannot take hold of " + path);
    return FileSlot{std::move(file), os::Fd(static_cast<int>(tree))};
}

Result<Stage> Stage::create() {
    CAISSON_TRY(make_disk_nodes());
    CAISSON_TRY(apply(staged_mounts()));
    auto cgroup = CAISSON_TRY(BoxCgroup::create());
    std::vector<FileSlot> slots;
    for (int i = 0; i < kReadySlots; ++i) slots.push_back(CAISSON_TRY(make_slot(i)));

    if (::unshare(CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS) != 0)
        return failure_errno("cannot make the container's namespaces");
    auto guest = CAISSON_TRY(own_mount_namespace());
    if (::unshare(CLONE_NEWNS) != 0) return failure_errno("cannot make the container's mount namespace");
    auto container = CAISSON_TRY(own_mount_namespace());
    auto terminals = CAISSON_TRY(os::open_file(std::string(kStagedDev) + "/pts", O_PATH | O_DIRECTORY));
    auto null = CAISSON_TRY(os::open_file(std::string(kStagedDev) + "/null", O_RDONLY));
    auto random = CAISSON_TRY(os::open_file(std::string(kDevices) + "/urandom", O_RDWR));
    for (const char* path : {kGuest, kStagedFiles})
        if (::umount2(path, MNT_DETACH) != 0) return failure_errno("cannot leave the guest's file systems");
    if (::setns(guest.get(), CLONE_NEWNS) != 0) return failure_errno("cannot return to the guest's mount namespace");
    return Stage{std::move(cgroup), std::move(guest), std::move(container), std::move(terminals),
                 std::move(null), std::move(random), std::move(slots), fixed_container_mounts()};
}

}  // namespace caisson::agent
