// Lookup: one question, asked of name servers in turn until one of them has an answer. Part of Resolver.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "net/dns/message.h"
#include "net/dns/resolver.h"
#include "os/fd.h"
#include "os/loop.h"

namespace caisson::net::dns {

// Each try has a socket of its own, so that its port and its id must both be guessed by whoever forges an answer without
// seeing the question; the socket is connected, so that the kernel drops what comes from another address or port.
class Lookup {
  public:
    struct Options {
        os::Loop* loop;
        std::vector<Endpoint> servers;
        std::function<Result<>(std::span<std::uint8_t>)> random;
        std::chrono::milliseconds try_timeout, deadline;
        Resolver::Counts* counts;
    };
    struct Found {
        Resolved::Kind kind = Resolved::Kind::kTimeout;
        std::vector<Address> addresses;
        std::uint32_t ttl = 0;
    };
    // From the loop, never from the constructor; it may destroy the lookup.
    using Done = std::function<void(Found)>;

    Lookup(Options options, std::string name, Type type, Done done);
    ~Lookup();
    Lookup(const Lookup&) = delete;
    Lookup& operator=(const Lookup&) = delete;

  private:
    enum class After : std::uint8_t {
        kWait,     // on the same socket
        kAsked,    // again, on another one: it will call
        kNextTry,
        kDone,
    };

    void begin_try();
    bool ask(bool over_tcp);
    Result<> make_question();
    bool open_socket(int type);
    void close_socket();
    void on_udp();
    void on_tcp(std::uint32_t events);
    bool send_over_tcp();
    After read_tcp();
    void go_on(After after);
    After take(const Answer& answer, bool over_tcp);
    After failed(Resolved::Kind why);
    void next_try();
    void finish();

    Options options_;
    std::string name_;
    Type type_;
    Done done_;
    os::Loop::Clock::time_point deadline_;
    os::Loop::TimerId timer_ = 0;  // begins the first try, then ends each
    std::size_t try_ = 0;          // counts through the servers and rounds
    std::vector<bool> gave_up_;    // servers that are not asked again
    bool edns_ = true;
    os::Fd socket_;
    bool over_tcp_ = false, sent_ = false;
    std::uint16_t id_ = 0;
    base::Bytes question_;
    base::Bytes incoming_;         // of TCP, its length in front
    std::size_t strays_ = 0;
    Found found_;
};

}  // namespace caisson::net::dns
