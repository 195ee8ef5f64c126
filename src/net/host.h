// A box's network as its launcher has it: caisson-netns before the machine, caisson-netd beside it, both gone with it.
// Single-threaded callers only: they die with the calling thread.
#pragma once

#include <chrono>
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
    // Begins to make the namespace, and waits until it is there. Errors: kHostMissing, naming what the kernel lacks or
    // refuses, and what would help.
    static Result<NetworkHost> start(Options options);
    Result<> wait();
    // Both.
    static Result<NetworkHost> open(Options options);
    // Ends caisson-netd; before this is dropped or replaced, unless its process ends.
    void end_netd();
    // Of a machine's card.
    const os::Fd& tap() const { return space_.tap; }
    // Listens at the ports that `begin.spec` publishes, and starts caisson-netd. The socket from which its events are read
    // (wire::NetworkEvent). Errors: kInUse, naming the port.
    Result<os::Fd> begin(wire::NetworkOrder::Begin begin);
    // What arrived at those ports goes on to the guest from now on; until then it waits. A restored guest must have been given
    // its own randomness before: its kernel draws seeds at the first packet of TCP or UDP that comes in.
    Result<> let_in();
    // Another policy, other limits and ports: in force when this returns, for what is open already as well. Errors: kInUse,
    // a port is, and nothing has changed; kIo, caisson-netd is dead or was ended since it did not obey, and nothing is
    // reached any more.
    Result<> change(const wire::NetworkSpec& spec);
    // The same with another caisson-netd in the place of the one that died, or that runs: that is ended, and what is open
    // with it. Ports keep their sockets. Errors: as of change(); kIo, the namespace is gone, too.
    Result<os::Fd> restart(const wire::NetworkSpec& spec);
    // With the ports that were chosen.
    wire::NetworkPorts ports() const;
    // caisson-netd has died: until there is another one, nobody is let in vain into what it published.
    void died();

    os::Process& netd() { return netd_; }
    os::Process& netns() { return space_.process(); }
    // After the end of either: what it said of why, printable; often nothing.
    std::string last_words();

  private:
    // The host's socket of a published port; caisson-netd has a duplicate.
    struct Port {
        wire::NetworkSpec::Port spec;
        std::uint32_t number = 0;
        os::Fd socket;
    };
    struct Ports {
        std::vector<Port> all;      // as they are to be
        std::vector<std::uint32_t> removed;
        std::vector<std::size_t> added;  // of `all`
    };
    Result<Ports> plan_ports(const wire::NetworkSpec& spec) const;
    Result<os::Fd> start_netd();
    void dont_linger() const;
    Result<> add_ports();
    Result<> add_port(const Port& port, bool confirm);
    Result<> obey(const wire::NetworkSpec& spec, const Ports& ports);
    Result<> tell(const wire::NetworkOrder& order, const std::vector<os::Fd>& descriptors);
    Result<> hear_confirmation();

    Options options_;
    SpaceHost space_;
    wire::NetworkOrder::Begin begin_;  // as caisson-netd was told, or would be now
    std::vector<Port> ports_;
    os::Fd orders_, words_, words_in_;
    std::chrono::steady_clock::time_point obeys_until_;
    bool open_ = false;  // let_in() was called: caisson-netd has the ports
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
