// What caisson-netns is asked, and by whom. One packet each over sockets of SOCK_SEQPACKET, each one structure in this
// machine's order; both ends are programs of one build.
//
// caisson-netns makes the namespace, tells the launcher that it is ready, and then makes sockets in it for caisson-netd
// and asks it about each connection that the guest begins. Whoever takes caisson-netd over gets sockets in a namespace
// that leads to this box's guest and nowhere else.
#pragma once

#include <cstdint>

#include "net/address.h"

namespace caisson::net {

// Descriptor numbers of caisson-netns. It ends when its launcher does.
inline constexpr int kNetnsLauncherFd = 0;  // says kReady, or kFailed
inline constexpr int kNetnsTunFd = 3;       // the tun device, open with O_PATH
inline constexpr int kNetnsAskFd = 4;       // its end of the socket whose other end caisson-netd gets
// Any packet with one descriptor from the launcher gives it another kNetnsAskFd, for a caisson-netd that was started anew.
// While there is none, what the guest begins is answered with kNetUnreachable.

// The guest's side of the link, the same for every box: nothing outside sees it.
inline constexpr const char* kGuestAddress = "10.0.2.15";    // /24
inline constexpr const char* kGatewayAddress = "10.0.2.2";   // and the name server, at port 53
inline constexpr const char* kGuestAddress6 = "fd00:ca15::2";  // /64
inline constexpr const char* kGatewayAddress6 = "fd00:ca15::1";
inline constexpr unsigned kPrefix4 = 24, kPrefix6 = 64;
inline constexpr std::array<std::uint8_t, 6> kGuestHardware{0x02, 0xca, 0x15, 0x50, 0x00, 0x02};
inline constexpr std::array<std::uint8_t, 6> kGatewayHardware{0x02, 0xca, 0x15, 0x50, 0x00, 0x01};
inline constexpr unsigned kMtu = 1500;

// To the launcher. kReady carries three descriptors: the tap (with virtio headers and offloads, not bound to any process),
// the listener of TCP, the socket of UDP; the latter two non-blocking, dual-stack and transparent: what the guest sends to
// whatever address and port arrives there; its true destination is the accepted socket's own name, or the datagram's
// IP_RECVORIGDSTADDR or IPV6_RECVORIGDSTADDR. kFailed: `error` is an errno, or 0; `text` says for people what
// failed and why, `hint` what would help.
struct NetnsSaid {
    enum class Kind : std::uint8_t { kReady = 1, kFailed };
    Kind kind = Kind::kReady;
    std::int32_t error = 0;
    char text[240] = {};
    char hint[240] = {};
};

// Between caisson-netns and caisson-netd.
struct NetnsMessage {
    enum class Kind : std::uint8_t {
        kBegins = 1,  // from netns: the guest wants a connection `guest` -> `outside`; it hears nothing until kVerdict
        kVerdict,     // to netns: `verdict` of the connection `number`
        kMakeUdp,     // to netns: a transparent UDP socket bound to `outside` and connected to `guest`, for answers of any size;
                      // of the gateway `guest` may have port 0, which is any
        kDial,        // to netns: a connection to the guest's `guest` of `protocol`, from `outside` if its port is not 0
        kRefuseUdp,   // to netns: of datagrams `guest` -> `outside` the guest hears that nobody takes them; no answer
        kMade,        // from netns: answer to kMakeUdp and kDial, with `number`; `error` 0 and one descriptor (of TCP: still connecting), or an errno
    };
    // What the guest gets to know.
    enum class Verdict : std::uint8_t {
        // Its connection arrives at the listener, with `guest` as its peer and `outside` as its own name, unless the guest
        // has given up.
        kAccept = 1,
        kRefuse,            // ECONNREFUSED
        kHostUnreachable,   // EHOSTUNREACH
        kNetUnreachable,    // ENETUNREACH
        kProhibited,        // EACCES, where its kernel tells that
        kSilence,           // nothing: it tries again or gives up by itself
    };
    Kind kind = Kind::kBegins;
    Verdict verdict = Verdict::kRefuse;
    Protocol protocol = Protocol::kTcp;
    std::uint64_t number = 0;
    Endpoint guest, outside;
    std::int32_t error = 0;
};

}  // namespace caisson::net
