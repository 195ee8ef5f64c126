// The supervisor of one box: an event loop between its clients, its VMM and its guest, from launch to removal. One
// object is one life of the box; a policy that starts it again makes the next one.
//
// How the box lives and ends is in supervisor.cc; what passes between it and the guest is in supervisor_guest.cc; what
// clients ask of it, over the launcher's socket and the one in the box's directory, in supervisor_clients.cc; volumes that
// come and go are in supervisor_shares.cc, limits and policies that change in supervisor_update.cc; what is recorded in the
// journal is in supervisor_journal.cc.
#pragma once

#include <chrono>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "audit/journal.h"
#include "box/launcher.h"
#include "box/live_execution.h"
#include "box/room.h"
#include "box/shim.h"
#include "os/loop.h"
#include "store/database.h"
#include "vmm/qmp.h"
#include "vmm/vm.h"
#include "wire/connection.h"
#include "wire/shim.pb.h"

namespace caisson::box {

// Somebody at the other end of a socket: the process that launched the box, or one that found it later.
struct Client {
    Client(std::uint64_t which, os::Fd socket) : number(which), fd(std::move(socket)), connection(fd.get()) {}
    std::uint64_t number;   // never another's, as its descriptor's may be
    os::Fd fd;
    wire::Connection connection;
    bool launcher = false;  // the box ends with it, unless it is detached
    bool greeted = false;
    bool broken = false;    // it is gone, and taken off the list after the round that found it out
};

// How a life or an execution ended, as records keep it.
store::EndRecord end_record(wire::Ended::Kind kind, int code, const std::string& reason);

// What outlives a life of the box. The first one makes all of it; then the shim locks itself.
struct Standing {
    std::optional<Launcher> launcher;  // none: it is yet to be started, or it died
    bool locked = false;
    std::optional<store::ProcessIdentity> identity;
    os::Fd listener;    // in the box's directory, see shim.h
    std::optional<store::Database> database;
    std::optional<audit::Journal> journal;  // of which it has chains()
    std::optional<LogWriter> output_log, console_log;
    std::uint32_t restarts = 0;
    std::chrono::milliseconds delay{0};  // before the next life
};

// The machine of one life, as its launcher tells of it.
struct Machine {
    pid_t pid = 0;          // for people
    std::map<std::string, wire::ShareMount> shares;  // what its volumes' server serves, by their entries
    std::set<std::string> placed;                    // those that the guest was given
    std::vector<wire::DiskMount> disks;              // volumes that are disks
    os::Fd qmp, agent, console;
    os::Fd network;         // what is told of its network; none: it has none, or that has died
    wire::NetworkPorts ports;   // that it publishes
    bool network_asked = false;  // the launcher was asked for another one, and has not answered
    bool network_died = false;  // a process of it: the box runs on without
    std::chrono::steady_clock::time_point network_second;  // of the records of its network
    std::uint32_t network_records = 0;
    std::uint64_t network_left_out = 0;
    std::set<std::string> learnt;  // what of its network has been recorded, by address
    std::size_t learnt_records = 0;
    os::Fd init;            // pidfd of the jail's first process
    bool asked = false;     // for its start
    bool running = false;
    bool gone = false;      // with everything in its jail
};

// Lives on the only thread of its process. The phase only moves forward.
class Supervisor {
  public:
    // `launcher` may be empty.
    Supervisor(os::Loop loop, os::Fd launcher, wire::Launch launch, Standing& standing);
    ~Supervisor();

    // Returns when everything of this life is gone, whether it ever began or not; the box's directory and record are
    // dealt with. true: the box is to be started again, with next_launch(). An error leaves the record to the next process
    // that opens the home, which finds whatever is left of the box and ends it.
    Result<bool> run();
    wire::Launch next_launch() const;

  private:
    enum class Phase { kWaiting, kStarting, kConfiguring, kRunning, kEnding, kSyncing, kGone };

