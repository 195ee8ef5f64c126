// What all parts of caisson-netd share. One loop's thread.
#pragma once

#include <functional>
#include <string>

#include "net/dns/resolver.h"
#include "net/policy/policy.h"
#include "net/relay/dial.h"
#include "net/relay/limits.h"
#include "net/relay/rate.h"
#include "net/relay/records.h"
#include "net/relay/space.h"

namespace caisson::net::relay {

// The guest's end of the host: the gateway, of either family.
bool is_gateway(const Address& address);
inline constexpr std::uint16_t kNameServerPort = 53;
// Where a connection to host.caisson.internal goes.
Address host_loopback();

struct Context {
    os::Loop& loop;
    Records& records;
    Space* space = nullptr;
    dns::Resolver* resolver = nullptr;
    Policy policy;                        // to be set with use()
    std::vector<Address> host_addresses;  // the host's own, as far as they are known
    Pins pins;
    bool ipv6 = false;  // the host has a way to IPv6 addresses
    std::optional<Proxy> proxy;           // the way to the outside; the policy judges targets, and not it
    bool learn = false; // connections are read for the names that they show, whether or not a rule is about names
    std::uint32_t most_connections = kConnections;
    std::uint32_t most_flows = kFlows;
    Rate connects{kConnectsPerSecond, kConnectsPerSecond};
    Rate rates[2] = {Rate(), Rate()};  // bytes, by Way
    base::Bytes scratch;

    void use(Policy changed);
    // To be called before `address` is judged. The host gets new addresses while a box runs (leases, temporary ones of
    // IPv6, tunnels): the kernel is asked whether this is one by now.
    void look_at(const Address& address);
    // May the guest's connection or datagram go there. A place on the gateway stands for the host itself.
    Verdict judge(const Endpoint& outside, Protocol protocol) const;
    // Where it is dialled.
    static Endpoint place_of(const Endpoint& outside);
    // And how: through the proxy, if there is one, unless it is this host. `place`: as of place_of(), or a name's; look_at() it
    // before.
    Route route_to(const Endpoint& place) const;
};

// What a guest's connect() is told when the host's own failed like this.
NetnsMessage::Verdict verdict_of(int error);

}  // namespace caisson::net::relay
