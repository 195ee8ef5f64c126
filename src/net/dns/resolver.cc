#include "net/dns/resolver.h"

#include <algorithm>
#include <optional>
#include <set>
#include <tuple>

#include "net/dns/lookup.h"
#include "net/dns/message.h"
#include "net/name.h"
#include "os/random.h"

namespace caisson::net::dns {

namespace {

using Kind = Resolved::Kind;
using Clock = os::Loop::Clock;

struct Key {
    std::string name;
    Type type = Type::kA;
    bool operator<(const Key& other) const { return std::tie(name, type) < std::tie(other.name, other.type); }
};

// What is known of a name and a family; may_use() has not been asked.
struct Half {
    Lookup::Found found;
    bool from_hosts = false;
};

std::uint32_t clamped(std::uint32_t ttl) { return std::clamp(ttl, kShortestTtl, kLongestTtl); }

// The worse one of two that are no addresses: what one family says of the name holds for both.
Kind combine(Kind a, Kind b) {
    if (a == Kind::kNoSuchName || b == Kind::kNoSuchName) return Kind::kNoSuchName;
    return a == Kind::kNoData ? b : a;
}

}  // namespace

const char* to_string(Kind kind) {
    switch (kind) {
        case Kind::kAddresses: return "it has addresses";
        case Kind::kNoSuchName: return "no such name";
        case Kind::kNoData: return "the name has no address";
        case Kind::kAllDropped: return "all addresses of the name are such as may not be used";
        case Kind::kServerFailure: return "the name servers could not answer";
        case Kind::kRefused: return "the name servers refused to answer";
        case Kind::kTimeout: return "no name server answered";
        case Kind::kBusy: return "too many names are being asked for";
        case Kind::kNoServers: return "no name server is known";
        case Kind::kBadName: return "this is no name of a host";
    }
    return "";
}

struct Resolver::State {
    struct Request {
        std::string name;
        Family family = Family::kBoth;
        Done done;
        std::optional<Half> four, six;
        os::Loop::TimerId timer = 0;
    };
    struct Cached {
        Lookup::Found found;
        Clock::time_point ends;
    };
    struct Running {
        std::unique_ptr<Lookup> lookup;
        std::set<Ticket> waiters;
        std::uint64_t generation = 0;
    };

    Options options;
    Counts counts;
    std::map<Ticket, Request> requests;
    Ticket next_ticket = 1;
    std::map<Key, Running> running;
    std::map<Key, Cached> cache;
    std::uint64_t generation = 0;  // of servers and hosts

