#include "net/relay/context.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "net/policy/special.h"

namespace caisson::net::relay {

namespace {
const Address& gateway4() {
    static const Address address = *Address::parse(kGatewayAddress);
    return address;
}
const Address& gateway6() {
    static const Address address = *Address::parse(kGatewayAddress6);
    return address;
}
}  // namespace

bool is_gateway(const Address& address) { return address == gateway4() || address == gateway6(); }

Address host_loopback() { return Address::v4(0x7f000001); }

void Context::use(Policy changed) {
    policy = std::move(changed);
    policy.set_host_addresses(host_addresses);
}

// What is sent to an address of one's own comes from that address (ip-route(8), type local). Nothing is sent.
void Context::look_at(const Address& address) {
    if (is_gateway(address) || std::find(host_addresses.begin(), host_addresses.end(), address) != host_addresses.end()) return;
    int error = 0;
    const auto socket = connect_udp({address, kNameServerPort}, error);
    if (!socket) return;
    SocketAddress own;
    own.length = sizeof own.storage;
    if (::getsockname(socket.get(), own.get(), &own.length) != 0) return;
    const auto from = from_socket(own.get(), own.length);
    if (!from || from->address != address) return;
    // A host may have whole ranges of them.
    if (host_addresses.size() >= kMostHostAddresses) host_addresses.erase(host_addresses.begin());
    host_addresses.push_back(address);
    policy.set_host_addresses(host_addresses);
}

Verdict Context::judge(const Endpoint& outside, Protocol protocol) const {
    if (is_gateway(outside.address)) return policy.judge_name(kHostName, outside.port, protocol);
    return policy.judge_address(outside, protocol, pins, std::chrono::steady_clock::now());
}

Endpoint Context::place_of(const Endpoint& outside) {
    return is_gateway(outside.address) ? Endpoint{host_loopback(), outside.port} : outside;
}

// To a proxy an address of this host's own is that of somebody else, or its own.
Route Context::route_to(const Endpoint& place) const {
    const auto* range = special_range_of(place.address);
    const bool is_host = (range != nullptr && range->reach == Reach::kHost) || std::find(host_addresses.begin(), host_addresses.end(), place.address) != host_addresses.end();
    return {place, is_host ? std::nullopt : proxy};
}

NetnsMessage::Verdict verdict_of(int error) {
    using Verdict = NetnsMessage::Verdict;
    switch (error) {
        case 0: return Verdict::kAccept;
        case EHOSTUNREACH: case EHOSTDOWN: return Verdict::kHostUnreachable;
        case ENETUNREACH: case EAFNOSUPPORT: case EADDRNOTAVAIL: return Verdict::kNetUnreachable;
        case EACCES: case EPERM: return Verdict::kProhibited;
        case ETIMEDOUT: return Verdict::kSilence;
        default: return Verdict::kRefuse;
    }
}

}  // namespace caisson::net::relay
