// The guest's datagrams, and those from outside to the ports of UDP that it publishes, as flows: the packets between one
// place of the guest's and one outside. One loop's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>

#include "net/relay/context.h"

namespace caisson::net::relay {

class Datagrams {
  public:
    using Reply = std::function<void(base::ByteView)>;
    struct Options {
        os::Fd socket;  // of the box's namespace: everything without a flow
        // A datagram to the name server. `reply` may come much later.
        std::function<void(base::ByteView query, Reply reply)> name_server;
    };
    Datagrams(Context& context, Options options);
    ~Datagrams();
    Datagrams(const Datagrams&) = delete;
    Datagrams& operator=(const Datagrams&) = delete;

    Result<> start();
    // Datagrams to `socket`, one of the host, go to the guest's port. `number`: nobody else's, and not 0.
    Result<> publish(os::Fd socket, std::uint16_t guest_port, std::uint16_t number);
    // And its flows end. A number that is none here is left alone.
    void unpublish(std::uint32_t number);
    void judge_again();
    std::size_t open() const { return flows_.size(); }

  private:
    struct Flow;
    struct Port;
    using Key = std::pair<Endpoint, Endpoint>;  // guest, outside; of a published port: its own number and who came
    using Flows = std::map<Key, std::unique_ptr<Flow>>;

    void on_socket();
    void took(const Endpoint& guest, const Endpoint& outside, base::ByteView data);
    void ask_name_server(const Endpoint& guest, const Endpoint& server, base::ByteView query);
    void on_port(Port& port);
    Flow* begin(const Key& key, Subject subject, Verdict verdict, Port* port = nullptr);
    void make_inside(Flow& flow);
    void from_guest(const Key& key);
    void to_guest(const Key& key);
    void send(Flow& flow, bool to_guest, base::ByteView data);
    void touch(Flow& flow);
    void end(const Key& key, const std::string& reason);
    void sweep();
    void deny(const Endpoint& guest, const Subject& subject, const Verdict& verdict);

    Context& context_;
    Options options_;
    Flows flows_;
    std::list<Key> by_age_;  // the idlest first
    std::map<Endpoint, os::Fd> name_sockets_;  // by the name server's address
    std::vector<std::unique_ptr<Port>> ports_;
    std::map<Key, std::chrono::steady_clock::time_point> denied_;  // told already
    os::Loop::TimerId timer_ = 0;
    base::Bytes room_;
};

}  // namespace caisson::net::relay
