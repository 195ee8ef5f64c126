#include "agent/session.h"

#include <signal.h>

#include "agent/identity.h"
#include "agent/launch.h"
#include "agent/log.h"
#include "agent/network.h"
#include "wire/control.h"

namespace caisson::agent {

using base::failure;

namespace {
constexpr std::chrono::seconds kUnmountDeadline{5};
constexpr std::chrono::seconds kLastWordDeadline{2};
}  // namespace

Session::Session(BootedGuest guest, os::Loop& loop)
    : loop_(loop),
      stage_(std::move(guest.stage)),
      port_(std::move(guest.port), loop,
            {.session_began = [] {},
             .frame = [this](const wire::FrameView& view) { return frame(view); },
             .session_ended = [this] { ended(); },
             .session_broken = [this](const Error& error) { broken(error); },
             .drained =
                 [this] {
                     for (auto& [id, execution] : executions_) execution->port_drained();
                 }}) {}

Result<> Session::run() {
    CAISSON_TRY(port_.start());
    while (!stopping_) {
        CAISSON_TRY(loop_.step(std::chrono::milliseconds(-1)));
        port_.flush();
        for (auto id : finished_) executions_.erase(id);
        finished_.clear();
    }
    return {};
}

void Session::ended() {
    greeted_ = false;
    executions_.clear();
    finished_.clear();
}

// Only a host that is not ours does this. The box's data is saved as far as that goes, and the machine ends, which the
// host sees; the console says why.
void Session::broken(const Error& error) {
    log_failure("the host broke the protocol: " + error.to_string());
    stopping_ = true;
    end_container(true);
}

Execution* Session::find(std::uint32_t id) {
    auto found = executions_.find(id);
    return found == executions_.end() ? nullptr : found->second.get();
}

Result<> Session::frame(const wire::FrameView& view) {
    if (view.type == wire::FrameType::kControl) {
        auto parsed = CAISSON_TRY(wire::parse_to_agent(view.payload));
        return message(parsed, view.payload);
    }
    // Frames for an execution that has just ended are late, not wrong.
    auto* execution = find(wire::execution_of(view.stream));
    if (execution == nullptr) return {};
    return view.type == wire::FrameType::kCredit ? execution->credit(view) : execution->data(view);
}

Result<> Session::message(wire::ToAgent& message, base::ByteView payload) {
    if (message.message_case() != wire::ToAgent::kHello && !greeted_)
        return failure(Errc::kProtocol, "the host did not say hello first");
    switch (message.message_case()) {
        case wire::ToAgent::kHello: hello(message.hello()); break;
        case wire::ToAgent::kPrepare: prepare(message.prepare()); break;
        case wire::ToAgent::kConfigure: configure(*message.mutable_configure()); break;
        case wire::ToAgent::kExec: exec(message.exec(), payload); break;
        case wire::ToAgent::kSignal: signal(message.signal()); break;
        case wire::ToAgent::kResize:
            if (auto* execution = find(message.resize().id()))
                execution->resize(message.resize().rows(), message.resize().columns());
            break;
        case wire::ToAgent::kSetClock: {
            if (auto set = set_clock(message.set_clock().realtime_nanoseconds(), port_.read_at()); !set)
                log_failure(set.error().to_string());
            wire::FromAgent answer;
            answer.mutable_clock_set();
            port_.send(answer);
            break;
        }
        case wire::ToAgent::kChangeShares: change_shares(message.change_shares()); break;
        case wire::ToAgent::kFreeze:
            if (auto done = stage_.cgroup.freeze(message.freeze().still()); !done) log_failure(done.error().to_string());
            break;
        case wire::ToAgent::kSetLimits: set_limits(message.set_limits()); break;
        case wire::ToAgent::kShutdown: shutdown(message.shutdown()); break;
        case wire::ToAgent::MESSAGE_NOT_SET: break;
    }
    return {};
}

void Session::hello(const wire::Hello& hello) {
    // The answer is given in any case: the host can tell its user which versions do not fit.
    wire::FromAgent answer;
    answer.mutable_hello()->set_version_major(wire::kVersionMajor);
    answer.mutable_hello()->set_version_minor(wire::kVersionMinor);
    answer.mutable_hello()->set_software("caisson-agent " CAISSON_VERSION);
    port_.send(answer);
    greeted_ = hello.version_major() == wire::kVersionMajor;
}

namespace {
std::uint32_t microseconds_since(os::Loop::Clock::time_point start) {
    return static_cast<std::uint32_t>(
        std::chrono::duration_cast<std::chrono::microseconds>(os::Loop::Clock::now() - start).count());
}

void fail(wire::FromAgent& answer, const Error& error) {
    answer.mutable_configure_failed()->set_message(error.to_string());
    answer.mutable_configure_failed()->set_error_number(error.sys_errno);
}
}  // namespace

void Session::prepare(const wire::Prepare& prepare) {
    wire::FromAgent answer;
    answer.mutable_prepared();
    auto prepared = [&]() -> Result<> {
        if (container_ || broken_) return failure(Errc::kUsage, "this guest was prepared before");
        broken_ = true;  // half a container cannot be tried again
        container_ = CAISSON_TRY(Container::create(prepare.root(), stage_));
        container_->warm(prepare.warm());
        seat_ = CAISSON_TRY(Seat::create(*container_));
        CAISSON_TRY(container_->sync());
        broken_ = false;
        settle_memory();
        return {};
    }();
    if (!prepared) fail(answer, prepared.error());
    port_.send(answer);
}

void Session::configure(wire::Configure& configure) {
    auto start = os::Loop::Clock::now();
    wire::FromAgent answer;
    auto& timings = *answer.mutable_configured();
    auto configured = [&]() -> Result<> {
        if (configured_ || broken_) return failure(Errc::kUsage, "this guest was configured before");
        broken_ = true;
        CAISSON_TRY(take_identity(configure, stage_.random, port_.read_at()));
        if (configure.has_network()) CAISSON_TRY(check_network(configure.network()));
        timings.set_identity_microseconds(microseconds_since(start));
        auto part = os::Loop::Clock::now();
        if (!container_) {
            container_ = CAISSON_TRY(Container::create(configure.root(), stage_));
            timings.set_mount_root_microseconds(microseconds_since(part));
            part = os::Loop::Clock::now();
        }
        CAISSON_TRY(container_->configure(configure, timings));
        timings.set_container_microseconds(microseconds_since(part));
        timings.set_total_microseconds(microseconds_since(start));
        configured_ = true;
        broken_ = false;
        return {};
    }();
    if (!configured) fail(answer, configured.error());
    port_.send(answer);
}

void Session::change_shares(const wire::ChangeShares& wanted) {
    auto changed = [&]() -> Result<> {
        if (!configured_ || container_->killed()) return failure(Errc::kInUse, "the box's command does not run");
        if (!wanted.detach().empty()) return container_->detach_share(wanted.detach(), wanted.force());
        return container_->attach_shares(wanted.attach());
    }();
    wire::FromAgent answer;
    auto* said = answer.mutable_shares_changed();
    if (!changed) {
        said->set_error_number(changed.error().sys_errno);
        said->set_message(changed.error().to_string());
    }
    port_.send(answer);
}

void Session::set_limits(const wire::SetLimits& limits) {
    auto set = [&]() -> Result<> {
        if (!configured_ || container_->killed()) return failure(Errc::kInUse, "the box's command does not run");
        return stage_.cgroup.change(limits);
    }();
    wire::FromAgent answer;
    auto* said = answer.mutable_limits_set();
    if (!set) {
        auto error = std::move(set.error());
        said->set_error_number(std::exchange(error.sys_errno, 0));  // it travels on its own
        said->set_message(error.to_string());
    }
    port_.send(answer);
}

void Session::refuse(std::uint32_t id, const std::string& text, int error_number) {
    wire::FromAgent answer;
    auto* failed = answer.mutable_start_failed();
    failed->set_id(id);
    failed->set_message(text);
    failed->set_error_number(error_number);
    port_.send(answer);
}

void Session::exec(const wire::Exec& exec, base::ByteView payload) {
    if (exec.id() == 0 || exec.id() > wire::kMaxExecutionId || find(exec.id()) != nullptr)
        return refuse(exec.id(), "execution " + std::to_string(exec.id()) + " cannot be a new one");
    if (!configured_) return refuse(exec.id(), "the box has not been configured");
    if (container_->killed()) return refuse(exec.id(), "the box's main command has ended");
    if (executions_.size() >= kMaxExecutions)
        return refuse(exec.id(), "more than " + std::to_string(kMaxExecutions) + " commands at once");
    // The seat waits for a command. It never stays beside one.
    auto seat = exec.has_copy() ? nullptr : std::move(seat_);
    if (seat && !fits_the_seat(exec)) seat.reset();
    const std::string seat_order = seat ? launch_order(payload, container_->image_covered()) : std::string();
    auto execution = Execution::start(exec, {.loop = &loop_,
                                             .port = &port_,
                                             .container = container_.get(),
                                             .cgroup = &stage_.cgroup,
                                             .main_ended = [this] { kill_container(); },
                                             .finished = [this](std::uint32_t id) { finished_.push_back(id); }},
                                      std::move(seat), seat_order);
    if (!execution) return refuse(exec.id(), execution.error().to_string(), execution.error().sys_errno);
    executions_[exec.id()] = std::move(*execution);
}

void Session::signal(const wire::Signal& signal) {
    if (signal.signal() < 1 || signal.signal() > 64) return;
    Result<> sent;
    if (signal.all()) {
        if (signal.signal() == SIGKILL)
            for (auto& [id, execution] : executions_) execution->expect_kill();
        if (container_) sent = container_->signal_all(signal.signal());
    } else if (auto* execution = find(signal.id())) {
        sent = execution->signal(signal.signal());
    }
    if (!sent) log_failure(sent.error().to_string());
}

void Session::kill_container() {
    for (auto& [id, execution] : executions_) execution->expect_kill();
    container_->kill();
}

void Session::end_container(bool sync) {
    if (!container_) return;
    container_->kill();
    seat_.reset();
    executions_.clear();
    if (auto done = sync ? container_->unmount(kUnmountDeadline) : Result<>(); !done) log_failure(done.error().to_string());
}

void Session::shutdown(const wire::Shutdown& shutdown) {
    stopping_ = true;
    end_container(shutdown.sync());
    wire::FromAgent answer;
    answer.mutable_shut_down();
    port_.send(answer);
    port_.flush_before_end(kLastWordDeadline);
}

}  // namespace caisson::agent
