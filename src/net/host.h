// A box's network as its launcher has it: caisson-netns before the machine, caisson-netd beside it, both gone with it.
// Single-threaded callers only: they die with the calling thread.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "jail/sandbox.h"
#include "net/address.h"
#include "net/space/host.h"
#include "os/process.h"
#include "wire/net.pb.h"

namespace caisson::net {

class NetworkHost {
  public:
    struct Options {
        std::string netns_program, netd_program;
        const jail::Sandbox* sandbox = &jail::bubblewrap();
        os::GroupEntry groups;
        int tun_fd = -1;  // see open_tun_node(); stays the caller's
    };
    NetworkHost() = default;
    // Makes the namespace. Errors: kHostMissing, naming what the kernel lacks or refuses, and what would help.
    static Result<NetworkHost> open(Options options);
    // Of a machine's card.
    const os::Fd& tap() const { return space_.tap; }
    // Listens at the ports that `begin.spec` publishes, and starts caisson-netd. The socket from which its events are read
    // (wire::NetworkEvent). Errors: kInUse, naming the port.
    Result<os::Fd> begin(wire::NetworkOrder::Begin begin);
    // What arrived at those ports goes on to the guest from now on; until then it waits. A restored guest must have been given
    // its own randomness before: its kernel draws seeds at the first packet of TCP or UDP that comes in.
    Result<> let_in();

    os::Process& netd() { return netd_; }
    os::Process& netns() { return space_.process(); }
    // After the end of either: what it said of why, printable; often nothing.
    std::string last_words();

  private:
    struct WaitingPort {
        wire::NetworkOrder order;
        std::vector<os::Fd> socket;  // one
    };
    Result<> tell(const wire::NetworkOrder& order, const std::vector<os::Fd>& descriptors);

    Options options_;
    SpaceHost space_;
    os::Fd orders_, words_, words_in_;
    std::vector<WaitingPort> waiting_;  // until let_in()
    os::Process netd_;
    jail::Init init_;
};

// The name servers that the host asks, from its resolv.conf(5); and the addresses of its own interfaces.
std::vector<std::string> host_name_servers();
std::vector<Address> host_addresses();

}  // namespace caisson::net
