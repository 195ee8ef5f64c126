// The real program, with a guest at its tap. Each test runs as the caller and, if that is root, as an ordinary user.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <signal.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <set>

#include "net/space/limits.h"
#include "net/space/netlink.h"
#include "net/space/test_guest.h"
#include "os/file.h"
#include "os/host.h"

namespace caisson::net {
namespace {

using namespace testing_space;
using Clock = std::chrono::steady_clock;
using Kind = NetnsMessage::Kind;
using Verdict = NetnsMessage::Verdict;

Endpoint endpoint(const char* address, std::uint16_t port) { return {Address::parse(address).value(), port}; }
const Endpoint kOutside[] = {endpoint("192.0.2.7", 443), endpoint("2001:db8::7", 443)};

constexpr uid_t kOrdinary = 65534;

class Able : public testing::Environment {
    void SetUp() override {
        if (auto able = become_able(); !able) GTEST_SKIP() << able.error().to_string();
    }
};
const auto* const able = testing::AddGlobalTestEnvironment(new Able);

// The parameter: as an ordinary user, and not as the caller.
class SpaceUserns : public testing::TestWithParam<bool> {
  protected:
    void SetUp() override {
        if (GetParam() && ::geteuid() != 0) GTEST_SKIP() << "only root can start it as another user";
        auto box = Box::start(user());
        if (!box && box.error().code == Errc::kPermission) GTEST_SKIP() << box.error().to_string() << "; " << box.error().hint;
        ASSERT_TRUE(box) << box.error().to_string();
        box_ = std::move(*box);
        auto guest = Guest::create(box_.host.tap);
        ASSERT_TRUE(guest) << guest.error().to_string();
        guest_ = std::move(*guest);
    }

    static uid_t user() { return GetParam() ? kOrdinary : ::geteuid(); }

    // The question about a connection to `outside`, with a verdict.
    NetnsMessage answer(const Endpoint& outside, Verdict verdict) {
        auto question = box_.hear(2000);
        EXPECT_TRUE(question) << "nobody asked about " << outside.to_string();
        if (!question) return {};
        EXPECT_EQ(question->kind, Kind::kBegins);
        EXPECT_EQ(question->outside, outside) << question->outside.to_string();
        EXPECT_EQ(question->guest.address, guest_endpoint(!outside.address.is_v4(), 1).address);
        box_.judge(question->number, verdict);
        return *question;
    }

