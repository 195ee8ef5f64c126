#include "box/supervisor.h"

#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <cstdio>

#include "base/text.h"
#include "box/convert.h"
#include "box/limits.h"
#include "box/owner.h"
#include "box/shim_lock.h"
#include "os/file.h"
#include "os/host.h"
#include "vmm/qcow2.h"
#include "wire/control.h"

namespace caisson::box {

using base::failure;
using std::chrono::milliseconds;

namespace {

// How long a guest may take to write its file systems back before its machine is ended anyway.
constexpr milliseconds kSyncGrace{30000};
// The same when the box is stopped against its command's will.
constexpr milliseconds kForcedSyncGrace{5000};
// How long after its agent a virtual machine may take to end: its own last words say more than the agent's silence.
constexpr milliseconds kAgentGoneGrace{500};
constexpr milliseconds kVmmExitGrace{5000};
// How long a killed command's last output may take before the machine is ended with it.
constexpr milliseconds kKillGrace{1000};
// What clients other than the launcher get of the end's messages, they take within this.
constexpr milliseconds kFarewellGrace{5000};

const char* outcome_of(wire::Ended::Kind kind) {
    switch (kind) {
        case wire::Ended::EXITED: return "exited";
        case wire::Ended::SIGNALLED: return "signalled";
        case wire::Ended::TIMED_OUT: return "timed_out";
        default: return "failed";
    }
}

// Of what must be on record: a write that failed may go well the next moment, for instance if somebody made room.
template <typename Record>
Result<> insisted(Record record) {
    auto recorded = record();
    return recorded ? recorded : record();
}

}  // namespace

store::EndRecord end_record(wire::Ended::Kind kind, int code, const std::string& reason) {
    const int shown = kind == wire::Ended::SIGNALLED   ? 128 + code
                      : kind == wire::Ended::TIMED_OUT ? 124
                      : kind == wire::Ended::FAILED    ? 125
                                                       : code;
    return {outcome_of(kind), shown, reason, os::unix_ms()};
}

Supervisor::Supervisor(os::Loop loop, os::Fd launcher, wire::Launch launch, Standing& standing)
    : loop_(std::move(loop)),
      launch_(std::move(launch)),
      standing_(standing),
      started_(std::chrono::steady_clock::now()) {
    if (!launcher) return;
    clients_.emplace_back(next_client_++, std::move(launcher));
    clients_.back().launcher = true;
    clients_.back().greeted = true;
}

Supervisor::~Supervisor() = default;

std::uint32_t Supervisor::mark() const {
    return static_cast<std::uint32_t>(
        std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - started_).count());
}

Result<bool> Supervisor::run() {
    auto begun = prepare();
    if (!begun) give_up(begun.error());
    while (!finished_ && !lost_) {
        CAISSON_TRY(loop_.step(milliseconds(-1)));
        sweep_clients();
    }
    if (lost_) return failure(Errc::kInternal, "the box's launcher died while it started the machine");
    return restart_;
}

wire::Launch Supervisor::next_launch() const {
    auto next = launch_;
    next.set_template_directory(launch_.restart_template_directory());
    // A policy that it did not have at its start: nobody has made a template for it.
    if (next.template_directory().empty()) next.set_start_deadline_ms(limits::kColdDeadlineMs);
    next.set_fresh(false);
    next.set_detached(true);
    return next;
}

Result<> Supervisor::prepare() {
    auto& command = add_execution();
    command.command = shown_command(launch_.spec().exec());
    command.stdin_open = launch_.spec().exec().stdin_open();
    command.terminal = launch_.spec().exec().terminal();
    command.timeout_ms = launch_.spec().timeout_ms();
    command.user = launch_.spec().exec().user();
    command.privileged = launch_.spec().exec().privileges().privileged();
    command.actor = standing_.restarts > 0 ? audit::this_actor() : starter();
    CAISSON_TRY(start_launcher());
    note(open_journal());
    CAISSON_TRY(listen());
    signals_ = CAISSON_TRY(os::make_signal_fd({SIGTERM, SIGINT, SIGHUP}));
    if (standing_.delay.count() > 0) {
        loop_.after(standing_.delay, [this] {
            if (phase_ != Phase::kWaiting) return;
            if (auto begun = start(); !begun) give_up(begun.error());
        });
    } else {
        CAISSON_TRY(start());
    }
    CAISSON_TRY(loop_.watch(signals_.get(), EPOLLIN, [this](std::uint32_t) { on_signal(); }));
    for (auto& client : clients_) {
        // Of a box that is started detached the launcher only hears whether it runs.
        if (!launch_.detached()) open_for(client, command, command.stdin_open);
        CAISSON_TRY(loop_.watch(client.fd.get(), EPOLLIN, [this, &client](std::uint32_t) { on_client(client); }));
    }
    if (standing_.listener)
        CAISSON_TRY(loop_.watch(standing_.listener.get(), EPOLLIN, [this](std::uint32_t) { on_listener(); }));
    return lock();
}

