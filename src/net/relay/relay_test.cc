// Connections and datagrams of a guest at a real namespace of a box, in a network namespace of the test's own.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "net/relay/connections.h"
#include "net/relay/datagrams.h"
#include "net/space/test_guest.h"

namespace caisson::net::relay {
namespace {

using Clock = std::chrono::steady_clock;

// An address of the host that the guest takes for one of the internet.
constexpr const char* kServer = "93.184.216.34";

Result<> set_up_loopback() {
    if (::unshare(CLONE_NEWNET) != 0) return base::failure_errno("cannot make a network namespace");
    os::Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ifreq request{};
    std::strcpy(request.ifr_name, "lo");
    request.ifr_flags = IFF_UP;
    if (::ioctl(socket.get(), SIOCSIFFLAGS, &request) != 0) return base::failure_errno("cannot switch on the loopback");
    std::strcpy(request.ifr_name, "lo:1");
    sockaddr_in address{};
    address.sin_family = AF_INET;
    ::inet_pton(AF_INET, kServer, &address.sin_addr);
    std::memcpy(&request.ifr_addr, &address, sizeof address);
    if (::ioctl(socket.get(), SIOCSIFADDR, &request) != 0) return base::failure_errno("cannot give the loopback an address");
    return {};
}

class Able : public testing::Environment {
    void SetUp() override {
        auto able = testing_space::become_able();
        if (able) able = set_up_loopback();
        if (!able) GTEST_SKIP() << able.error().to_string();
    }
};
const auto* const able = testing::AddGlobalTestEnvironment(new Able);

class Relay : public testing::Test {
  protected:
    void start(const std::string& policy, std::map<std::string, std::vector<Address>> hosts = {}) {
        auto box = testing_space::Box::start(::geteuid());
        if (!box && box.error().code == Errc::kPermission) GTEST_SKIP() << box.error().to_string();
        ASSERT_TRUE(box) << box.error().to_string();
        box_ = std::move(*box);
        auto guest = testing_space::Guest::create(box_.host.tap);
        ASSERT_TRUE(guest) << guest.error().to_string();
        guest_ = std::move(*guest);
        context_.use(*Policy::parse(policy));
        dns::Resolver::Options names;
        names.loop = &loop_;
        names.hosts = std::move(hosts);
        resolver_ = std::make_unique<dns::Resolver>(std::move(names));
        context_.resolver = resolver_.get();
        space_ = std::make_unique<Space>(loop_, std::move(box_.host.ask), Space::Told{
            .begins = [this](std::uint64_t number, const Endpoint& from, const Endpoint& to) { connections_->begins(number, from, to); },
            .gone = [this] { is_gone_ = true; }});
        context_.space = space_.get();
        connections_ = std::make_unique<Connections>(context_, Connections::Options{.listener = std::move(box_.host.listener), .name_server = {}});
        datagrams_ = std::make_unique<Datagrams>(context_, Datagrams::Options{.socket = std::move(box_.host.datagrams), .name_server = {}});
        ASSERT_TRUE(space_->start());
        ASSERT_TRUE(connections_->start());
        ASSERT_TRUE(datagrams_->start());
    }
    static os::Fd listen_at(const char* address, std::uint16_t port) {
        os::Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        const int on = 1;
        ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        const auto place = to_socket({*Address::parse(address), port});
        EXPECT_EQ(::bind(socket.get(), place.get(), place.length), 0) << std::strerror(errno);
        EXPECT_EQ(::listen(socket.get(), 8), 0);
        return socket;
    }
    bool run_until(const std::function<bool()>& is_so, std::chrono::milliseconds patience = std::chrono::milliseconds(3000)) {
        for (const auto end = Clock::now() + patience; Clock::now() < end;) {
            if (is_so()) return true;
            if (!loop_.step(std::chrono::milliseconds(20))) return false;
        }
        return is_so();
    }
    // 0 or an errno.
    int connected(const os::Fd& client) {
        std::optional<int> outcome;
        run_until([&] { return (outcome = testing_space::outcome(client, 0)).has_value(); });
        return outcome.value_or(ETIMEDOUT);
    }
    void ask(const os::Fd& client) {
        constexpr std::string_view request = "GET / HTTP/1.1\r\nHost: inside.example.com\r\n\r\n";
        ASSERT_EQ(::send(client.get(), request.data(), request.size(), MSG_NOSIGNAL), static_cast<ssize_t>(request.size()));
    }
    // What the client receives next; empty: the end; nullopt: it was reset.
    std::optional<std::string> hear(const os::Fd& client) {
        char text[256];
        ssize_t got = -1;
        int error = 0;
        EXPECT_TRUE(run_until([&] {
            got = ::recv(client.get(), text, sizeof text, MSG_DONTWAIT);
            error = errno;
            return got >= 0 || error != EAGAIN;
        }));
        if (got < 0) return std::nullopt;
        return std::string(text, static_cast<std::size_t>(got));
    }

