#include "box/shim.h"

#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <chrono>
#include <map>

#include "base/text.h"
#include "box/convert.h"
#include "box/owner.h"
#include "box/strays.h"
#include "os/file.h"
#include "os/host.h"
#include "os/loop.h"
#include "os/random.h"
#include "store/database.h"
#include "vmm/qmp.h"
#include "vmm/template.h"
#include "vmm/vm.h"
#include "wire/connection.h"
#include "wire/control.h"
#include "wire/shim.pb.h"

namespace caisson::box {

using base::failure;
using std::chrono::milliseconds;

namespace {

// How long a killed command's last output may take before the machine is ended with it.
constexpr milliseconds kKillGrace{1000};
// How long a guest may take to write its file systems back before its machine is ended anyway.
constexpr milliseconds kSyncGrace{30000};
constexpr milliseconds kVmmExitGrace{5000};
constexpr milliseconds kDiskFullRetry{1000};
constexpr std::size_t kEntropyBytes = 64;
// The guest's clock is to be within 50 ms of the host's.
constexpr milliseconds kClockTolerance{35};
constexpr int kMaxClockTries = 20;
constexpr milliseconds kStrayInterval{150};

// One box from its launch to its removal. The state only moves forward.
class Supervisor {
  public:
    Supervisor(os::Loop loop, os::Fd client, wire::Launch launch)
        : loop_(std::move(loop)),
          client_fd_(std::move(client)),
          client_(client_fd_.get()),
          launch_(std::move(launch)),
          started_(std::chrono::steady_clock::now()) {}

    // `early`: bytes of the client that came with the request.
    Result<> run() {
        auto begun = start();
        if (!begun) {
            fail(begun.error(), false);
            vm_.process = os::Process();
            kill_strays(launch_.box_directory());
            finish();
            return {};
        }
        CAISSON_TRY(loop_.run());
        return {};
    }

  private:
    enum class Phase { kStarting, kConfiguring, kRunning, kEnding, kSyncing, kGone };

    std::uint32_t mark() const {
        return static_cast<std::uint32_t>(
            std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - started_).count());
    }

    Result<> start() {
        vmm::MachinePlan plan;
        plan.start = launch_.template_directory().empty() ? vmm::MachinePlan::Start::kCold
                                                          : vmm::MachinePlan::Start::kRestore;
        plan.shape = shape_from(launch_.shape());
        plan.accelerator = accelerator_from(launch_.shape());
        plan.tsc_khz = launch_.shape().tsc_khz();
        plan.template_directory = launch_.template_directory();
        plan.disk = vmm::Disk{launch_.overlay_path(), launch_.base_disk_path(), launch_.disk_bytes()};
        auto assets = from_message(launch_.assets());
        if (plan.start == vmm::MachinePlan::Start::kCold) {
            plan.template_directory = launch_.box_directory() + "/boot";
            CAISSON_TRY(os::make_directories(plan.template_directory, 0700));
            CAISSON_TRY(vmm::write_initramfs(assets, plan.template_directory));
        }
        vm_ = CAISSON_TRY(vmm::start_vm(plan, assets));
        timings_.set_vmm_started(mark());
        agent_ = std::make_unique<wire::Connection>(vm_.agent.get());
        CAISSON_TRY(vmm::greet(*agent_));

        signals_ = CAISSON_TRY(os::make_signal_fd({SIGTERM, SIGINT, SIGHUP}));
        CAISSON_TRY(loop_.watch(signals_.get(), EPOLLIN, [this](std::uint32_t) { on_signal(); }));
        CAISSON_TRY(loop_.watch(client_fd_.get(), EPOLLIN, [this](std::uint32_t) { guard(on_client(), Peer::kClient); }));
        CAISSON_TRY(loop_.watch(vm_.console.get(), EPOLLIN, [this](std::uint32_t) { on_console(); }));
        CAISSON_TRY(loop_.watch(vm_.agent.get(), EPOLLIN, [this](std::uint32_t) { guard(on_agent(), Peer::kGuest); }));
        CAISSON_TRY(loop_.watch(vm_.qmp.get(), EPOLLIN, [this](std::uint32_t) { guard(on_qmp(), Peer::kGuest); }));
        CAISSON_TRY(loop_.watch(vm_.process.pidfd().get(), EPOLLIN, [this](std::uint32_t) { on_vmm_exit(); }));
        CAISSON_TRY(flush_agent());
        start_timer_ = loop_.after(milliseconds(launch_.start_deadline_ms()), [this] {
            Error error;
            error.code = Errc::kGuest;
            error.message = "the guest did not answer within " + std::to_string(launch_.start_deadline_ms() / 1000) + " s";
            fail(explain(std::move(error), false), true);
        });

        // While the machine comes up: who supervises this box now.
        database_ = CAISSON_TRY(store::Database::open(launch_.database()));
        CAISSON_TRY(database_->set_box_running(launch_.box_id(), CAISSON_TRY(this_process())));
        return {};
    }

