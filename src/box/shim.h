// The shim: supervisor of one box, or maker of one template. A single-threaded process of its own, tied to the process
// that started it by a socket: when that closes, the box ends, unless it is detached. Others reach it through a socket
// in the box's directory.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "os/fd.h"

namespace caisson::box {

// Serves exactly one request that arrives on `client`; returns when everything of it is gone. A box that its policy
// starts again is still the same request.
Result<> serve(os::Fd client);

// The command that a box is started with; its streams have this number between client and shim, and shim and agent.
inline constexpr std::uint32_t kMainExecution = 1;

// The name of that socket.
inline constexpr const char* kShimSocket = "socket";
// A path to it that fits into a socket's address however long the home's is; `directory` is the open box directory of
// the calling process.
inline std::string shim_socket_path(const os::Fd& directory) {
    return "/proc/self/fd/" + std::to_string(directory.get()) + "/" + kShimSocket;
}

// Descriptor numbers that a shim is started with.
inline constexpr int kShimClientFd = 3;
inline constexpr int kShimLockFd = 4;  // the box's lock, held as long as the shim lives
inline constexpr int kShimKvmFd = 5;   // /dev/kvm, for the machine
inline constexpr int kShimTunFd = 6;   // the tun device, for the machine's card: see net::open_tun_node()

}  // namespace caisson::box