    void deliver(Ticket ticket);
    void deliver_soon(Ticket ticket, std::chrono::milliseconds delay);
    std::optional<Half> known(const Key& key);
    void begin(Ticket ticket, Request& request, Type type);
    void start(const Key& key, Ticket ticket);
    void on_found(const Key& key, Lookup::Found found);
    void remember(const Key& key, const Lookup::Found& found);
    void take(Ticket ticket, Type type, const Half& half);
    bool is_complete(const Request& request) const;
    void add(const Request& request, const Half& half, Type type, Resolved& into) const;
    Resolved merge(const Request& request) const;
};

// ---- what is known already ----

std::optional<Half> Resolver::State::known(const Key& key) {
    if (const auto host = options.hosts.find(key.name); host != options.hosts.end()) {
        Half half{{Kind::kNoData, {}, kLongestTtl}, true};
        for (const auto& address : host->second)
            if (address.is_v4() == (key.type == Type::kA)) half.found.addresses.push_back(address);
        if (!half.found.addresses.empty()) half.found.kind = Kind::kAddresses;
        return half;
    }
    const auto cached = cache.find(key);
    if (cached == cache.end()) return std::nullopt;
    const auto left = std::chrono::ceil<std::chrono::seconds>(cached->second.ends - Clock::now()).count();
    if (left <= 0) {
        cache.erase(cached);
        return std::nullopt;
    }
    ++counts.from_cache;
    Half half{cached->second.found, false};
    half.found.ttl = static_cast<std::uint32_t>(left);
    return half;
}

void Resolver::State::remember(const Key& key, const Lookup::Found& found) {
    if (found.kind != Kind::kAddresses && found.kind != Kind::kNoData && found.kind != Kind::kNoSuchName) return;
    if (cache.size() >= kMostCachedNames && cache.count(key) == 0)
        cache.erase(std::min_element(cache.begin(), cache.end(), [](const auto& a, const auto& b) { return a.second.ends < b.second.ends; }));
    const auto ttl = found.kind == Kind::kAddresses ? clamped(found.ttl) : kFailureTtl;
    cache[key] = {found, Clock::now() + std::chrono::seconds(ttl)};
}

// ---- asking ----

void Resolver::State::begin(Ticket ticket, Request& request, Type type) {
    const Key key{request.name, type};
    auto& half = type == Type::kA ? request.four : request.six;
    half = known(key);
    if (half) return;
    if (const auto found = running.find(key); found != running.end()) {
        found->second.waiters.insert(ticket);
    } else if (options.servers.empty()) {
        half = Half{{Kind::kNoServers, {}, 0}, false};
    } else if (running.size() >= kMostLookups) {
        half = Half{{Kind::kBusy, {}, 0}, false};
    } else {
        start(key, ticket);
    }
}

void Resolver::State::start(const Key& key, Ticket ticket) {
    auto& started = running[key];
    started.generation = generation;
    started.waiters.insert(ticket);
    Lookup::Options with{options.loop, options.servers, options.random, options.try_timeout, options.deadline, &counts};
    started.lookup = std::make_unique<Lookup>(std::move(with), key.name, key.type,
                                              [this, key](Lookup::Found found) { on_found(key, std::move(found)); });
}

void Resolver::State::on_found(const Key& key, Lookup::Found found) {
    const auto node = running.extract(key);
    if (node.mapped().generation == generation) remember(key, found);
    found.ttl = found.kind == Kind::kAddresses ? clamped(found.ttl) : kFailureTtl;
    const Half half{std::move(found), false};
    for (const auto ticket : node.mapped().waiters) take(ticket, key.type, half);
}

void Resolver::State::take(Ticket ticket, Type type, const Half& half) {
    const auto found = requests.find(ticket);
    if (found == requests.end()) return;  // cancelled
    auto& request = found->second;
    (type == Type::kA ? request.four : request.six) = half;
    if (is_complete(request)) return deliver(ticket);
    // Some servers never answer for the family that they do not know; with addresses of one there is no need to wait long.
    if (half.found.kind == Kind::kAddresses) deliver_soon(ticket, kOtherFamilyWait);
}

// ---- answering ----

bool Resolver::State::is_complete(const Request& request) const {
    return (request.four || request.family == Family::kV6) && (request.six || request.family == Family::kV4);
}

void Resolver::State::add(const Request& request, const Half& half, Type type, Resolved& into) const {
    into.from_hosts = into.from_hosts || half.from_hosts;
    for (const auto& address : half.found.addresses) {
        // An IPv4 address in an answer for IPv6 is another spelling of it that nobody honest uses.
        const bool is_spelt_well = address.is_v4() == (type == Type::kA);
        const bool usable = half.from_hosts || (is_spelt_well && (!options.may_use || options.may_use(request.name, address)));
        (usable ? into.addresses : into.dropped).push_back(address);
    }
    if (half.found.kind == Kind::kAddresses) into.ttl = std::min(into.ttl, half.found.ttl);
}

Resolved Resolver::State::merge(const Request& request) const {
    Resolved result;
    result.ttl = kLongestTtl;
    std::optional<Kind> kind;
    for (const auto& [half, type] : {std::pair(&request.four, Type::kA), std::pair(&request.six, Type::kAaaa)}) {
        if (!*half) continue;
        add(request, **half, type, result);
        if ((*half)->found.kind == Kind::kAddresses) continue;
        kind = kind ? combine(*kind, (*half)->found.kind) : (*half)->found.kind;
    }
    if (!result.addresses.empty()) result.kind = Kind::kAddresses;
    else if (!result.dropped.empty()) result.kind = Kind::kAllDropped;
    else result.kind = kind.value_or(Kind::kServerFailure);
    result.ttl = result.addresses.empty() ? kFailureTtl : clamped(result.ttl);
    return result;
}

void Resolver::State::deliver(Ticket ticket) {
    auto node = requests.extract(ticket);
    if (node.empty()) return;
    options.loop->cancel(node.mapped().timer);
    const auto result = merge(node.mapped());
    node.mapped().done(result);
}

void Resolver::State::deliver_soon(Ticket ticket, std::chrono::milliseconds delay) {
    auto& request = requests.at(ticket);
    options.loop->cancel(request.timer);
    request.timer = options.loop->after(delay, [this, ticket] { deliver(ticket); });
}

// ---- the outside ----

Resolver::Resolver(Options options) : state_(std::make_unique<State>()) {
    if (!options.random) options.random = os::fill_random;
    if (options.servers.size() > kMostServers) options.servers.resize(kMostServers);
    state_->options = std::move(options);
}

Resolver::~Resolver() {
    for (auto& [ticket, request] : state_->requests) state_->options.loop->cancel(request.timer);
}

Resolver::Ticket Resolver::resolve(const std::string& name, Family family, Done done) {
    auto& state = *state_;
    ++state.counts.asked;
    const auto ticket = state.next_ticket++;
    const bool is_full = state.requests.size() >= kMostWaiters;
    auto& request = state.requests[ticket];
    request.name = name;
    request.family = family;
    request.done = std::move(done);
    const bool is_name = canonical_name(name) == name;
    if (!is_name || is_full) {
        request.four = request.six = Half{{is_name ? Kind::kBusy : Kind::kBadName, {}, 0}, false};
    } else {
        if (family != Family::kV6) state.begin(ticket, request, Type::kA);
        if (family != Family::kV4) state.begin(ticket, request, Type::kAaaa);
    }
    const auto has_addresses = [](const std::optional<Half>& half) { return half && half->found.kind == Kind::kAddresses; };
    if (state.is_complete(request)) state.deliver_soon(ticket, std::chrono::milliseconds(0));
    else if (has_addresses(request.four) || has_addresses(request.six)) state.deliver_soon(ticket, kOtherFamilyWait);
    return ticket;
}

void Resolver::cancel(Ticket ticket) {
    auto& state = *state_;
    const auto found = state.requests.find(ticket);
    if (found == state.requests.end()) return;
    state.options.loop->cancel(found->second.timer);
    for (const auto type : {Type::kA, Type::kAaaa})
        if (const auto lookup = state.running.find(Key{found->second.name, type}); lookup != state.running.end())
            lookup->second.waiters.erase(ticket);
    state.requests.erase(found);
}

void Resolver::set_servers(std::vector<Endpoint> servers) {
    if (servers.size() > kMostServers) servers.resize(kMostServers);
    state_->options.servers = std::move(servers);
    state_->cache.clear();
    ++state_->generation;
}

void Resolver::set_hosts(std::map<std::string, std::vector<Address>> hosts) {
    state_->options.hosts = std::move(hosts);
    state_->cache.clear();
    ++state_->generation;
}

const Resolver::Counts& Resolver::counts() const { return state_->counts; }

}  // namespace caisson::net::dns
