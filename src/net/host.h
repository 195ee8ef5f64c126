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

    os::Process& netd() { return netd_; }
    os::Process& netns() { return space_.process(); }
    // After the end of either: what it said of why, printable; often nothing.
    std::string last_words();

  private:
    Result<> tell(const wire::NetworkOrder& order, const std::vector<os::Fd>& descriptors);

    Options options_;
    SpaceHost space_;
    os::Fd orders_, words_, words_in_;
    os::Process netd_;
    jail::Init init_;
};

// What caisson-netd, this file of the host, may touch; without its descriptors and control groups. Pure but for the limit of
// open files, which is the host's own where that is lower.
jail::Description netd_jail(const std::string& program, const jail::Sandbox& sandbox);

// The name servers that the host asks, from its resolv.conf(5); and the addresses of its own interfaces.
std::vector<std::string> host_name_servers();
std::vector<Address> host_addresses();

}  // namespace caisson::net
