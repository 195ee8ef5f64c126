#include "agent/disks.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "agent/mounts.h"
#include "agent/paths.h"
#include "agent/uevents.h"
#include "base/text.h"
#include "os/file.h"

namespace caisson::agent {

using base::failure;
using base::failure_errno;

namespace {

constexpr std::chrono::seconds kDeadline{10};

std::string blocks() { return std::string(kSys) + "/class/block"; }
std::string name_of(const wire::DiskMount& disk) { return "volume '" + base::printable(disk.volume(), 100) + "'"; }

std::string serial_of(const wire::DiskMount& disk) { return "volume" + std::to_string(disk.place()); }

Result<> tell_driver(const char* file, const std::string& device) {
    auto control = CAISSON_TRY(os::open_file(std::string(kSys) + "/bus/virtio/drivers/virtio_blk/" + file, O_WRONLY));
    return os::write_all(control.get(), device);
}

// The kernel believes what it saw when it was frozen: a placeholder. The driver lets go of the device and takes it again,
// which tells it the size as well as whether the host lets it be written to. Unlike a resize by the host's command this
// also works for disks that cannot be written to.
Result<> look_again(const std::string& name) {
    char target[4096];
    const auto length = ::readlink((blocks() + "/" + name + "/device").c_str(), target, sizeof target);
    if (length <= 0 || length == sizeof target) return failure_errno("cannot tell which device " + name + " is");
    const std::string link(target, static_cast<std::size_t>(length));
    const auto device = link.substr(link.rfind('/') + 1);
    CAISSON_TRY(tell_driver("unbind", device));
    return tell_driver("bind", device);
}

Result<std::string> ready_device(const wire::DiskMount& disk) {
    auto name = find_disk(serial_of(disk));
    if (name.empty()) return failure(Errc::kGuest, "this machine has no device for " + name_of(disk));
    if (device_bytes(name) == disk.size_bytes()) return name;
    CAISSON_TRY_CTX(look_again(name), name_of(disk));
    CAISSON_TRY_CTX(wait_for_device(
                        [&] {
                            name = find_disk(serial_of(disk));
                            return !name.empty() && device_bytes(name) == disk.size_bytes() && os::exists(std::string(kDevices) + "/" + name);
                        },
                        kDeadline, "the disk"),
                    name_of(disk));
    return name;
}

Result<> configure(const os::Fd& context, unsigned command, const char* key, const char* value) {
    if (::syscall(SYS_fsconfig, context.get(), command, key, value, 0) == 0) return {};
    return failure_errno(std::string("cannot set ") + (key != nullptr ? key : "up"));
}

base::Failure not_mounted(const wire::DiskMount& disk, int error) {
    if (error == EROFS && disk.read_only())
        return failure(Errc::kGuest, name_of(disk) + " was not unmounted by the last box that wrote to it, which was killed; what its journal "
                                                     "holds cannot be taken in while it is read-only: mount it once for writing");
    if (error == ENOMEM || error == EIO) return failure_errno("cannot read the disk of " + name_of(disk), error);
    return failure_errno(name_of(disk) + " holds no ext4 file system that can be mounted; a box has damaged it, or it is not what caisson made", error);
}

// Damage that is found later stops everything from being written, as on the root disk.
Result<os::Fd> mount_disk(const wire::DiskMount& disk, const std::string& device) {
    os::Fd context(static_cast<int>(::syscall(SYS_fsopen, "ext4", FSOPEN_CLOEXEC)));
    if (!context) return failure_errno("cannot begin to mount " + name_of(disk));
    // Of the initial file system, as the root disk's: what mounts of a container show has no other places in it. Names and
    // numbers of such devices go together, so that the node is right although it was made before.
    const std::string source = "/dev/" + device;
    CAISSON_TRY(configure(context, FSCONFIG_SET_STRING, "source", source.c_str()));
    CAISSON_TRY(configure(context, FSCONFIG_SET_STRING, "errors", "remount-ro"));
    CAISSON_TRY(configure(context, FSCONFIG_SET_FLAG, "noinit_itable", nullptr));
    CAISSON_TRY(configure(context, FSCONFIG_SET_FLAG, "no_prefetch_block_bitmaps", nullptr));
    CAISSON_TRY(configure(context, FSCONFIG_SET_FLAG, disk.read_only() ? "ro" : "discard", nullptr));
    if (auto made = configure(context, FSCONFIG_CMD_CREATE, nullptr, nullptr); !made) return not_mounted(disk, made.error().sys_errno);
    const unsigned attributes = MOUNT_ATTR_NODEV | MOUNT_ATTR_NOATIME | (disk.read_only() ? MOUNT_ATTR_RDONLY : 0u) |
                                (disk.no_exec() ? MOUNT_ATTR_NOEXEC : 0u) | (disk.no_suid() ? MOUNT_ATTR_NOSUID : 0u);
    os::Fd tree(static_cast<int>(::syscall(SYS_fsmount, context.get(), FSMOUNT_CLOEXEC, attributes)));
    if (!tree) return failure_errno("cannot mount " + name_of(disk));
    return tree;
}

}  // namespace

std::string find_disk(std::string_view serial) {
    auto names = os::list_directory(blocks());
    if (!names) return {};
    // Each is asked over a queue to the host. What is looked for is seldom the first disk, which is the box's own.
    std::sort(names->rbegin(), names->rend());
    for (const auto& name : *names) {
        auto said = os::read_file(blocks() + "/" + name + "/serial", 64);
        if (said && base::trim(*said) == serial) return name;
    }
    return {};
}

std::uint64_t device_bytes(const std::string& name) {
    auto sectors = os::read_file(blocks() + "/" + name + "/size", 64);
    if (!sectors) return 0;
    return base::parse_u64(base::trim(*sectors)).value_or(0) * 512;
}

Result<std::vector<ShareTree>> take_disks(const WantedDisks& wanted, std::set<std::string>& devices) {
    std::vector<ShareTree> trees;
    for (const auto& disk : wanted) {
        CAISSON_TRY(check_mount_path(disk.target()));
        const auto device = CAISSON_TRY(ready_device(disk));
        ShareTree tree;
        tree.tree = CAISSON_TRY(mount_disk(disk, device));
        tree.entry = "disk" + std::to_string(disk.place());
        tree.target = disk.target();
        tree.directory = true;
        trees.push_back(std::move(tree));
        devices.insert(device);
    }
    return trees;
}

}  // namespace caisson::agent
