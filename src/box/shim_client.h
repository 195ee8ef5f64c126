// The library's end of a shim: starts it, or finds one that runs, and talks to it over the socket.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "os/fd.h"
#include "os/process.h"
#include "wire/connection.h"
#include "wire/shim.pb.h"

namespace caisson::box {

class ShimClient {
  public:
    // What a shim gets besides its socket; they stay the caller's. -1: none.
    struct Inherited {
        int lock = -1;  // the box's
        int kvm = -1;   // /dev/kvm, for a machine that runs under it
        int tun = -1;   // the tun device, for a machine with a network card
        // Not passed on: the cgroup.procs of the group that the shim is to live in, see box/host_limits.h.
        int group = -1;
    };
    // `program` is caisson-shim. `log_path` (empty: none) takes its last words.
    static Result<std::unique_ptr<ShimClient>> start(const std::string& program, Inherited inherited,
                                                     const std::string& log_path);
    // The supervisor of the box in this directory, greeted. kNotFound: there is none, or it is just ending.
    // kUnsupported: it speaks a protocol of another major version.
    static Result<std::unique_ptr<ShimClient>> connect(const std::string& box_directory);
    // Queues and sends; blocks until the socket took it.
    Result<> send(const wire::ToShim& message);
    // The next control message; blocks. nullopt: the shim is gone. Only for the time before a command runs: a stream
    // frame would be kProtocol (Execution::wait takes over then).
    // With a deadline kTimeout, after which nothing more can be asked.
    Result<std::optional<wire::FromShim>> receive(std::optional<std::chrono::milliseconds> patience = std::nullopt);

    wire::Connection& connection() { return connection_; }
    int fd() const { return socket_.get(); }
    os::Process& process() { return process_; }
    // Closes the socket, which ends what is attached to it; waits until a shim that was started here is gone.
    void close();
    // The shim goes on alone: leaves it.
    void leave();

  private:
    ShimClient(os::Process process, os::Fd socket)
        : process_(std::move(process)), socket_(std::move(socket)), connection_(socket_.get()) {}
    os::Process process_;
    os::Fd socket_;
    wire::Connection connection_;
};

// A control frame's payload as a message; kProtocol otherwise.
Result<wire::FromShim> parse_from_shim(base::ByteView payload);
Result<> append_to_shim(base::Bytes& out, const wire::ToShim& message);

}  // namespace caisson::box