    os::Loop loop_ = std::move(*os::Loop::create());
    Records records_{os::Fd()};
    Context context_{.loop = loop_, .records = records_};
    testing_space::Box box_;
    std::unique_ptr<testing_space::Guest> guest_;
    std::unique_ptr<dns::Resolver> resolver_;
    std::unique_ptr<Space> space_;
    std::unique_ptr<Connections> connections_;
    std::unique_ptr<Datagrams> datagrams_;
    bool is_gone_ = false;
};

const Endpoint kWeb{*Address::parse(kServer), 80};

TEST_F(Relay, ANameAtTheGatewaysAddressDoesNotLeadToTheHostsLoopback) {
    const auto loopback = listen_at("127.0.0.1", 80);
    start(R"({"version": 1, "mode": "rules", "allow": ["inside.example.com", "10.0.0.0/8"]})", {{"inside.example.com", {*Address::parse(kGatewayAddress)}}});
    auto client = guest_->connect({*Address::parse("93.184.216.99"), 80});
    ASSERT_EQ(connected(client), 0);
    ask(client);
    EXPECT_EQ(hear(client), std::nullopt);
    EXPECT_LT(::accept(loopback.get(), nullptr, nullptr), 0);
}

TEST_F(Relay, ADatagramFromPortZeroIsNotTheEnd) {
    start(R"({"version": 1, "mode": "rules"})");
    auto raw = guest_->socket(AF_INET, SOCK_RAW, IPPROTO_UDP);
    const std::uint8_t datagram[] = {0, 0, 0, 99, 0, 9, 0, 0, 'x'};
    const auto to = to_socket({kWeb.address, 0});
    ASSERT_EQ(::sendto(raw.get(), datagram, sizeof datagram, 0, to.get(), to.length), static_cast<ssize_t>(sizeof datagram)) << std::strerror(errno);
    EXPECT_FALSE(run_until([&] { return is_gone_; }, std::chrono::milliseconds(500)));
}

TEST_F(Relay, AServerThatSpeaksFirstIsHeardAtOnceBesideRulesAboutNames) {
    const auto server = listen_at(kServer, 25);
    start(R"({"version": 1, "mode": "public", "allow": ["93.184.216.34"], "deny": ["inside.example.com"]})");
    auto client = guest_->connect({kWeb.address, 25});
    ASSERT_EQ(connected(client), 0);
    os::Fd served(::accept(server.get(), nullptr, nullptr));
    ASSERT_TRUE(served);
    ASSERT_EQ(::send(served.get(), "220 hello", 9, 0), 9);
    EXPECT_EQ(hear(client), "220 hello");
}

TEST_F(Relay, ANameThatIsShownAndDeniedIsAnswered) {
    const auto server = listen_at(kServer, 80);
    start(R"({"version": 1, "mode": "public", "allow": ["93.184.216.34"], "deny": ["inside.example.com"]})");
    auto client = guest_->connect(kWeb);
    ASSERT_EQ(connected(client), 0);
    ask(client);
    const auto heard = hear(client);
    ASSERT_TRUE(heard);
    EXPECT_EQ(heard->substr(0, 12), "HTTP/1.1 403");
}

TEST_F(Relay, WhoeverWaitsWhereNamesAreShownIsNotTakenForNameless) {
    const auto server = listen_at(kServer, 80);
    start(R"({"version": 1, "mode": "public", "allow": ["93.184.216.34"], "deny": ["inside.example.com"]})");
    auto client = guest_->connect(kWeb);
    ASSERT_EQ(connected(client), 0);
    os::Fd served(::accept(server.get(), nullptr, nullptr));
    ASSERT_TRUE(served);
    ASSERT_EQ(::send(served.get(), "hello", 5, 0), 5);
    EXPECT_FALSE(run_until([&] { return testing_space::readable(client, 0); }, std::chrono::milliseconds(500)));
    ask(client);
    const auto heard = hear(client);
    ASSERT_TRUE(heard);
    EXPECT_EQ(heard->substr(0, 12), "HTTP/1.1 403");
}

TEST_F(Relay, AnAddressOfTheHostsOwnNeedsItsOwnRule) {
    const auto server = listen_at(kServer, 80);
    start(R"({"version": 1, "mode": "open"})");
    auto client = guest_->connect(kWeb);
    EXPECT_EQ(connected(client), ECONNREFUSED);
}

// The guest's place is nowhere: a connection that is made without the proxy fails otherwise.
TEST_F(Relay, AConnectionBeginsOnceTheProxySaysYesAndNotWithout) {
    const auto proxy = listen_at("127.0.0.1", 3128);
    context_.proxy = *parse_proxy("http://127.0.0.1:3128");
    start(R"({"version": 1, "mode": "public"})");
    const Endpoint nowhere{*Address::parse("93.184.216.99"), 25};
    const auto asked_of = [&](const os::Fd& client, std::string_view answer) {
        os::Fd served;
        EXPECT_TRUE(run_until([&] { return static_cast<bool>(served = os::Fd(::accept(proxy.get(), nullptr, nullptr))); })) << "the proxy is not asked";
        if (!served) return served;
        EXPECT_EQ(hear(served), "CONNECT 93.184.216.99:25 HTTP/1.1\r\nHost: 93.184.216.99:25\r\n\r\n");
        EXPECT_FALSE(run_until([&] { return testing_space::outcome(client, 0).has_value(); }, std::chrono::milliseconds(200))) << "it began before the proxy said yes";
        EXPECT_EQ(::send(served.get(), answer.data(), answer.size(), MSG_NOSIGNAL), static_cast<ssize_t>(answer.size()));
        return served;
    };
    auto client = guest_->connect(nowhere);
    auto served = asked_of(client, "HTTP/1.1 200 Yes\r\n\r\n220 hello");
    ASSERT_TRUE(served);
    ASSERT_EQ(connected(client), 0);
    EXPECT_EQ(hear(client), "220 hello");
    ASSERT_EQ(::send(client.get(), "there", 5, MSG_NOSIGNAL), 5);
    EXPECT_EQ(hear(served), "there");
    auto refused = guest_->connect(nowhere);
    ASSERT_TRUE(asked_of(refused, "HTTP/1.1 403 No\r\n\r\n"));
    EXPECT_EQ(connected(refused), ECONNREFUSED);
}

TEST_F(Relay, WhatThePolicyDeniesDoesNotComeToTheProxy) {
    const auto proxy = listen_at("127.0.0.1", 3128);
    context_.proxy = *parse_proxy("http://127.0.0.1:3128");
    start(R"({"version": 1, "mode": "public"})");
    for (const char* address : {"10.0.0.1", "169.254.169.254", kServer}) EXPECT_EQ(connected(guest_->connect({*Address::parse(address), 80})), ECONNREFUSED) << address;
    EXPECT_LT(::accept(proxy.get(), nullptr, nullptr), 0);
}

TEST_F(Relay, AnAddressOfTheHostsOwnIsNotAskedOfTheProxy) {
    const auto proxy = listen_at("127.0.0.1", 3128), server = listen_at(kServer, 25);
    context_.proxy = *parse_proxy("http://127.0.0.1:3128");
    start(R"({"version": 1, "mode": "public", "allow": ["93.184.216.34"]})");
    EXPECT_EQ(connected(guest_->connect({kWeb.address, 25})), 0);
    EXPECT_LT(::accept(proxy.get(), nullptr, nullptr), 0);
}

TEST_F(Relay, DatagramsDoNotGoAroundTheProxy) {
    os::Fd server(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const auto place = to_socket({kWeb.address, 7});
    ASSERT_EQ(::bind(server.get(), place.get(), place.length), 0);
    start(R"({"version": 1, "mode": "public", "allow": ["93.184.216.34"]})");
    const auto arrives = [&] {
        auto client = guest_->socket(AF_INET, SOCK_DGRAM);
        EXPECT_GT(testing_space::send_to(client, "hello", {kWeb.address, 7}), 0);
        char text[16];
        return run_until([&] { return ::recv(server.get(), text, sizeof text, 0) > 0; }, std::chrono::milliseconds(1000));
    };
    EXPECT_TRUE(arrives());
    context_.proxy = *parse_proxy("http://127.0.0.1:3128");
    EXPECT_FALSE(arrives()) << "a datagram went around the proxy";
    EXPECT_EQ(datagrams_->open(), 1u);
}

TEST_F(Relay, WhatAnotherPolicyDeniesIsCutAndNothingElse) {
    const auto one = listen_at(kServer, 25), other = listen_at(kServer, 26);
    start(R"({"version": 1, "mode": "rules", "allow": ["93.184.216.34"]})");
    auto goes = guest_->connect({kWeb.address, 25}), stays = guest_->connect({kWeb.address, 26});
    ASSERT_EQ(connected(goes), 0);
    ASSERT_EQ(connected(stays), 0);
    os::Fd served(::accept(one.get(), nullptr, nullptr)), kept(::accept(other.get(), nullptr, nullptr));
    ASSERT_TRUE(run_until([&] { return connections_->open() == 2; }));
    ASSERT_EQ(::send(served.get(), "hello", 5, 0), 5);
    EXPECT_EQ(hear(goes), "hello");
    context_.use(*Policy::parse(R"({"version": 1, "mode": "rules", "allow": ["93.184.216.34:26"]})"));
    connections_->judge_again();
    EXPECT_EQ(hear(goes), std::nullopt) << "what the new policy denies is open";
    EXPECT_EQ(hear(served), std::nullopt);
    ASSERT_EQ(::send(kept.get(), "still", 5, 0), 5);
    EXPECT_EQ(hear(stays), "still");
    EXPECT_EQ(connections_->open(), 1u);
}

TEST_F(Relay, ARuleThatComesWhileAConnectionIsReadForItsNameHoldsForIt) {
    const auto server = listen_at(kServer, 80);
    context_.learn = true;
    start(R"({"version": 1, "mode": "public", "allow": ["93.184.216.34"]})");
    auto client = guest_->connect(kWeb);
    ASSERT_EQ(connected(client), 0);
    context_.use(*Policy::parse(R"({"version": 1, "mode": "public", "allow": ["93.184.216.34"], "deny": ["inside.example.com"]})"));
    connections_->judge_again();
    ask(client);
    const auto heard = hear(client);
    ASSERT_TRUE(heard);
    EXPECT_EQ(heard->substr(0, 12), "HTTP/1.1 403");
}

TEST_F(Relay, APortThatIsPublishedNoMoreIsClosedAndWhatCameThroughItIsCut) {
    start(R"({"version": 1, "mode": "rules"})");
    const auto inside = guest_->socket(AF_INET, SOCK_STREAM);
    const auto place = to_socket({Address::v4(0), 5000});
    ASSERT_EQ(::bind(inside.get(), place.get(), place.length), 0);
    ASSERT_EQ(::listen(inside.get(), 8), 0);
    ASSERT_TRUE(connections_->publish(listen_at("127.0.0.1", 5000), 5000, 1));
    const auto to = to_socket({*Address::parse("127.0.0.1"), 5000});
    auto begin = [&] {
        os::Fd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        static_cast<void>(::connect(client.get(), to.get(), to.length));
        return client;
    };
    auto client = begin();
    ASSERT_EQ(connected(client), 0);
    os::Fd arrived;
    ASSERT_TRUE(run_until([&] { return static_cast<bool>(arrived = os::Fd(::accept(inside.get(), nullptr, nullptr))); }));
    ASSERT_EQ(::send(arrived.get(), "hello", 5, 0), 5);
    EXPECT_EQ(hear(client), "hello");
    connections_->unpublish(2);  // somebody else's
    ASSERT_EQ(::send(arrived.get(), "still", 5, 0), 5);
    EXPECT_EQ(hear(client), "still");
    connections_->unpublish(1);
    EXPECT_EQ(hear(client), std::nullopt);
    EXPECT_EQ(connected(begin()), ECONNREFUSED);
}

}  // namespace
}  // namespace caisson::net::relay
