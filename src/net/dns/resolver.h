// Resolver: the addresses of names, from upstream name servers (stub resolver, RFC 1035 7; fresh sockets and ids against
// forged answers, RFC 5452). Owned by one os::Loop's thread, which it must not outlive; nothing blocks.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "net/address.h"
#include "net/dns/limits.h"
#include "os/loop.h"

namespace caisson::net::dns {

enum class Family : std::uint8_t { kV4, kV6, kBoth };

struct Resolved {
    enum class Kind : std::uint8_t {
        kAddresses,
        kNoSuchName,
        kNoData,         // it exists and has no address of the family
        kAllDropped,     // it has addresses, and may_use() took none
        kServerFailure,  // the servers could not say (SERVFAIL, or nothing that can be read)
        kRefused,        // the servers would not say
        kTimeout,        // no server answered in time
        kBusy,           // too many names are asked for already
        kNoServers,
        kBadName,        // not canonical
    };
    Kind kind = Kind::kServerFailure;
    std::vector<Address> addresses;   // those that may be used; IPv6 ones behind IPv4 ones
    std::vector<Address> dropped;     // those that may not
    std::uint32_t ttl = 0;            // seconds, kShortestTtl..kLongestTtl
    bool from_hosts = false;          // named by Options::hosts
};
// For people: "no such name", "the name servers did not answer in time".
const char* to_string(Resolved::Kind kind);

class Resolver {
  public:
    struct Options {
        os::Loop* loop = nullptr;          // outlives the resolver
        std::vector<Endpoint> servers;     // asked in this order; the first kMostServers
        // Come before every server and cache, also for a family of which they have no address. Keys are canonical. The
        // operator's own word: may_use() is not asked about them.
        std::map<std::string, std::vector<Address>> hosts;
        // Whether an address may stand for this name; false: it is dropped (a name of the outside that leads inside,
        // "rebinding"). Asked at each answer, so that it may change. nullptr: all may.
        std::function<bool(const std::string& name, const Address& address)> may_use;
        // Fills with bytes that nobody can guess; nullptr: the kernel's.
        std::function<Result<>(std::span<std::uint8_t>)> random;
        std::chrono::milliseconds try_timeout = kTryTimeout;
        std::chrono::milliseconds deadline = kResolveDeadline;
    };
    // Called once from the loop, never from within resolve(). It may call the resolver, but not destroy it.
    using Done = std::function<void(const Resolved&)>;
    using Ticket = std::uint64_t;

    explicit Resolver(Options options);
    // No callback comes after this.
    ~Resolver();
    Resolver(const Resolver&) = delete;
    Resolver& operator=(const Resolver&) = delete;

    // `name`: of canonical_name().
    Ticket resolve(const std::string& name, Family family, Done done);
    // Its callback does not come. A ticket that is used up does no harm.
    void cancel(Ticket ticket);
    // For changes while it runs; what is under way goes on with the old ones. The cache is emptied.
    void set_servers(std::vector<Endpoint> servers);
    void set_hosts(std::map<std::string, std::vector<Address>> hosts);

    struct Counts {
        std::uint64_t asked = 0;        // resolve()
        std::uint64_t from_cache = 0;   // of a name and a family
        std::uint64_t queries = 0;      // sent, over UDP or TCP
        std::uint64_t strays = 0;       // datagrams that answered something else
    };
    const Counts& counts() const;

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace caisson::net::dns
