#include "box/listener.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdio>

#include "base/text.h"
#include "box/convert.h"
#include "box/launcher.h"
#include "box/shim.h"
#include "box/shim_lock.h"
#include "os/file.h"

namespace caisson::box {

using base::failure;
using base::failure_errno;
using std::chrono::milliseconds;

namespace {

// Descriptor numbers that a listener is started with, beside kShimClientFd for its socket.
constexpr int kQmpFd = 4, kAgentFd = 5, kConsoleFd = 6, kExitedFd = 7;
// What the listener takes beyond its deadline.
constexpr milliseconds kListenerGrace{10000};
constexpr const char* kOnlyAnswer = "answer";
constexpr const char* kFreeze = "freeze";

Result<> send_request(int socket, const vmm::Listening& listening) {
    wire::BuildTemplate request;
    request.set_disk_bytes(listening.disk_bytes);
    request.set_deadline_ms(static_cast<std::uint32_t>(milliseconds(listening.deadline).count()));
    if (listening.prepare) request.set_base_disk_path("prepare");
    for (const auto& path : listening.warm) request.add_warm(path);
    std::string bytes;
    if (!request.SerializeToString(&bytes) || bytes.size() > kMostLauncherRequest)
        return failure(Errc::kLimit, "the image names too much that is to be read beforehand");
    if (::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL) < 0) return failure_errno("the machine's listener does not listen");
    return {};
}

Result<os::Process> start(const vmm::Listening& listening, const os::Fd& socket) {
    auto program = CAISSON_TRY(os::open_file("/proc/self/exe", O_PATH));
    os::Command command;
    command.arguments = {kListenerName, listening.only_answer ? kOnlyAnswer : kFreeze};
    command.program_fd = program.get();
    // Not the client's socket: what comes from there counts as ours.
    command.descriptors = {{socket.get(), kShimClientFd},           {listening.qmp.get(), kQmpFd},
                           {listening.agent.get(), kAgentFd},       {listening.console.get(), kConsoleFd},
                           {listening.exited.get(), kExitedFd},     {STDERR_FILENO, STDERR_FILENO}};
    command.die_with_parent = true;
    return os::spawn(command);
}

Result<> wait_for_answer(const vmm::Listening& listening, int socket) {
    const auto give_up = std::chrono::steady_clock::now() + listening.deadline + kListenerGrace;
    for (;;) {
        const auto left = std::chrono::ceil<milliseconds>(give_up - std::chrono::steady_clock::now());
        struct pollfd wanted[] = {{socket, POLLIN, 0}, {listening.owner_gone_fd, POLLIN | POLLRDHUP, 0}};
        if (::poll(wanted, 2, static_cast<int>(std::max<long long>(0, left.count()))) < 0) {
            if (errno == EINTR) continue;
            return failure_errno("waiting for the machine's listener");
        }
        if (wanted[1].revents != 0) return failure(Errc::kCancelled, "the caller of a template's making went away");
        if (wanted[0].revents != 0) return {};
        if (left.count() <= 0) return failure(Errc::kTimeout, "the machine's listener does not answer");
    }
}

// It may have been taken over: what it says is for people, and nothing else.
Error made_printable(Error error) {
    error.message = base::printable(error.message, kMostLauncherText);
    std::vector<std::string> lines;
    for (const auto& line : base::split(error.hint, '\n')) lines.push_back(base::printable(line, kMostLauncherText));
    error.hint = base::join(lines, "\n");
    return error;
}

}  // namespace

tl::expected<void, vmm::BuildFailure> listen_in_own_process(vmm::Listening listening) {
    auto sockets = CAISSON_TRY(os::make_socketpair(SOCK_SEQPACKET));
    auto process = CAISSON_TRY_CTX(start(listening, sockets.second), "starting the machine's listener");
    sockets.second.reset();
    CAISSON_TRY(send_request(sockets.first.get(), listening));
    CAISSON_TRY(wait_for_answer(listening, sockets.first.get()));
    auto news = receive_news(sockets.first.get());
    if (!news || !*news) {
        auto ended = process.wait(kListenerGrace);
        return failure(Errc::kInternal, "the process that listens to the machine died" +
                                            (ended && ended->signalled ? " (killed by signal " + std::to_string(ended->code) + ")" : std::string()));
    }
    if ((*news)->kind == LauncherNews::Kind::kGone) return {};
    return tl::unexpected(vmm::BuildFailure(made_printable((*news)->error), (*news)->number == 1));
}

int serve_as_listener(os::Fd socket, std::string_view wanted) {
    ::prctl(PR_SET_NAME, "caisson-listen");
    std::string bytes(kMostLauncherRequest, '\0');
    const auto got = ::recv(socket.get(), bytes.data(), bytes.size(), 0);
    wire::BuildTemplate request;
    if (got <= 0 || !request.ParseFromArray(bytes.data(), static_cast<int>(got))) return 2;
    for (int number : {kQmpFd, kAgentFd, kConsoleFd, kExitedFd}) ::fcntl(number, F_SETFD, FD_CLOEXEC);
    vmm::Listening listening;
    listening.only_answer = wanted == kOnlyAnswer;
    listening.prepare = !request.base_disk_path().empty();
    listening.disk_bytes = request.disk_bytes();
    listening.warm.assign(request.warm().begin(), request.warm().end());
    listening.deadline = std::chrono::seconds(request.deadline_ms() / 1000);
    listening.qmp = os::Fd(kQmpFd);
    listening.agent = os::Fd(kAgentFd);
    listening.console = os::Fd(kConsoleFd);
    listening.exited = os::Fd(kExitedFd);
    LauncherNews answer{.kind = LauncherNews::Kind::kGone};
    auto locked = lock_shim("");
    auto heard = locked ? vmm::listen_to_machine(std::move(listening)) : tl::unexpected(vmm::BuildFailure(locked.error()));
    if (!heard) {
        answer.kind = LauncherNews::Kind::kFailed;
        answer.number = heard.error().no_answer ? 1 : 0;
        answer.error = std::move(heard).error().error;
    }
    return send_news(socket.get(), answer) ? 0 : 1;
}

}  // namespace caisson::box
