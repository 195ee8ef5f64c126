// This side of the talk with caisson-netns (space/protocol.h): it asks before a connection of the guest's is answered, and
// makes sockets in the box's namespace. Belongs to one loop's thread.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <unordered_map>

#include "net/space/protocol.h"
#include "os/fd.h"
#include "os/loop.h"

namespace caisson::net::relay {

class Space {
  public:
    // `begins`: the guest wants this connection; whoever is told answers with give_verdict(), at once or later. `gone`:
    // nobody is at the other end any more.
    struct Told {
        std::function<void(std::uint64_t number, const Endpoint& guest, const Endpoint& outside)> begins;
        std::function<void()> gone;
    };
    Space(os::Loop& loop, os::Fd socket, Told told) : loop_(loop), socket_(std::move(socket)), told_(std::move(told)) {}
    ~Space();
    Space(const Space&) = delete;
    Space& operator=(const Space&) = delete;

    Result<> start();
    void give_verdict(std::uint64_t number, NetnsMessage::Verdict verdict);
    // `made` is called later, once: with a socket, or with an errno.
    using Made = std::function<void(os::Fd socket, int error)>;
    // For datagrams from `outside` to `guest`, and only between those two unless the guest's port is 0.
    void make_udp(const Endpoint& outside, const Endpoint& guest, Made made);
    // The guest hears that nobody takes its datagrams from `guest` to `outside`.
    void refuse_udp(const Endpoint& guest, const Endpoint& outside);
    // To a port of the guest's; of TCP it is still connecting.
    void dial(const Endpoint& guest, Protocol protocol, Made made);

  private:
    void on_readable();
    void ask(NetnsMessage message, Made made);
    Result<> send(const NetnsMessage& message);
    void send_verdicts();

    os::Loop& loop_;
    os::Fd socket_;
    Told told_;
    std::uint64_t next_ = 1;
    std::unordered_map<std::uint64_t, Made> asked_;
    std::deque<NetnsMessage> verdicts_;  // for which there was no room
};

}  // namespace caisson::net::relay
