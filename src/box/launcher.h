// The launcher: the process that starts a box's machine. The shim executes a fresh copy of itself as this before the
// guest's first byte, hands it the launch, and locks itself (see shim_lock.h): from then on it can start nothing, and
// what it asks of the launcher has no parameters. So whoever takes the shim over through what a guest says can start and
// end the machine that the box was to have anyway, and nothing else.
//
//   start    The machine, as the launch says; from the second time on as a later life of the box has it (see Launch).
//   attach   The box's volumes, as the home's catalogue has them now: what is new there is served, what is gone is not any more.
//   let in   The guest has been configured: what arrives at the box's published ports goes on to it.
//   network  The box's network, as the operator has left it beside the box's directory (see network_request.h): policy, limits
//            and ports of the one that runs, or of another caisson-netd.
//   end      Kills what was started, waits until it is gone, removes the box's directory if the shim has emptied it.
//
// The launcher reads nothing that comes from a guest or a VMM: their sockets are made here, and handed over. It is the
// parent of the jail, which dies with it, as it dies with the shim. Both are single-threaded.
#pragma once

#include <chrono>
#include <optional>
#include <vector>

#include "base/result.h"
#include "os/fd.h"
#include "os/process.h"
#include "wire/shim.pb.h"

namespace caisson::box {

// One byte each, a packet each.
enum class LauncherVerb : std::uint8_t { kStart = 's', kAttach = 'a', kLetIn = 'l', kNetwork = 'n', kNetworkAnew = 'r', kEnd = 'e' };

// What a launcher says.
struct LauncherNews {
    enum class Kind : std::uint8_t {
        kStarted = 1,  // `descriptors`: control socket, agent, console; non-blocking. `number` is the process, for people
        kJailed,       // `descriptors`: pidfd of the jail's first process, whose end is the end of everything in there
        kShare,        // `error.message`: a wire::ShareMount, serialised, for the guest. All come before kStarted, or kAttached
        kDisk,         // the same of a wire::DiskMount; all come before kStarted
        kNetwork,      // `descriptors`: the socket of its network's events; before kStarted, and before kNetworkChanged
        kPorts,        // `error.message`: a wire::NetworkPorts, serialised: what is published now. Before the same
        kNetworkChanged, // answer to kNetwork and kNetworkAnew; with an error, if it has a message
        kNetworkEnded, // a process of its network died: why, as far as it is known, in `error.message`
        kAttached,     // answer to kAttach
        kFailed,       // answer to kStart and kAttach: `error`
        kExited,       // the machine ended, by itself or by kEnd: `signalled`, `number`; why, if it is known, in `error.message`
        kGone,         // answer to each kEnd: nothing runs
    };
    Kind kind = Kind::kGone;
    bool signalled = false;
    int number = 0;
    Error error;
    std::vector<os::Fd> descriptors;
};

// Of one packet's text. Longer messages are cut.
inline constexpr std::size_t kMostLauncherText = 8192;
// Of the launch as the launcher gets it, without what is the guest's business.
inline constexpr std::size_t kMostLauncherRequest = 128 * 1024;
// Its name as a program: argv[0], by which kill_strays() and people find it. argv[1] is the box's directory.
inline constexpr const char* kLauncherName = "caisson-launcher";

// Both ends of the packets, for the two classes below and for tests. kIo: the other end is gone, or a packet is none.
Result<> send_news(int socket, const LauncherNews& news);
// nullopt: nothing is there, and the socket does not block.
Result<std::optional<LauncherNews>> receive_news(int socket);

// The shim's end. Destroying it ends the launcher, and with it the machine.
class Launcher {
  public:
    // Executes it and hands over the launch. `kvm_fd` is open on /dev/kvm if the machine runs under KVM, `tun_fd` on the tun
    // device (net::open_tun_node()) if it has a network; they stay the caller's. Single-threaded callers only: the launcher dies with the calling thread.
    static Result<Launcher> start(const wire::Launch& launch, int kvm_fd, int tun_fd);
    Result<> ask(LauncherVerb verb);
    // nullopt: nothing was said yet. Error: it is dead.
    Result<std::optional<LauncherNews>> next();
    // kGone has come for every kEnd that was asked.
    bool at_rest() const { return ends_ == 0; }
    // kEnd, and waits for its answer; other news are dropped. kTimeout, kIo.
    Result<> end(std::chrono::milliseconds patience);
    int socket() const { return socket_.get(); }
    os::Process& process() { return process_; }

  private:
    Launcher(os::Process process, os::Fd socket) : process_(std::move(process)), socket_(std::move(socket)) {}
    os::Process process_;
    os::Fd socket_;
    unsigned ends_ = 0;
};

// The launcher's end: serves until the socket closes; ends what it started. Returns the exit code.
int serve_as_launcher(os::Fd socket);

// What of a launch the launcher gets: nothing that is only said to the guest.
wire::Launch launcher_request(const wire::Launch& launch);

}  // namespace caisson::box