    Box box_;
    std::unique_ptr<Guest> guest_;
};

INSTANTIATE_TEST_SUITE_P(As, SpaceUserns, testing::Bool(), [](const auto& each) { return each.param ? "Ordinary" : "Caller"; });

TEST_P(SpaceUserns, AnAcceptedConnectionArrivesWithItsTrueDestination) {
    for (const auto& outside : kOutside) {
        auto client = guest_->connect(outside);
        const auto question = answer(outside, Verdict::kAccept);
        EXPECT_EQ(outcome(client, 2000), 0);
        auto accepted = box_.accept(2000);
        ASSERT_TRUE(accepted);
        EXPECT_EQ(own_name(accepted), outside) << own_name(accepted).to_string();
        EXPECT_EQ(peer_name(accepted), question.guest);
        EXPECT_EQ(own_name(client), question.guest);
        ASSERT_EQ(::send(client.get(), "question", 8, 0), 8);
        char text[16];
        ASSERT_TRUE(readable(accepted, 2000));
        EXPECT_EQ(::recv(accepted.get(), text, sizeof text, 0), 8);
        ASSERT_EQ(::send(accepted.get(), "answer", 6, 0), 6);
        ASSERT_TRUE(readable(client, 2000));
        EXPECT_EQ(::recv(client.get(), text, sizeof text, 0), 6);
    }
}

TEST_P(SpaceUserns, EachVerdictIsAnErrorOfItsOwnToTheGuest) {
    const struct {
        Verdict verdict;
        int error4, error6;
    } rows[] = {{Verdict::kRefuse, ECONNREFUSED, ECONNREFUSED},
                {Verdict::kHostUnreachable, EHOSTUNREACH, EHOSTUNREACH},
                {Verdict::kNetUnreachable, ENETUNREACH, ENETUNREACH},
                {Verdict::kProhibited, EHOSTUNREACH, EACCES}};  // IPv4 has no code of which Linux makes EACCES
    // Twice in a row: errors are not rationed.
    for (int round = 0; round < 10; ++round)
        for (const auto& row : rows)
            for (const auto& outside : kOutside) {
                auto client = guest_->connect(outside);
                answer(outside, row.verdict);
                EXPECT_EQ(outcome(client, 2000), outside.address.is_v4() ? row.error4 : row.error6)
                    << outside.to_string() << " verdict " << static_cast<int>(row.verdict) << " round " << round;
            }
}

TEST_P(SpaceUserns, SilenceIsSilenceAndOneQuestion) {
    for (const auto& outside : kOutside) {
        auto client = guest_->connect(outside);
        answer(outside, Verdict::kSilence);
        // A second later the guest's kernel tries again by itself.
        EXPECT_FALSE(box_.hear(1300));
        EXPECT_EQ(outcome(client, 0), std::nullopt);
    }
}

TEST_P(SpaceUserns, AConnectTakesAsLongAsItsVerdict) {
    for (const auto& outside : kOutside) {
        const auto begun = Clock::now();
        auto client = guest_->connect(outside);
        auto question = box_.hear(2000);
        ASSERT_TRUE(question);
        EXPECT_EQ(outcome(client, 300), std::nullopt);
        box_.judge(question->number, Verdict::kAccept);
        EXPECT_EQ(outcome(client, 500), 0);
        const auto took = Clock::now() - begun;
        EXPECT_GE(took, std::chrono::milliseconds(300));
        EXPECT_LT(took, std::chrono::milliseconds(600));
    }
}

// The guest's kernel sends again what is not answered; it is one connection all the same.
TEST_P(SpaceUserns, WhatIsSentAgainIsNotAskedAgain) {
    auto client = guest_->connect(kOutside[0]);
    auto question = box_.hear(2000);
    ASSERT_TRUE(question);
    EXPECT_FALSE(box_.hear(1300));
    box_.judge(question->number, Verdict::kAccept);
    EXPECT_EQ(outcome(client, 1000), 0);
    EXPECT_TRUE(box_.accept(1000));
    EXPECT_FALSE(box_.accept(100));
}

TEST_P(SpaceUserns, WithoutAVerdictNothingArrives) {
    auto client = guest_->connect(kOutside[0]);
    ASSERT_TRUE(box_.hear(2000));
    EXPECT_FALSE(box_.accept(500));
    EXPECT_EQ(outcome(client, 0), std::nullopt);
}

// The destination that a datagram was sent to, and who sent it.
struct Datagram {
    std::string bytes;
    Endpoint guest, outside;
};

Datagram receive_datagram(const os::Fd& socket) {
    Datagram datagram;
    if (!readable(socket, 2000)) return datagram;
    std::string room(70000, 0);
    SocketAddress from;
    struct iovec part {room.data(), room.size()};
    alignas(cmsghdr) char control[256];
    msghdr message{};
    message.msg_name = from.get();
    message.msg_namelen = sizeof from.storage;
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t got = ::recvmsg(socket.get(), &message, 0);
    if (got < 0) return datagram;
    datagram.bytes = room.substr(0, static_cast<std::size_t>(got));
    datagram.guest = from_socket(from.get(), message.msg_namelen).value_or(Endpoint{});
    for (auto* part_of = CMSG_FIRSTHDR(&message); part_of != nullptr; part_of = CMSG_NXTHDR(&message, part_of)) {
        const bool four = part_of->cmsg_level == SOL_IP && part_of->cmsg_type == IP_ORIGDSTADDR;
        const bool six = part_of->cmsg_level == SOL_IPV6 && part_of->cmsg_type == IPV6_ORIGDSTADDR;
        if (four || six)
            datagram.outside = from_socket(reinterpret_cast<const sockaddr*>(CMSG_DATA(part_of)),
                                           static_cast<socklen_t>(part_of->cmsg_len - CMSG_LEN(0))).value_or(Endpoint{});
    }
    return datagram;
}

ssize_t send_to(const os::Fd& socket, const std::string& bytes, const Endpoint& to) {
    auto address = to_socket(to);
    return ::sendto(socket.get(), bytes.data(), bytes.size(), 0, address.get(), address.length);
}

// Each size is what one datagram may have on a wire of 1500 bytes, or has to be taken apart and put together again.
TEST_P(SpaceUserns, DatagramsOfAnySizeAndTheirAnswers) {
    for (const auto& outside : {endpoint("192.0.2.53", 53), endpoint("2001:db8::53", 53)})
        for (std::size_t size : {1, 1400, 1500, 4000, 60000}) {
            SCOPED_TRACE(outside.to_string() + " " + std::to_string(size));
            auto client = guest_->socket(outside.address.is_v4() ? AF_INET : AF_INET6, SOCK_DGRAM);
            const std::string question(size, 'q'), reply(size, 'r');
            ASSERT_EQ(send_to(client, question, outside), static_cast<ssize_t>(size));
            const auto arrived = receive_datagram(box_.host.datagrams);
            EXPECT_EQ(arrived.bytes, question);
            EXPECT_EQ(arrived.outside, outside) << arrived.outside.to_string();
            EXPECT_EQ(arrived.guest.address, guest_endpoint(!outside.address.is_v4(), 1).address);

            auto socket = box_.make(Kind::kMakeUdp, Protocol::kUdp, arrived.guest, arrived.outside);
            ASSERT_TRUE(socket) << socket.error().to_string();
            ASSERT_EQ(::send(socket->get(), reply.data(), reply.size(), 0), static_cast<ssize_t>(size));
            ASSERT_TRUE(readable(client, 2000));
            std::string room(70000, 0);
            SocketAddress from;
            from.length = sizeof from.storage;
            ASSERT_EQ(::recvfrom(client.get(), room.data(), room.size(), 0, from.get(), &from.length), static_cast<ssize_t>(size));
            EXPECT_EQ(from_socket(from.get(), from.length), outside);

            // What the guest sends next of this flow arrives at the flow's own socket.
            ASSERT_EQ(send_to(client, question, outside), static_cast<ssize_t>(size));
            ASSERT_TRUE(readable(*socket, 2000));
            EXPECT_EQ(::recv(socket->get(), room.data(), room.size(), 0), static_cast<ssize_t>(size));
            EXPECT_FALSE(readable(box_.host.datagrams, 0));
        }
}

// Two guests' ports may talk to one and the same endpoint.
TEST_P(SpaceUserns, FlowsToOneEndpointAreApart) {
    const auto outside = endpoint("192.0.2.53", 53);
    auto first = guest_->socket(AF_INET, SOCK_DGRAM), second = guest_->socket(AF_INET, SOCK_DGRAM);
    std::vector<os::Fd> sockets;
    for (const auto* client : {&first, &second}) {
        ASSERT_EQ(send_to(*client, "x", outside), 1);
        auto made = box_.make(Kind::kMakeUdp, Protocol::kUdp, receive_datagram(box_.host.datagrams).guest, outside);
        ASSERT_TRUE(made) << made.error().to_string();
        sockets.push_back(std::move(*made));
    }
    ASSERT_EQ(::send(sockets[0].get(), "first", 5, 0), 5);
    EXPECT_TRUE(readable(first, 2000));
    EXPECT_FALSE(readable(second, 100));
    ASSERT_EQ(send_to(second, "x", outside), 1);
    EXPECT_TRUE(readable(sockets[1], 2000));
    EXPECT_FALSE(readable(sockets[0], 0));
}

TEST_P(SpaceUserns, DatagramsThatNobodyTakesAreRefused) {
    for (const auto& outside : kOutside) {
        auto client = guest_->socket(outside.address.is_v4() ? AF_INET : AF_INET6, SOCK_DGRAM);
        auto address = to_socket(outside);
        ASSERT_EQ(::connect(client.get(), address.get(), address.length), 0);
        ASSERT_EQ(::send(client.get(), "x", 1, 0), 1);
        NetnsMessage message;
        message.kind = Kind::kRefuseUdp;
        message.guest = receive_datagram(box_.host.datagrams).guest;
        message.outside = outside;
        box_.tell(message);
        ASSERT_TRUE(readable(client, 2000)) << outside.to_string();
        char room[1];
        EXPECT_EQ(::recv(client.get(), room, sizeof room, 0), -1);
        EXPECT_EQ(errno, ECONNREFUSED);
    }
}

os::Fd listen_in(Guest& guest, bool six, std::uint16_t port) {
    auto server = guest.socket(six ? AF_INET6 : AF_INET, SOCK_STREAM);
    auto address = to_socket(guest_endpoint(six, port));
    EXPECT_EQ(::bind(server.get(), address.get(), address.length), 0);
    EXPECT_EQ(::listen(server.get(), 8), 0);
    return server;
}

TEST_P(SpaceUserns, AServerInTheGuestIsDialled) {
    std::uint16_t port = 8080;
    for (bool six : {false, true})
        for (const auto& from : {Endpoint{}, six ? endpoint("2001:db8::99", 40000) : endpoint("198.51.100.9", 40000)}) {
            auto server = listen_in(*guest_, six, ++port);
            auto dialled = box_.make(Kind::kDial, Protocol::kTcp, guest_endpoint(six, port), from);
            ASSERT_TRUE(dialled) << dialled.error().to_string();
            EXPECT_EQ(outcome(*dialled, 2000), 0);
            ASSERT_TRUE(readable(server, 2000));
            os::Fd accepted(::accept4(server.get(), nullptr, nullptr, SOCK_CLOEXEC));
            const auto peer = peer_name(accepted);
            EXPECT_TRUE(from.port == 0 || peer == from) << peer.to_string();
            ASSERT_EQ(::send(accepted.get(), "hello", 5, 0), 5);
            ASSERT_TRUE(readable(*dialled, 2000));
        }
    auto closed = box_.make(Kind::kDial, Protocol::kTcp, guest_endpoint(false, 9), {});
    ASSERT_TRUE(closed);
    EXPECT_EQ(outcome(*closed, 2000), ECONNREFUSED);
    EXPECT_FALSE(box_.hear(0)) << "the guest's answer was taken for a connection of its own";
}

TEST_P(SpaceUserns, ADatagramServerInTheGuestIsDialled) {
    auto server = guest_->socket(AF_INET, SOCK_DGRAM);
    auto address = to_socket(guest_endpoint(false, 5353));
    ASSERT_EQ(::bind(server.get(), address.get(), address.length), 0);
    auto dialled = box_.make(Kind::kDial, Protocol::kUdp, guest_endpoint(false, 5353), {});
    ASSERT_TRUE(dialled);
    ASSERT_EQ(::send(dialled->get(), "question", 8, 0), 8);
    ASSERT_TRUE(readable(server, 2000));
    char room[16];
    SocketAddress from;
    from.length = sizeof from.storage;
    EXPECT_EQ(::recvfrom(server.get(), room, sizeof room, 0, from.get(), &from.length), 8);
    EXPECT_EQ(::sendto(server.get(), "answer", 6, 0, from.get(), from.length), 6);
    EXPECT_TRUE(readable(*dialled, 2000));
}

// Whoever asks gets sockets to the guest and to nothing else.
TEST_P(SpaceUserns, NothingButTheGuestIsDialled) {
    for (const auto& other : {endpoint("127.0.0.1", 80), endpoint("10.0.2.2", 80), endpoint("192.0.2.1", 80), endpoint("::1", 80), endpoint("10.0.2.15", 0)}) {
        auto made = box_.make(Kind::kDial, Protocol::kTcp, other, {});
        ASSERT_FALSE(made) << other.to_string();
        EXPECT_EQ(made.error().sys_errno, EINVAL);
        EXPECT_FALSE(box_.make(Kind::kMakeUdp, Protocol::kUdp, other, kOutside[0]));
    }
    EXPECT_FALSE(box_.make(Kind::kMakeUdp, Protocol::kUdp, guest_endpoint(false, 9), kOutside[1]));
}

TEST_P(SpaceUserns, AThousandConnections) {
    constexpr int kCount = 1000;
    struct rlimit limit {};
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_cur < 2 * kCount + 100) GTEST_SKIP() << "this process may not have enough descriptors";
    std::vector<os::Fd> clients, accepted;
    for (int i = 0; i < kCount; ++i) clients.push_back(guest_->connect({kOutside[i % 2].address, static_cast<std::uint16_t>(1000 + i)}));
    std::set<std::uint16_t> ports;
    for (int i = 0; i < kCount; ++i) {
        auto question = box_.hear(3000);
        ASSERT_TRUE(question) << i;
        box_.judge(question->number, Verdict::kAccept);
        ports.insert(question->outside.port);
    }
    EXPECT_EQ(ports.size(), std::size_t{kCount});
    for (int i = 0; i < kCount; ++i) {
        accepted.push_back(box_.accept(3000));
        ASSERT_TRUE(accepted.back()) << i;
    }
    for (const auto& client : clients) EXPECT_EQ(outcome(client, 2000), 0);
}

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

TEST_P(SpaceUserns, AFloodOfBeginningsStaysBounded) {
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
TEST_P(SpaceUserns, AFloodThatNobodyReadsStaysBounded) {
    for (std::uint16_t i = 0; i < 10000; ++i) guest_->inject(syn(kGuestAddress, "192.0.2.7", static_cast<std::uint16_t>(1024 + i), 443));
    std::size_t asked = 0;
    while (box_.hear(500)) ++asked;
    EXPECT_LE(asked, 2 * kMostHeldConnections);
    EXPECT_GE(asked, std::size_t{100});
}

TEST_P(SpaceUserns, AnotherSourceThanTheGuestsIsNotHeard) {
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
TEST_P(SpaceUserns, ItsNeighbourIsTheGuestWhateverThatSays) {
    for (int i = 3; i < 100; ++i) {
        guest_->inject(neighbour_question4("10.0.2." + std::to_string(i)));
        guest_->inject(neighbour_question4("192.0.2." + std::to_string(i)));
        guest_->inject(neighbour_question6("fd00:ca15::" + std::to_string(i)));
        guest_->inject(neighbour_question6("fe80::" + std::to_string(i)));
    }
    EXPECT_EQ(neighbours_of(box_.host.process().pid()), (std::set<std::string>{kGuestAddress, kGuestAddress6}));
}

TEST_P(SpaceUserns, TheGatewayIsFoundByWhoeverAsks) {
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

TEST_P(SpaceUserns, NoOtherProtocolPasses) {
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

TEST_P(SpaceUserns, OnlyTheGatewayAnswersAnEcho) {
    for (bool six : {false, true}) {
        auto raw = guest_->socket(six ? AF_INET6 : AF_INET, SOCK_RAW, six ? static_cast<int>(IPPROTO_ICMPV6) : static_cast<int>(IPPROTO_ICMP));
        EXPECT_EQ(send_to(raw, echo_request(six), {kOutside[six].address, 0}), 8);
        EXPECT_FALSE(readable(raw, 300));
        EXPECT_EQ(send_to(raw, echo_request(six), endpoint(six ? kGatewayAddress6 : kGatewayAddress, 0)), 8);
        EXPECT_TRUE(readable(raw, 2000));
    }
}

// Nobody is asked, so nothing is let through; it is said at once.
TEST_P(SpaceUserns, WithoutNetdTheNetworkIsUnreachableUntilThereIsAnother) {
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

TEST_P(SpaceUserns, ANetdThatTalksNonsenseIsNotHeardAnyMore) {
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

TEST_P(SpaceUserns, EndsWithItsLauncherAndLeavesNothing) {
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

TEST_P(SpaceUserns, IsLocked) {
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
