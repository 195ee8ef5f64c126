#include "box/launcher.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "box/shim.h"
#include "os/file.h"

namespace caisson::box {

using base::failure;
using base::failure_errno;

namespace {

// One packet; both ends are the same program. Behind it the error's message and hint, each with a zero byte behind it.
struct Packet {
    LauncherNews::Kind kind;
    bool signalled;
    std::int32_t number;
    std::int32_t code;
    std::int32_t error_number;
};

std::size_t descriptors_of(LauncherNews::Kind kind) {
    if (kind == LauncherNews::Kind::kStarted) return 3;  // control socket, agent, console
    return kind == LauncherNews::Kind::kJailed || kind == LauncherNews::Kind::kNetwork ? 1 : 0;
}

// Its text is a message of the schema.
bool is_packed(LauncherNews::Kind kind) { return kind == LauncherNews::Kind::kShare || kind == LauncherNews::Kind::kDisk || kind == LauncherNews::Kind::kPorts; }

Result<> tell_launcher(int socket, std::string_view bytes) {
    if (os::send_packet(socket, bytes)) return {};
    return failure_errno("the box's launcher does not listen");
}

Result<LauncherNews> parse(const char* bytes, std::size_t size, std::vector<os::Fd> descriptors) {
    Packet packet{};
    const auto wrong = [] { return failure(Errc::kProtocol, "the box's launcher said something else"); };
    if (size < sizeof packet) return wrong();
    std::memcpy(&packet, bytes, sizeof packet);
    LauncherNews news;
    news.kind = packet.kind;
    if (news.kind < LauncherNews::Kind::kStarted || news.kind > LauncherNews::Kind::kGone) return wrong();
    if (descriptors.size() != descriptors_of(news.kind)) return wrong();
    news.signalled = packet.signalled;
    news.number = packet.number;
    news.descriptors = std::move(descriptors);
    if (packet.code < 0 || packet.code > static_cast<int>(Errc::kInternal)) return wrong();
    news.error.code = static_cast<Errc>(packet.code);
    news.error.sys_errno = packet.error_number;
    std::string_view text(bytes + sizeof packet, size - sizeof packet);
    if (is_packed(news.kind)) {  // bytes, and no text
        news.error.message = text;
        return news;
    }
    const auto end = text.find('\0');
    if (end == std::string_view::npos) return news;
    news.error.message = text.substr(0, end);
    text.remove_prefix(end + 1);
    news.error.hint = text.substr(0, text.find('\0'));
    return news;
}

}  // namespace

Result<> send_news(int socket, const LauncherNews& news) {
    Packet packet{};  // with its padding, which is sent as well
    packet.kind = news.kind;
    packet.signalled = news.signalled;
    packet.number = news.number;
    packet.code = static_cast<int>(news.error.code);
    packet.error_number = news.error.sys_errno;
    std::string bytes(reinterpret_cast<const char*>(&packet), sizeof packet);
    if (is_packed(news.kind)) {
        if (news.error.message.size() > kMostLauncherText) return failure(Errc::kInternal, "what the supervisor is to know is too long for one packet");
        bytes += news.error.message;
    } else for (const auto* text : {&news.error.message, &news.error.hint}) {
        bytes.append(*text, 0, std::min(text->size(), kMostLauncherText / 2 - 1));
        bytes += '\0';
    }
    if (news.descriptors.size() > os::kMostPacketDescriptors) return failure(Errc::kInternal, "too many descriptors for one packet");
    if (os::send_packet(socket, bytes, news.descriptors)) return {};
    return failure_errno("cannot tell the supervisor");
}

Result<std::optional<LauncherNews>> receive_news(int socket) {
    char bytes[sizeof(Packet) + kMostLauncherText];
    auto packet = os::receive_packet(socket, bytes);
    if (packet.length < 0 && errno == EAGAIN) return std::optional<LauncherNews>();
    if (packet.length < 0) return failure_errno("the box's launcher does not answer");
    if (packet.length == 0) return failure(Errc::kIo, "the box's launcher is gone");
    if (packet.cut) return failure(Errc::kIo, "too many descriptors are open");
    return std::optional<LauncherNews>(CAISSON_TRY(parse(bytes, static_cast<std::size_t>(packet.length), std::move(packet.descriptors))));
}

wire::Launch launcher_request(const wire::Launch& launch) {
    auto request = launch;
    request.clear_database();
    auto& spec = *request.mutable_spec();
    spec.clear_configure();
    spec.clear_exec();
    spec.clear_labels();
    spec.clear_health();
    spec.clear_warm();
    return request;
}

Result<Launcher> Launcher::start(const wire::Launch& launch, int kvm_fd, int tun_fd) {
    auto sockets = CAISSON_TRY(os::make_socketpair(SOCK_SEQPACKET));
    // Our own file, and not whatever has its name by now.
    auto program = CAISSON_TRY(os::open_file("/proc/self/exe", O_PATH));
    os::Command command;
    command.arguments = {kLauncherName, launch.box_directory()};
    command.program_fd = program.get();
    command.descriptors = {{sockets.second.get(), kShimClientFd}, {STDERR_FILENO, STDERR_FILENO}};
    if (launch.shape().kvm()) command.descriptors.push_back({kvm_fd, kShimKvmFd});
    if (launch.shape().network()) command.descriptors.push_back({tun_fd, kShimTunFd});
    command.die_with_parent = true;
    auto process = CAISSON_TRY_CTX(os::spawn(command), "starting the box's launcher");
    Launcher launcher(std::move(process), std::move(sockets.first));
    std::string request;
    if (!launcher_request(launch).SerializeToString(&request) || request.size() > kMostLauncherRequest)
        return failure(Errc::kLimit, "the paths of the box are too long", "use a home and assets with shorter paths");
    CAISSON_TRY(tell_launcher(launcher.socket(), request));
    CAISSON_TRY(os::set_nonblocking(launcher.socket(), true));
    return launcher;
}

Result<> Launcher::ask(LauncherVerb verb) {
    CAISSON_TRY(tell_launcher(socket_.get(), {reinterpret_cast<const char*>(&verb), sizeof verb}));
    if (verb == LauncherVerb::kEnd) ++ends_;
    return {};
}

Result<std::optional<LauncherNews>> Launcher::next() {
    auto news = CAISSON_TRY(receive_news(socket_.get()));
    if (news && news->kind == LauncherNews::Kind::kGone && ends_ > 0) --ends_;
    return news;
}

Result<> Launcher::end(std::chrono::milliseconds patience) {
    const auto give_up = std::chrono::steady_clock::now() + patience;
    CAISSON_TRY(ask(LauncherVerb::kEnd));
    while (!at_rest()) {
        if (CAISSON_TRY(next())) continue;
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(give_up - std::chrono::steady_clock::now());
        if (left.count() <= 0) return failure(Errc::kTimeout, "the box's launcher does not end its machine");
        struct pollfd readable {socket_.get(), POLLIN, 0};
        if (::poll(&readable, 1, static_cast<int>(left.count())) < 0 && errno != EINTR)
            return failure_errno("waiting for the box's launcher");
    }
    return {};
}

}  // namespace caisson::box
