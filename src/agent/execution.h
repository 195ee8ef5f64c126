// One command in the container: its process, its streams with their credit, and the order in which its end is told.
//
// Output: read only while the host has given credit and the port is not congested, so a command that nobody listens
// to blocks in its own write, as on a real pipe. Input: at most one window is held; what the command does not want
// any more is thrown away and still credited.
//
// The end: a stream ends when nobody holds its pipe open any more. After the box's main command has ended everything
// else is killed, so that comes by itself. After any other command, what is in the pipe is still sent and then the
// stream ends, so that a daemon left behind does not keep its starter's result back. Exited follows the last of both
// end-of-file frames.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "agent/cgroup.h"
#include "agent/container.h"
#include "agent/port.h"
#include "base/bytes.h"
#include "base/result.h"
#include "os/fd.h"
#include "os/loop.h"
#include "wire/agent.pb.h"
#include "wire/frame.h"

namespace caisson::agent {

// A process that waits in the container to become the box's first command, made before the template is saved: forking
// it and joining the container cost more than the command's own start. Nothing else runs in the container while it
// waits, so nobody can do anything to it.
class Seat {
  public:
    static Result<std::unique_ptr<Seat>> create(const Container& container);
    Seat(const Seat&) = delete;
    Seat& operator=(const Seat&) = delete;
    ~Seat();  // ends the process unless it was used

  private:
    friend class Execution;
    Seat() = default;
    Child child_;
    os::Fd order_;
    os::Fd report_;
    os::Fd streams_[3];  // the agent's ends of its pipes
};

class Execution {
  public:
    struct Surroundings {
        os::Loop* loop;
        Port* port;
        const Container* container;
        BoxCgroup* cgroup;
        std::function<void()> main_ended;            // kills the rest of the container
        std::function<void(std::uint32_t)> finished; // called once, from the loop: the execution may be destroyed later
    };
    // Forks, or uses the seat if that is possible; the rest follows from the loop (Started or StartFailed, output,
    // Exited).
    // `order` is for the seat, see launch_order().
    static Result<std::unique_ptr<Execution>> start(const wire::Exec& exec, Surroundings surroundings,
                                                    std::unique_ptr<Seat> seat, const std::string& order);
    ~Execution();
    Execution(const Execution&) = delete;
    Execution& operator=(const Execution&) = delete;

    // Frames of this execution's streams.
    Result<> data(const wire::FrameView& frame);
    Result<> credit(const wire::FrameView& frame);
    // The port has room again.
    void port_drained();

    Result<> signal(int number);
    // The container is being killed: a SIGKILL that ends this execution has been explained.
    void expect_kill() { killed_ = true; }
    void resize(std::uint32_t rows, std::uint32_t columns) const;

  private:
    struct Output {
        std::uint32_t stream = 0;
        os::Fd own;   // a pipe's reading end
        int fd = -1;  // what is read: `own`, or the terminal; -1 once the stream has ended
        wire::SendWindow window;
        std::optional<std::size_t> budget;  // bytes still to be sent once the process has ended
        bool watched = false;
    };
    struct Input {
        os::Fd own;   // a pipe's writing end
        int fd = -1;  // what is written: `own`, or the terminal; -1 once nobody wants it
        wire::ReceiveWindow window;
        base::Bytes held;
        std::size_t written = 0;  // of `held`
        bool watched = false;
        bool eof = false;
    };

    Execution(std::uint32_t id, bool main, Surroundings surroundings);
    bool sit_down(const wire::Exec& exec, Seat& seat, const std::string& order);
    Result<> fork_and_launch(const wire::Exec& exec);
    Result<> open_streams(const wire::Exec& exec, os::Fd (&child_ends)[3]);
    Result<> watch_child();

    void pump(Output& output);
    void end(Output& output);
    void write_input();
    void drop_input();
    // Makes the loop wait for exactly what can go on.
    void update_watches();
    void set_watch(int fd, std::uint32_t events, bool& watched, void (Execution::*ready)(std::uint32_t));
    void out_ready(std::uint32_t events);
    void error_ready(std::uint32_t events);
    void in_ready(std::uint32_t events);
    void terminal_ready(std::uint32_t events);
    bool readable(const Output& output) const;
    void read_report();
    void process_ended();
    void send_what_is_there();
    void try_finish();

    std::uint32_t id_;
    bool main_;
    Surroundings around_;
    Child child_;
    os::Fd report_;
    base::Bytes report_bytes_;
    os::Fd terminal_;
    Output out_;
    Output error_;
    Input in_;
    bool failed_to_start_ = false;
    bool ended_ = false;
    bool killed_ = false;  // on the host's order, or with the rest of the container
    bool finished_ = false;
    int status_ = 0;
    std::optional<os::Loop::TimerId> patience_;
};

}  // namespace caisson::agent