Result<> Supervisor::start_launcher() {
    if (!standing_.launcher) {
        standing_.launcher = CAISSON_TRY(Launcher::start(launch_, kShimKvmFd, kShimTunFd));
        if (launch_.shape().kvm()) ::close(kShimKvmFd);
        if (launch_.shape().network()) ::close(kShimTunFd);
    }
    return loop_.watch(standing_.launcher->socket(), EPOLLIN, [this](std::uint32_t) { on_launcher(); });
}

// Everything that later lives need as well is open by now, and nothing of a guest has been read.
Result<> Supervisor::lock() {
    if (standing_.locked) return {};
    CAISSON_TRY_CTX(lock_shim(launch_.box_directory(), journal_directories()), "locking the box's supervisor");
    standing_.locked = true;
    return {};
}

Result<> Supervisor::start() {
    std::fprintf(stderr, "caisson-shim: %s\n", launch_.engine().c_str());
    CAISSON_TRY(vmm::check_overlay(launch_.overlay_path(), launch_.spec().disk_bytes()));
    CAISSON_TRY(vmm::check_base_disk(launch_.base_disk_path()));
    if (!standing_.launcher) return failure(Errc::kInternal, "the box's launcher is gone");
    CAISSON_TRY(standing_.launcher->ask(LauncherVerb::kStart));
    vm_.asked = true;
    phase_ = Phase::kStarting;
    start_timer_ = loop_.after(milliseconds(launch_.start_deadline_ms()), [this] {
        Error error;
        error.code = Errc::kGuest;
        error.message = "the guest did not answer within " + std::to_string(launch_.start_deadline_ms() / 1000) + " s";
        fail(explain(std::move(error), false), true);
    });
    return record_owner();
}

// While the machine comes up: who supervises this box now.
Result<> Supervisor::record_owner() {
    if (launch_.without_command()) return {};
    if (!standing_.database) standing_.database = CAISSON_TRY(store::Database::open(launch_.database()));
    if (!standing_.identity) standing_.identity = CAISSON_TRY(this_process());
    if (launch_.shape().network()) note(standing_.database->begin_journal(audit::network_chain(launch_.box_id())));
    return standing_.database->set_box_owner(launch_.box_id(), *standing_.identity, launch_.engine());
}

// The life could not begin. A machine that was asked for comes and goes as in any other end.
void Supervisor::give_up(const Error& error) { fail(error, false); }

// ---- its launcher ----

void Supervisor::on_launcher() {
    while (!finished_ && standing_.launcher) {
        auto news = standing_.launcher->next();
        if (!news) return on_launcher_gone();
        if (!*news) return;
        hear(std::move(**news));
    }
}

void Supervisor::hear(LauncherNews news) {
    using Kind = LauncherNews::Kind;
    switch (news.kind) {
        case Kind::kStarted: return on_machine_started(news);
        case Kind::kJailed: vm_.init = std::move(news.descriptors[0]); return;
        case Kind::kShare: return hear_of_share(news.error.message);
        case Kind::kDisk: return hear_of_disk(news.error.message);
        case Kind::kAttached: return on_shares_served();
        case Kind::kNetwork: return begin_network_events(std::move(news.descriptors[0]));
        case Kind::kPorts: return hear_of_ports(news.error.message);
        case Kind::kNetworkEnded: return on_network_ended(news.error.message);
        case Kind::kNetworkChanged: return on_network_changed(news.error);
        case Kind::kFailed:
            if (volume_change_ && vm_.running) return end_volume_change(news.error);
            vm_.asked = false;
            return fail(news.error, false);
        case Kind::kExited: return on_vmm_exit(news.signalled, news.number, news.error.message);
        case Kind::kGone:
            vm_.gone = phase_ == Phase::kGone && standing_.launcher->at_rest();
            return check_gone();
    }
}

