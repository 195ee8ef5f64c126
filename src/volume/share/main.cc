// caisson-share: the files of one box's volumes, for the box's kernel. It opens nothing but what lies below descriptors
// that it was handed, and ends with whoever started it.
//
//   0  orders, see control.h
//   3  FUSE messages, see server.h
//   4  the window, memory of wire::kShareWindowBytes (wire/share.h)
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <utility>

#include "volume/share/control.h"
#include "volume/share/limits.h"
#include "volume/share/server.h"

namespace caisson::volume::share {
namespace {

constexpr int kOrders = 0;
constexpr int kPort = 3;
constexpr int kWindow = 4;

// What all mounts of a volume have together, by the count's device and inode.
struct Known {
    std::weak_ptr<Presence> server;
    std::weak_ptr<Space> space;  // of those that can be written to
};
using Spaces = std::map<std::pair<dev_t, ino_t>, Known>;

// The count of a volume's used bytes is shared by all servers that have the volume mounted. Whoever may only read the
// volume may only read that.
Result<std::shared_ptr<Space>> open_space(const os::Fd& count, bool read_only, std::uint64_t limit_bytes, Spaces& spaces) {
    struct stat status {};
    if (::fstat(count.get(), &status) != 0 || status.st_size < static_cast<off_t>(sizeof(std::atomic<std::int64_t>)))
        return base::failure(Errc::kCorrupt, "the volume's count of used bytes is no count");
    auto& known = spaces[{status.st_dev, status.st_ino}];
    if (auto space = known.space.lock()) return space;
    auto server = known.server.lock();
    if (!server) known.server = server = CAISSON_TRY(Presence::enter(CAISSON_TRY(count.duplicate()), Presence::Of::kServer));
    void* memory = ::mmap(nullptr, sizeof(std::atomic<std::int64_t>), read_only ? PROT_READ : PROT_READ | PROT_WRITE, MAP_SHARED, count.get(), 0);
    if (memory == MAP_FAILED) return base::failure_errno("cannot map the volume's count of used bytes");
    auto space = std::make_shared<Space>(*static_cast<std::atomic<std::int64_t>*>(memory), limit_bytes, std::move(server));
    if (!read_only) known.space = space;
    return space;
}

Result<> carry_out(Server& server, Spaces& spaces, Order& order) {
    switch (order.kind) {
        case Order::Kind::kEnd: server.write_back(); return {};
        case Order::Kind::kUnmount:
            if (server.remove_mount(order.number)) return {};
            return base::failure(Errc::kNotFound, "there is no mount " + std::to_string(order.number));
        case Order::Kind::kMount: break;
    }
    const std::size_t given = order.descriptors.size();
    if (given > 2 || given < (order.limit_bytes > 0 ? 2u : 1u) || server.tree().mounts().count(order.number) > 0)
        return base::failure(Errc::kProtocol, "mount " + std::to_string(order.number) + " cannot be made");
    auto mount = std::make_shared<Mount>();
    mount->number = order.number;
    mount->root = std::move(order.descriptors[0]);
    mount->read_only = order.read_only;
    mount->owner = order.owner;
    mount->group = order.group;
    if (order.limit_bytes > 0) mount->space = CAISSON_TRY(open_space(order.descriptors[1], order.read_only, order.limit_bytes, spaces));
    server.leave_alone();  // the volume may be mounted here already
    if (given > 1) mount->presence = CAISSON_TRY(Presence::enter(std::move(order.descriptors[1])));
    server.add_mount(std::move(mount));
    return {};
}

// As many as the host allows, within reason.
void raise_limit() {
    struct rlimit limit {};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, kMostDescriptors);
    static_cast<void>(::setrlimit(RLIMIT_NOFILE, &limit));
}

Result<> serve() {
    raise_limit();
    auto loop = CAISSON_TRY(os::Loop::create());
    // Its size is sealed.
    void* window = ::mmap(nullptr, wire::kShareWindowBytes, PROT_READ | PROT_WRITE, MAP_SHARED, kWindow, 0);
    if (window == MAP_FAILED) return base::failure_errno("cannot map the window");
    Server server(loop, os::Fd(kPort), {static_cast<std::uint8_t*>(window), wire::kShareWindowBytes});
    Result<> ended;
    server.on_end = [&](const std::string& broken) {
        if (!broken.empty()) ended = base::failure(Errc::kProtocol, broken);
        loop.stop();
    };
    Spaces spaces;
    CAISSON_TRY(server.start());
    CAISSON_TRY(loop.watch(kOrders, EPOLLIN, [&](std::uint32_t) {
        auto order = take_order(kOrders);
        if (!order || !*order) {
            if (!order) ended = base::failure(std::move(order).error());
            return loop.stop();
        }
        answer_order(kOrders, carry_out(server, spaces, **order));
    }));
    CAISSON_TRY(loop.run());
    return ended;
}

}  // namespace
}  // namespace caisson::volume::share

int main() {
    auto served = caisson::volume::share::serve();
    if (served) return 0;
    std::fprintf(stderr, "caisson-share: %s\n", served.error().to_string().c_str());
    return 1;
}
