#include <signal.h>
#include <time.h>

#include "base/text.h"
#include "box/shim.h"
#include "box/supervisor.h"
#include "os/file.h"
#include "os/random.h"
#include "wire/control.h"

namespace caisson::box {

using base::failure;
using std::chrono::milliseconds;

namespace {

// How long a killed command's last output may take before the machine is ended with it.
constexpr milliseconds kKillGrace{1000};
constexpr std::size_t kEntropyBytes = 64;
// The guest's clock is to be within 50 ms of the host's.
constexpr milliseconds kClockTolerance{35};
constexpr int kMaxClockTries = 20;
// The guest is not listened to while the client leaves this much untaken. Far above what its credit allows an honest
// guest, so that only the frames that cost no credit ever reach it.
constexpr std::size_t kMaxClientQueue = 1 << 20;
// More than this is never on its way to a guest that takes what it asked for: a command and one window of input, in
// frames of one byte.
constexpr std::size_t kMaxAgentQueue = 8 << 20;

std::int64_t realtime_nanoseconds() {
    struct timespec now {};
    ::clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * 1000000000ll + now.tv_nsec;
}

}  // namespace

Result<> Supervisor::append_message(const wire::FromShim& message) {
    std::string payload;
    if (!message.SerializeToString(&payload)) return failure(Errc::kInternal, "a message could not be packed");
    wire::append_frame(client_.out(), 0, wire::FrameType::kControl, base::as_bytes(payload));
    return {};
}

Result<> Supervisor::flush_agent() {
    if (agent_closed_) return {};
    CAISSON_TRY(agent_->flush());
    const bool listen = client_closed_ || client_.queued_bytes() < kMaxClientQueue;
    return loop_.modify(vm_.agent.get(), agent_->wanted_events(listen));
}

Result<> Supervisor::flush_client() {
    if (client_closed_) return {};
    CAISSON_TRY(client_.flush());
    return loop_.modify(client_fd_.get(), client_.wanted_events(true));
}

Result<> Supervisor::on_agent() {
    if (agent_closed_) return {};
    const bool open = CAISSON_TRY(agent_->fill());
    while (auto frame = CAISSON_TRY(agent_->next())) {
        if (frame->type == wire::FrameType::kControl) CAISSON_TRY(on_agent_message(frame->payload));
        else CAISSON_TRY(pass_to_client(*frame));
    }
    if (auto flushed = flush_client(); !flushed) client_gone();
    if (!open) {
        on_agent_closed();
        return {};
    }
    return flush_agent();
}

// Output and credit of the one execution; anything else is a guest that makes things up.
Result<> Supervisor::pass_to_client(const wire::FrameView& frame) {
    if (phase_ == Phase::kGone) return {};  // nobody waits for it any more
    if (phase_ < Phase::kRunning) return failure(Errc::kProtocol, "it used a stream before the command ran");
    CAISSON_TRY(streams_.from_guest(frame));
    if (frame.type == wire::FrameType::kCredit && agent_->queued_bytes() > kMaxAgentQueue)
        return failure(Errc::kProtocol, "it asks for input that it does not take");
    if (detached_) {
        // Nobody listens: taken, so that the command is not held up.
        if (frame.type == wire::FrameType::kData) grant_output(wire::channel_of(frame.stream));
        return {};
    }
    if (!client_closed_) wire::append_frame(client_.out(), frame.stream, frame.type, frame.payload);
    return {};
}

void Supervisor::grant_output(wire::Channel channel) {
    if (agent_closed_) return;
    if (auto grant = streams_.refill(channel); grant > 0)
        wire::append_credit(agent_->out(), wire::stream_of(kMainExecution, channel), grant);
}

Result<> Supervisor::on_agent_message(base::ByteView payload) {
    auto message = CAISSON_TRY(wire::parse_from_agent(payload));
    if (phase_ >= Phase::kEnding) {
        // Everything is on the VMM's side now; `quit` makes it flush its own caches and leave. All else comes too late.
        if (message.has_shut_down() && phase_ == Phase::kSyncing)
            static_cast<void>(os::write_all(vm_.qmp.get(), vmm::qmp_command("quit")));
        return {};
    }
    if (message.has_hello()) return on_hello(message.hello());
    if (message.has_clock_set()) return on_clock_set();
    if (message.has_configured()) {
        timings_.set_configured(mark());
        timings_.set_guest_mount_root(message.configured().mount_root_microseconds());
        timings_.set_guest_container(message.configured().container_microseconds());
        timings_.set_guest_configure(message.configured().total_microseconds());
        // What the round trip took beyond the guest's own work is how late the clock may have been set.
        return start_command_once_clock_is_right(
            std::chrono::steady_clock::now() - clock_sent_ -
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
    const bool starting = phase_ == Phase::kConfiguring && command_sent_;
    if (message.has_started() && starting && message.started().id() == kMainExecution) {
        phase_ = Phase::kRunning;
        loop_.cancel(start_timer_);
        timings_.set_command_started(mark());
        wire::FromShim launched;
        launched.mutable_launched();
        CAISSON_TRY(append_message(launched));
        if (launch_.timeout_ms() > 0)
            timeout_timer_ = loop_.after(milliseconds(launch_.timeout_ms()), [this] { on_timeout(); });
        return {};
    }
    if (message.has_start_failed() && starting && message.start_failed().id() == kMainExecution) {
        start_failed_ = message.start_failed();
        start_failed_->set_message(base::printable(start_failed_->message(), 1000));
        end(wire::Ended::EXITED, start_failed_->kind() == wire::StartFailed::NOT_FOUND ? 127 : 126,
            "the command could not be started: " + start_failed_->message());
        return {};
    }
    if (message.has_exited() && message.exited().id() == kMainExecution && phase_ == Phase::kRunning) {
        timings_.set_command_ended(mark());
        const auto& exited = message.exited();
        std::string reason = exited.out_of_memory() ? "the box ran out of memory (raise --memory)" : "";
        if (timed_out_) end(wire::Ended::TIMED_OUT, 0, "the command did not end in time and was killed");
        else end(exited.signalled() ? wire::Ended::SIGNALLED : wire::Ended::EXITED, exited.code(), reason);
        return {};
    }
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
    vm_.init.learn();  // before the guest gets anything that may be hostile
    if (launch_.disk_bytes() != vmm::kDefaultDiskBytes)
        CAISSON_TRY(os::write_all(vm_.qmp.get(), vmm::qmp_block_resize("d0", launch_.disk_bytes())));
    wire::ToAgent configure;
    *configure.mutable_configure() = launch_.configure();
    base::Bytes entropy(kEntropyBytes);
    CAISSON_TRY(os::fill_random(entropy));
    configure.mutable_configure()->set_entropy(entropy.data(), entropy.size());
    configure.mutable_configure()->set_realtime_nanoseconds(realtime_nanoseconds());
    clock_sent_ = std::chrono::steady_clock::now();
    return wire::append_control(agent_->out(), configure);
}

Result<> Supervisor::on_clock_set() {
    if (phase_ != Phase::kConfiguring || clock_tries_ == 0)
        return failure(Errc::kProtocol, "it answered what was not asked");
    return start_command_once_clock_is_right(std::chrono::steady_clock::now() - clock_sent_);
}

// `lateness` bounds the guest clock's error. On an overloaded host it is set again until a message was quick, or
// the tries are used up: a slow host is no reason not to start.
Result<> Supervisor::start_command_once_clock_is_right(std::chrono::steady_clock::duration lateness) {
    if (phase_ != Phase::kConfiguring || command_sent_) return failure(Errc::kProtocol, "it was configured twice");
    if (lateness > kClockTolerance && clock_tries_ < kMaxClockTries) {
        ++clock_tries_;
        wire::ToAgent message;
        message.mutable_set_clock()->set_realtime_nanoseconds(realtime_nanoseconds());
        clock_sent_ = std::chrono::steady_clock::now();
        return wire::append_control(agent_->out(), message);
    }
    command_sent_ = true;
    wire::ToAgent exec;
    *exec.mutable_exec() = launch_.exec();
    exec.mutable_exec()->set_id(kMainExecution);
    exec.mutable_exec()->set_main(true);
    return wire::append_control(agent_->out(), exec);
}

void Supervisor::on_timeout() {
    timed_out_ = true;
    wire::ToAgent message;
    message.mutable_signal()->set_id(kMainExecution);
    message.mutable_signal()->set_signal(SIGKILL);
    message.mutable_signal()->set_all(true);
    static_cast<void>(wire::append_control(agent_->out(), message));
    static_cast<void>(flush_agent());
    loop_.after(kKillGrace, [this] {
        if (phase_ >= Phase::kEnding) return;
        end(wire::Ended::TIMED_OUT, 0, "the command did not end in time and was killed with its box");
    });
}

Result<> Supervisor::on_client() {
    bool open = CAISSON_TRY(client_.fill());
    while (auto frame = CAISSON_TRY(client_.next())) {
        if (frame->type == wire::FrameType::kControl) {
            wire::ToShim message;
            if (!message.ParseFromArray(frame->payload.data(), static_cast<int>(frame->payload.size())))
                return failure(Errc::kProtocol, "the client sent something that is not a message");
            CAISSON_TRY(on_client_message(message));
        } else {
            CAISSON_TRY(pass_to_agent(*frame));
        }
    }
    if (!open) {
        client_gone();
        return {};
    }
    // Also when the client merely took some output: what is left goes on, and the loop stops waiting when it is gone.
    // Then there may be room for more of the guest's.
    CAISSON_TRY(flush_client());
    if (auto flushed = flush_agent(); !flushed) fail(flushed.error(), false);
    return {};
}

Result<> Supervisor::pass_to_agent(const wire::FrameView& frame) {
    CAISSON_TRY_CTX(streams_.from_client(frame), "the client");
    if (!agent_closed_) wire::append_frame(agent_->out(), frame.stream, frame.type, frame.payload);
    return {};
}

Result<> Supervisor::on_client_message(const wire::ToShim& message) {
    if (message.has_stop()) {
        stop_asked_ = true;
        end(wire::Ended::SIGNALLED, message.stop().signal() > 0 ? message.stop().signal() : SIGKILL,
            "the box was stopped");
        return {};
    }
    if (message.has_detach()) return let_client_go();
    wire::ToAgent to_agent;
    if (message.has_signal()) {
        *to_agent.mutable_signal() = message.signal();
        to_agent.mutable_signal()->set_id(kMainExecution);
    } else if (message.has_resize()) {
        *to_agent.mutable_resize() = message.resize();
        to_agent.mutable_resize()->set_id(kMainExecution);
    } else {
        return failure(Errc::kProtocol, "the client sent an unexpected message");
    }
    // A guest that does not take its messages gets no more of them.
    if (phase_ == Phase::kRunning && agent_->queued_bytes() <= kMaxAgentQueue) return wire::append_control(agent_->out(), to_agent);
    return {};
}

}  // namespace caisson::box