void Supervisor::on_machine_started(LauncherNews& news) {
    if (phase_ != Phase::kStarting) return;  // it is not wanted any more, and is being ended
    vm_.pid = news.number;
    vm_.running = true;
    vm_.qmp = std::move(news.descriptors[0]);
    vm_.agent = std::move(news.descriptors[1]);
    vm_.console = std::move(news.descriptors[2]);
    timings_.set_vmm_started(mark());
    if (auto watched = watch_machine(); !watched) fail(watched.error(), false);
}

Result<> Supervisor::watch_machine() {
    agent_ = std::make_unique<wire::Connection>(vm_.agent.get());
    CAISSON_TRY(vmm::greet(*agent_));
    agent_->out().insert(agent_->out().end(), early_input_.begin(), early_input_.end());
    early_input_ = base::Bytes();
    CAISSON_TRY(loop_.watch(vm_.console.get(), EPOLLIN, [this](std::uint32_t) { on_console(); }));
    CAISSON_TRY(loop_.watch(vm_.agent.get(), EPOLLIN, [this](std::uint32_t) { guard_guest(on_agent()); }));
    CAISSON_TRY(loop_.watch(vm_.qmp.get(), EPOLLIN, [this](std::uint32_t) { guard_guest(on_qmp()); }));
    return flush_agent();
}

// Its machine dies with it, unless somebody has taken that over: so it is killed once more. No further life can begin.
void Supervisor::on_launcher_gone() {
    loop_.unwatch(standing_.launcher->socket());
    static_cast<void>(standing_.launcher->process().send_signal(SIGKILL));
    auto status = standing_.launcher->process().wait();
    standing_.launcher.reset();
    no_restart_ = true;
    Error error;
    error.code = Errc::kInternal;
    error.message = "the process that runs the box's virtual machine died";
    if (status && status->signalled) error.message += " (killed by signal " + std::to_string(status->code) + ")";
    if (phase_ == Phase::kGone) return kill_vmm_without_launcher();
    fail(error, false);
}

// The command runs, or the box is one without.
void Supervisor::begin_running() {
    // Recorded before it is told: whoever hears that the box runs finds it running, with its health if that is checked.
    if (checks_health()) health_ = "starting";
    if (!launch_.without_command()) {
        auto recorded = insisted([&] { return standing_.database->set_box_running(launch_.box_id(), os::unix_ms(), health_); });
        if (!recorded) return give_up(std::move(recorded.error()).with_context("recording that the box runs"));
    }
    phase_ = Phase::kRunning;
    running_since_ = std::chrono::steady_clock::now();
    loop_.cancel(start_timer_);
    timings_.set_command_started(mark());
    wire::FromShim launched;
    launched.mutable_launched();
    for (auto& client : clients_)
        if (client.launcher) send(client, launched);
    if (launch_.without_command()) return;
    if (vm_.network_died) record_state(store::BoxState::kRunning, running_reason());
    auto& command = *find_execution(kMainExecution);
    record(command.actor, "box_started", {{"engine", launch_.engine()}, {"detached", launch_.detached()}, {"restarts", std::int64_t{standing_.restarts}}});
    record_execution_started(command);
    if (auto limit = launch_.spec().max_duration_ms(); limit > 0)
        loop_.after(milliseconds(limit), [this, limit] {
            if (phase_ != Phase::kRunning || !stop_reason_.empty()) return;  // the first cause wins
            stop_kind_ = wire::Ended::TIMED_OUT;
            no_restart_ = true;
            begin_stop(milliseconds(launch_.spec().stop_timeout_ms()),
                       "it ran for its longest time, " + std::to_string(limit / 1000) + " s");
        });
    watch_host_clock();
    arm_idle_timer();
    begin_health_checks();
    watch_room();
}

// A guest that broke the rules once is not listened to any more.
void Supervisor::stop_listening_to_agent() {
    if (agent_closed_ || !agent_) return;
    agent_closed_ = true;
    loop_.unwatch(vm_.agent.get());
}

