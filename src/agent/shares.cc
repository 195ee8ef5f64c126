#include "agent/shares.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/mount.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "agent/boot.h"
#include "agent/container.h"
#include "agent/disks.h"
#include "agent/log.h"
#include "agent/mounts.h"
#include "agent/paths.h"
#include "agent/share_pump.h"
#include "base/text.h"
#include "os/file.h"
#include "wire/share.h"

namespace caisson::agent {

using base::failure;
using base::failure_errno;

namespace {

constexpr char kPortName[] = "share";

// The first messages on the port, framed as all that follow.
Result<> introduce(const os::Fd& port, std::uint32_t user, std::uint32_t group) {
    CAISSON_TRY(os::write_all(port.get(), base::bytes_of(wire::share_identity(user, group))));
    struct utsname kernel {};
    const bool drops = ::uname(&kernel) == 0 && drops_what_is_written_past(kernel.release);
    return os::write_all(port.get(), base::bytes_of(wire::share_keeps(drops ? wire::ShareKeeps::kWritesPast : 0)));
}

// As much as one answer carries: each costs a way to the host. Nothing may be asked of the file system here, which nobody
// serves yet. Without it files are read a little slower.
void read_far_ahead() {
    struct statx status {};
    if (::statx(AT_FDCWD, kShares, AT_STATX_DONT_SYNC, 0, &status) != 0) return;
    const std::string device = std::to_string(status.stx_dev_major) + ":" + std::to_string(status.stx_dev_minor);
    const auto setting = os::open_file(std::string(kSys) + "/class/bdi/" + device + "/read_ahead_kb", O_WRONLY);
    if (setting) static_cast<void>(os::write_all(setting->get(), base::as_bytes("1024")));
}

// By which what files hold goes faster than through the port. Without one all goes there.
os::Fd open_window() {
    const auto name = find_disk(wire::kShareWindowSerial);
    if (name.empty() || device_bytes(name) != wire::kShareWindowBytes) return {};
    auto device = os::open_file(std::string(kDevices) + "/" + name, O_RDWR | O_DIRECT);
    return device ? std::move(*device) : os::Fd();
}

[[noreturn]] void pump_main(os::Fd fuse, os::Fd port, os::Fd window) {
    // Nothing else of the agent's is this process's business: 3 to 5 stay.
    if (::dup2(fuse.get(), 252) >= 0 && ::dup2(port.get(), 253) >= 0 && (!window || ::dup2(window.get(), 254) >= 0) && ::dup2(252, 3) >= 0 &&
        ::dup2(253, 4) >= 0 && (!window || ::dup2(254, 5) >= 0)) {
        ::close_range(window ? 6 : 5, ~0U, 0);
        if (auto pumped = pump_share(3, 4, os::Fd(window ? 5 : -1)); !pumped) log_failure("shares: " + pumped.error().to_string());
    }
    ::_exit(0);
}

}  // namespace

bool drops_what_is_written_past(std::string_view release) {
    using Version = std::array<std::uint64_t, 3>;
    constexpr Version kSince{6, 19, 0}, kLongTerm{6, 12, 64};
    Version version{};
    for (auto& part : version) {
        const auto digits = std::min(release.find_first_not_of("0123456789"), release.size());
        part = base::parse_u64(release.substr(0, digits)).value_or(0);
        release.remove_prefix(std::min(digits + 1, release.size()));
    }
    return version >= kSince || (version >= kLongTerm && version[0] == kLongTerm[0] && version[1] == kLongTerm[1]);
}

Result<Shares> Shares::start(std::uint32_t user, std::uint32_t group) {
    const auto path = find_port(kPortName);
    if (path.empty()) return failure(Errc::kGuest, "this machine has no port for shares");
    auto port = CAISSON_TRY(os::open_file(path, O_RDWR | O_NOCTTY));
    CAISSON_TRY(introduce(port, user, group));
    auto fuse = CAISSON_TRY(os::open_file(std::string(kDevices) + "/fuse", O_RDWR));
    if (::mkdir(kShares, 0700) != 0 && errno != EEXIST) return failure_errno("cannot make a place for shares");
    const std::string options = "fd=" + std::to_string(fuse.get()) +
                                ",rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions";
    if (::mount("caisson", kShares, "fuse.caisson", MS_NODEV, options.c_str()) != 0) return failure_errno("cannot mount shares");
    read_far_ahead();
    auto window = open_window();
    Shares shares;
    shares.pump_ = CAISSON_TRY(fork_beside());
    if (shares.pump_.pid == 0) pump_main(std::move(fuse), std::move(port), std::move(window));
    return shares;
}

Result<ShareTree> Shares::take(const wire::ShareMount& mount) const {
    CAISSON_TRY(check_mount_path(mount.target()));
    const std::string what = "the volume at " + base::printable(mount.target(), 256);
    const std::string source = std::string(kShares) + "/" + mount.entry();
    if (mount.entry().find('/') != std::string::npos) return failure(Errc::kUsage, what + " has no entry");
    ShareTree share;
    share.entry = mount.entry();
    share.target = mount.target();
    share.directory = mount.directory();
    share.tree = os::Fd(static_cast<int>(::syscall(SYS_open_tree, AT_FDCWD, source.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)));
    if (!share.tree) return failure_errno("cannot reach " + what);
    // On the mount that nobody can see yet: nothing can be written through it in between.
    mount_attr attributes{};
    attributes.attr_set = MOUNT_ATTR_NODEV | (mount.read_only() ? MOUNT_ATTR_RDONLY : 0u) | (mount.no_exec() ? MOUNT_ATTR_NOEXEC : 0u) |
                          (mount.no_suid() ? MOUNT_ATTR_NOSUID : 0u);
    if (::syscall(SYS_mount_setattr, share.tree.get(), "", AT_EMPTY_PATH, &attributes, sizeof attributes) != 0)
        return failure_errno("cannot set how " + what + " is mounted");
    return share;
}

void Shares::stop() {
    if (!started()) return;
    static_cast<void>(::umount2(kShares, MNT_DETACH));
    // It ends by itself once the last use of the file system is gone, and that is when everything has been written.
    dispose(pump_);
}

namespace {
// The number of the mount that a descriptor is in.
Result<std::uint64_t> mount_of(const os::Fd& file) {
    struct statx status {};
    if (::statx(file.get(), "", AT_EMPTY_PATH, STATX_MNT_ID, &status) != 0) return failure_errno("cannot tell which mount this is");
    return status.stx_mnt_id;
}
}  // namespace

Result<PlacedShare> put_in_place(const ShareTree& share) {
    auto target = CAISSON_TRY(share.directory ? open_directory_target(share.target) : open_file_target(share.target));
    const auto mount = CAISSON_TRY(mount_of(share.tree));
    if (::syscall(SYS_move_mount, share.tree.get(), "", target.get(), "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) == 0)
        return PlacedShare{share.target, mount};
    if (errno == ENOTDIR)
        return failure(Errc::kUsage, base::printable(share.target, 256) + (share.directory ? " is a file in the image, and the volume is a directory"
                                                                                         : " is a directory in the image, and the volume's part is a file"));
    return failure_errno("cannot put the volume at " + base::printable(share.target, 256) + " in place");
}

Result<> take_away(const PlacedShare& share, bool even_if_used) {
    auto place = os::open_file(share.target, O_PATH | O_NOFOLLOW);
    // Whoever has unmounted it, or moved what it lay on, has done what is asked.
    if (!place || CAISSON_TRY(mount_of(*place)) != share.mount) return {};
    place->reset();
    if (::umount2(share.target.c_str(), UMOUNT_NOFOLLOW | (even_if_used ? MNT_DETACH : 0)) == 0) return {};
    if (errno == EBUSY) return failure_errno("a process in the box uses the volume at " + base::printable(share.target, 256), EBUSY);
    return failure_errno("cannot unmount the volume at " + base::printable(share.target, 256));
}

}  // namespace caisson::agent