    // ---- the box's life (supervisor.cc) ----
    std::uint32_t mark() const;
    Result<> prepare();
    Result<> start_launcher();
    Result<> start();
    Result<> record_owner();
    Result<> lock();
    void give_up(const Error& error);
    void begin_running();
    void guest_failed(const Error& error);
    Error explain(Error error, bool ended);
    void fail(const Error& error, bool no_answer);
    void end(wire::Ended::Kind kind, int code, std::string reason);
    void begin_stop(std::chrono::milliseconds grace, const std::string& reason);
    void arm_stop_timer(std::chrono::milliseconds grace);
    bool is_ending_by_force() const { return !stop_reason_.empty() || kill_asked_; }
    void kill_command(const std::string& reason);
    void sync_guest(std::chrono::milliseconds grace);
    void kill_vmm();
    void kill_vmm_without_launcher();
    void end_by_force();
    Result<> remove_directory();
    void remove_what_the_vmm_does_not_need();
    void check_gone();
    void finish();
    bool wants_restart() const;
    bool record_end();  // true: the box is gone, with its record
    void tell_clients_the_end();
    void record_state(store::BoxState state, const std::string& reason);
    void note(const Result<>& result) const;
    void on_signal();
    void stop_listening_to_agent();
    void on_agent_closed();
    void on_console();
    void on_launcher();
    void hear(LauncherNews news);
    void on_machine_started(LauncherNews& news);
    Result<> watch_machine();
    void on_launcher_gone();
    void begin_network_events(os::Fd socket);
    void on_network_events();
    bool network_record_is_due();
    bool is_learnt_anew(const wire::NetworkEvent& event);
    void record_network(const wire::NetworkEvent& event);
    void on_network_ended(const std::string& why);
    void hear_of_ports(const std::string& packed);
    void change_network(const wire::UpdateBox& request);
    void on_network_changed(const Error& error);
    void record_network_change(const audit::Actor& actor, const wire::NetworkSpec& now, bool anew);
    // Of a box that runs, and lacks something.
    std::string running_reason() const;
    bool is_at_work() const;
    // `why`: what the launcher knows of its cause; empty: nothing.
    void on_vmm_exit(bool signalled, int code, const std::string& why);
    Result<> on_qmp();
    void on_machine_stopped();
    void on_machine_resumed();
    Result<> send_qmp(const std::string& command);
    // Room on the host's disk (supervisor_room.cc).
    void on_disk_full();
    void retry_full_disk();
    std::optional<Room> look_at_room() const;
    bool waits_for_room() const { return short_of_room_ || disk_full_; }
    void bound_own_log();
    void watch_room();
    void check_room();
    bool takes_files_out() const;
    void hold_for_copies();
    void hold(bool held);
    void hold_again();
    void stop_again();
    void give_up_copies();
    void let_run();
    void watch_host_clock();
    void arm_idle_timer();
    [[nodiscard]] bool checks_health() const;
    void begin_health_checks();
    void check_health();

    // ---- what passes between it and the guest (supervisor_guest.cc) ----
    void guard_guest(const Result<>& result);
    Result<> send_to_agent(const wire::ToAgent& message);
    Result<> flush_agent();
    std::size_t most_agent_queue() const;
    Result<> on_agent();
    Result<> stream_from_guest(const wire::FrameView& frame);
    void log_output(LiveExecution& execution, wire::Channel channel, base::ByteView bytes);
    void flush_log();
    void regrant(LiveExecution& execution, wire::Channel channel);
    void regrant_all(LiveExecution& execution);
    Result<> on_agent_message(base::ByteView payload);
    Result<> on_hello(const wire::Hello& hello);
    Result<> on_started(const wire::Started& started);
    Result<> on_start_failed(const wire::StartFailed& failed);
    Result<> on_exited(const wire::Exited& exited);
    Result<> on_clock_set();
    Result<> set_guest_clock();
    Result<> clock_is_right(std::chrono::steady_clock::duration lateness);
    Result<> start_command();
    Result<> signal_execution(std::uint32_t number, int signal, bool all);
    void arm_timeout(LiveExecution& execution);
    void on_execution_timeout(std::uint32_t number);
    void tell_end(LiveExecution& execution, const wire::ExecutionEnded& ended);
    void abandon(LiveExecution& execution, const wire::ExecutionEnded& ended);
    LiveExecution& add_execution();
    LiveExecution* find_execution(std::uint32_t number);
    void forget_execution(std::uint32_t number);
    Result<> ask_for_execution(const LiveExecution& execution, wire::Exec exec);

    // ---- volumes (supervisor_shares.cc) ----
    wire::Shares shares_for_guest();
    void hear_of_share(const std::string& packed);
    void hear_of_disk(const std::string& packed);
    // What outlives the box may still be in the guest's memory.
    bool writes_disks() const;
    void change_volumes(Client& client, const wire::ChangeVolumes& request);
    void on_shares_served();
    Result<> on_shares_changed(const wire::SharesChanged& changed);
    void end_volume_change(const std::optional<Error>& error);

    // ---- the journal (supervisor_journal.cc) ----
    Result<> open_journal();
    // Its box's own, and its network's if it has one.
    std::vector<std::string> chains() const;
    // Those that stay open for it when it is locked.
    std::vector<std::string> journal_directories() const;
    audit::Actor actor_of(const Client& client) const;
    audit::Actor starter() const;
    // What cannot be recorded stops nothing; the supervisor's log says so, and the next entry.
    void record(const audit::Actor& actor, const std::string& kind, std::vector<std::pair<std::string, audit::Value>> details);
    void record_in(const std::string& chain, const audit::Actor& actor, const std::string& kind, std::vector<std::pair<std::string, audit::Value>> details);
    void commit_journal();
    void record_execution_started(LiveExecution& execution);
    void record_execution_ended(LiveExecution& execution, const wire::ExecutionEnded& ended);
    void record_execution_not_started(LiveExecution& execution, const std::string& reason);
    void record_life_ended(bool removed);