void Supervisor::on_agent_closed() {
    stop_listening_to_agent();
    if (phase_ == Phase::kSyncing) return kill_vmm();
    if (phase_ >= Phase::kEnding) return;
    loop_.after(kAgentGoneGrace, [this] {
        Error error;
        error.code = Errc::kGuest;
        error.message = "the guest's agent closed its channel";
        fail(explain(std::move(error), false), false);
    });
}

Error Supervisor::explain(Error error, bool ended) {
    on_console();
    return console_.explain(std::move(error), ended, phase_ >= Phase::kRunning);
}

// The box cannot go on. Before its command runs this is the launch's error, later the box's outcome.
void Supervisor::fail(const Error& error, bool no_answer) {
    if (phase_ == Phase::kSyncing) return kill_vmm();
    if (phase_ >= Phase::kEnding) return;
    if (phase_ == Phase::kRunning) {
        std::string reason = error.to_string();
        if (!error.hint.empty()) reason += "\n" + error.hint;
        end(wire::Ended::FAILED, 0, reason);
        return;
    }
    error_.emplace();
    to_message(error, *error_);
    error_->set_no_answer(no_answer);
    end(wire::Ended::FAILED, 0, error.to_string());
}

// Decides how the box ended (the first cause wins) and begins to take it down.
void Supervisor::end(wire::Ended::Kind kind, int code, std::string reason) {
    // Whoever asks again does not want to wait for the guest.
    if (phase_ == Phase::kSyncing) return kill_vmm();
    if (phase_ >= Phase::kEnding) return;
    phase_ = Phase::kEnding;
    loop_.cancel(start_timer_);
    loop_.cancel(idle_timer_);
    loop_.cancel(health_timer_);
    ended_.set_kind(kind);
    ended_.set_code(code);
    ended_.set_reason(std::move(reason));
    const bool forced = kind == wire::Ended::TIMED_OUT || stop_asked_;
    // Before it was told to start the command it has nothing to write back, and may not answer yet.
    bool guest_alive = kind != wire::Ended::FAILED && vm_.running && command_sent_;
    if ((!launch_.spec().auto_remove() || writes_disks()) && guest_alive && !agent_closed_)
        return sync_guest(forced ? kForcedSyncGrace : kSyncGrace);
    kill_vmm();
}

// Asks the command to end; the box ends with it. Who asks again is told to be patient by the same end.
void Supervisor::begin_stop(milliseconds grace, const std::string& reason) {
    no_restart_ = true;  // also if it is ending by itself
    if (phase_ >= Phase::kEnding) return;
    if (!stop_reason_.empty()) return arm_stop_timer(grace);  // somebody has less patience
    stop_reason_ = reason;
    if (phase_ < Phase::kRunning) {
        stop_asked_ = true;
        return end(wire::Ended::SIGNALLED, SIGKILL, reason);
    }
    record_state(store::BoxState::kStopping, reason);
    if (paused_ || waits_for_room()) let_run();
    const int signal = launch_.spec().stop_signal() > 0 ? launch_.spec().stop_signal() : SIGTERM;
    guard_guest(signal_execution(kMainExecution, signal, false));
    for (auto& [number, execution] : executions_) regrant_all(*execution);
    arm_stop_timer(grace);
}

void Supervisor::arm_stop_timer(milliseconds grace) {
    const auto deadline = std::chrono::steady_clock::now() + grace;
    if (stop_timer_ != 0 && deadline >= stop_deadline_) return;
    loop_.cancel(stop_timer_);
    stop_deadline_ = deadline;
    stop_timer_ = loop_.at(deadline, [this] { kill_command(stop_reason_); });
}

void Supervisor::kill_command(const std::string& reason) {
    if (phase_ != Phase::kRunning) return;
    guard_guest(signal_execution(kMainExecution, SIGKILL, true));
    loop_.after(kKillGrace, [this, reason] {
        if (phase_ >= Phase::kEnding) return;
        stop_asked_ = true;
        end(stop_kind_ == wire::Ended::TIMED_OUT ? stop_kind_ : wire::Ended::SIGNALLED, SIGKILL, reason);
    });
}

void Supervisor::sync_guest(milliseconds grace) {
    phase_ = Phase::kSyncing;
    if (paused_ || waits_for_room()) let_run();
    wire::ToAgent message;
    message.mutable_shutdown()->set_sync(true);
    if (!send_to_agent(message)) return kill_vmm();
    loop_.after(grace, [this] { kill_vmm(); });
}

