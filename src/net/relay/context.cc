#include "net/relay/context.h"

#include <cerrno>

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

Verdict Context::judge(const Endpoint& outside, Protocol protocol) const {
    if (is_gateway(outside.address)) return policy.judge_name(kHostName, outside.port, protocol);
    return policy.judge_address(outside, protocol, pins, std::chrono::steady_clock::now());
}

Endpoint Context::place_of(const Endpoint& outside) {
    return is_gateway(outside.address) ? Endpoint{host_loopback(), outside.port} : outside;
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
