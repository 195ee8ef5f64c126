#include "net/space/tun.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>

#include "base/text.h"
#include "os/file.h"

namespace caisson::net {

using base::failure;
using base::failure_errno;

namespace {

constexpr const char* kNode = "/dev/net/tun";
// Documentation/admin-guide/devices.txt of the kernel
constexpr unsigned kMajor = 10, kMinor = 200;

bool may_use(const struct stat& node, uid_t user) {
    // By owner, group or list: only the user itself can tell.
    if (user == ::geteuid()) return ::access(kNode, R_OK | W_OK) == 0;
    constexpr mode_t kOwner = S_IRUSR | S_IWUSR, kOthers = S_IROTH | S_IWOTH;
    return node.st_uid == user ? (node.st_mode & kOwner) == kOwner : (node.st_mode & kOthers) == kOthers;
}

base::Failure refusal(Errc code, const std::string& why) {
    const std::string fix = code == Errc::kHostMissing ? "load it: modprobe tun (in a container: give it the device, docker run --device /dev/net/tun)"
                                                       : "let users open it, as most distributions do: chmod 0666 /dev/net/tun; or start caisson as root";
    return failure(code, "cannot use the tun device, with which a box's network is made: " + why, fix + "; or do without a network: --net none");
}

// In a directory of the device file system, as other places are often mounted without devices.
Result<os::Fd> private_node(uid_t user) {
    auto directory = CAISSON_TRY(os::TemporaryDirectory::create("/dev", ".caisson-tun-"));
    const auto path = directory.path() + "/tun";
    if (::mknod(path.c_str(), S_IFCHR | 0600, makedev(kMajor, kMinor)) != 0) return failure_errno("cannot make a node of the tun device");
    if (::chown(path.c_str(), user, static_cast<gid_t>(-1)) != 0) return failure_errno("cannot give a node of the tun device away");
    return os::open_file(path, O_PATH | O_NOFOLLOW);
}

}  // namespace

Result<os::Fd> open_tun_node(uid_t user) {
    struct stat node {};
    if (::stat(kNode, &node) == 0 && S_ISCHR(node.st_mode) && may_use(node, user)) return os::open_file(kNode, O_PATH);
    if (::geteuid() == 0) {
        auto made = private_node(user);
        if (made) return made;
        return refusal(Errc::kPermission, made.error().to_string());
    }
    if (::access(kNode, F_OK) != 0) return refusal(Errc::kHostMissing, "there is no " + std::string(kNode));
    return refusal(Errc::kPermission, std::string(kNode) + " is not for user " + std::to_string(user));
}

}  // namespace caisson::net
