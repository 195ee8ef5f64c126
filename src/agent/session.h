// The agent's conversation with the host: one message at a time, executions in between.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "agent/boot.h"
#include "agent/container.h"
#include "agent/execution.h"
#include "agent/port.h"
#include "base/result.h"
#include "os/loop.h"

namespace caisson::agent {

// Executions at once; more are refused with a message.
inline constexpr std::size_t kMaxExecutions = 128;

// A session belongs to one connection of the host; the container belongs to the guest. When a session ends, its
// executions are killed and forgotten (nobody would hear of them), the container stays.
class Session {
  public:
    Session(BootedGuest guest, os::Loop& loop);
    // Runs until Shutdown was answered, or the loop fails. Errors are the loop's.
    Result<> run();

  private:
    Result<> frame(const wire::FrameView& frame);
    Result<> message(wire::ToAgent& message, base::ByteView payload);
    void hello(const wire::Hello& hello);
    void prepare(const wire::Prepare& prepare);
    void configure(wire::Configure& configure);
    // `payload`: the message as it came.
    void exec(const wire::Exec& exec, base::ByteView payload);
    void signal(const wire::Signal& signal);
    void set_limits(const wire::SetLimits& limits);
    void change_shares(const wire::ChangeShares& wanted);
    void shutdown(const wire::Shutdown& shutdown);
    void ended();
    void broken(const Error& error);
    void kill_container();
    void end_container(bool sync);

    Execution* find(std::uint32_t id);
    void refuse(std::uint32_t id, const std::string& text, int error_number = 0);

    os::Loop& loop_;
    Stage stage_;
    Port port_;
    bool greeted_ = false;
    bool configured_ = false;
    bool broken_ = false;  // Prepare or Configure failed half-way: this guest is of no use any more
    bool stopping_ = false;
    std::unique_ptr<Container> container_;  // outlives the executions
    std::unique_ptr<Seat> seat_;             // for the first command
    std::map<std::uint32_t, std::unique_ptr<Execution>> executions_;
    std::vector<std::uint32_t> finished_;   // destroyed after the round that finished them
};

}  // namespace caisson::agent
