#include "volume/host.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
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

// A mount of its own of what a descriptor is open on: see detached_mount().
Result<os::Fd> mount_of(int file, bool read_only, const std::string& what) {
    os::Fd tree(static_cast<int>(::syscall(SYS_open_tree, file, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)));
    if (!tree) return failure_errno("cannot make a mount of " + what);
    mount_attr attributes{};
    attributes.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | (read_only ? MOUNT_ATTR_RDONLY : 0u);
    attributes.propagation = MS_PRIVATE;
    if (::syscall(SYS_mount_setattr, tree.get(), "", AT_EMPTY_PATH, &attributes, sizeof attributes) != 0)
        return failure_errno("cannot set how " + what + " is mounted");
    return tree;
}

// The same file, open through a mount of its own: what is not to be written there cannot be opened again for writing.
Result<os::Fd> open_apart(const os::Fd& count, bool read_only, const std::string& what) {
    auto tree = CAISSON_TRY(mount_of(count.get(), read_only, what));
    const auto path = "/proc/self/fd/" + std::to_string(tree.get());
    auto apart = CAISSON_TRY(os::open_file(path, read_only ? O_RDONLY : O_RDWR));
    // As Catalogue::open_space() promises it of what it gives. Nobody can have it exclusively now.
    if (::flock(apart.get(), LOCK_SH | LOCK_NB) != 0) return failure_errno("cannot lock " + what);
    return apart;
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
    auto count = CAISSON_TRY(catalogue.open_space(kind, mount.volume(), order.limit_bytes > 0));
    const bool counts = order.limit_bytes > 0 && !mount.read_only();
    order.descriptors.push_back(detached ? CAISSON_TRY(open_apart(count, !counts, "the count of " + name_of(mount))) : std::move(count));
    return share::give_order(orders, order);
}

}  // namespace

Result<os::Fd> detached_mount(const Pinned& pinned, const wire::BoxMount& mount) {
    return mount_of(pinned.file.get(), mount.read_only(), name_of(mount));
}

Result<> ShareHost::serve(const Catalogue& catalogue, const wire::BoxMounts& mounts) {
    auto served = give_and_take(catalogue, mounts);
    if (!served && served.error().code == Errc::kTimeout) {
        init_.kill();
        static_cast<void>(process_.send_signal(SIGKILL));
    }
    return served;
}

Result<> ShareHost::give_and_take(const Catalogue& catalogue, const wire::BoxMounts& mounts) {
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
    const struct timeval patience {kAnswerPatience.count(), 0};
    for (int wait : {SO_RCVTIMEO, SO_SNDTIMEO})
        if (::setsockopt(sockets.first.get(), SOL_SOCKET, wait, &patience, sizeof patience) != 0)
            return failure_errno("cannot limit how long a server is waited for");
    // Not this process's own standard error, which is a file: whoever holds one can open it anew, empty it and grow it.
    auto words = CAISSON_TRY(os::make_pipe());
    auto description = share_jail(options_.program, *options_.sandbox);
    description.descriptors = {{sockets.second.get(), kShareOrdersFd}, {words.second.get(), STDERR_FILENO}, {port_.get(), kSharePortFd},
                               {window_.get(), kShareWindowFd}};
    description.groups = options_.groups;
    auto jailed = CAISSON_TRY(jail::start(description, *options_.sandbox));
    process_ = std::move(jailed.process);
    init_ = std::move(jailed.init);
    init_.learn();  // it has read nothing yet
    orders_ = std::move(sockets.first);
    words_ = std::move(words.first);
    port_.reset();
    window_.reset();
    return {};
}

std::string ShareHost::last_words() {
    char text[4096];
    if (!words_ || !os::set_nonblocking(words_.get(), true)) return {};
    const ssize_t got = ::read(words_.get(), text, sizeof text);
    std::string_view line(text, static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    constexpr std::string_view kName = "caisson-share: ";
    if (base::starts_with(line, kName)) line.remove_prefix(kName.size());
    return base::printable(line.substr(0, line.find('\n')), kMostLastWords);
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
