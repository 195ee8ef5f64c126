// Connections to the outside, as a process of the host makes them. Belongs to one loop's thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "net/address.h"
#include "net/proxy/proxy.h"
#include "os/fd.h"
#include "os/loop.h"

namespace caisson::net::relay {

// Where a connection is to lead, and through which proxy. With one it is never made without it.
struct Route {
    Endpoint place;
    std::optional<Proxy> proxy;
};

// Tries each of some routes in turn until one answers; a proxy has answered once it says that it has connected. Destroying it
// gives up, and nobody is told.
class Dial {
  public:
    // A connected, non-blocking socket and where it leads; or the first error, and what it comes from.
    struct End {
        os::Fd socket;
        int error = 0;
        Route route;
        std::string why;
    };
    using Done = std::function<void(End)>;
    // `done` comes from the loop, once, and may destroy this. `routes`: at least one.
    static std::unique_ptr<Dial> start(os::Loop& loop, std::vector<Route> routes, Done done);
    ~Dial();
    Dial(const Dial&) = delete;
    Dial& operator=(const Dial&) = delete;

  private:
    Dial(os::Loop& loop, std::vector<Route> routes, Done done) : loop_(loop), routes_(std::move(routes)), done_(std::move(done)) {}
    void next();
    void on_connected();
    void ask();
    void on_answer();
    void connected();
    void forget();
    void failed(int error, std::string why = {});

    os::Loop& loop_;
    std::vector<Route> routes_;
    Done done_;
    std::size_t at_ = 0;
    int first_error_ = 0;
    std::string first_why_;
    std::vector<ProxyQuestion> questions_;  // none until the proxy is there
    std::size_t asked_ = 0;
    base::Bytes answer_;
    os::Fd socket_;
    os::Loop::TimerId timer_ = 0;
};

// A socket connected to one place without waiting for it: of UDP, where that takes no time. Or an errno.
os::Fd connect_udp(const Endpoint& place, int& error);

}  // namespace caisson::net::relay
