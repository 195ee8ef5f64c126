// The supervisor of one box: an event loop between its client, its VMM and its guest, from launch to removal.
//
// What the box is and how it ends is in supervisor.cc; what client and guest say to each other through it, and what it
// tells the guest itself, is in supervisor_dialogue.cc.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "box/shim.h"
#include "box/stream_rules.h"
#include "os/loop.h"
#include "store/database.h"
#include "vmm/qmp.h"
#include "vmm/vm.h"
#include "wire/connection.h"
#include "wire/shim.pb.h"

namespace caisson::box {

// Lives on the only thread of its process. The state only moves forward.
class Supervisor {
  public:
    Supervisor(os::Loop loop, os::Fd client, wire::Launch launch)
        : loop_(std::move(loop)),
          client_fd_(std::move(client)),
          client_(client_fd_.get()),
          launch_(std::move(launch)),
          started_(std::chrono::steady_clock::now()) {}

    // Returns when everything of the box is gone, whether it ever ran or not. Errors are the event loop's own.
    Result<> run();

  private:
    enum class Phase { kStarting, kConfiguring, kRunning, kEnding, kSyncing, kGone };
    enum class Peer { kClient, kGuest };

    // ---- the box's life ----
    std::uint32_t mark() const;
    Result<> start();
    void guard(const Result<>& result, Peer peer);
    Error explain(Error error, bool ended);
    void fail(const Error& error, bool no_answer);
    void end(wire::Ended::Kind kind, int code, std::string reason);
    void sync_guest(std::chrono::milliseconds grace);
    void kill_vmm();
    void remove_what_the_vmm_does_not_need();
    void check_gone();
    void finish();
    void record_end();
    void client_gone();
    Result<> let_client_go();
    void grant_output(wire::Channel channel);
    void on_signal();
    void stop_listening_to_agent();
    void on_agent_closed();
    void on_console();
    void on_vmm_exit();
    Result<> on_qmp();

    // ---- what passes between client and guest ----
    Result<> append_message(const wire::FromShim& message);
    Result<> flush_agent();
    Result<> flush_client();
    Result<> on_agent();
    Result<> pass_to_client(const wire::FrameView& frame);
    Result<> on_agent_message(base::ByteView payload);
    Result<> on_hello(const wire::Hello& hello);
    Result<> on_clock_set();
    Result<> start_command_once_clock_is_right(std::chrono::steady_clock::duration lateness);
    void on_timeout();
    Result<> on_client();
    Result<> pass_to_agent(const wire::FrameView& frame);
    Result<> on_client_message(const wire::ToShim& message);

    os::Loop loop_;
    os::Fd client_fd_;
    wire::Connection client_;
    wire::Launch launch_;
    std::chrono::steady_clock::time_point started_;
    vmm::Vm vm_;
    std::unique_ptr<wire::Connection> agent_;
    os::Fd signals_;
    vmm::QmpParser qmp_;
    vmm::QmpRate qmp_rate_;
    vmm::ConsoleTail console_;
    std::optional<store::Database> database_;
    StreamRules streams_{kMainExecution};
    Phase phase_ = Phase::kStarting;
    os::Loop::TimerId start_timer_ = 0;
    os::Loop::TimerId timeout_timer_ = 0;
    os::Loop::TimerId disk_full_timer_ = 0;
    wire::Timings timings_;
    wire::Ended ended_;
    std::optional<wire::ShimError> error_;
    std::optional<wire::StartFailed> start_failed_;
    std::string shutdown_reason_;
    std::chrono::steady_clock::time_point clock_sent_;
    int clock_tries_ = 0;
    bool command_sent_ = false;
    bool timed_out_ = false;
    bool stop_asked_ = false;  // by the client, a signal, or the client's end
    bool client_closed_ = false;
    bool detached_ = false;
    bool agent_closed_ = false;
    bool vmm_exited_ = false;
    bool finished_ = false;
};

}  // namespace caisson::box
