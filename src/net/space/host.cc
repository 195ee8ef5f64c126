#include "net/space/host.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/text.h"
#include "net/space/protocol.h"
#include "net/space/tun.h"

namespace caisson::net {

using base::failure;
using base::failure_errno;

namespace {

std::string text_of(const char (&text)[240]) { return base::printable(std::string_view(text, ::strnlen(text, sizeof text))); }

base::Failure failed(const NetnsSaid& said) {
    const bool refused = said.error == EPERM || said.error == EACCES;
    return failure(refused ? Errc::kPermission : Errc::kHostMissing, "cannot make the box's network: " + text_of(said.text), text_of(said.hint));
}

}  // namespace

Result<SpaceHost> SpaceHost::start(const Options& options) {
    const uid_t user = options.user.value_or(::geteuid());
    os::Fd opened;
    if (options.tun < 0) opened = CAISSON_TRY(open_tun_node(user));
    const int tun = options.tun < 0 ? opened.get() : options.tun;
    auto to_launcher = CAISSON_TRY(os::make_socketpair(SOCK_SEQPACKET));
    auto to_netd = CAISSON_TRY(os::make_socketpair(SOCK_SEQPACKET));
    os::Command command;
    command.arguments = {options.program};
    command.descriptors = {{to_launcher.second.get(), kNetnsLauncherFd}, {tun, kNetnsTunFd}, {to_netd.second.get(), kNetnsAskFd}};
    if (options.error_fd >= 0) command.descriptors.push_back({options.error_fd, STDERR_FILENO});
    command.new_session = true;
    command.die_with_parent = true;
    command.groups = options.groups;
    if (user != ::geteuid()) command.user = command.group = user;
    SpaceHost host;
    host.process_ = CAISSON_TRY_CTX(os::spawn(command), "starting the box's network");
    host.launcher_ = std::move(to_launcher.first);
    host.ask = std::move(to_netd.first);
    return host;
}

Result<> SpaceHost::wait() {
    struct pollfd waited {launcher_.get(), POLLIN, 0};
    int ready;
    do ready = ::poll(&waited, 1, kPatienceMs);
    while (ready < 0 && errno == EINTR);
    if (ready == 0) return failure(Errc::kTimeout, "the box's network is not there after " + std::to_string(kPatienceMs / 1000) + " s");
    NetnsSaid said;
    char room[sizeof said];
    auto packet = os::receive_packet(launcher_.get(), room);
    if (packet.length != sizeof said) return failure(Errc::kHostMissing, "caisson-netns, which makes the box's network, ended at once");
    std::memcpy(&said, room, sizeof said);
    if (said.kind == NetnsSaid::Kind::kFailed) return failed(said);
    if (packet.descriptors.size() != 3) return failure(Errc::kProtocol, "caisson-netns handed over no network");
    tap = std::move(packet.descriptors[0]);
    listener = std::move(packet.descriptors[1]);
    datagrams = std::move(packet.descriptors[2]);
    return {};
}

Result<os::Fd> SpaceHost::another_ask() {
    auto pair = CAISSON_TRY(os::make_socketpair(SOCK_SEQPACKET));
    std::vector<os::Fd> descriptors;
    descriptors.push_back(std::move(pair.second));
    if (!os::send_packet(launcher_.get(), "a", descriptors)) return failure_errno("cannot give the box's network another relay");
    return std::move(pair.first);
}

}  // namespace caisson::net
