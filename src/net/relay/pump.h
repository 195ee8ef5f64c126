// One connection's bytes, both ways: between the box's namespace and the outside. Belongs to one loop's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/bytes.h"
#include "net/relay/rate.h"
#include "os/fd.h"
#include "os/loop.h"

namespace caisson::net::relay {

enum class Way : std::uint8_t { kOut, kIn };  // from the box, and to it

// What reads or changes a connection's bytes on their way. Those of one connection are asked in their order, on the way in
// in the opposite one. Errors end the connection, at both ends as if it had been reset.
class Stage {
  public:
    virtual ~Stage() = default;
    // `bytes` are those that go on; it may keep some back until the next call. `last`: there will be no more this way.
    virtual Result<> pass(Way way, base::Bytes& bytes, bool last) = 0;
};

class Pump {
  public:
    struct Options {
        os::Fd inside, outside;        // connected, non-blocking; the pump's from now on
        base::Bytes first;             // what was read of `inside` already
        std::vector<std::unique_ptr<Stage>> stages;
        Rate* rates[2] = {};           // by Way; of the whole box; not null
        base::Bytes* scratch = nullptr;  // of kBufferBytes, for whoever reads just now
    };
    // `ended` comes from the loop, once: with 0 if both sides had said all, else an errno. It may destroy the pump.
    using Ended = std::function<void(int error)>;
    Pump(os::Loop& loop, Options options, Ended ended);
    ~Pump();
    Pump(const Pump&) = delete;
    Pump& operator=(const Pump&) = delete;

    Result<> start();
    std::uint64_t bytes(Way way) const { return sides_[way == Way::kOut ? 0 : 1].bytes; }
    // Ends it as if it had been reset at both ends; `ended` is not told.
    void cut();

  private:
    // Half a connection. It reads from sockets_[from] and writes to the other one.
    struct Side {
        Way way;
        std::size_t from, to;
        base::Bytes waiting;      // for `to`
        std::size_t written = 0;  // of these
        bool ended = false;       // `from` has said all
        bool told = false;        // and `to` knows
        bool waits = false;       // for the rate
        std::uint64_t bytes = 0;
    };
    void on_event(std::size_t socket, std::uint32_t events);
    Result<bool> flush(Side& side);
    Result<bool> take(Side& side);
    Result<> pass(Side& side, base::Bytes bytes);
    Result<> move(Side& side);
    void wait_for_rate(Side& side);
    void step();
    void finish(int error);
    void watch();

    os::Loop& loop_;
    os::Fd sockets_[2];  // inside, outside
    std::uint32_t watched_[2] = {};
    bool hung_up_[2] = {};
    std::vector<std::unique_ptr<Stage>> stages_;
    Rate* rates_[2];
    base::Bytes* scratch_;
    Ended ended_;
    Side sides_[2];
    os::Loop::TimerId timer_ = 0;
};

}  // namespace caisson::net::relay
