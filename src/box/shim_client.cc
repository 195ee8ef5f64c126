#include "box/shim_client.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "box/limits.h"
#include "box/shim.h"
#include "os/file.h"

namespace caisson::box {

// A supervisor greets whatever its guest does.
constexpr std::chrono::milliseconds kHelloPatience{10000};

using base::failure;

Result<std::unique_ptr<ShimClient>> ShimClient::start(const std::string& program, Inherited inherited,
                                                      const std::string& log_path) {
    auto sockets = CAISSON_TRY(os::make_socketpair(SOCK_STREAM));
    os::Command command;
    command.arguments = {program};
    command.descriptors = {{sockets.second.get(), kShimClientFd}};
    if (inherited.lock >= 0) command.descriptors.push_back({inherited.lock, kShimLockFd});
    if (inherited.kvm >= 0) command.descriptors.push_back({inherited.kvm, kShimKvmFd});
    if (inherited.tun >= 0) command.descriptors.push_back({inherited.tun, kShimTunFd});
    if (inherited.group >= 0) command.groups.procs = {inherited.group};
    os::Fd log;
    if (!log_path.empty()) {
        log = CAISSON_TRY(os::open_file(log_path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, 0600));
        command.descriptors.push_back({log.get(), 2});
        // While it runs a supervisor sees to that itself; this is for the file of many short ones.
        struct stat info {};
        if (::fstat(log.get(), &info) == 0 && info.st_size > limits::kMostSupervisorLogBytes) static_cast<void>(::ftruncate(log.get(), 0) == 0);
    }
    // Its own session: Ctrl-C at the caller's terminal is for the command, not for the supervisor.
    command.new_session = true;
    auto process = CAISSON_TRY_CTX(os::spawn(command), "starting the box's supervisor");
    CAISSON_TRY(os::set_nonblocking(sockets.first.get(), true));
    return std::unique_ptr<ShimClient>(new ShimClient(std::move(process), std::move(sockets.first)));
}

Result<std::unique_ptr<ShimClient>> ShimClient::connect(const std::string& box_directory) {
    auto directory = CAISSON_TRY(os::open_file(box_directory, O_RDONLY | O_DIRECTORY));
    const auto path = shim_socket_path(directory);
    os::Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!socket) return base::failure_errno("cannot make a socket");
    struct sockaddr_un address {};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.c_str(), std::min(path.size(), sizeof address.sun_path - 1));
    if (::connect(socket.get(), reinterpret_cast<const struct sockaddr*>(&address), sizeof address) != 0) {
        if (errno == ENOENT || errno == ECONNREFUSED) return failure(Errc::kNotFound, "the box has no supervisor");
        return base::failure_errno("cannot reach the box's supervisor");
    }
    CAISSON_TRY(os::set_nonblocking(socket.get(), true));
    std::unique_ptr<ShimClient> client(new ShimClient(os::Process(), std::move(socket)));
    wire::ToShim hello;
    hello.mutable_hello()->set_version_major(wire::kVersionMajor);
    hello.mutable_hello()->set_version_minor(wire::kVersionMinor);
    auto answer = [&]() -> Result<std::optional<wire::FromShim>> {
        CAISSON_TRY(client->send(hello));
        return client->receive(kHelloPatience);
    }();
    if (!answer && answer.error().code == Errc::kTimeout) return base::failure(std::move(answer.error()));
    // It may end at any moment.
    if (!answer || !*answer || !(*answer)->has_hello()) return failure(Errc::kNotFound, "the box's supervisor is ending");
    if ((*answer)->hello().version_major() != wire::kVersionMajor)
        return failure(Errc::kUnsupported, "the box was started by a caisson of another version",
                       "stop it and start it again; ls, logs, stop, kill and rm work");
    return client;
}

Result<> ShimClient::send(const wire::ToShim& message) {
    CAISSON_TRY(append_to_shim(connection_.out(), message));
    for (;;) {
        auto flushed = connection_.flush();
        // It hung up: what it said before, and that it is gone, is for whoever reads.
        if (!flushed && (flushed.error().sys_errno == EPIPE || flushed.error().sys_errno == ECONNRESET)) return {};
        CAISSON_TRY(std::move(flushed));
        if (connection_.queued_bytes() == 0) return {};
        struct pollfd writable {socket_.get(), POLLOUT, 0};
        if (::poll(&writable, 1, -1) < 0 && errno != EINTR) return base::failure_errno("waiting for the supervisor");
    }
}

Result<std::optional<wire::FromShim>> ShimClient::receive(std::optional<std::chrono::milliseconds> patience) {
    const auto give_up = std::chrono::steady_clock::now() + patience.value_or(std::chrono::milliseconds(0));
    for (;;) {
        if (auto frame = CAISSON_TRY(connection_.next())) {
            if (frame->type != wire::FrameType::kControl)
                return failure(Errc::kProtocol, "the supervisor sent a stream before the command ran");
            return std::optional<wire::FromShim>(CAISSON_TRY(parse_from_shim(frame->payload)));
        }
        struct pollfd readable {socket_.get(), POLLIN, 0};
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(give_up - std::chrono::steady_clock::now()).count();
        const int ready = ::poll(&readable, 1, patience ? static_cast<int>(std::max<long long>(0, left)) : -1);
        if (ready < 0) {
            if (errno == EINTR) continue;
            return base::failure_errno("waiting for the supervisor");
        }
        if (ready == 0)
            return failure(Errc::kTimeout, "the box's supervisor does not answer", "end it by force: caisson rm --force BOX");
        if (!CAISSON_TRY(connection_.fill())) {
            // Whatever came before the end of file is still to be returned.
            if (auto frame = CAISSON_TRY(connection_.next()); frame && frame->type == wire::FrameType::kControl)
                return std::optional<wire::FromShim>(CAISSON_TRY(parse_from_shim(frame->payload)));
            return std::optional<wire::FromShim>();
        }
    }
}

void ShimClient::close() {
    socket_.reset();
    if (process_.running()) static_cast<void>(process_.wait());
}

void ShimClient::leave() {
    socket_.reset();
    process_.release();
}

Result<wire::FromShim> parse_from_shim(base::ByteView payload) {
    wire::FromShim message;
    if (!message.ParseFromArray(payload.data(), static_cast<int>(payload.size())))
        return failure(Errc::kProtocol, "the supervisor sent something that is not a message");
    return message;
}

Result<> append_to_shim(base::Bytes& out, const wire::ToShim& message) {
    std::string payload;
    if (!message.SerializeToString(&payload) || payload.size() > wire::kMaxControlBytes)
        return failure(Errc::kLimit, "the request is larger than " + std::to_string(wire::kMaxControlBytes) + " bytes",
                       "pass less environment or a shorter command line");
    wire::append_frame(out, 0, wire::FrameType::kControl, base::as_bytes(payload));
    return {};
}

}  // namespace caisson::box
