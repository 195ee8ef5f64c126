// Both programs of a box's network, without a machine: what arrives at the tap in its place.
#include "net/host.h"

#include <gtest/gtest.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstring>

#include "net/address.h"
#include "net/policy/policy.h"
#include "net/space/test_guest.h"
#include "os/host.h"

namespace caisson::net {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

Result<> enter_own_network() {
    CAISSON_TRY(testing_space::become_able());
    if (::unshare(CLONE_NEWNET) != 0) return base::failure_errno("cannot make a network namespace");
    os::Fd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ifreq request{};
    std::strcpy(request.ifr_name, "lo");
    request.ifr_flags = IFF_UP;
    if (::ioctl(socket.get(), SIOCSIFFLAGS, &request) != 0) return base::failure_errno("cannot switch on the loopback");
    return {};
}

const Endpoint kPublished{Address::v4(0x7f000001), 8080};
constexpr std::uint16_t kOfGuest = 80;

class NetworkHostUserns : public testing::Test {
  protected:
    static void SetUpTestSuite() {
        auto entered = enter_own_network();
        if (!entered) GTEST_SKIP() << entered.error().to_string();
    }
    void SetUp() override {
        const auto programs = os::program_directory() + "/../libexec/caisson/";
        auto opened = NetworkHost::open({.netns_program = programs + "caisson-netns", .netd_program = programs + "caisson-netd", .sandbox = &jail::no_jail()});
        if (!opened && opened.error().code == Errc::kPermission) GTEST_SKIP() << opened.error().to_string();
        ASSERT_TRUE(opened) << opened.error().to_string();
        host_ = std::move(*opened);
        wire::NetworkOrder::Begin begin;
        begin.mutable_spec()->set_policy(Policy::from_words({"public", {}, {}})->to_json());
        for (const bool udp : {false, true}) {
            auto& port = *begin.mutable_spec()->add_ports();
            port.set_address("127.0.0.1");
            port.set_host_port(kPublished.port);
            port.set_guest_port(kOfGuest);
            port.set_udp(udp);
        }
        auto begun = host_.begin(std::move(begin));
        ASSERT_TRUE(begun) << begun.error().to_string();
        events_ = std::move(*begun);
    }
    // Does a packet of this protocol to the guest's port come within that time?
    bool arrives(std::uint8_t protocol, milliseconds time) {
        constexpr std::size_t kBefore = 10 + 14;  // virtio's header, Ethernet's
        for (const auto end = Clock::now() + time; Clock::now() < end;) {
            std::uint8_t frame[2048];
            const ssize_t got = ::read(host_.tap().get(), frame, sizeof frame);
            if (got < 0 && !testing_space::readable(host_.tap(), 20)) continue;
            if (got < static_cast<ssize_t>(kBefore) + 24) continue;
            const auto* packet = frame + kBefore;
            if (packet[0] == 0x45 && packet[9] == protocol && (packet[22] << 8 | packet[23]) == kOfGuest) return true;
        }
        return false;
    }

    NetworkHost host_;
    os::Fd events_;
};

os::Fd reach(int type) {
    os::Fd socket(::socket(AF_INET, type | SOCK_CLOEXEC, 0));
    const auto place = to_socket(kPublished);
    EXPECT_EQ(::connect(socket.get(), place.get(), place.length), 0) << std::strerror(errno);
    if (type == SOCK_DGRAM) {
        EXPECT_EQ(::send(socket.get(), "x", 1, 0), 1);
    }
    return socket;
}

// A guest that is reached before it has been given its own randomness draws seeds from what all boxes of a template share.
TEST_F(NetworkHostUserns, NothingReachesTheGuestBeforeItIsLetIn) {
    const auto stream = reach(SOCK_STREAM), datagram = reach(SOCK_DGRAM);
    EXPECT_FALSE(arrives(IPPROTO_TCP, milliseconds(500)));
    EXPECT_FALSE(arrives(IPPROTO_UDP, milliseconds(100)));
    ASSERT_TRUE(host_.let_in());
    EXPECT_TRUE(arrives(IPPROTO_TCP, milliseconds(5000))) << "who came before is served";
    const auto again = reach(SOCK_DGRAM);
    EXPECT_TRUE(arrives(IPPROTO_UDP, milliseconds(5000)));
}

}  // namespace
}  // namespace caisson::net
