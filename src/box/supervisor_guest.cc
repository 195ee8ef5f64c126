#include <signal.h>
#include <time.h>

#include "base/text.h"
#include "box/limits.h"
#include "box/supervisor.h"
#include "os/file.h"
#include "os/host.h"
#include "os/random.h"
#include "wire/control.h"

namespace caisson::box {

using base::failure;
using std::chrono::milliseconds;

namespace {

// How long a killed execution's last output may take before its box is ended with it.
constexpr milliseconds kKillGrace{1000};
constexpr std::size_t kEntropyBytes = 64;
// The guest's clock is to be within 50 ms of the host's.
constexpr milliseconds kClockTolerance{35};
constexpr int kMaxClockTries = 20;
// The guest is not listened to while a client leaves this much untaken. Far above what its credit allows an honest
// guest, so that only the frames that cost no credit ever reach it.
constexpr std::size_t kMaxClientQueue = 1 << 20;
// More than this is never on its way to a guest that takes what it asked for: a command and one window of input, in
// frames of one byte; and as much again for each further execution.
constexpr std::size_t kMaxAgentQueue = 8 << 20;

std::int64_t realtime_nanoseconds() {
    struct timespec now {};
    ::clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * 1000000000ll + now.tv_nsec;
}

}  // namespace

void Supervisor::guard_guest(const Result<>& result) {
    if (!result) guest_failed(result.error());
}

void Supervisor::guest_failed(const Error& cause) {
    Error error = cause;
    if (error.code == Errc::kProtocol) error.message = "the guest broke the protocol: " + error.message;
    stop_listening_to_agent();
    fail(error, false);
}

Result<> Supervisor::send_to_agent(const wire::ToAgent& message) {
    if (agent_closed_ || !agent_) return failure(Errc::kGuest, "the guest's agent is not there");
    CAISSON_TRY(wire::append_control(agent_->out(), message));
    return flush_agent();
}

Result<> Supervisor::flush_agent() {
    if (agent_closed_ || !agent_) return {};
    CAISSON_TRY(agent_->flush());
    bool listen = true;
    for (const auto& client : clients_) listen = listen && (client.broken || client.connection.queued_bytes() < kMaxClientQueue);
    return loop_.modify(vm_.agent.get(), agent_->wanted_events(listen));
}

std::size_t Supervisor::most_agent_queue() const { return kMaxAgentQueue * std::max<std::size_t>(executions_.size(), 1); }

Result<> Supervisor::on_agent() {
    if (agent_closed_ || !agent_) return {};
    const bool open = CAISSON_TRY(agent_->fill());
    while (auto frame = CAISSON_TRY(agent_->next())) {
        if (frame->type == wire::FrameType::kControl) CAISSON_TRY(on_agent_message(frame->payload));
        else CAISSON_TRY(stream_from_guest(*frame));
    }
    flush_log();
    for (auto& client : clients_) flush(client);
    if (!open) {
        on_agent_closed();
        return {};
    }
    return flush_agent();
}

// Output and credit of executions that run; anything else is a guest that makes things up.
Result<> Supervisor::stream_from_guest(const wire::FrameView& frame) {
    if (phase_ == Phase::kGone) return {};  // nobody waits for it any more
    auto* execution = find_execution(wire::execution_of(frame.stream));
    if (execution == nullptr) return failure(Errc::kProtocol, "it wrote to a stream that does not exist");
    if (execution->state != LiveExecution::State::kRunning)
        return failure(Errc::kProtocol, "it used a stream before the command ran");
    CAISSON_TRY(execution->rules.from_guest(frame));
    if (frame.type == wire::FrameType::kCredit) {
        if (agent_->queued_bytes() > most_agent_queue())
            return failure(Errc::kProtocol, "it asks for input that it does not take");
        for (auto& attachment : execution->attachments)
            if (attachment.streams.input) wire::append_frame(attachment.client->connection.out(), frame.stream, frame.type, frame.payload);
        return {};
    }
    const auto channel = wire::channel_of(frame.stream);
    if (frame.type == wire::FrameType::kData) log_output(*execution, channel, frame.payload);
    for (auto& attachment : execution->attachments) {
        // Whoever did not read while the box was being ended has lost the thread.
        if (execution->rules.behind(attachment.streams, channel)) attachment.streams.output = false;
        if (attachment.streams.takes(channel)) wire::append_frame(attachment.client->connection.out(), frame.stream, frame.type, frame.payload);
    }
    if (frame.type == wire::FrameType::kData) regrant(*execution, channel);
    return {};
}

void Supervisor::log_output(LiveExecution& execution, wire::Channel channel, base::ByteView bytes) {
    constexpr std::size_t kEnough = 32 * 1024;
    auto& pending = pending_log_;
    if (pending.execution != execution.number || pending.channel != channel || pending.bytes.size() + bytes.size() > kEnough) flush_log();
    pending.execution = execution.number;
    pending.channel = channel;
    pending.bytes.insert(pending.bytes.end(), bytes.begin(), bytes.end());
}

void Supervisor::flush_log() {
    if (pending_log_.bytes.empty()) return;
    if (auto* execution = find_execution(pending_log_.execution)) {
        auto& log = execution->number == kMainExecution ? standing_.output_log : execution->log;
        const auto source = pending_log_.channel == wire::Channel::kStdout ? LogSource::kStdout : LogSource::kStderr;
        if (log) log->append(source, pending_log_.bytes, os::unix_ns());
    }
    pending_log_.bytes.clear();
}

// Lets the guest send what everybody who listens takes by now. Once the box is being ended, somebody who merely looks on
// and does not read holds its command up no longer.
void Supervisor::regrant(LiveExecution& execution, wire::Channel channel) {
    // Before it runs the guest does not know it, and the grant would be lost.
    if (agent_closed_ || !agent_ || execution.state != LiveExecution::State::kRunning) return;
    if (auto grant = execution.rules.grant(channel, execution.listeners(is_ending_by_force())); grant > 0)
        wire::append_credit(agent_->out(), wire::stream_of(execution.number, channel), grant);
}

void Supervisor::regrant_all(LiveExecution& execution) {
    regrant(execution, wire::Channel::kStdout);
    regrant(execution, wire::Channel::kStderr);
}

Result<> Supervisor::on_agent_message(base::ByteView payload) {
    auto message = CAISSON_TRY(wire::parse_from_agent(payload));
    if (phase_ >= Phase::kEnding) {
        // Everything is on the VMM's side now; `quit` makes it flush its own caches and leave. All else comes too late.
        if (message.has_shut_down() && phase_ == Phase::kSyncing) static_cast<void>(send_qmp("quit"));
        return {};
    }
    if (message.has_hello()) return on_hello(message.hello());
    if (message.has_clock_set()) return on_clock_set();
    if (message.has_configured()) {
        if (phase_ != Phase::kConfiguring || command_sent_) return failure(Errc::kProtocol, "it was configured twice");
        timings_.set_configured(mark());
        if (launch_.shape().network() && standing_.launcher) note(standing_.launcher->ask(LauncherVerb::kLetIn));
        timings_.set_guest_mount_root(message.configured().mount_root_microseconds());
        timings_.set_guest_container(message.configured().container_microseconds());
        timings_.set_guest_configure(message.configured().total_microseconds());
        // What the round trip took beyond the guest's own work is how late the clock may have been set.
        return clock_is_right(std::chrono::steady_clock::now() - clock_sent_ -
                              std::chrono::microseconds(message.configured().total_microseconds()));
    }
    if (message.has_configure_failed()) {
        Error error;
        error.code = Errc::kGuest;
        error.message = "the guest could not be set up: " + base::printable(message.configure_failed().message(), 1000);
        error.sys_errno = message.configure_failed().error_number();
        fail(error, false);
        return {};
    }
    if (message.has_shares_changed()) return on_shares_changed(message.shares_changed());
    if (message.has_limits_set()) return on_limits_set(message.limits_set());
    if (message.has_started()) return on_started(message.started());
    if (message.has_start_failed()) return on_start_failed(message.start_failed());
    if (message.has_exited()) return on_exited(message.exited());
    return failure(Errc::kProtocol, "it answered what was not asked");
}

Result<> Supervisor::on_hello(const wire::Hello& hello) {
    if (phase_ != Phase::kStarting) return failure(Errc::kProtocol, "it greeted twice");
    if (hello.version_major() != wire::kVersionMajor)
        return failure(Errc::kProtocol, "the guest agent speaks protocol version " +
                                            std::to_string(hello.version_major()) + ", this is " +
                                            std::to_string(wire::kVersionMajor));
    phase_ = Phase::kConfiguring;
    timings_.set_agent_answered(mark());
    if (launch_.spec().disk_bytes() != vmm::kDefaultDiskBytes)
        CAISSON_TRY(os::write_all(vm_.qmp.get(), vmm::qmp_block_resize("d0", launch_.spec().disk_bytes())));
    wire::ToAgent configure;
    *configure.mutable_configure() = launch_.spec().configure();
    base::Bytes entropy(kEntropyBytes);
    CAISSON_TRY(os::fill_random(entropy));
    if (!vm_.shares.empty()) *configure.mutable_configure()->mutable_shares() = shares_for_guest();
    for (const auto& disk : vm_.disks) *configure.mutable_configure()->add_disks() = disk;
    configure.mutable_configure()->set_entropy(entropy.data(), entropy.size());
    configure.mutable_configure()->set_realtime_nanoseconds(realtime_nanoseconds());
    clock_sent_ = std::chrono::steady_clock::now();
    return wire::append_control(agent_->out(), configure);
}

// ---- its clock ----

Result<> Supervisor::set_guest_clock() {
    ++clock_asked_;
    clock_sent_ = std::chrono::steady_clock::now();
    wire::ToAgent message;
    message.mutable_set_clock()->set_realtime_nanoseconds(realtime_nanoseconds());
    return send_to_agent(message);
}

Result<> Supervisor::on_clock_set() {
    if (clock_asked_ == 0) return failure(Errc::kProtocol, "it answered what was not asked");
    if (--clock_asked_ > 0) return {};  // it was asked again meanwhile
    return clock_is_right(std::chrono::steady_clock::now() - clock_sent_);
}

// `lateness` bounds the guest clock's error. On an overloaded host it is set again until a message was quick, or
// the tries are used up: a slow host is no reason not to go on.
Result<> Supervisor::clock_is_right(std::chrono::steady_clock::duration lateness) {
    if (lateness > kClockTolerance && clock_tries_ < kMaxClockTries) {
        ++clock_tries_;
        return set_guest_clock();
    }
    clock_tries_ = 0;
    if (phase_ == Phase::kConfiguring) return start_command();
    wire::FromShim done;
    done.mutable_done();
    for (auto* client : std::exchange(awaiting_resume_, {})) send(*client, done);
    return {};
}

Result<> Supervisor::start_command() {
    if (command_sent_) return failure(Errc::kProtocol, "it was configured twice");
    command_sent_ = true;
    if (launch_.without_command()) {
        begin_running();
        return {};
    }
    auto exec = launch_.spec().exec();
    exec.set_main(true);
    return ask_for_execution(*find_execution(kMainExecution), std::move(exec));
}

// ---- executions ----

LiveExecution& Supervisor::add_execution() {
    const auto number = next_execution_++;
    auto& slot = executions_[number];
    slot = std::make_unique<LiveExecution>(number);
    return *slot;
}

LiveExecution* Supervisor::find_execution(std::uint32_t number) {
    auto found = executions_.find(number);
    return found == executions_.end() ? nullptr : found->second.get();
}

void Supervisor::forget_execution(std::uint32_t number) {
    auto found = executions_.find(number);
    if (found == executions_.end()) return;
    flush_log();
    loop_.cancel(found->second->timer);
    executions_.erase(found);
    if (held_ && !takes_files_out()) stop_again();
    arm_idle_timer();
}

std::vector<std::string> shown_command(const wire::Exec& exec) {
    std::vector<std::string> words;
    std::size_t left = limits::kLongestShownCommand;
    for (const auto& word : exec.arguments()) {
        words.push_back(word.substr(0, left));
        if (word.size() >= left) {
            words.back() += "...";
            break;
        }
        left -= std::min(left, word.size() + 1);
        if (left == 0) break;
    }
    return words;
}

Result<> Supervisor::ask_for_execution(const LiveExecution& execution, wire::Exec exec) {
    wire::ToAgent message;
    *message.mutable_exec() = std::move(exec);
    message.mutable_exec()->set_id(execution.number);
    return send_to_agent(message);
}

Result<> Supervisor::on_started(const wire::Started& started) {
    auto* execution = find_execution(started.id());
    if (execution == nullptr || execution->state != LiveExecution::State::kAsked || !command_sent_ ||
        (execution->number == kMainExecution && launch_.without_command()))
        return failure(Errc::kProtocol, "it started what was not asked");
    execution->state = LiveExecution::State::kRunning;
    execution->started_ms = os::unix_ms();
    execution->pid = started.pid();
    if (execution->abandoned) return signal_execution(execution->number, SIGKILL, false);
    if (execution->number != kMainExecution) record_execution_started(*execution);
    if (execution->number == kMainExecution) arm_timeout(*execution);
    if (execution->number == kMainExecution) {
        begin_running();
        regrant_all(*execution);
        return {};
    }
    if (execution->detached) detach_execution(*execution);
    for (auto& attachment : execution->attachments) {
        if (!attachment.starter) continue;
        wire::FromShim opened;
        auto* open = opened.mutable_execution_open();
        open->set_number(execution->number);
        open->set_id(execution->id);
        open->set_input(attachment.streams.input);
        open->set_input_credit(execution->rules.input_credit());
        open->set_terminal(execution->terminal);
        send(*attachment.client, opened);
    }
    regrant_all(*execution);
    return {};
}

Result<> Supervisor::on_start_failed(const wire::StartFailed& failed) {
    auto* execution = find_execution(failed.id());
    if (execution == nullptr || execution->state != LiveExecution::State::kAsked || !command_sent_ ||
        (execution->number == kMainExecution && launch_.without_command()))
        return failure(Errc::kProtocol, "it started what was not asked");
    auto told = failed;
    told.set_message(base::printable(failed.message(), 1000));
    record_execution_not_started(*execution, told.message());
    if (execution->number == kMainExecution) {
        start_failed_ = told;
        end(wire::Ended::EXITED, told.kind() == wire::StartFailed::NOT_FOUND ? 127 : 126,
            "the command could not be started: " + told.message());
        return {};
    }
    wire::FromShim message;
    *message.mutable_start_failed() = told;
    for (auto& attachment : execution->attachments) send(*attachment.client, message);
    auto on_end = std::move(execution->on_end);
    forget_execution(failed.id());
    if (on_end) {
        wire::ExecutionEnded ended;
        ended.set_kind(wire::Ended::FAILED);
        ended.set_reason(told.message());
        on_end(ended);
    }
    return {};
}

Result<> Supervisor::on_exited(const wire::Exited& exited) {
    auto* execution = find_execution(exited.id());
    if (execution == nullptr || execution->state != LiveExecution::State::kRunning)
        return failure(Errc::kProtocol, "it ended what did not run");
    const char* memory = "the box ran out of memory (raise --memory)";
    wire::ExecutionEnded ended;
    ended.set_kind(exited.signalled() ? wire::Ended::SIGNALLED : wire::Ended::EXITED);
    ended.set_code(exited.code());
    if (exited.out_of_memory()) ended.set_reason(memory);
    if (execution->timed_out) {
        ended.set_kind(wire::Ended::TIMED_OUT);
        ended.set_code(0);
        ended.set_reason("the command did not end in time and was killed");
    }
    if (execution->number == kMainExecution) {
        timings_.set_command_ended(mark());
        if (stop_kind_ == wire::Ended::TIMED_OUT && !stop_reason_.empty()) end(wire::Ended::TIMED_OUT, 0, stop_reason_);
        else end(ended.kind(), ended.code(), ended.reason().empty() ? stop_reason_ : ended.reason());
        return {};
    }
    flush_log();
    record_execution_ended(*execution, ended);
    if (!execution->abandoned) tell_end(*execution, ended);
    auto on_end = std::move(execution->on_end);
    forget_execution(exited.id());
    if (on_end) on_end(ended);
    return {};
}

// To its record and to whoever waits for it.
void Supervisor::tell_end(LiveExecution& execution, const wire::ExecutionEnded& ended) {
    if (execution.detached && standing_.database)
        note(standing_.database->finish_execution(execution.id, end_record(ended.kind(), ended.code(), ended.reason())));
    wire::FromShim message;
    *message.mutable_execution_ended() = ended;
    for (auto& attachment : execution.attachments) send(*attachment.client, message);
}

// The guest was told to kill it and did not say that it is dead: that is the guest's affair from now on.
void Supervisor::abandon(LiveExecution& execution, const wire::ExecutionEnded& ended) {
    tell_end(execution, ended);
    execution.attachments.clear();
    execution.abandoned = true;
    if (held_ && !takes_files_out()) stop_again();
    regrant_all(execution);
    loop_.cancel(std::exchange(execution.timer, 0));
    if (auto on_end = std::exchange(execution.on_end, nullptr)) on_end(ended);
    arm_idle_timer();
}

// From the start of a box's command; of others from when they were asked for, since a guest may not even answer.
void Supervisor::arm_timeout(LiveExecution& execution) {
    if (execution.timeout_ms == 0) return;
    execution.timer = loop_.after(milliseconds(execution.timeout_ms), [this, number = execution.number] { on_execution_timeout(number); });
}

Result<> Supervisor::signal_execution(std::uint32_t number, int signal, bool all) {
    wire::ToAgent message;
    message.mutable_signal()->set_id(number);
    message.mutable_signal()->set_signal(signal);
    message.mutable_signal()->set_all(all);
    return send_to_agent(message);
}

void Supervisor::on_execution_timeout(std::uint32_t number) {
    auto* execution = find_execution(number);
    if (execution == nullptr) return;
    execution->timed_out = true;
    const bool command = number == kMainExecution;
    guard_guest(signal_execution(number, SIGKILL, command));
    if (!command) {
        loop_.after(kKillGrace, [this, number] {
            auto* left = find_execution(number);
            if (left == nullptr || left->abandoned) return;
            wire::ExecutionEnded ended;
            ended.set_kind(wire::Ended::TIMED_OUT);
            ended.set_reason("the command did not end in time, and the box does not say that it was killed");
            abandon(*left, ended);
        });
        return;
    }
    loop_.after(kKillGrace, [this] {
        if (phase_ >= Phase::kEnding) return;
        end(wire::Ended::TIMED_OUT, 0, "the command did not end in time and was killed with its box");
    });
}

}  // namespace caisson::box
