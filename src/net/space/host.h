// caisson-netns as its launcher has it.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "base/result.h"
#include "os/fd.h"
#include "os/process.h"

namespace caisson::net {

// One box's namespace, from outside. Owner: the launcher; destroying it ends the program, and with it the namespace as soon as
// nobody holds its tap and sockets any more. Single-threaded callers only: the program dies with the calling thread.
class SpaceHost {
  public:
    struct Options {
        std::string program;        // caisson-netns
        os::GroupEntry groups;
        int error_fd = -1;          // for its last words; stays the caller's. -1: they are lost
        std::optional<uid_t> user;  // of root: as whom it runs; else the caller
        int tun = -1;               // open_tun_node()'s, of a time when there was root; stays the caller's. -1: it is opened here
    };
    // Starts it. Errors: kHostMissing and kPermission, with what the host lacks and a hint.
    static Result<SpaceHost> start(const Options& options);
    // Waits, for kPatience at most, until the namespace is there. Errors: as of start(); kTimeout.
    Result<> wait();

    // The first three as NetnsSaid has them, once it is there; may be given away. `ask` is caisson-netd's end of the socket to caisson-netns.
    os::Fd tap, listener, datagrams, ask;
    // The same for a caisson-netd that was started anew: the socket of the old one leads nowhere any more.
    Result<os::Fd> another_ask();

    os::Process& process() { return process_; }
    const os::Fd& socket() const { return launcher_; }  // readable, and at its end, once the program is gone

  private:
    static constexpr int kPatienceMs = 20000;
    os::Process process_;
    os::Fd launcher_;
};

}  // namespace caisson::net
