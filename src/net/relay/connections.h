// The guest's connections of TCP, and those from outside to the ports that it publishes. One loop's thread.
//
// The guest's connect() is held back until a verdict (see space.h): it succeeds only if the host's own did. Where a rule
// about names decides, that is not possible: the connection is accepted, shows its name, is judged, and is dialled by it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <unordered_map>

#include "net/relay/context.h"
#include "net/relay/dial.h"
#include "net/relay/pump.h"

namespace caisson::net::relay {

class Connections {
  public:
    struct Options {
        os::Fd listener;                                    // of the box's namespace
        std::function<void(os::Fd connection)> name_server;  // takes a connection to it
    };
    Connections(Context& context, Options options);
    ~Connections();
    Connections(const Connections&) = delete;
    Connections& operator=(const Connections&) = delete;

    Result<> start();
    void begins(std::uint64_t number, const Endpoint& guest, const Endpoint& outside);
    // Connections to `listener`, a socket of the host, go to the guest's port. `number`: nobody else's, and not 0.
    Result<> publish(os::Fd listener, std::uint16_t guest_port, std::uint16_t number);
    // And what came through it is cut. A number that is none here is left alone.
    void unpublish(std::uint32_t number);
    // The policy has changed: what it does not allow any more is cut.
    void judge_again();
    std::size_t open() const { return all_.size(); }

  private:
    struct Connection;
    using Id = std::uint64_t;
    using Pair = std::pair<Endpoint, Endpoint>;  // guest, outside

    bool has_room();
    void refuse(std::uint64_t number, NetnsMessage::Verdict verdict, const Subject& subject, const Verdict& why);
    void dial_for(std::uint64_t number, Connection& connection);
    void await(Connection& connection);
    void on_listener();
    void on_port(int listener, std::uint16_t guest_port, std::uint16_t number);
    void cut(Connection& connection);
    void not_accepted(int listener, int error);
    void arrived(os::Fd socket, const Endpoint& guest, const Endpoint& outside);
    void peek(Connection& connection);
    void look_anew(Connection& connection);
    static bool only_learns(const Connection& connection);
    void on_first_bytes(Id id);
    void on_server_first(Id id);
    void judge_hello(Connection& connection, const std::optional<std::string>& name, bool is_http);
    void deny(Connection& connection, const Verdict& verdict, bool is_http);
    void resolve(Connection& connection);
    void dial_name(Connection& connection, const dns::Resolved& resolved);
    void run(Connection& connection, os::Fd outside);
    void failed(Connection& connection, const std::string& reason);
    void end(Id id, int error);
    void record_end(Connection& connection, const std::string& reason);
    std::optional<Verdict> refusal_of(const Connection& connection) const;
    void drop(Id id);
    Connection& add(const Endpoint& guest, const Endpoint& outside);
    Connection* find(Id id);

    Context& context_;
    Options options_;
    std::map<std::uint32_t, os::Fd> ports_;  // by number
    Id next_ = 1;
    std::unordered_map<Id, std::unique_ptr<Connection>> all_;
    std::map<Pair, Id> awaited_;  // a verdict was given, and the connection has not arrived yet
    std::vector<std::unique_ptr<Connection>> gone_;  // until nothing of theirs runs any more
    os::Loop::TimerId clearing_ = 0;
};

}  // namespace caisson::net::relay
