#include "box/supervisor.h"

#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cstdio>

#include "box/convert.h"
#include "box/owner.h"
#include "box/strays.h"
#include "os/file.h"
#include "os/host.h"
#include "vmm/template.h"
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
constexpr milliseconds kDiskFullRetry{1000};

}  // namespace

std::uint32_t Supervisor::mark() const {
    return static_cast<std::uint32_t>(
        std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - started_).count());
}

Result<> Supervisor::run() {
    auto begun = start();
    if (!begun) {
        fail(begun.error(), false);
        vm_.init = jail::Init();
        vm_.process = os::Process();
        kill_strays(launch_.box_directory());
        finish();
        return {};
    }
    CAISSON_TRY(loop_.run());
    return {};
}

Result<> Supervisor::start() {
    std::fprintf(stderr, "caisson-shim: %s\n", launch_.engine().c_str());
    vmm::MachinePlan plan;
    plan.start = launch_.template_directory().empty() ? vmm::MachinePlan::Start::kCold
                                                      : vmm::MachinePlan::Start::kRestore;
    plan.shape = shape_from(launch_.shape());
    plan.accelerator = accelerator_from(launch_.shape());
    plan.tsc_khz = launch_.shape().tsc_khz();
    plan.kvm_source_fd = kShimKvmFd;
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

void Supervisor::guard(const Result<>& result, Peer peer) {
    if (result) return;
    if (peer == Peer::kClient) return client_gone();
    Error error = result.error();
    if (error.code == Errc::kProtocol) error.message = "the guest broke the protocol: " + error.message;
    stop_listening_to_agent();
    fail(error, false);
}

// A guest that broke the rules once is not listened to any more.
void Supervisor::stop_listening_to_agent() {
    if (agent_closed_) return;
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
    return console_.explain(std::move(error), ended);
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
    loop_.cancel(timeout_timer_);
    ended_.set_kind(kind);
    ended_.set_code(code);
    ended_.set_reason(std::move(reason));
    const bool forced = kind == wire::Ended::TIMED_OUT || stop_asked_;
    bool guest_alive = kind != wire::Ended::FAILED && vm_.process.running();
    if (!launch_.auto_remove() && guest_alive && !agent_closed_) return sync_guest(forced ? kForcedSyncGrace : kSyncGrace);
    kill_vmm();
}

void Supervisor::sync_guest(milliseconds grace) {
    phase_ = Phase::kSyncing;
    wire::ToAgent message;
    message.mutable_shutdown()->set_sync(true);
    if (!wire::append_control(agent_->out(), message) || !flush_agent()) return kill_vmm();
    loop_.after(grace, [this] { kill_vmm(); });
}

void Supervisor::kill_vmm() {
    if (phase_ == Phase::kGone) return;
    phase_ = Phase::kGone;
    vm_.init.kill();
    static_cast<void>(vm_.process.send_signal(SIGKILL));
    if (vm_.init.known())
        static_cast<void>(loop_.watch(vm_.init.pidfd().get(), EPOLLIN, [this](std::uint32_t) {
            loop_.unwatch(vm_.init.pidfd().get());
            check_gone();
        }));
    remove_what_the_vmm_does_not_need();
    loop_.after(kVmmExitGrace, [this] { finish(); });
    check_gone();
}

void Supervisor::remove_what_the_vmm_does_not_need() {
    if (launch_.auto_remove()) static_cast<void>(os::remove_tree(launch_.box_directory()));
}

void Supervisor::check_gone() {
    if (phase_ != Phase::kGone || !vmm_exited_ || !vm_.init.gone()) return;
    // bwrap was killed before it could say what it had started: that is found by the box's files it was given.
    if (!vm_.init.known()) kill_strays(launch_.box_directory());
    finish();
}

// Everything is gone: record it, tell the client, leave.
void Supervisor::finish() {
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
            struct pollfd wanted[] = {{client_fd_.get(), POLLOUT, 0}, {signals_.get(), POLLIN, 0}};
            ::poll(wanted, 2, -1);
            if (wanted[1].revents != 0) break;  // told to stop: everything is recorded, only the client is left
        }
    }
    loop_.stop();
}

void Supervisor::record_end() {
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

// The box goes on without its client. What the command writes from now on is taken and dropped.
Result<> Supervisor::let_client_go() {
    if (phase_ != Phase::kRunning) return failure(Errc::kProtocol, "the client left a box that does not run");
    wire::FromShim message;
    message.mutable_detached();
    CAISSON_TRY(append_message(message));
    detached_ = true;
    // What the client took without giving credit yet must not hold the command up.
    for (auto channel : {wire::Channel::kStdout, wire::Channel::kStderr}) grant_output(channel);
    return {};
}

void Supervisor::client_gone() {
    if (client_closed_) return;
    client_closed_ = true;
    loop_.unwatch(client_fd_.get());
    if (detached_) {
        client_fd_.reset();
        if (auto flushed = flush_agent(); !flushed) fail(flushed.error(), false);
        return;
    }
    stop_asked_ = true;
    end(wire::Ended::SIGNALLED, SIGKILL, "the process that started the box went away");
}

void Supervisor::on_signal() {
    struct signalfd_siginfo_prefix {
        std::uint32_t number;
        std::uint8_t rest[124];
    } info{};
    stop_asked_ = true;
    while (::read(signals_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info))
        end(wire::Ended::SIGNALLED, static_cast<int>(info.number), "the box's supervisor was told to stop");
}

void Supervisor::on_console() {
    if (!console_.read_from(vm_.console.get())) loop_.unwatch(vm_.console.get());
}

void Supervisor::on_vmm_exit() {
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
        // QEMU stops the machine when the host's disk is full. It goes on as soon as there is room again.
        if (message->event == "BLOCK_IO_ERROR" && message->no_space && disk_full_timer_ == 0)
            disk_full_timer_ = loop_.after(kDiskFullRetry, [this] {
                disk_full_timer_ = 0;
                if (phase_ < Phase::kGone) static_cast<void>(os::write_all(vm_.qmp.get(), vmm::qmp_command("cont")));
            });
    }
    return qmp_rate_.check(qmp_.lines(), std::chrono::steady_clock::now());
}

}  // namespace caisson::box
