// A box's network namespace: made once by a single-threaded process, which then is in it for good, and sockets in it.
#pragma once

#include "base/result.h"
#include "net/address.h"
#include "os/fd.h"

namespace caisson::net {

// Raw sockets that ICMP messages are sent through; they receive nothing.
struct Refusals {
    os::Fd four, six;
};

// What the namespace begins with; see NetnsSaid for tap, listener and datagrams.
struct Space {
    os::Fd tap, listener, datagrams;
    os::Fd queue;  // netlink: beginnings of connections arrive here; non-blocking
    Refusals refusals;
};

// Moves the calling process into new user and network namespaces and sets the latter up. `tun_node` is the tun device,
// open with O_PATH, for the caller's user. Errors are kHostMissing or kPermission with what the host lacks and what would
// help; the process is of no further use then.
Result<Space> make_space(int tun_node);

// The rest is for the process in the namespace. Both are non-blocking and transparent, so that the rules know them as ours.
// Bound to `outside`, which may be any address, and connected to the guest's `guest`: for answers from there.
Result<os::Fd> make_datagram_socket(const Endpoint& guest, const Endpoint& outside);
// A connection to the guest's `guest`, from `outside` unless its port is 0. Of TCP it is still being made.
Result<os::Fd> dial_guest(Protocol protocol, const Endpoint& guest, const Endpoint& outside);
// Tells the guest that nobody takes its datagrams from `guest` to `outside`. Best effort, as all that is told this way; errors
// are those of the caller: ends that are not the guest's, or of two families.
Result<> refuse_datagrams(const Refusals& refusals, const Endpoint& guest, const Endpoint& outside);

}  // namespace caisson::net
