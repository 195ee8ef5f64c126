// What caisson-netns does for the rest of its life: it asks about each connection that the guest begins, and makes sockets.
#pragma once

#include <chrono>
#include <optional>

#include "net/space/gate.h"
#include "net/space/protocol.h"
#include "net/space/space.h"
#include "os/fd.h"
#include "os/loop.h"

namespace caisson::net {

// Owner: main. Single thread, the loop's.
class SpaceServer {
  public:
    // `launcher`: ends it by hanging up, and may send another `ask`. `ask`: caisson-netd's; may be none.
    SpaceServer(os::Loop& loop, os::Fd launcher, os::Fd ask, os::Fd queue, Refusals refusals);
    Result<> start();
    // Why it ended, once the loop has: nothing is wrong if the launcher hung up.
    Result<> ended() const { return ended_; }

  private:
    Result<> watch_ask();
    void drop_ask();
    void on_launcher();
    void on_queue();
    void on_ask(std::uint32_t events);
    void arrived(std::uint32_t packet, const Beginning& beginning);
    // false: the last question has not left yet.
    bool ask(std::uint64_t number, const Beginning& beginning);
    void answer(const NetnsMessage& message);
    void made(const NetnsMessage& message, Result<os::Fd> socket);
    void give(std::uint32_t packet, NetnsMessage::Verdict verdict);
    void drop(std::uint32_t packet);
    void send_verdict(std::uint32_t packet, std::uint32_t verdict, std::uint32_t mark);
    void tidy();
    void end(Result<> why);

    os::Loop& loop_;
    os::Fd launcher_, ask_, queue_;
    Refusals refusals_;
    Gate gate_;
    std::optional<NetnsMessage> unsent_;  // a question that there was no room for; no packet is read until there is
    Result<> ended_;
};

}  // namespace caisson::net
