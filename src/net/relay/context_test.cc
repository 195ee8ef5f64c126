#include "net/relay/context.h"

#include <gtest/gtest.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <memory>

namespace caisson::net::relay {
namespace {

// One of this host's that is not its loopback and would be reached in mode `open`.
std::optional<Address> own_address() {
    ifaddrs* first = nullptr;
    if (::getifaddrs(&first) != 0) return std::nullopt;
    const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> all(first, &::freeifaddrs);
    for (const auto* one = first; one != nullptr; one = one->ifa_next) {
        if (one->ifa_addr == nullptr || (one->ifa_addr->sa_family != AF_INET && one->ifa_addr->sa_family != AF_INET6)) continue;
        const auto place = from_socket(one->ifa_addr, one->ifa_addr->sa_family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6));
        if (place && Policy::from_words({.net = "open", .allow = {}, .deny = {}})->judge_address({place->address, 80}, Protocol::kTcp, {}, {}).allowed()) return place->address;
    }
    return std::nullopt;
}

TEST(Context, FindsAnAddressThatTheHostGotLater) {
    const auto own = own_address();
    if (!own) GTEST_SKIP() << "this host has no address but its loopback";
    auto loop = std::move(*os::Loop::create());
    Records records{os::Fd()};
    Context context{.loop = loop, .records = records};
    context.use(*Policy::from_words({.net = "open", .allow = {}, .deny = {}}));
    EXPECT_TRUE(context.judge({*own, 80}, Protocol::kTcp).allowed());
    context.look_at(*own);
    EXPECT_FALSE(context.judge({*own, 80}, Protocol::kTcp).allowed());
    // Also after the policy was changed.
    context.use(*Policy::from_words({.net = "open", .allow = {}, .deny = {}}));
    EXPECT_FALSE(context.judge({*own, 80}, Protocol::kTcp).allowed());
}

TEST(Context, TakesNoOtherAddressForTheHosts) {
    auto loop = std::move(*os::Loop::create());
    Records records{os::Fd()};
    Context context{.loop = loop, .records = records};
    for (const char* text : {"9.9.9.9", "2620:fe::fe", kGatewayAddress}) context.look_at(*Address::parse(text));
    EXPECT_TRUE(context.host_addresses.empty());
}

TEST(Context, EverythingButThisHostLeadsThroughTheProxy) {
    auto loop = std::move(*os::Loop::create());
    Records records{os::Fd()};
    Context context{.loop = loop, .records = records};
    const Endpoint own{*Address::parse("93.184.216.34"), 80};
    const auto leads_through = [&](const char* address) { return context.route_to({*Address::parse(address), 80}).proxy; };
    EXPECT_FALSE(leads_through("9.9.9.9"));
    context.proxy = *parse_proxy("socks5://10.0.0.1:1080");
    context.host_addresses = {own.address};
    for (const char* address : {"9.9.9.9", "10.0.0.2", "10.0.0.1", "2620:fe::fe", "169.254.169.254", "64:ff9b::909:909"}) EXPECT_EQ(leads_through(address), context.proxy) << address;
    EXPECT_FALSE(context.route_to(own).proxy);
    EXPECT_FALSE(context.route_to(Context::place_of({*Address::parse(kGatewayAddress), 80})).proxy);
    for (const char* address : {"127.0.0.1", "::1"}) EXPECT_FALSE(leads_through(address)) << address;
}

}  // namespace
}  // namespace caisson::net::relay