void Supervisor::kill_vmm() {
    if (phase_ == Phase::kGone) return;
    phase_ = Phase::kGone;
    loop_.after(kVmmExitGrace, [this] { end_by_force(); });
    // There may be none: the machine could not be started, or it is not time yet. Then this is answered at once.
    if (!standing_.launcher || !standing_.launcher->ask(LauncherVerb::kEnd)) kill_vmm_without_launcher();
    remove_what_the_vmm_does_not_need();
    check_gone();
}

// The launcher is slow, or stopped. A box is not over while its machine may write to its disk: if that does not die even
// so, record and lock stay as they are, for the next process that opens the home.
void Supervisor::end_by_force() {
    if (finished_ || vm_.gone) return finish();
    if (forced_ || !vm_.init) {
        lost_ = true;
        return loop_.stop();
    }
    forced_ = true;
    loop_.after(kVmmExitGrace, [this] { end_by_force(); });
    kill_vmm_without_launcher();
}

// With its launcher it has lost what would end it, should it not die by itself.
void Supervisor::kill_vmm_without_launcher() {
    vm_.gone = !vm_.asked;
    lost_ = vm_.asked && !vm_.init;
    if (lost_) return loop_.stop();
    if (!vm_.init) return check_gone();
    if (::syscall(SYS_pidfd_send_signal, vm_.init.get(), SIGKILL, nullptr, 0) != 0 && errno != ESRCH)
        note(base::failure_errno("cannot kill the virtual machine"));
    note(loop_.watch(vm_.init.get(), EPOLLIN, [this](std::uint32_t) {
        loop_.unwatch(vm_.init.get());
        vm_.gone = true;
        check_gone();
    }));
}

void Supervisor::remove_what_the_vmm_does_not_need() {
    if (launch_.spec().auto_remove() && !launch_.without_command()) note(os::empty_directory(launch_.box_directory()));
}

// The directory itself is the launcher's to remove: it lies where the locked shim can change nothing.
Result<> Supervisor::remove_directory() {
    for (int attempt = 0; os::exists(launch_.box_directory()); ++attempt) {
        // Somebody may have put something into it behind our back.
        constexpr int kTries = 8;
        if (attempt == kTries) return failure(Errc::kInUse, "cannot remove " + launch_.box_directory());
        if (!standing_.launcher) return os::remove_tree(launch_.box_directory());
        CAISSON_TRY(os::empty_directory(launch_.box_directory()));
        // A launcher that was killed behind it has removed it, and says nothing any more.
        if (auto ended = standing_.launcher->end(kVmmExitGrace); !ended && os::exists(launch_.box_directory())) return ended;
    }
    return {};
}

void Supervisor::check_gone() {
    if (phase_ == Phase::kGone && vm_.gone) finish();
}

// Everything of this life is gone: record it, tell the clients.
void Supervisor::finish() {
    if (finished_) return;
    finished_ = true;
    on_console();
    timings_.set_vmm_gone(mark());
    restart_ = wants_restart();
    flush_log();
    const bool removed = !launch_.without_command() && record_end();
    // It is over: somebody else may start or remove it while the last words are delivered here. The launcher of an
    // attached box has the same lock, and has no use for it either.
    if (!restart_) ::flock(kShimLockFd, LOCK_UN);
    timings_.set_removed(mark());
    *ended_.mutable_timings() = timings_;
    tell_clients_the_end();
    // A caller that waits for this process does not wait for the disk as well: it closes the chain of a box that is gone.
    if (!removed || launch_.detached()) commit_journal();
    if (standing_.listener) loop_.unwatch(standing_.listener.get());
    loop_.stop();
}

bool Supervisor::wants_restart() const {
    if (stop_asked_ || no_restart_ || launch_.without_command() || launch_.spec().auto_remove()) return false;
    // What never began once would not begin the next time.
    if ((error_ || start_failed_) && standing_.restarts == 0) return false;
    switch (launch_.spec().restart()) {
        case wire::BoxSpec::ALWAYS: return true;
        case wire::BoxSpec::ON_FAILURE: {
            const auto limit = launch_.spec().restart_limit();
            const bool failed = ended_.kind() != wire::Ended::EXITED || ended_.code() != 0;
            return failed && (limit == 0 || standing_.restarts < limit);
        }
        default: return false;
    }
}

