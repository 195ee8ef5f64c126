// A name server for tests: on a loopback port, UDP and TCP, that answers whatever its test says.
#pragma once

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "net/address.h"
#include "net/dns/message.h"
#include "os/fd.h"
#include "os/loop.h"

namespace caisson::net::dns {

inline base::Bytes operator+(base::Bytes a, const base::Bytes& b) {
    base::append(a, b);
    return a;
}

// Runs the loop until `done` or five seconds have passed.
inline bool run_until(os::Loop& loop, const std::function<bool()>& done) {
    const auto end = os::Loop::Clock::now() + std::chrono::seconds(5);
    while (!done() && os::Loop::Clock::now() < end)
        if (!loop.step(std::chrono::milliseconds(20))) return false;
    return done();
}

class TestUpstream {
  public:
    // What is sent for a question, one datagram each (over TCP: one after the other). Raw bytes.
    using Answers = std::vector<base::Bytes>;
    using Handler = std::function<Answers(const Query& query, bool over_tcp)>;

    explicit TestUpstream(os::Loop& loop, Handler handler = nullptr) : loop_(loop), handler_(std::move(handler)) {
        for (int i = 0; i < 100 && !listener_; ++i) open();
        EXPECT_TRUE(loop_.watch(udp_.get(), EPOLLIN, [this](std::uint32_t) { on_datagram(); }));
        EXPECT_TRUE(loop_.watch(listener_.get(), EPOLLIN, [this](std::uint32_t) { on_connection(); }));
    }
    ~TestUpstream() {
        loop_.unwatch(udp_.get());
        loop_.unwatch(listener_.get());
        for (const auto& [number, fd] : connections_) loop_.unwatch(number);
    }
    Endpoint endpoint() const { return endpoint_; }
    int asked = 0, asked_tcp = 0;
    Query last;
    sockaddr_storage last_from{};
    std::vector<std::uint16_t> ids, ports;
    void handle(Handler handler) { handler_ = std::move(handler); }
    // From the server's own address, as it would answer itself.
    void send(const base::Bytes& answer) { send_from(udp_.get(), answer); }
    void send_from(int socket, const base::Bytes& answer) {
        ::sendto(socket, answer.data(), answer.size(), 0, reinterpret_cast<const sockaddr*>(&last_from),
                 sizeof(sockaddr_in));
    }

  private:
    // The same port for both.
    void open() {
        udp_ = os::Fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        auto address = to_socket({Address::v4(INADDR_LOOPBACK), 0});
        if (::bind(udp_.get(), address.get(), address.length) != 0) return;
        ::getsockname(udp_.get(), address.get(), &address.length);
        endpoint_ = *from_socket(address.get(), address.length);
        os::Fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        if (::bind(listener.get(), address.get(), address.length) == 0 && ::listen(listener.get(), 16) == 0) listener_ = std::move(listener);
    }
    Answers answers_to(base::ByteView bytes, bool over_tcp) {
        auto parsed = parse_query(bytes);
        if (!std::holds_alternative<Query>(parsed)) return {};
        last = std::get<Query>(parsed);
        ids.push_back(last.id);
        ++(over_tcp ? asked_tcp : asked);
        return handler_ ? handler_(last, over_tcp) : Answers{};
    }
    void on_datagram() {
        std::uint8_t room[2048];
        socklen_t length = sizeof last_from;
        const auto size = ::recvfrom(udp_.get(), room, sizeof room, 0, reinterpret_cast<sockaddr*>(&last_from), &length);
        if (size < 0) return;
        ports.push_back(from_socket(reinterpret_cast<sockaddr*>(&last_from), length)->port);
        for (const auto& answer : answers_to(base::ByteView(room).first(static_cast<std::size_t>(size)), false)) send(answer);
    }
    void on_connection() {
        os::Fd connection(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
        if (!connection) return;
        const int number = connection.get();
        EXPECT_TRUE(loop_.watch(number, EPOLLIN, [this, number](std::uint32_t) { on_stream(number); }));
        connections_[number] = std::move(connection);
    }
    void on_stream(int number) {
        std::uint8_t room[2048];
        const auto size = ::recv(number, room, sizeof room, 0);
        if (size <= 2) {
            loop_.unwatch(number);
            connections_.erase(number);
            return;
        }
        for (const auto& answer : answers_to(base::ByteView(room).first(static_cast<std::size_t>(size)).subspan(2), true)) {
            const auto framed = base::Bytes{static_cast<std::uint8_t>(answer.size() >> 8), static_cast<std::uint8_t>(answer.size())} + answer;
            ::send(number, framed.data(), framed.size(), MSG_NOSIGNAL);
        }
    }

    os::Loop& loop_;
    Handler handler_;
    os::Fd udp_, listener_;
    Endpoint endpoint_;
    std::map<int, os::Fd> connections_;
};

// Answers as an honest server builds them, also for what the box's own server would clamp or leave out.
inline base::Bytes upstream_answer(const Query& query, const std::vector<std::string>& addresses, std::uint8_t code = 0, std::uint32_t ttl = 60) {
    base::Bytes bytes{static_cast<std::uint8_t>(query.id >> 8),
                      static_cast<std::uint8_t>(query.id),
                      0x81,
                      static_cast<std::uint8_t>(0x80 | code),
                      0,
                      1,
                      0,
                      static_cast<std::uint8_t>(addresses.size()),
                      0,
                      0,
                      0,
                      0};
    base::append(bytes, query.question);
    for (const auto& text : addresses) {
        const auto address = *Address::parse(text);
        const bool four = query.type == Type::kA;
        std::uint8_t seconds[4];
        base::store_be32(seconds, ttl);
        bytes = bytes + base::Bytes{0xc0,       12,         0,          static_cast<std::uint8_t>(query.type),
                                    0,          1,          seconds[0], seconds[1],
                                    seconds[2], seconds[3], 0,          static_cast<std::uint8_t>(four ? 4 : 16)};
        base::append(bytes, base::ByteView(address.bytes()).last(four ? 4 : 16));
    }
    return bytes;
}

// A handler that knows `hosts`; of other names it says that they do not exist.
inline TestUpstream::Handler knows(std::map<std::string, std::vector<std::string>> hosts) {
    return [hosts](const Query& query, bool) -> TestUpstream::Answers {
        const auto found = hosts.find(query.name);
        if (found == hosts.end()) return {upstream_answer(query, {}, 3)};
        std::vector<std::string> fit;
        for (const auto& text : found->second)
            if (Address::parse(text)->is_v4() == (query.type == Type::kA)) fit.push_back(text);
        return {upstream_answer(query, fit)};
    };
}

}  // namespace caisson::net::dns
