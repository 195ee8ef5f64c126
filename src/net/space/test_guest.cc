#include "net/space/test_guest.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "net/space/link.h"
#include "net/space/netlink.h"
#include "net/space/tun.h"
#include "os/file.h"
#include "os/host.h"

namespace caisson::net::testing_space {

using base::failure_errno;

Result<> become_able() {
    const auto user = ::geteuid();
    const auto group = ::getegid();
    if (user == 0) return {};
    if (::unshare(CLONE_NEWUSER) != 0) return failure_errno("cannot make a user namespace");
    const auto write = [](const char* path, const std::string& text) -> Result<> {
        auto file = CAISSON_TRY(os::open_file(path, O_WRONLY));
        return os::write_all(file.get(), text);
    };
    CAISSON_TRY(write("/proc/self/setgroups", "deny"));
    CAISSON_TRY(write("/proc/self/uid_map", std::to_string(user) + " " + std::to_string(user) + " 1"));
    return write("/proc/self/gid_map", std::to_string(group) + " " + std::to_string(group) + " 1");
}

OtherThread::OtherThread() : thread_([this] { loop(); }) {}

OtherThread::~OtherThread() {
    {
        const std::lock_guard lock(mutex_);
        ending_ = true;
    }
    changed_.notify_all();
    thread_.join();
}

void OtherThread::run(const std::function<void()>& body) {
    std::unique_lock lock(mutex_);
    body_ = &body;
    changed_.notify_all();
    changed_.wait(lock, [&] { return body_ == nullptr; });
}

void OtherThread::loop() {
    std::unique_lock lock(mutex_);
    for (;;) {
        changed_.wait(lock, [&] { return body_ != nullptr || ending_; });
        if (ending_) return;
        (*body_)();
        body_ = nullptr;
        changed_.notify_all();
    }
}

bool readable(const os::Fd& fd, int milliseconds) {
    struct pollfd waited {fd.get(), POLLIN, 0};
    return ::poll(&waited, 1, milliseconds) == 1;
}

Result<Box> Box::start(uid_t user) {
    Box box{CAISSON_TRY(SpaceHost::start({.program = os::program_directory() + "/../libexec/caisson/caisson-netns", .user = user}))};
    CAISSON_TRY(box.host.wait());
    return box;
}

std::optional<NetnsMessage> Box::hear(int milliseconds, std::vector<os::Fd>* descriptors) const {
    if (!readable(host.ask, milliseconds)) return std::nullopt;
    NetnsMessage message;
    char room[sizeof message];
    auto packet = os::receive_packet(host.ask.get(), room);
    if (packet.length != sizeof message) return std::nullopt;
    std::memcpy(&message, room, sizeof message);
    if (descriptors != nullptr) *descriptors = std::move(packet.descriptors);
    return message;
}

void Box::tell(const NetnsMessage& message) const {
    static_cast<void>(os::send_packet(host.ask.get(), base::as_text(base::bytes_of(message))));
}

void Box::judge(std::uint64_t number, NetnsMessage::Verdict verdict) const {
    NetnsMessage message;
    message.kind = NetnsMessage::Kind::kVerdict;
    message.number = number;
    message.verdict = verdict;
    tell(message);
}

Result<os::Fd> Box::make(NetnsMessage::Kind kind, Protocol protocol, const Endpoint& guest, const Endpoint& outside) const {
    NetnsMessage message;
    message.kind = kind;
    message.protocol = protocol;
    message.number = 4711;
    message.guest = guest;
    message.outside = outside;
    tell(message);
    std::vector<os::Fd> descriptors;
    auto answer = hear(5000, &descriptors);
    if (!answer || answer->kind != NetnsMessage::Kind::kMade || answer->number != message.number)
        return base::failure(Errc::kIo, "no answer");
    if (answer->error != 0 || descriptors.size() != 1) return failure_errno("made", answer->error);
    return std::move(descriptors[0]);
}

os::Fd Box::accept(int milliseconds) const {
    if (!readable(host.listener, milliseconds)) return os::Fd();
    return os::Fd(::accept4(host.listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
}

namespace {

Address known(const char* text) { return Address::parse(text).value(); }

// The kernel puts an IPv6 address into its routes a little later than it says so; what arrives before is lost.
Result<> wait_for_routes() {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    while (std::chrono::steady_clock::now() < deadline) {
        auto routes = CAISSON_TRY(os::read_file("/proc/thread-self/net/ipv6_route"));
        if (routes.find("fd00ca15000000000000000000000002 80") != std::string::npos) return {};
        std::this_thread::yield();
    }
    return failure_errno("the guest's IPv6 address never came", ETIMEDOUT);
}

// In the calling thread's new namespace.
Result<os::Fd> make_guest_side(bool fixed_neighbours) {
    auto node = CAISSON_TRY(open_tun_node(::geteuid()));
    if (::unshare(CLONE_NEWNET) != 0) return failure_errno("cannot make the guest's namespace");
    os::Fd tap(::open(("/proc/self/fd/" + std::to_string(node.get())).c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK));
    struct ifreq wanted {};
    wanted.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    std::strcpy(wanted.ifr_name, "eth0");
    if (!tap || ::ioctl(tap.get(), TUNSETIFF, &wanted) != 0) return failure_errno("cannot make the guest's tap");
    if (::ioctl(tap.get(), TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6) != 0) return failure_errno("offloads");
    const unsigned link = ::if_nametoindex("eth0"), loopback = ::if_nametoindex("lo");
    NetlinkBatch batch;
    bring_up(batch, loopback);
    set_hardware(batch, link, kGuestHardware);
    bring_up(batch, link);
    add_address(batch, link, known(kGuestAddress), kPrefix4);
    add_address(batch, link, known(kGuestAddress6), kPrefix6);
    add_route(batch, link, RTN_UNICAST, Address::v4(0), 0, known(kGatewayAddress));
    add_route(batch, link, RTN_UNICAST, Address(), 0, known(kGatewayAddress6));
    if (fixed_neighbours) {
        add_neighbour(batch, link, known(kGatewayAddress), kGatewayHardware);
        add_neighbour(batch, link, known(kGatewayAddress6), kGatewayHardware);
    }
    auto routing = CAISSON_TRY(NetlinkSocket::open(NETLINK_ROUTE));
    CAISSON_TRY(routing.carry_out(batch));
    CAISSON_TRY(wait_for_routes());
    return tap;
}

}  // namespace

Result<std::unique_ptr<Guest>> Guest::create(const os::Fd& box_tap, bool fixed_neighbours) {
    std::unique_ptr<Guest> guest(new Guest);
    guest->box_tap_ = CAISSON_TRY(box_tap.duplicate());
    guest->stop_ = CAISSON_TRY(os::make_pipe());
    Result<os::Fd> made;
    guest->world_.run([&] { made = make_guest_side(fixed_neighbours); });
    guest->tap_ = CAISSON_TRY(std::move(made));
    guest->pump_ = std::thread([pumping = guest.get()] { pumping->pump(); });
    return guest;
}

Guest::~Guest() {
    stop_.second.reset();
    if (pump_.joinable()) pump_.join();
}

void Guest::pump() {
    std::vector<char> frame(1 << 17);
    struct pollfd waited[] = {{box_tap_.get(), POLLIN, 0}, {tap_.get(), POLLIN, 0}, {stop_.first.get(), POLLIN, 0}};
    while (::poll(waited, 3, -1) > 0 && waited[2].revents == 0) {
        for (int i = 0; i < 2; ++i) {
            if (waited[i].revents == 0) continue;
            const ssize_t got = ::read(waited[i].fd, frame.data(), frame.size());
            if (got > 0) static_cast<void>(!::write(waited[1 - i].fd, frame.data(), static_cast<std::size_t>(got)));
            if (got < 0 && errno != EAGAIN) return;  // its link is gone
        }
    }
}

os::Fd Guest::socket(int family, int type, int protocol) {
    os::Fd made;
    world_.run([&] { made = os::Fd(::socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol)); });
    return made;
}

os::Fd Guest::connect(const Endpoint& outside) {
    auto made = socket(outside.address.is_v4() ? AF_INET : AF_INET6, SOCK_STREAM);
    auto address = to_socket(outside);
    static_cast<void>(::connect(made.get(), address.get(), address.length));
    return made;
}

void Guest::inject(base::ByteView frame) const {
    constexpr std::size_t kVirtioHeader = 10;  // zeros: whole, with checksums
    base::Bytes whole(kVirtioHeader);
    base::append(whole, frame);
    static_cast<void>(!::write(box_tap_.get(), whole.data(), whole.size()));
}

std::optional<int> outcome(const os::Fd& socket, int milliseconds) {
    struct pollfd waited {socket.get(), POLLOUT, 0};
    if (::poll(&waited, 1, milliseconds) != 1) return std::nullopt;
    int error = -1;
    socklen_t length = sizeof error;
    if (::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &length) != 0) return errno;
    return error;
}

Endpoint guest_endpoint(bool six, std::uint16_t port) { return {known(six ? kGuestAddress6 : kGuestAddress), port}; }

Endpoint own_name(const os::Fd& socket) {
    SocketAddress name;
    name.length = sizeof name.storage;
    if (::getsockname(socket.get(), name.get(), &name.length) != 0) return {};
    return from_socket(name.get(), name.length).value_or(Endpoint{});
}

Endpoint peer_name(const os::Fd& socket) {
    SocketAddress name;
    name.length = sizeof name.storage;
    if (::getpeername(socket.get(), name.get(), &name.length) != 0) return {};
    return from_socket(name.get(), name.length).value_or(Endpoint{});
}

ssize_t send_to(const os::Fd& socket, const std::string& bytes, const Endpoint& to) {
    auto address = to_socket(to);
    return ::sendto(socket.get(), bytes.data(), bytes.size(), 0, address.get(), address.length);
}

}  // namespace caisson::net::testing_space
