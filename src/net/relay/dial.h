// Connections to the outside, as a process of the host makes them. Belongs to one loop's thread.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "net/address.h"
#include "os/fd.h"
#include "os/loop.h"

namespace caisson::net::relay {

// Tries each of some places in turn until one answers. Destroying it gives up, and nobody is told.
class Dial {
  public:
    // A connected, non-blocking socket and where it leads; or the first error.
    struct End {
        os::Fd socket;
        int error = 0;
        Endpoint place;
    };
    using Done = std::function<void(End)>;
    // `done` comes from the loop, once, and may destroy this. `places`: at least one.
    static std::unique_ptr<Dial> start(os::Loop& loop, std::vector<Endpoint> places, Done done);
    ~Dial();
    Dial(const Dial&) = delete;
    Dial& operator=(const Dial&) = delete;

  private:
    Dial(os::Loop& loop, std::vector<Endpoint> places, Done done) : loop_(loop), places_(std::move(places)), done_(std::move(done)) {}
    void next();
    void on_writable();
    void forget();
    void failed(int error);

    os::Loop& loop_;
    std::vector<Endpoint> places_;
    Done done_;
    std::size_t at_ = 0;
    int first_error_ = 0;
    os::Fd socket_;
    os::Loop::TimerId timer_ = 0;
};

// A socket connected to one place without waiting for it: of UDP, where that takes no time. Or an errno.
os::Fd connect_udp(const Endpoint& place, int& error);

}  // namespace caisson::net::relay
