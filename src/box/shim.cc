#include "box/shim.h"

#include <poll.h>

#include "box/convert.h"
#include "box/listener.h"
#include "box/supervisor.h"
#include "net/host.h"
#include "os/file.h"
#include "vmm/template.h"

namespace caisson::box {

using base::failure;

namespace {

// Blocks until the client's request is complete.
Result<wire::ToShim> read_request(int fd) {
    wire::Connection connection(fd);
    for (;;) {
        struct pollfd readable {fd, POLLIN, 0};
        if (::poll(&readable, 1, -1) < 0 && errno != EINTR) return base::failure_errno("waiting for the request");
        bool open = CAISSON_TRY(connection.fill());
        auto frame = CAISSON_TRY(connection.next());
        if (frame) {
            wire::ToShim request;
            if (frame->type != wire::FrameType::kControl ||
                !request.ParseFromArray(frame->payload.data(), static_cast<int>(frame->payload.size())))
                return failure(Errc::kProtocol, "the request is not a message");
            return request;
        }
        if (!open) return failure(Errc::kCancelled, "the client went away before it asked for anything");
    }
}

void build(os::Fd client, const wire::BuildTemplate& request) {
    vmm::BuildRequest build;
    build.templates = request.templates();
    build.key = request.key();
    build.shape = shape_from(request.shape());
    build.accelerator = accelerator_from(request.shape());
    build.tsc_khz = request.shape().tsc_khz();
    build.kvm_fd = kShimKvmFd;
    // Its card needs a tap, and nobody at the other end.
    net::NetworkHost network;
    build.base_disk_path = request.base_disk_path();
    build.disk_bytes = request.disk_bytes();
    build.warm.assign(request.warm().begin(), request.warm().end());
    build.image = request.image();
    build.assets = from_message(request.assets());
    build.deadline = std::chrono::seconds(request.deadline_ms() / 1000);
    build.listen = listen_in_own_process;
    auto built = [&]() -> tl::expected<std::string, vmm::BuildFailure> {
        if (build.shape.network) {
            network = CAISSON_TRY(net::NetworkHost::open({.netns_program = request.netns_program(), .tun_fd = kShimTunFd}));
            build.tap_fd = network.tap().get();
        }
        return vmm::build_template(build, client.get());
    }();
    wire::FromShim answer;
    if (built) {
        answer.mutable_template_built()->set_directory(*built);
    } else {
        to_message(built.error().error, *answer.mutable_error());
        answer.mutable_error()->set_no_answer(built.error().no_answer);
    }
    std::string payload;
    base::Bytes frame;
    if (answer.SerializeToString(&payload)) {
        wire::append_frame(frame, 0, wire::FrameType::kControl, base::as_bytes(payload));
        static_cast<void>(os::write_all(client.get(), frame));
    }
}

Result<> supervise(os::Fd client, wire::Launch launch) {
    Standing standing;
    for (;;) {
        Supervisor supervisor(CAISSON_TRY(os::Loop::create()), std::move(client), std::move(launch), standing);
        if (!CAISSON_TRY(supervisor.run())) return {};
        launch = supervisor.next_launch();
        client = os::Fd();
    }
}

}  // namespace

Result<> serve(os::Fd client) {
    auto request = CAISSON_TRY(read_request(client.get()));
    if (request.has_build_template()) {
        build(std::move(client), request.build_template());
        return {};
    }
    if (!request.has_launch()) return failure(Errc::kProtocol, "the request asks for nothing");
    return supervise(std::move(client), std::move(*request.mutable_launch()));
}

}  // namespace caisson::box
