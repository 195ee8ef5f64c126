// caisson-netns: the network namespace of one box, and sockets in it. Its descriptors, and what it says: protocol.h. It
// ends with whoever started it.
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

#include "net/space/lock.h"
#include "net/space/protocol.h"
#include "net/space/server.h"
#include "net/space/space.h"

namespace caisson::net {
namespace {

NetnsSaid failed(const base::Error& error) {
    NetnsSaid said;
    said.kind = NetnsSaid::Kind::kFailed;
    said.error = error.sys_errno;
    error.to_string().copy(said.text, sizeof said.text - 1);
    error.hint.copy(said.hint, sizeof said.hint - 1);
    return said;
}

Result<> say(const os::Fd& launcher, const NetnsSaid& said, const std::vector<os::Fd>& descriptors = {}) {
    if (os::send_packet(launcher.get(), base::as_text(base::bytes_of(said)), descriptors)) return {};
    return base::failure_errno("cannot tell the launcher");
}

// The namespace, with this process locked in it.
Result<Space> prepare() {
    const os::Fd tun(kNetnsTunFd);
    auto space = CAISSON_TRY(make_space(tun.get()));
    CAISSON_TRY(lock_netns());
    return space;
}

Result<> serve() {
    os::Fd launcher(kNetnsLauncherFd), ask(kNetnsAskFd);
    auto loop = CAISSON_TRY(os::Loop::create());
    auto space = prepare();
    if (!space) {
        CAISSON_TRY(say(launcher, failed(space.error())));
        return base::failure(std::move(space).error());
    }
    std::vector<os::Fd> descriptors;
    descriptors.push_back(std::move(space->tap));
    descriptors.push_back(std::move(space->listener));
    descriptors.push_back(std::move(space->datagrams));
    CAISSON_TRY(say(launcher, NetnsSaid{}, descriptors));
    descriptors.clear();
    SpaceServer server(loop, std::move(launcher), std::move(ask), std::move(space->queue), std::move(space->refusals));
    CAISSON_TRY(server.start());
    CAISSON_TRY(loop.run());
    return server.ended();
}

}  // namespace
}  // namespace caisson::net

int main() {
    auto served = caisson::net::serve();
    if (served) return 0;
    std::fprintf(stderr, "caisson-netns: %s\n", served.error().to_string().c_str());
    return 1;
}
