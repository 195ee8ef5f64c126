#include "agent/network.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
// Behind the C library's own, which it leaves out then.
#include <linux/ipv6.h>

#include <cerrno>
#include <cstring>

#include "agent/paths.h"
#include "os/fd.h"
#include "os/file.h"

namespace caisson::agent {

using base::failure;
using base::failure_errno;

namespace {

constexpr char kCard[] = "eth0";  // the only one there can be

Result<in_addr> address_of(const std::string& text) {
    in_addr made{};
    if (::inet_pton(AF_INET, text.c_str(), &made) != 1) return failure(Errc::kUsage, "the host sent no IPv4 address");
    return made;
}

Result<in6_addr> address6_of(const std::string& text) {
    in6_addr made{};
    if (::inet_pton(AF_INET6, text.c_str(), &made) != 1) return failure(Errc::kUsage, "the host sent no IPv6 address");
    return made;
}

sockaddr as_sockaddr(in_addr address) {
    sockaddr_in four{};
    four.sin_family = AF_INET;
    four.sin_addr = address;
    sockaddr made{};
    std::memcpy(&made, &four, sizeof four);
    return made;
}

class Card {
  public:
    static Result<Card> open() {
        os::Fd four(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        if (!four) return failure_errno("cannot make a socket");
        return Card(std::move(four));
    }

    Result<> set(unsigned long what, ifreq& request, const char* doing) {
        std::memcpy(request.ifr_name, kCard, sizeof kCard);
        if (::ioctl(four_.get(), what, &request) != 0) return failure_errno(std::string("cannot ") + doing + " of " + kCard);
        return {};
    }

    Result<> set_address(const wire::NetworkLink& link) {
        ifreq request{};
        request.ifr_mtu = static_cast<int>(link.mtu());
        CAISSON_TRY(set(SIOCSIFMTU, request, "set the largest frame"));
        request = {};
        request.ifr_addr = as_sockaddr(CAISSON_TRY(address_of(link.address())));
        CAISSON_TRY(set(SIOCSIFADDR, request, "set the address"));
        if (link.prefix() == 0 || link.prefix() > 32) return failure(Errc::kUsage, "the host sent no prefix");
        request = {};
        request.ifr_netmask = as_sockaddr({htonl(~std::uint32_t{0} << (32 - link.prefix()))});
        CAISSON_TRY(set(SIOCSIFNETMASK, request, "set the prefix"));
        request = {};
        request.ifr_flags = IFF_UP | IFF_RUNNING | IFF_BROADCAST | IFF_MULTICAST;
        return set(SIOCSIFFLAGS, request, "switch on the card");
    }

    // Known from the beginning, so that the first packet waits for nobody's answer.
    Result<> set_neighbour(const wire::NetworkLink& link) {
        const auto& hardware = link.gateway_hardware();
        if (hardware.size() != 6) return failure(Errc::kUsage, "the host sent no hardware address");
        arpreq request{};
        request.arp_pa = as_sockaddr(CAISSON_TRY(address_of(link.gateway())));
        request.arp_ha.sa_family = ARPHRD_ETHER;
        std::memcpy(request.arp_ha.sa_data, hardware.data(), hardware.size());
        request.arp_flags = ATF_COM | ATF_PERM;
        std::memcpy(request.arp_dev, kCard, sizeof kCard);
        if (::ioctl(four_.get(), SIOCSARP, &request) != 0) return failure_errno("cannot set the gateway's hardware address");
        return {};
    }

    Result<> set_route(const wire::NetworkLink& link) {
        rtentry route{};
        route.rt_dst = as_sockaddr({});
        route.rt_genmask = as_sockaddr({});
        route.rt_gateway = as_sockaddr(CAISSON_TRY(address_of(link.gateway())));
        route.rt_flags = RTF_UP | RTF_GATEWAY;
        if (::ioctl(four_.get(), SIOCADDRT, &route) != 0) return failure_errno("cannot set the way out");
        return {};
    }

    Result<> set_up6(const wire::NetworkLink& link) {
        os::Fd six(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        if (!six) return failure_errno("this guest's kernel has no IPv6");
        ifreq found{};
        CAISSON_TRY(set(SIOCGIFINDEX, found, "find the number"));
        in6_ifreq address{};
        address.ifr6_addr = CAISSON_TRY(address6_of(link.address6()));
        address.ifr6_prefixlen = link.prefix6();
        address.ifr6_ifindex = found.ifr_ifindex;
        if (::ioctl(six.get(), SIOCSIFADDR, &address) != 0 && errno != EEXIST) return failure_errno("cannot set the IPv6 address");
        in6_rtmsg route{};
        route.rtmsg_gateway = CAISSON_TRY(address6_of(link.gateway6()));
        route.rtmsg_metric = 1024;
        route.rtmsg_flags = RTF_UP | RTF_GATEWAY;
        route.rtmsg_ifindex = found.ifr_ifindex;
        if (::ioctl(six.get(), SIOCADDRT, &route) != 0) return failure_errno("cannot set the way out for IPv6");
        return {};
    }

  private:
    explicit Card(os::Fd four) : four_(std::move(four)) {}
    os::Fd four_;
};

// Nobody else is on the link: no address is asked about before it is used, and no router is believed.
void quiet6() {
    for (const char* setting : {"accept_dad", "accept_ra", "router_solicitations"}) {
        auto file = os::open_file(std::string(kProc) + "/sys/net/ipv6/conf/" + kCard + "/" + setting, O_WRONLY);
        if (file) static_cast<void>(os::write_all(file->get(), "0"));
    }
}

}  // namespace

Result<> bring_up_network(const wire::NetworkLink& link) {
    quiet6();
    auto card = CAISSON_TRY(Card::open());
    CAISSON_TRY(card.set_address(link));
    CAISSON_TRY(card.set_neighbour(link));
    CAISSON_TRY(card.set_route(link));
    return link.address6().empty() ? Result<>() : card.set_up6(link);
}

}  // namespace caisson::agent
