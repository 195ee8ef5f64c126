// TcpSession: one connection of the guest to its name server; questions and answers with their length in front (RFC 1035
// 4.2.2, RFC 7766), any number of them after each other. Part of Server, whose thread it is on.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/bytes.h"
#include "net/dns/limits.h"
#include "os/fd.h"
#include "os/loop.h"

namespace caisson::net::dns {

class TcpSession {
  public:
    struct Options {
        os::Loop* loop;
        std::chrono::milliseconds idle;
        std::function<void(base::ByteView)> on_query;  // reply() once for each, or refuse() instead
        std::function<void()> on_end;                  // from the loop: it may destroy the session
    };
    static Result<std::unique_ptr<TcpSession>> create(os::Fd connection, Options options);
    ~TcpSession();
    TcpSession(const TcpSession&) = delete;
    TcpSession& operator=(const TcpSession&) = delete;

    void reply(base::ByteView message);
    // A question that gets no answer: the session ends, since whoever asked would wait.
    void refuse() { end(); }
    os::Loop::Clock::time_point last_used() const { return last_used_; }

  private:
    TcpSession(os::Fd connection, Options options) : options_(std::move(options)), connection_(std::move(connection)) {}
    void on_event(std::uint32_t events);
    void read_some();
    void take_queries();
    void write_some();
    void adjust();
    bool may_take() const;
    void used();
    void end();

    Options options_;
    os::Fd connection_;
    base::Bytes incoming_, outgoing_;
    std::size_t unanswered_ = 0;
    bool is_over_ = false;    // the guest sends nothing more
    bool is_ending_ = false;
    bool is_taking_ = false;  // take_queries() is up the stack
    os::Loop::Clock::time_point last_used_ = os::Loop::Clock::now();
    os::Loop::TimerId timer_ = 0;
};

}  // namespace caisson::net::dns