    // ---- what the box was asked to be, asked anew (supervisor_update.cc) ----
    void update_box(Client& client, const wire::UpdateBox& request);
    Result<> on_limits_set(const wire::LimitsSet& set);
    void end_update(const std::optional<Error>& error);

    // ---- clients (supervisor_clients.cc) ----
    Result<> listen();
    Result<> add_client(os::Fd socket, bool launcher);
    bool make_room_for_client();
    void on_listener();
    void on_client(Client& client);
    Result<> read_client(Client& client);
    void client_gone(Client& client);
    void sweep_clients();
    void send(Client& client, const wire::FromShim& message);
    void flush(Client& client);
    void refuse(Client& client, const Error& error);
    // To one that has been waiting, if it is still there: refused, or done.
    void answer(std::uint64_t client, const std::optional<Error>& error);
    Result<> stream_from_client(Client& client, const wire::FrameView& frame);
    Result<> on_client_message(Client& client, wire::ToShim& message);
    Result<> start_execution(Client& client, wire::StartExecution& request);
    void attach(Client& client, const wire::Attach& request);
    void open_for(Client& client, LiveExecution& execution, bool input);
    void let_go(Client& client);
    void detach_execution(LiveExecution& execution);
    void request_stop(Client& client, const wire::StopBox& request);
    void pause(Client& client);
    void give_up_waiting(std::vector<Client*>& waiting, std::uint64_t client, const std::string& what);
    void resume(Client* client);
    void status(Client& client);
    bool watched_by_somebody() const;

    os::Loop loop_;
    wire::Launch launch_;
    Standing& standing_;
    std::chrono::steady_clock::time_point started_;
    std::list<Client> clients_;
    std::uint64_t next_client_ = 1;
    Machine vm_;
    std::unique_ptr<wire::Connection> agent_;
    base::Bytes early_input_;  // frames that clients sent to the command before there was an agent to send them to
    os::Fd signals_;
    os::Fd host_clock_;
    vmm::QmpParser qmp_;
    vmm::QmpRate qmp_rate_;
    vmm::ConsoleTail console_;
    std::map<std::uint32_t, std::unique_ptr<LiveExecution>> executions_;
    std::uint32_t next_execution_ = kMainExecution;
    Phase phase_ = Phase::kWaiting;
    os::Loop::TimerId start_timer_ = 0;
    os::Loop::TimerId disk_full_timer_ = 0;
    os::Loop::TimerId idle_timer_ = 0;
    os::Loop::TimerId health_timer_ = 0;
    os::Loop::TimerId journal_timer_ = 0;
    wire::Timings timings_;
    wire::Ended ended_;
    std::optional<wire::ShimError> error_;
    std::optional<wire::StartFailed> start_failed_;
    std::string shutdown_reason_;
    std::string stop_reason_;  // why the command is being stopped; empty: it is not
    wire::Ended::Kind stop_kind_ = wire::Ended::EXITED;  // TIMED_OUT: a deadline of the box stops it
    std::chrono::steady_clock::time_point clock_sent_;
    int clock_tries_ = 0;
    int clock_asked_ = 0;  // answers that are on their way
    std::vector<Client*> awaiting_pause_, awaiting_resume_;
    audit::Actor pauser_, resumer_;  // who asked last
    // One at a time.
    struct VolumeChange {
        std::uint64_t client = 0;
        enum class Step { kLauncher, kGuest } step = Step::kLauncher;
        std::string detached;  // what the guest is to let go of
        os::Loop::TimerId timer = 0;
    };
    std::optional<VolumeChange> volume_change_;
    // One at a time, too.
    struct Update {
        std::uint64_t client = 0;
        audit::Actor actor;
        wire::UpdateBox request;
        os::Loop::TimerId timer = 0;
    };
    std::optional<Update> update_;
    // Output that came in small pieces is logged in larger ones, after each round of the agent's.
    struct PendingLog {
        std::uint32_t execution = 0;
        wire::Channel channel = wire::Channel::kStdout;
        base::Bytes bytes;
    } pending_log_;
    os::Loop::TimerId stop_timer_ = 0;
    std::chrono::steady_clock::time_point stop_deadline_;
    bool kill_asked_ = false;
    std::uint32_t health_failures_ = 0;
    std::string health_;
    std::chrono::steady_clock::time_point running_since_;
    bool command_sent_ = false;
    bool stop_asked_ = false;  // by a client, a signal, or the client's end: without a word to the command
    bool no_restart_ = false;
    bool disk_full_ = false;
    bool short_of_room_ = false;
    // It runs for those who take files out, while it waits for room: nothing of it goes on or writes.
    bool held_ = false;
    int held_tries_ = 0;
    std::uint64_t held_free_ = 0;  // bytes, when that began
    os::Fd room_;  // the box's directory, to see how much room its file system has
    bool paused_ = false;
    bool agent_closed_ = false;
    bool forced_ = false;  // it was killed without the launcher
    bool lost_ = false;  // the launcher died before it said what there is to kill
    bool finished_ = false;
    bool restart_ = false;
};

}  // namespace caisson::box
