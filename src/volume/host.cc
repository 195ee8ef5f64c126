#include "volume/host.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "base/text.h"
#include "os/file.h"
#include "volume/jail.h"
#include "volume/share/control.h"

namespace caisson::volume {

using base::failure;
using base::failure_errno;

namespace {

std::string name_of(const wire::BoxMount& mount) {
    return "the volume at " + base::printable(mount.target(), 256) + " ('" + base::printable(mount.volume(), 100) + "')";
}

// A mount of its own of what `path` and nothing else leads to, in no place: from its root no ".." leads out, and the
// kernel refuses through it what it is not for, whoever asks. For a process with a mount namespace of its own.
Result<os::Fd> detached_mount(const Pinned& pinned, const wire::BoxMount& mount) {
    os::Fd tree(static_cast<int>(::syscall(SYS_open_tree, pinned.file.get(), "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)));
    if (!tree) return failure_errno("cannot make a mount of " + name_of(mount));
    mount_attr attributes{};
    attributes.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | (mount.read_only() ? MOUNT_ATTR_RDONLY : 0u);
    if (::syscall(SYS_mount_setattr, tree.get(), "", AT_EMPTY_PATH, &attributes, sizeof attributes) != 0)
        return failure_errno("cannot set how " + name_of(mount) + " is mounted");
    return tree;
}

// Opens one volume, through the gate and in this process's own mount namespace, and gives it to the server.
Result<> give(const Catalogue& catalogue, const wire::BoxMount& mount, bool detached, int orders) {
    const auto kind = mount.anonymous() ? Kind::kAnonymous : Kind::kNamed;
    auto pinned = CAISSON_TRY(pin(catalogue.roots(), kind, mount.volume(), mount.subpath()));
    if (pinned.directory != mount.directory())
        return failure(Errc::kInUse, name_of(mount) + " is no longer a " + (mount.directory() ? "directory" : "file"));
    share::Order order;
    order.number = mount.number();
    order.read_only = mount.read_only();
    order.limit_bytes = mount.limit_bytes();
    order.owner = ::geteuid();
    order.group = ::getegid();
    order.descriptors.push_back(detached ? CAISSON_TRY(detached_mount(pinned, mount)) : std::move(pinned.file));
    order.descriptors.push_back(CAISSON_TRY(catalogue.open_space(kind, mount.volume(), order.limit_bytes > 0)));
    return share::give_order(orders, order);
}

}  // namespace

Result<> ShareHost::serve(const Catalogue& catalogue, const wire::BoxMounts& mounts) {
    std::set<std::uint32_t> wanted;
    std::vector<const wire::BoxMount*> added;
    for (const auto& mount : mounts.mounts()) {
        if (mount.disk()) continue;
        wanted.insert(mount.number());
        if (served_.count(mount.number()) == 0) added.push_back(&mount);
    }
    for (auto number = served_.begin(); number != served_.end();) {
        if (wanted.count(*number) > 0) {
            ++number;
            continue;
        }
        CAISSON_TRY(share::give_order(orders_.get(), {.kind = share::Order::Kind::kUnmount, .number = *number}));
        number = served_.erase(number);
    }
    if (added.empty()) return {};
    if (!started()) CAISSON_TRY_CTX(start(), "starting the server of the box's volumes");
    return hand_over(catalogue, added);
}

Result<> ShareHost::start() {
    if (!port_) return failure(Errc::kInternal, "this machine has no port for volumes");
    auto sockets = CAISSON_TRY(os::make_socketpair(SOCK_SEQPACKET));
    auto description = share_jail(options_.program, *options_.sandbox);
    description.descriptors = {{sockets.second.get(), kShareOrdersFd}, {STDERR_FILENO, STDERR_FILENO}, {port_.get(), kSharePortFd}};
    description.groups = options_.groups;
    auto jailed = CAISSON_TRY(jail::start(description, *options_.sandbox));
    process_ = std::move(jailed.process);
    init_ = std::move(jailed.init);
    init_.learn();  // it has read nothing yet
    orders_ = std::move(sockets.first);
    port_.reset();
    return {};
}

Result<> ShareHost::hand_over(const Catalogue& catalogue, const std::vector<const wire::BoxMount*>& mounts) {
    const bool detached = options_.sandbox != &jail::no_jail();
    auto all = [&]() -> Result<> {
        for (const auto* mount : mounts) CAISSON_TRY(give(catalogue, *mount, detached, orders_.get()));
        return {};
    };
    CAISSON_TRY(detached ? os::in_own_mount_namespace(all) : all());
    for (const auto* mount : mounts) served_.insert(mount->number());
    return {};
}

}  // namespace caisson::volume