    enum class Peer { kClient, kGuest };
    void guard(Result<> result, Peer peer) {
        if (result) return;
        if (peer == Peer::kClient) return client_gone();
        Error error = result.error();
        if (error.code == Errc::kProtocol) error.message = "the guest broke the protocol: " + error.message;
        fail(std::move(error), false);
    }

    Error explain(Error error, bool ended) {
        on_console();
        return console_.explain(std::move(error), ended);
    }

    // The box cannot go on. Before its command runs this is the launch's error, later the box's outcome.
    void fail(Error error, bool no_answer) {
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
    void end(wire::Ended::Kind kind, int code, std::string reason) {
        if (phase_ >= Phase::kEnding) return;
        phase_ = Phase::kEnding;
        loop_.cancel(start_timer_);
        loop_.cancel(timeout_timer_);
        ended_.set_kind(kind);
        ended_.set_code(code);
        ended_.set_reason(std::move(reason));
        bool guest_alive = kind != wire::Ended::FAILED && vm_.process.running();
        if (!launch_.auto_remove() && guest_alive && !agent_closed_) return sync_guest();
        kill_vmm();
    }

    void sync_guest() {
        phase_ = Phase::kSyncing;
        wire::ToAgent message;
        message.mutable_shutdown()->set_sync(true);
        if (!wire::append_control(agent_->out(), message) || !flush_agent()) return kill_vmm();
        loop_.after(kSyncGrace, [this] { kill_vmm(); });
    }

    void kill_vmm() {
        if (phase_ == Phase::kGone) return;
        phase_ = Phase::kGone;
        static_cast<void>(vm_.process.send_signal(SIGKILL));
        remove_what_the_vmm_does_not_need();
        // bwrap is reaped at once; QEMU behind it is gone when its end of the control socket closes.
        loop_.after(kVmmExitGrace, [this] { finish(); });
        check_gone();
    }

    void remove_what_the_vmm_does_not_need() {
        if (launch_.auto_remove()) static_cast<void>(os::remove_tree(launch_.box_directory()));
    }

    void check_gone() {
        if (phase_ == Phase::kGone && vmm_exited_ && qmp_closed_) finish();
    }

    // Everything is gone: record it, tell the client, leave.
    void finish() {
        if (finished_) return;
        finished_ = true;
        timings_.set_vmm_gone(mark());
        if (database_) record_end();
        timings_.set_removed(mark());
        *ended_.mutable_timings() = timings_;
        if (!client_closed_) {
            wire::FromShim message;
            if (start_failed_) {
                *message.mutable_start_failed() = *start_failed_;
                static_cast<void>(append_message(message));
            }
            if (error_) *message.mutable_error() = *error_;
            else *message.mutable_ended() = ended_;
            static_cast<void>(append_message(message));
            // The client may be slow to take the last output; it has all the time it wants, as long as it lives.
            static_cast<void>(os::set_nonblocking(client_fd_.get(), false));
            while (client_.queued_bytes() > 0) {
                if (!client_.flush()) break;
                if (client_.queued_bytes() == 0) break;
                struct pollfd writable {client_fd_.get(), POLLOUT, 0};
                ::poll(&writable, 1, -1);
            }
        }
        loop_.stop();
    }

    void record_end() {
        Result<> recorded;
        if (launch_.auto_remove()) {
            // Again: the VMM may have been writing while the first sweep ran.
            auto removed = os::remove_tree(launch_.box_directory());
            recorded = removed ? database_->remove_box(launch_.box_id()) : std::move(removed);
        } else {
            bool failed = ended_.kind() == wire::Ended::FAILED;
            int code = ended_.kind() == wire::Ended::SIGNALLED   ? 128 + ended_.code()
                       : ended_.kind() == wire::Ended::TIMED_OUT ? 124
                       : failed                                  ? 125
                                                                 : ended_.code();
            recorded = database_->finish_box(launch_.box_id(), failed ? store::BoxState::kFailed : store::BoxState::kStopped,
                                             code, ended_.reason(), os::unix_ms());
        }
        // The next process that opens the home does what could not be done here.
        if (!recorded) std::fprintf(stderr, "caisson-shim: %s\n", recorded.error().to_string().c_str());
    }

    Result<> append_message(const wire::FromShim& message) {
        std::string payload;
        if (!message.SerializeToString(&payload)) return failure(Errc::kInternal, "a message could not be packed");
        wire::append_frame(client_.out(), 0, wire::FrameType::kControl, base::as_bytes(payload));
        return {};
    }

    Result<> flush_agent() {
        if (agent_closed_) return {};
        CAISSON_TRY(agent_->flush());
        return loop_.modify(vm_.agent.get(), agent_->wanted_events(true));
    }
    Result<> flush_client() {
        if (client_closed_) return {};
        CAISSON_TRY(client_.flush());
        return loop_.modify(client_fd_.get(), client_.wanted_events(true));
    }

    void client_gone() {
        if (client_closed_) return;
        client_closed_ = true;
        loop_.unwatch(client_fd_.get());
        end(wire::Ended::SIGNALLED, SIGKILL, "the process that started the box went away");
    }

    void on_signal() {
        struct signalfd_siginfo_prefix {
            std::uint32_t number;
            std::uint8_t rest[124];
        } info{};
        while (::read(signals_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info))
            end(wire::Ended::SIGNALLED, static_cast<int>(info.number), "the box's supervisor was told to stop");
    }

    void on_console() {
        if (!console_.read_from(vm_.console.get())) loop_.unwatch(vm_.console.get());
    }

    void on_vmm_exit() {
        loop_.unwatch(vm_.process.pidfd().get());
        vmm_exited_ = true;
        auto status = vm_.process.wait();
        if (phase_ < Phase::kEnding) {
            // What the guest said before it went is still in the socket; the command's own end may be in there.
            guard(on_agent(), Peer::kGuest);
            static_cast<void>(on_qmp());
        }
        if (phase_ < Phase::kEnding) {
            Error error;
            error.code = Errc::kGuest;
            if (!shutdown_reason_.empty()) error.message = "the guest stopped by itself (" + shutdown_reason_ + ")";
            else if (status && status->signalled)
                error.message = "the virtual machine was killed by signal " + std::to_string(status->code);
            else error.message = "the virtual machine ended unexpectedly";
            fail(explain(std::move(error), true), phase_ == Phase::kStarting);
        }
        if (phase_ == Phase::kSyncing) kill_vmm();
        check_gone();
        if (!finished_) watch_for_strays();
    }

    // bwrap ties its inner process to the outer one only after a moment. Should the outer one be killed in that
    // moment, the inner one, and then the VMM, would go on: they are found by the box's files that they were given.
    void watch_for_strays() {
        loop_.after(kStrayInterval, [this] {
            if (finished_ || phase_ != Phase::kGone) return;
            kill_strays(launch_.box_directory());
            watch_for_strays();
        });
    }

    Result<> on_qmp() {
        std::uint8_t buffer[16384];
        for (;;) {
            ssize_t got = ::read(vm_.qmp.get(), buffer, sizeof buffer);
            if (got < 0) break;
            if (got == 0) {
                loop_.unwatch(vm_.qmp.get());
                qmp_closed_ = true;
                check_gone();
                break;
            }
            CAISSON_TRY(qmp_.feed({buffer, static_cast<std::size_t>(got)}));
        }
        while (auto message = CAISSON_TRY(qmp_.next())) {
            if (message->kind == vmm::QmpMessage::Kind::kError && phase_ < Phase::kRunning)
                return failure(Errc::kGuest, "the VMM refused a command: " + message->reason);
            if (message->kind != vmm::QmpMessage::Kind::kEvent) continue;
            if (message->event == "SHUTDOWN" && shutdown_reason_.empty()) shutdown_reason_ = message->reason;
            if (message->event == "GUEST_PANICKED") shutdown_reason_ = "its kernel panicked";
            // QEMU stops the machine when the host's disk is full. It goes on as soon as there is room again.
            if (message->event == "BLOCK_IO_ERROR" && message->no_space)
                loop_.after(kDiskFullRetry, [this] {
                    if (phase_ < Phase::kGone) static_cast<void>(os::write_all(vm_.qmp.get(), vmm::qmp_command("cont")));
                });
        }
        return {};
    }

    Result<> on_agent() {
        if (agent_closed_) return {};
        if (!CAISSON_TRY(agent_->fill())) {
            loop_.unwatch(vm_.agent.get());
            agent_closed_ = true;
        }
        while (auto frame = CAISSON_TRY(agent_->next())) {
            if (frame->type == wire::FrameType::kControl) CAISSON_TRY(on_agent_message(frame->payload));
            else CAISSON_TRY(pass_to_client(*frame));
        }
        if (auto flushed = flush_client(); !flushed) client_gone();
        return flush_agent();
    }

    // Output and credit of the one execution; anything else is a guest that makes things up.
    Result<> pass_to_client(const wire::FrameView& frame) {
        if (wire::execution_of(frame.stream) != kMainExecution)
            return failure(Errc::kProtocol, "it wrote to a stream that does not exist");
        auto channel = wire::channel_of(frame.stream);
        const bool output = channel == wire::Channel::kStdout || channel == wire::Channel::kStderr;
        if (frame.type == wire::FrameType::kCredit) {
            if (channel != wire::Channel::kStdin) return failure(Errc::kProtocol, "it granted credit on its own output");
        } else if (!output) {
            return failure(Errc::kProtocol, "it wrote to an input stream");
        }
        if (frame.type == wire::FrameType::kData) {
            auto& window = guest_windows_[frame.stream];
            if (frame.payload.size() > window.available())
                return failure(Errc::kProtocol, "it sent more than it had credit for");
            window.consume(static_cast<std::uint32_t>(frame.payload.size()));
        }
        if (!client_closed_) wire::append_frame(client_.out(), frame.stream, frame.type, frame.payload);
        return {};
    }

    Result<> on_agent_message(base::ByteView payload) {
        auto message = CAISSON_TRY(wire::parse_from_agent(payload));
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
            fail(std::move(error), false);
            return {};
        }
        if (message.has_started() && phase_ == Phase::kConfiguring) {
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
        if (message.has_start_failed() && phase_ == Phase::kConfiguring) {
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
        if (message.has_shut_down() && phase_ == Phase::kSyncing) {
            // Everything is on the VMM's side now; `quit` makes it flush its own caches and leave.
            static_cast<void>(os::write_all(vm_.qmp.get(), vmm::qmp_command("quit")));
            return {};
        }
        return {};
    }

    Result<> on_hello(const wire::Hello& hello) {
        if (phase_ != Phase::kStarting) return failure(Errc::kProtocol, "it greeted twice");
        if (hello.version_major() != wire::kVersionMajor)
            return failure(Errc::kProtocol, "the guest agent speaks protocol version " +
                                                std::to_string(hello.version_major()) + ", this is " +
                                                std::to_string(wire::kVersionMajor));
        phase_ = Phase::kConfiguring;
        timings_.set_agent_answered(mark());
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

    static std::int64_t realtime_nanoseconds() {
        struct timespec now {};
        ::clock_gettime(CLOCK_REALTIME, &now);
        return now.tv_sec * 1000000000ll + now.tv_nsec;
    }

    Result<> on_clock_set() {
        if (phase_ != Phase::kConfiguring || clock_tries_ == 0)
            return failure(Errc::kProtocol, "it answered what was not asked");
        return start_command_once_clock_is_right(std::chrono::steady_clock::now() - clock_sent_);
    }

    // `lateness` bounds the guest clock's error. On an overloaded host it is set again until a message was quick, or
    // the tries are used up: a slow host is no reason not to start.
    Result<> start_command_once_clock_is_right(std::chrono::steady_clock::duration lateness) {
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

    void on_timeout() {
        timed_out_ = true;
        wire::ToAgent message;
        message.mutable_signal()->set_id(kMainExecution);
        message.mutable_signal()->set_signal(SIGKILL);
        message.mutable_signal()->set_all(true);
        static_cast<void>(wire::append_control(agent_->out(), message));
        static_cast<void>(flush_agent());
        loop_.after(kKillGrace, [this] {
            end(wire::Ended::TIMED_OUT, 0, "the command did not end in time and was killed with its box");
        });
    }

    Result<> on_client() {
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
        if (auto flushed = flush_agent(); !flushed) fail(flushed.error(), false);
        // Also when the client merely took some output: what is left goes on, and the loop stops waiting when it is gone.
        return flush_client();
    }

    Result<> pass_to_agent(const wire::FrameView& frame) {
        if (wire::execution_of(frame.stream) != kMainExecution)
            return failure(Errc::kProtocol, "the client wrote to a stream that does not exist");
        if (frame.type == wire::FrameType::kCredit) CAISSON_TRY(guest_windows_[frame.stream].add(wire::credit_of(frame)));
        if (!agent_closed_) wire::append_frame(agent_->out(), frame.stream, frame.type, frame.payload);
        return {};
    }

    Result<> on_client_message(const wire::ToShim& message) {
        if (message.has_stop()) {
            end(wire::Ended::SIGNALLED, message.stop().signal() > 0 ? message.stop().signal() : SIGKILL,
                "the box was stopped");
            return {};
        }
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
        if (phase_ == Phase::kRunning) return wire::append_control(agent_->out(), to_agent);
        return {};
    }

    os::Loop loop_;
    os::Fd client_fd_;
    wire::Connection client_;
    wire::Launch launch_;
    std::chrono::steady_clock::time_point started_;
    vmm::Vm vm_;
    std::unique_ptr<wire::Connection> agent_;
    os::Fd signals_;
    vmm::QmpParser qmp_;
    vmm::ConsoleTail console_;
    std::optional<store::Database> database_;
    std::map<std::uint32_t, wire::SendWindow> guest_windows_;  // what the guest may still send
    Phase phase_ = Phase::kStarting;
    os::Loop::TimerId start_timer_ = 0;
    os::Loop::TimerId timeout_timer_ = 0;
    wire::Timings timings_;
    wire::Ended ended_;
    std::optional<wire::ShimError> error_;
    std::optional<wire::StartFailed> start_failed_;
    std::string shutdown_reason_;
    std::chrono::steady_clock::time_point clock_sent_;
    int clock_tries_ = 0;
    bool command_sent_ = false;
    bool timed_out_ = false;
    bool client_closed_ = false;
    bool agent_closed_ = false;
    bool vmm_exited_ = false;
    bool qmp_closed_ = false;
    bool finished_ = false;
};

// Blocks until the client's request is complete.
Result<wire::ToShim> read_request(int fd) {
    wire::Connection connection(fd);
    for (;;) {
        struct pollfd readable {fd, POLLIN, 0};
        if (::poll(&readable, 1, -1) < 0 && errno != EINTR) return base::failure_errno("waiting for the request");
        bool open = CAISSON_TRY(connection.fill());
        auto frame = CAISSON_TRY(connection.next());
        if (frame) {
            wire::ToShim request;
            if (frame->type != wire::FrameType::kControl ||
                !request.ParseFromArray(frame->payload.data(), static_cast<int>(frame->payload.size())))
                return failure(Errc::kProtocol, "the request is not a message");
            return request;
        }
        if (!open) return failure(Errc::kCancelled, "the client went away before it asked for anything");
    }
}

void build(os::Fd client, const wire::BuildTemplate& request) {
    vmm::BuildRequest build;
    build.templates = request.templates();
    build.key = request.key();
    build.shape = shape_from(request.shape());
    build.accelerator = accelerator_from(request.shape());
    build.tsc_khz = request.shape().tsc_khz();
    build.base_disk_path = request.base_disk_path();
    build.disk_bytes = request.disk_bytes();
    build.warm.assign(request.warm().begin(), request.warm().end());
    build.image = request.image();
    build.assets = from_message(request.assets());
    build.deadline = std::chrono::seconds(request.deadline_ms() / 1000);
    auto built = vmm::build_template(build, client.get());
    wire::FromShim answer;
    if (built) answer.mutable_template_built()->set_directory(*built);
    else to_message(built.error(), *answer.mutable_error());
    std::string payload;
    base::Bytes frame;
    if (answer.SerializeToString(&payload)) {
        wire::append_frame(frame, 0, wire::FrameType::kControl, base::as_bytes(payload));
        static_cast<void>(os::write_all(client.get(), frame));
    }
}

}  // namespace

Result<> serve(os::Fd client) {
    auto request = CAISSON_TRY(read_request(client.get()));
    if (request.has_build_template()) {
        build(std::move(client), request.build_template());
        return {};
    }
    if (!request.has_launch()) return failure(Errc::kProtocol, "the request asks for nothing");
    Supervisor supervisor(CAISSON_TRY(os::Loop::create()), std::move(client), std::move(*request.mutable_launch()));
    return supervisor.run();
}

}  // namespace caisson::box