bool Supervisor::record_end() {
    if (!standing_.database) {
        // It failed before it came to that.
        auto opened = store::Database::open(launch_.database());
        if (!opened) {
            note(base::failure(std::move(opened.error())));
            return false;
        }
        standing_.database = std::move(*opened);
    }
    auto& database = *standing_.database;
    Result<> recorded;
    bool gone = false;
    const auto end = end_record(ended_.kind(), ended_.code(), ended_.reason());
    if (restart_) {
        record_life_ended(false);
        recorded = insisted([&] { return database.restart_box(launch_.box_id(), end); });
        // Twice as long each time, unless the life that ended was long enough to count as one.
        const bool lasted = std::chrono::steady_clock::now() - running_since_ > limits::kRestartForgiven &&
                            running_since_ != std::chrono::steady_clock::time_point();
        auto delay = lasted || standing_.restarts == 0 ? limits::kFirstRestartDelay : standing_.delay * 2;
        standing_.delay = std::min(delay, limits::kLongestRestartDelay);
        ++standing_.restarts;
    } else if (launch_.spec().auto_remove() || (launch_.fresh() && error_)) {
        // Again: the VMM may have been writing while the first sweep ran.
        auto removed = remove_directory();
        // Before its record goes: who opens the home then closes its chain.
        record_life_ended(removed.has_value());
        recorded = removed ? insisted([&] { return database.remove_box(launch_.box_id()); }) : std::move(removed);
        gone = recorded.has_value();
    } else {
        const bool failed = ended_.kind() == wire::Ended::FAILED;
        record_life_ended(false);
        recorded = insisted([&] { return database.finish_box(launch_.box_id(), failed ? store::BoxState::kFailed : store::BoxState::kStopped, end); });
    }
    // The next process that opens the home does what could not be done here.
    note(recorded);
    return gone;
}

void Supervisor::tell_clients_the_end() {
    wire::FromShim end;
    if (error_) *end.mutable_error() = *error_;
    else *end.mutable_ended() = ended_;
    for (auto& client : clients_) {
        if (client.broken) continue;
        for (auto& [number, execution] : executions_) {
            auto* attachment = execution->attachment_of(client);
            if (attachment == nullptr || number == kMainExecution) continue;
            wire::FromShim cut_short;
            cut_short.mutable_execution_ended()->set_kind(wire::Ended::FAILED);
            cut_short.mutable_execution_ended()->set_reason("the box ended");
            send(client, cut_short);
        }
        auto* command = find_execution(kMainExecution);
        const bool hears = client.launcher || (command != nullptr && command->attachment_of(client) != nullptr);
        if (!hears) continue;
        if (start_failed_) {
            wire::FromShim message;
            *message.mutable_start_failed() = *start_failed_;
            send(client, message);
        }
        send(client, end);
    }
    // The launcher may be slow to take the last output; it has all the time it wants, as long as it lives.
    const auto patience = std::chrono::steady_clock::now() + kFarewellGrace;
    for (;;) {
        std::vector<struct pollfd> wanted{{signals_.get(), POLLIN, 0}};
        bool launcher_waits = false;
        for (auto& client : clients_) {
            if (client.broken || !client.connection.flush()) client.broken = true;
            if (client.broken || client.connection.queued_bytes() == 0) continue;
            launcher_waits = launcher_waits || client.launcher;
            wanted.push_back({client.fd.get(), POLLOUT, 0});
        }
        const auto left = std::chrono::duration_cast<milliseconds>(patience - std::chrono::steady_clock::now());
        if (wanted.size() == 1 || (!launcher_waits && left.count() <= 0)) break;
        ::poll(wanted.data(), wanted.size(), launcher_waits ? -1 : static_cast<int>(left.count()));
        if (wanted[0].revents != 0) break;  // told to stop: everything is recorded, only the clients are left
    }
}

void Supervisor::record_state(store::BoxState state, const std::string& reason) {
    if (standing_.database && !launch_.without_command())
        note(insisted([&] { return standing_.database->set_box_state(launch_.box_id(), state, reason); }));
}

