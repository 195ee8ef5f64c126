// What a guest and a relay have of a box's network, with the real program.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <set>

#include "net/space/test_fixture.h"

namespace caisson::net {
namespace {

class Able : public testing::Environment {
    void SetUp() override {
        if (auto able = become_able(); !able) GTEST_SKIP() << able.error().to_string();
    }
};
[[maybe_unused]] const auto* const able = testing::AddGlobalTestEnvironment(new Able);

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

}  // namespace
}  // namespace caisson::net
