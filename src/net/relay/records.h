// What caisson-netd tells of its work: events to the supervisor, who keeps and counts them. One loop's thread.
#pragma once

#include <chrono>
#include <string>

#include "net/address.h"
#include "net/dns/server.h"
#include "net/policy/policy.h"
#include "net/relay/dial.h"
#include "os/fd.h"
#include "wire/net.pb.h"

namespace caisson::net::relay {

// A connection or flow as events tell of it.
struct Subject {
    Protocol protocol = Protocol::kTcp;
    Endpoint outside;         // as the guest wanted it; of a published port: who came
    std::string name;
    Endpoint dialled;         // port 0: nowhere else
    std::string proxy;        // through which it goes; empty: directly
    bool published = false;
    std::chrono::steady_clock::time_point begun = std::chrono::steady_clock::now();
    std::uint64_t bytes_out = 0, bytes_in = 0;
    void use(const Route& route) { proxy = route.proxy ? route.proxy->to_string() : std::string(); }
};

class Records {
  public:
    // `socket`: SOCK_SEQPACKET, non-blocking. None: nobody wants to know.
    explicit Records(os::Fd socket) : socket_(std::move(socket)) {}
    void connection(wire::NetworkEvent::Connection::State state, const Subject& subject, const std::string& rule, const std::string& reason);
    void question(const dns::Question& question);

  private:
    void send(wire::NetworkEvent event);
    os::Fd socket_;
    std::uint64_t lost_ = 0;
};

}  // namespace caisson::net::relay