// What does not stop the box is for whoever reads its supervisor's log.
void Supervisor::note(const Result<>& result) const {
    if (!result) std::fprintf(stderr, "caisson-shim: %s\n", result.error().to_string().c_str());
}

void Supervisor::on_signal() {
    struct signalfd_siginfo_prefix {
        std::uint32_t number;
        std::uint8_t rest[124];
    } info{};
    stop_asked_ = true;
    while (::read(signals_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info))
        end(wire::Ended::SIGNALLED, static_cast<int>(info.number), kSupervisorStopped);
}

void Supervisor::on_console() {
    if (!vm_.console) return;
    auto keep = [this](base::ByteView bytes) {
        if (launch_.without_command() || (phase_ == Phase::kGone && launch_.spec().auto_remove())) return;
        if (!standing_.console_log) {
            auto opened = LogWriter::open(launch_.box_directory(), kConsoleLog);
            if (!opened) return;
            standing_.console_log.emplace(std::move(*opened));
        }
        standing_.console_log->append(LogSource::kConsole, bytes, os::unix_ns());
    };
    if (!console_.read_from(vm_.console.get(), keep)) {
        loop_.unwatch(vm_.console.get());
        vm_.console.reset();
    }
}

void Supervisor::on_vmm_exit(bool signalled, int code, const std::string& why) {
    vm_.running = false;
    if (phase_ < Phase::kEnding) {
        // What the guest said before it went is still in the socket; the command's own end may be in there.
        guard_guest(on_agent());
        static_cast<void>(on_qmp());
    }
    if (phase_ < Phase::kEnding) {
        Error error;
        error.code = Errc::kGuest;
        if (jail::killed_by_filter({signalled, code})) error = vmm::killed_by_filter();
        else if (!shutdown_reason_.empty()) error.message = "the guest stopped by itself (" + shutdown_reason_ + ")";
        else if (!why.empty()) error.message = why;
        else if (signalled) error.message = "the virtual machine was killed by signal " + std::to_string(code);
        else error.message = "the virtual machine ended unexpectedly";
        // Somebody who kills a machine says nothing about the template that it came from. (bubblewrap tells by 128+N.)
        const bool killed = signalled || code == 128 + SIGKILL;
        fail(explain(std::move(error), true), phase_ == Phase::kStarting && !killed);
    }
    if (phase_ == Phase::kSyncing) kill_vmm();
    check_gone();
}

Result<> Supervisor::send_qmp(const std::string& command) {
    return os::write_all(vm_.qmp.get(), vmm::qmp_command(command));
}

// One read for each time the socket is readable: a VMM that never stops talking must not keep the loop from the rest.
Result<> Supervisor::on_qmp() {
    std::uint8_t buffer[16384];
    ssize_t got = ::read(vm_.qmp.get(), buffer, sizeof buffer);
    if (got == 0) loop_.unwatch(vm_.qmp.get());
    if (got <= 0) return {};
    CAISSON_TRY(qmp_.feed({buffer, static_cast<std::size_t>(got)}));
    while (auto message = CAISSON_TRY(qmp_.next())) {
        if (message->kind == vmm::QmpMessage::Kind::kError && phase_ < Phase::kRunning)
            return failure(Errc::kGuest, "the VMM refused a command: " + message->reason);
        if (message->kind != vmm::QmpMessage::Kind::kEvent) continue;
        if (message->event == "SHUTDOWN" && shutdown_reason_.empty()) shutdown_reason_ = message->reason;
        if (message->event == "GUEST_PANICKED") shutdown_reason_ = "its kernel panicked";
        if (message->event == "STOP") on_machine_stopped();
        if (message->event == "RESUME") on_machine_resumed();
        if (message->event == "BLOCK_IO_ERROR" && message->no_space) on_disk_full();
    }
    return qmp_rate_.check(qmp_.lines(), std::chrono::steady_clock::now());
}

void Supervisor::on_machine_stopped() {
    if (held_ && takes_files_out()) return hold_again();
    if (awaiting_pause_.empty() || phase_ != Phase::kRunning) return;
    if (!stop_reason_.empty()) {  // since then somebody has asked for its end, which needs it to run
        note(send_qmp("cont"));
        for (auto* client : std::exchange(awaiting_pause_, {})) refuse(*client, because(Errc::kInUse, "the box is being stopped"));
        return;
    }
    paused_ = true;
    record_state(store::BoxState::kPaused, "it was asked to");
    record(pauser_, "box_paused", {{"reason", "it was asked to"}});
    wire::FromShim done;
    done.mutable_done();
    for (auto* client : std::exchange(awaiting_pause_, {})) send(*client, done);
}

