// What a hostile guest, a relay that was taken over and a lesser host come to, with the real program.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <set>

#include "net/space/limits.h"
#include "net/space/netlink.h"
#include "net/space/test_fixture.h"
#include "os/file.h"
#include "os/host.h"

namespace caisson::net {
namespace {

class SpaceHostileUserns : public SpaceUserns {};
INSTANTIATE_TEST_SUITE_P(As, SpaceHostileUserns, testing::Bool(), [](const auto& each) { return each.param ? "Ordinary" : "Caller"; });

// Frames as a hostile guest sends them.
base::Bytes ethernet(bool six) {
    base::Bytes frame(kGatewayHardware.begin(), kGatewayHardware.end());
    base::append(frame, kGuestHardware);
    base::append(frame, base::Bytes{static_cast<std::uint8_t>(six ? 0x86 : 0x08), static_cast<std::uint8_t>(six ? 0xdd : 0x00)});
    return frame;
}

std::uint16_t sum(base::ByteView bytes, std::uint32_t start = 0) {
    for (std::size_t i = 0; i + 1 < bytes.size(); i += 2) start += static_cast<std::uint32_t>(bytes[i] << 8 | bytes[i + 1]);
    if (bytes.size() % 2 != 0) start += static_cast<std::uint32_t>(bytes.back() << 8);
    while (start >> 16 != 0) start = (start & 0xffff) + (start >> 16);
    return static_cast<std::uint16_t>(start);
}

void store_be16(std::uint8_t* at, std::uint16_t value) {
    at[0] = static_cast<std::uint8_t>(value >> 8);
    at[1] = static_cast<std::uint8_t>(value);
}

base::Bytes ip4(const char* source, const char* destination, std::uint8_t protocol, const base::Bytes& body) {
    base::Bytes packet{0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0};
    for (const char* address : {source, destination}) base::append(packet, base::ByteView(Address::parse(address)->bytes()).subspan(12));
    store_be16(&packet[2], static_cast<std::uint16_t>(packet.size() + body.size()));
    store_be16(&packet[10], static_cast<std::uint16_t>(~sum(packet)));
    base::append(packet, body);
    return packet;
}

base::Bytes syn(const char* source, const char* destination, std::uint16_t from, std::uint16_t to) {
    base::Bytes header(20);
    store_be16(&header[0], from);
    store_be16(&header[2], to);
    header[7] = 1;
    header[12] = 0x50;
    header[13] = 0x02;
    store_be16(&header[14], 1000);
    std::uint32_t pseudo = 6u + static_cast<std::uint32_t>(header.size());
    for (const char* address : {source, destination}) pseudo += sum(base::ByteView(Address::parse(address)->bytes()).subspan(12));
    store_be16(&header[16], static_cast<std::uint16_t>(~sum(header, pseudo)));
    auto frame = ethernet(false);
    base::append(frame, ip4(source, destination, IPPROTO_TCP, header));
    return frame;
}

std::size_t resident_pages(pid_t pid) {
    auto text = os::read_file("/proc/" + std::to_string(pid) + "/statm").value_or("0 0");
    return std::stoul(text.substr(text.find(' ')));
}

TEST_P(SpaceHostileUserns, AFloodOfBeginningsStaysBounded) {
    const auto before = resident_pages(box_.host.process().pid());
    std::size_t asked = 0;
    const auto drain = [&] { while (box_.hear(0)) ++asked; };
    for (std::uint16_t i = 0; i < 20000; ++i) {
        guest_->inject(syn(kGuestAddress, "192.0.2.7", static_cast<std::uint16_t>(1024 + i), 443));
        if (i % 100 == 0) drain();
    }
    while (box_.hear(500)) ++asked;
    EXPECT_EQ(asked, kMostHeldConnections);
    EXPECT_LT(resident_pages(box_.host.process().pid()), before + 1024);
    EXPECT_FALSE(box_.accept(0));
    // Once there is room again, whoever is honest gets through.
    for (std::uint64_t number = 1; number <= kMostHeldConnections; ++number) box_.judge(number, Verdict::kRefuse);
    auto client = guest_->connect(kOutside[1]);
    answer(kOutside[1], Verdict::kAccept);
    EXPECT_EQ(outcome(client, 2000), 0);
}

// A flood that nobody even reads: the socket to caisson-netd is full, and the rest waits in the kernel, up to its limit.
TEST_P(SpaceHostileUserns, AFloodThatNobodyReadsStaysBounded) {
    for (std::uint16_t i = 0; i < 10000; ++i) guest_->inject(syn(kGuestAddress, "192.0.2.7", static_cast<std::uint16_t>(1024 + i), 443));
    std::size_t asked = 0;
    while (box_.hear(500)) ++asked;
    EXPECT_LE(asked, 2 * kMostHeldConnections);
    EXPECT_GE(asked, std::size_t{100});
}

TEST_P(SpaceHostileUserns, AnotherSourceThanTheGuestsIsNotHeard) {
    for (const char* source : {"10.0.2.16", "10.0.2.2", "127.0.0.1", "192.0.2.1", "0.0.0.0"})
        guest_->inject(syn(source, "192.0.2.7", 5000, 443));
    EXPECT_FALSE(box_.hear(300));
    guest_->inject(syn(kGuestAddress, "192.0.2.7", 5000, 443));
    EXPECT_TRUE(box_.hear(2000));
}

// "Who has 10.0.2.2? Tell `source`".
base::Bytes neighbour_question4(const std::string& source) {
    base::Bytes frame = ethernet(false);
    frame[13] = 0x06;
    base::append(frame, base::Bytes{0, 1, 8, 0, 6, 4, 0, 1});
    base::append(frame, kGuestHardware);
    base::append(frame, base::ByteView(Address::parse(source)->bytes()).subspan(12));
    base::append(frame, base::Bytes(6));
    base::append(frame, base::ByteView(Address::parse(kGatewayAddress)->bytes()).subspan(12));
    return frame;
}

// The same of IPv6 (RFC 4861, 4.3), with the guest's hardware address.
base::Bytes neighbour_question6(const std::string& source) {
    base::Bytes body{135, 0, 0, 0, 0, 0, 0, 0};
    base::append(body, Address::parse(kGatewayAddress6)->bytes());
    base::append(body, base::Bytes{1, 1});
    base::append(body, kGuestHardware);
    base::Bytes packet{0x60, 0, 0, 0, 0, static_cast<std::uint8_t>(body.size()), IPPROTO_ICMPV6, 255};
    base::append(packet, Address::parse(source)->bytes());
    base::append(packet, Address::parse(kGatewayAddress6)->bytes());
    const std::uint32_t pseudo = sum(base::ByteView(packet).subspan(8)) + std::uint32_t{IPPROTO_ICMPV6} + static_cast<std::uint32_t>(body.size());
    store_be16(&body[2], static_cast<std::uint16_t>(~sum(body, pseudo)));
    base::append(packet, body);
    auto frame = ethernet(true);
    base::append(frame, packet);
    return frame;
}

// The addresses that the box's namespace knows of its neighbours.
std::set<std::string> neighbours_of(pid_t pid) {
    std::set<std::string> found;
    OtherThread there;
    there.run([&] {
        auto space = os::open_file("/proc/" + std::to_string(pid) + "/ns/net", O_RDONLY);
        if (!space || ::setns(space->get(), CLONE_NEWNET) != 0) return;
        auto routing = NetlinkSocket::open(NETLINK_ROUTE);
        struct {
            nlmsghdr header;
            ndmsg fixed;
        } request{};
        request.header = {sizeof request, RTM_GETNEIGH, NLM_F_REQUEST | NLM_F_DUMP, 1, 0};
        static_cast<void>(!::send(routing->fd().get(), &request, sizeof request, 0));
        alignas(nlmsghdr) char room[1 << 16];
        for (bool more = true; more;) {
            auto left = static_cast<unsigned>(std::max<ssize_t>(0, ::recv(routing->fd().get(), room, sizeof room, 0)));
            more = left > 0;
            for (auto* header = reinterpret_cast<nlmsghdr*>(room); NLMSG_OK(header, left); header = NLMSG_NEXT(header, left)) {
                if (header->nlmsg_type == NLMSG_DONE) more = false;
                if (header->nlmsg_type != RTM_NEWNEIGH) continue;
                const auto* neighbour = static_cast<const ndmsg*>(NLMSG_DATA(header));
                const auto* first = reinterpret_cast<const rtattr*>(neighbour + 1);
                if (neighbour->ndm_state == NUD_NOARP || first->rta_type != NDA_DST) continue;
                char text[INET6_ADDRSTRLEN];
                found.insert(::inet_ntop(neighbour->ndm_family, RTA_DATA(first), text, sizeof text));
            }
        }
    });
    return found;
}

// The host has one table of neighbours for all its namespaces, which a guest must not fill.
TEST_P(SpaceHostileUserns, ItsNeighbourIsTheGuestWhateverThatSays) {
    for (int i = 3; i < 100; ++i) {
        guest_->inject(neighbour_question4("10.0.2." + std::to_string(i)));
        guest_->inject(neighbour_question4("192.0.2." + std::to_string(i)));
        guest_->inject(neighbour_question6("fd00:ca15::" + std::to_string(i)));
        guest_->inject(neighbour_question6("fe80::" + std::to_string(i)));
    }
    EXPECT_EQ(neighbours_of(box_.host.process().pid()), (std::set<std::string>{kGuestAddress, kGuestAddress6}));
}

TEST_P(SpaceHostileUserns, TheGatewayIsFoundByWhoeverAsks) {
    auto fresh = Box::start(user());
    ASSERT_TRUE(fresh);
    box_ = std::move(*fresh);
    auto guest = Guest::create(box_.host.tap, false);
    ASSERT_TRUE(guest);
    for (const auto& outside : kOutside) {
        auto client = (*guest)->connect(outside);
        answer(outside, Verdict::kRefuse);
        EXPECT_EQ(outcome(client, 2000), ECONNREFUSED);
    }
}

TEST_P(SpaceHostileUserns, NoOtherProtocolPasses) {
    auto icmp = guest_->socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    // The kernel would answer for each of them that there is no such protocol.
    for (int protocol : {4, 41, 47, 50, 132, 136, 253}) {
        auto raw = guest_->socket(AF_INET, SOCK_RAW, protocol);
        EXPECT_EQ(send_to(raw, "12345678", endpoint(kGatewayAddress, 0)), 8);
        EXPECT_EQ(send_to(raw, "12345678", endpoint("192.0.2.7", 0)), 8);
    }
    EXPECT_FALSE(readable(icmp, 300));
}

std::string echo_request(bool six) {
    std::string request{static_cast<char>(six ? 128 : ICMP_ECHO), 0, 0, 0, 0, 1, 0, 1};
    if (!six) {
        const auto check = static_cast<std::uint16_t>(~sum(base::as_bytes(request)));
        store_be16(reinterpret_cast<std::uint8_t*>(&request[2]), check);
    }
    return request;
}

TEST_P(SpaceHostileUserns, OnlyTheGatewayAnswersAnEcho) {
    for (bool six : {false, true}) {
        auto raw = guest_->socket(six ? AF_INET6 : AF_INET, SOCK_RAW, six ? static_cast<int>(IPPROTO_ICMPV6) : static_cast<int>(IPPROTO_ICMP));
        EXPECT_EQ(send_to(raw, echo_request(six), {kOutside[six].address, 0}), 8);
        EXPECT_FALSE(readable(raw, 300));
        EXPECT_EQ(send_to(raw, echo_request(six), endpoint(six ? kGatewayAddress6 : kGatewayAddress, 0)), 8);
        EXPECT_TRUE(readable(raw, 2000));
    }
}

// Nobody is asked, so nothing is let through; it is said at once.
TEST_P(SpaceHostileUserns, WithoutNetdTheNetworkIsUnreachableUntilThereIsAnother) {
    auto waiting = guest_->connect(kOutside[0]);
    ASSERT_TRUE(box_.hear(2000));
    box_.host.ask.reset();
    EXPECT_EQ(outcome(waiting, 2000), ENETUNREACH);
    EXPECT_EQ(outcome(guest_->connect(kOutside[1]), 2000), ENETUNREACH);

    auto another = box_.host.another_ask();
    ASSERT_TRUE(another);
    box_.host.ask = std::move(*another);
    // It may still be on its way.
    std::optional<int> ended;
    os::Fd client;
    for (int i = 0; i < 50 && !ended; ++i) {
        client = guest_->connect(kOutside[0]);
        if (auto question = box_.hear(100)) box_.judge(question->number, Verdict::kAccept), ended = outcome(client, 2000);
    }
    EXPECT_EQ(ended, 0);
}

TEST_P(SpaceHostileUserns, ANetdThatTalksNonsenseIsNotHeardAnyMore) {
    ASSERT_TRUE(os::send_packet(box_.host.ask.get(), "nonsense"));
    ASSERT_TRUE(readable(box_.host.ask, 2000));
    char room[4];
    EXPECT_EQ(os::receive_packet(box_.host.ask.get(), room).length, 0);
    EXPECT_TRUE(box_.host.process().running());
}

std::string namespace_of(pid_t pid, const char* kind) {
    char text[64]{};
    if (::readlink(("/proc/" + std::to_string(pid) + "/ns/" + kind).c_str(), text, sizeof text - 1) < 0) return {};
    return text;
}

bool somebody_is_in(const std::string& space) {
    const auto processes = os::list_directory("/proc").value();
    for (const auto& name : processes)
        if (name[0] >= '1' && name[0] <= '9' && namespace_of(std::atoi(name.c_str()), "net") == space) return true;
    return false;
}

TEST_P(SpaceHostileUserns, EndsWithItsLauncherAndLeavesNothing) {
    const auto space = namespace_of(box_.host.process().pid(), "net");
    ASSERT_FALSE(space.empty());
    ASSERT_TRUE(somebody_is_in(space));
    auto client = guest_->connect(kOutside[0]);
    ASSERT_TRUE(box_.hear(2000));
    ASSERT_EQ(::shutdown(box_.host.socket().get(), SHUT_RDWR), 0);
    auto ended = box_.host.process().wait(std::chrono::seconds(5));
    ASSERT_TRUE(ended);
    EXPECT_FALSE(ended->signalled);
    EXPECT_EQ(ended->code, 0);
    EXPECT_FALSE(somebody_is_in(space));
    EXPECT_FALSE(box_.accept(0));
}

TEST_P(SpaceHostileUserns, IsLocked) {
    const auto status = os::read_file("/proc/" + std::to_string(box_.host.process().pid()) + "/status").value();
    for (const char* line : {"CapEff:\t0000000000001000", "CapPrm:\t0000000000001000", "CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000",
                             "NoNewPrivs:\t1",
#ifndef CAISSON_TEST_SANITIZED
                             "Seccomp:\t2",
#endif
    })
        EXPECT_NE(status.find(line), std::string::npos) << line << "\n" << status;
    EXPECT_NE(namespace_of(box_.host.process().pid(), "user"), namespace_of(::getpid(), "user"));
}

// What it says to its launcher where it cannot work. `script` becomes it, as "$0".
NetnsSaid said_by(const std::string& script, const char* tun) {
    auto pair = os::make_socketpair(SOCK_SEQPACKET).value();
    auto node = os::open_file(tun, O_PATH).value();
    os::Command command;
    command.arguments = {"/usr/bin/unshare", "--user", "--map-root-user", "/bin/sh", "-c", script, os::program_directory() + "/../libexec/caisson/caisson-netns"};
    command.descriptors = {{pair.second.get(), kNetnsLauncherFd}, {node.get(), kNetnsTunFd}, {pair.second.get(), kNetnsAskFd}};
    auto process = os::spawn(command);
    pair.second.reset();
    NetnsSaid said;
    char room[sizeof said];
    if (process && os::receive_packet(pair.first.get(), room).length == sizeof said) std::memcpy(&said, room, sizeof said);
    return said;
}

TEST(SpaceOnALesserHost, SaysWhatIsMissing) {
    auto said = said_by("echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\"", "/dev/null");
    EXPECT_EQ(said.kind, NetnsSaid::Kind::kFailed);
    EXPECT_EQ(said.error, ENOSPC);
    EXPECT_THAT(said.text, testing::HasSubstr("user and network namespaces"));
    EXPECT_THAT(said.hint, testing::HasSubstr("user.max_user_namespaces"));

    said = said_by("exec \"$0\"", "/dev/null");
    EXPECT_EQ(said.kind, NetnsSaid::Kind::kFailed);
    EXPECT_THAT(said.text, testing::HasSubstr("tap"));
    EXPECT_THAT(said.hint, testing::HasSubstr("modprobe tun"));

    said = said_by("exec \"$0\"", "/proc/self/mem");
    EXPECT_EQ(said.kind, NetnsSaid::Kind::kFailed);
    EXPECT_THAT(said.text, testing::HasSubstr("tun device"));
}

}  // namespace
}  // namespace caisson::net