void Supervisor::on_machine_resumed() {
    if (!paused_) return;
    paused_ = false;
    if (phase_ != Phase::kRunning) return;
    record(resumer_, "box_resumed", {});
    if (stop_reason_.empty()) record_state(store::BoxState::kRunning, running_reason());
    // Its time stood still.
    guard_guest(set_guest_clock());
}

// The host slept, or somebody set its clock.
void Supervisor::watch_host_clock() {
    host_clock_ = os::Fd(::timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK));
    if (!host_clock_) return note(base::failure_errno("cannot watch the host's clock"));
    auto arm = [this] {
        struct itimerspec never {};
        never.it_value.tv_sec = INT64_MAX / 1000000000;  // the kernel's own end of time
        return ::timerfd_settime(host_clock_.get(), TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &never, nullptr) == 0;
    };
    if (!arm()) return note(base::failure_errno("cannot watch the host's clock"));
    note(loop_.watch(host_clock_.get(), EPOLLIN, [this, arm](std::uint32_t) {
        std::uint64_t ignored = 0;
        static_cast<void>(!::read(host_clock_.get(), &ignored, sizeof ignored));  // ECANCELED is what it waited for
        if (!arm()) loop_.unwatch(host_clock_.get());
        if (phase_ == Phase::kRunning && !paused_ && clock_asked_ == 0) guard_guest(set_guest_clock());
    }));
}

// Idle is what the host can see: nobody listens to the command and nothing was started beside it. What the guest does
// or says does not count, so it cannot pretend.
void Supervisor::arm_idle_timer() {
    const auto timeout = launch_.spec().idle_timeout_ms();
    if (timeout == 0) return;
    if (phase_ != Phase::kRunning || watched_by_somebody()) return loop_.cancel(std::exchange(idle_timer_, 0));
    // Idle already: a health check, or somebody who only asked how it goes, does not make it busy.
    if (idle_timer_ != 0) return;
    idle_timer_ = loop_.after(milliseconds(timeout), [this, timeout] {
        idle_timer_ = 0;
        if (watched_by_somebody()) return;
        note(standing_.database->set_stop_requested(launch_.box_id()));
        begin_stop(milliseconds(launch_.spec().stop_timeout_ms()), "it was idle for " + std::to_string(timeout / 1000) + " s");
    });
}

bool Supervisor::checks_health() const {
    return launch_.spec().has_health() && launch_.spec().health().command_size() > 0;
}

void Supervisor::begin_health_checks() {
    if (!checks_health()) return;
    health_timer_ = loop_.after(milliseconds(launch_.spec().health().interval_ms()), [this] { check_health(); });
}

void Supervisor::check_health() {
    if (phase_ != Phase::kRunning) return;
    const auto& health = launch_.spec().health();
    auto again = [this, &health] {
        health_timer_ = loop_.after(milliseconds(health.interval_ms()), [this] { check_health(); });
    };
    if (paused_ || waits_for_room()) return again();
    wire::Exec exec = launch_.spec().exec();
    exec.clear_arguments();
    for (const auto& word : health.command()) exec.add_arguments(word);
    exec.set_stdin_open(false);
    exec.set_terminal(false);
    auto& check = add_execution();
    check.timeout_ms = health.timeout_ms();
    arm_timeout(check);
    check.on_end = [this, again, &health](const wire::ExecutionEnded& ended) {
        const bool good = ended.kind() == wire::Ended::EXITED && ended.code() == 0;
        const bool young = std::chrono::steady_clock::now() - running_since_ < milliseconds(health.start_period_ms());
        if (good) health_failures_ = 0;
        else if (!young || health_ != "starting") ++health_failures_;
        const std::string now = good ? "healthy" : health_failures_ >= health.retries() ? "unhealthy" : health_;
        if (now != health_) {
            health_ = now;
            note(standing_.database->set_box_health(launch_.box_id(), health_));
        }
        again();
    };
    guard_guest(ask_for_execution(check, std::move(exec)));
}

}  // namespace caisson::box
