// Boxes that exist: found, entered, stopped, removed.
#include "box/lifecycle.h"

#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "base/labels.h"
#include "base/text.h"
#include "box/convert.h"
#include "box/engine.h"
#include "box/host_limits.h"
#include "box/jail_view.h"
#include "box/limits.h"
#include "box/mounts.h"
#include "box/owner.h"
#include "box/network.h"
#include "box/plan.h"
#include "box/recorder.h"
#include "box/room.h"
#include "jail/sandbox.h"
#include "os/file.h"
#include "os/host.h"
#include "os/random.h"

namespace caisson {

using base::failure;
using internal::ask;
using internal::BoxState;
using internal::RuntimeState;
using std::chrono::milliseconds;

namespace {

// Until a box that is killed is gone; its guest has a few seconds to write back.
constexpr int kForcedEndMs = 15000;
// What a supervisor that has recorded its box's end needs to be gone, and one that starts to be there.
constexpr milliseconds kHandOverPatience{5000};
constexpr milliseconds kPoll{10};
// How many lives of a box may end by themselves while it is being ended.
constexpr int kEndTries = 5;

// While a box is made or starts, its record names whoever does that; who may be an application of somebody's, and is not
// to be killed with the box.
bool is_supervisor(std::int64_t pid) {
    auto name = os::read_file("/proc/" + std::to_string(pid) + "/comm", 64);
    return name && *name == "caisson-shim\n";
}

// Tells the supervisor of a running box to end it at once, and waits until it has. A pid alone may have been given to
// somebody else meanwhile; the descriptor is of the process that was looked at.
Result<> kill_supervised(RuntimeState& runtime, store::BoxRecord record) {
    const auto id = record.id, boot_id = CAISSON_TRY(os::boot_id());
    const auto give_up = std::chrono::steady_clock::now() + milliseconds(kForcedEndMs);
    while (std::chrono::steady_clock::now() < give_up) {
        os::Fd process(static_cast<int>(::syscall(SYS_pidfd_open, static_cast<pid_t>(record.owner.pid), 0)));
        if (!process || !box::owner_lives(record.owner, boot_id)) return {};
        if (is_supervisor(record.owner.pid)) {
            if (::syscall(SYS_pidfd_send_signal, process.get(), SIGTERM, nullptr, 0) != 0 && errno != ESRCH)
                return base::failure_errno("cannot end box " + record.name);
            struct pollfd ended {process.get(), POLLIN, 0};
            if (::poll(&ended, 1, kForcedEndMs) > 0) return {};
            // It does not listen. Its launcher and its machine die with it, and who opens the home next records that.
            if (::syscall(SYS_pidfd_send_signal, process.get(), SIGKILL, nullptr, 0) != 0 && errno != ESRCH)
                return base::failure_errno("cannot kill the supervisor of box " + record.name);
            if (::poll(&ended, 1, kForcedEndMs) > 0) return {};
            return failure(Errc::kTimeout, "box " + record.name + " does not end",
                           "its supervisor, process " + std::to_string(record.owner.pid) + ", cannot be killed");
        }
        std::this_thread::sleep_for(kPoll);
        auto now = internal::find_record(runtime, id);
        if (!now && now.error().code == Errc::kNotFound) return {};
        record = CAISSON_TRY(std::move(now));
        if (!store::is_live(record.state)) return {};
    }
    return failure(Errc::kTimeout, "box " + record.name + " does not come to run, and cannot be ended before",
                   "wait for process " + std::to_string(record.owner.pid) + ", which starts it");
}

base::Failure not_running(const store::BoxRecord& record) {
    return failure(Errc::kInUse, "box " + record.name + " is " + (record.state == store::BoxState::kCreated ? "not started" : to_string(record.state)),
                   store::is_live(record.state) ? "" : "start it: caisson start " + record.name);
}

std::shared_ptr<BoxState> connection_of(std::shared_ptr<RuntimeState> runtime, const store::BoxRecord& record,
                                        std::unique_ptr<box::ShimClient> shim, const wire::ExecutionOpen& open) {
    auto state = std::make_shared<BoxState>();
    state->runtime = std::move(runtime);
    state->id = record.id;
    state->name = record.name;
    state->engine = record.engine;
    state->number = open.number();
    state->stdin_open = open.input();
    state->input_credit = open.input_credit();
    state->terminal = open.terminal();
    state->log_position = open.log_position();
    state->shim = std::move(shim);
    return state;
}

// Those of its last start.
HostLimits limits_of(const std::string& box_directory) {
    HostLimits limits;
    wire::HostLimits written;
    auto text = os::read_file(box_directory + "/" + box::kLimitsFile, 1 << 16);
    if (!text || !written.ParseFromString(*text)) {
        limits.reason = "it was never started";
        return limits;
    }
    limits.applied = written.applied();
    limits.reason = written.reason();
    limits.memory_bytes = written.memory_bytes();
    limits.cpu_millis = written.cpu_millis();
    limits.pids = written.pids();
    for (const auto& group : written.groups()) limits.groups.push_back(group.directory());
    if (written.groups_size() > 0) limits.cgroup_version = static_cast<int>(written.groups(0).version());
    return limits;
}

ExecutionInfo info_of(const store::ExecutionRecord& record) {
    ExecutionInfo info;
    info.id = record.id;
    info.command = record.command;
    info.state = record.running ? "running" : "ended";
    info.detached = true;
    info.started_ms = record.started_ms;
    info.finished_ms = record.end.finished_ms;
    info.outcome = record.end.outcome;
    info.reason = record.end.reason;
    info.exit_code = record.end.exit_code;
    return info;
}

}  // namespace

namespace internal {

Result<wire::FromShim> ask(box::ShimClient& shim, const wire::ToShim& request, milliseconds patience) {
    CAISSON_TRY(shim.send(request));
    auto answer = CAISSON_TRY(shim.receive(patience));
    if (!answer) return failure(Errc::kInUse, "the box ended meanwhile");
    if (answer->has_error()) return base::failure(box::from_message(answer->error()));
    if (answer->has_start_failed()) return base::failure(box::from_message(answer->start_failed()));
    return std::move(*answer);
}

// To be made is the beginning of a start, for whoever looks on.
const char* shown_state(store::BoxState state) {
    return store::to_string(state == store::BoxState::kCreating ? store::BoxState::kStarting : state);
}

BoxInfo info_of(const store::BoxRecord& record) {
    BoxInfo info;
    info.id = record.id;
    info.name = record.name;
    info.image = record.image;
    info.command = record.command;
    info.state = shown_state(record.state);
    info.reason = record.reason;
    info.created_ms = record.created_ms;
    info.finished_ms = record.finished_ms;
    info.exit_code = record.exit_code;
    info.started_ms = record.started_ms;
    info.outcome = record.outcome;
    info.health = record.health;
    info.restarts = record.restarts;
    wire::BoxSpec spec;
    info.security = jail::kJailedWord;
    if (!spec.ParseFromString(record.spec)) return info;
    if (!spec.security().empty()) info.security = spec.security();
    for (const auto& label : spec.labels()) info.labels[label.key()] = label.value();
    return info;
}

Outcome outcome_of(const store::EndRecord& end) {
    Outcome outcome;
    outcome.reason = end.reason;
    const int code = end.exit_code.value_or(125);
    if (end.outcome == "exited" || end.outcome.empty()) {
        outcome.kind = Outcome::Kind::kExited;
        outcome.exit_code = code;
    } else if (end.outcome == "signalled") {
        outcome.kind = Outcome::Kind::kSignalled;
        outcome.signal = code - 128;
    } else if (end.outcome == "timed_out") {
        outcome.kind = Outcome::Kind::kTimedOut;
    }
    return outcome;
}

Result<wire::BoxSpec> spec_of(const store::BoxRecord& record) {
    wire::BoxSpec spec;
    if (record.spec.empty())
        return failure(Errc::kUnsupported, "box " + record.name + " was made by an older caisson, which kept no record of what it is",
                       "make a new one of its image: caisson run " + record.image);
    if (!spec.ParseFromString(record.spec)) return failure(Errc::kCorrupt, "the record of box " + record.name + " is damaged");
    return spec;
}

Result<store::BoxRecord> find_record(RuntimeState& runtime, const std::string& reference) {
    std::scoped_lock guard(runtime.database_mutex);
    auto record = runtime.database->find_box(reference);
    if (record && record->state == store::BoxState::kPaused && base::starts_with(record->reason, box::kHostDiskFull) &&
        runtime.told_full.insert(record->id).second)
        runtime.notice("box " + record->name + " is paused: " + record->reason + "\n" + full_disk_hint(box::no_room(), runtime.home.root));
    return record;
}

Result<store::ExecutionRecord> find_execution(RuntimeState& runtime, const std::string& box_id, const std::string& reference) {
    std::scoped_lock guard(runtime.database_mutex);
    return runtime.database->find_execution(box_id, reference);
}

Result<> reconcile_now(RuntimeState& runtime) {
    std::scoped_lock guard(runtime.database_mutex);
    return reconcile(runtime.home, *runtime.database);
}

Result<BoxInfo> find_info(RuntimeState& runtime, const std::string& reference) {
    return info_of(CAISSON_TRY(find_record(runtime, reference)));
}

Result<BoxInfo> wait_until_started(RuntimeState& runtime, const std::string& id) {
    for (;;) {
        auto record = CAISSON_TRY(find_record(runtime, id));
        // A restart policy may take its time, and its box is as good as started.
        const bool starts = record.state == store::BoxState::kCreating || record.state == store::BoxState::kStarting;
        if (!starts || record.restarts > 0) return info_of(record);
        std::this_thread::sleep_for(kPoll);
        CAISSON_TRY(reconcile_now(runtime));
    }
}

Result<os::FileLock> lock_patiently(const std::string& box_directory, const std::string& name,
                                    const std::function<bool()>& hopeless) {
    const auto give_up = std::chrono::steady_clock::now() + kHandOverPatience;
    for (;;) {
        auto lock = os::FileLock::try_acquire(box_directory + "/lock");
        if (lock || lock.error().code != Errc::kInUse) return lock;
        if ((hopeless && hopeless()) || std::chrono::steady_clock::now() > give_up)
            return failure(Errc::kInUse, "box " + name + " is in use by another process");
        std::this_thread::sleep_for(kPoll);
    }
}

Result<std::unique_ptr<box::ShimClient>> reach(RuntimeState& runtime, const store::BoxRecord& found) {
    const auto give_up = std::chrono::steady_clock::now() + kHandOverPatience;
    auto record = found;
    for (;;) {
        if (!store::is_live(record.state)) return not_running(record);
        auto connected = box::ShimClient::connect(runtime.home.box(record.id));
        if (connected || connected.error().code != Errc::kNotFound) return connected;
        // It is just starting, just ending, or was killed.
        CAISSON_TRY(reconcile_now(runtime));
        record = CAISSON_TRY(find_record(runtime, record.id));
        if (std::chrono::steady_clock::now() > give_up) return not_running(record);
        std::this_thread::sleep_for(kPoll);
    }
}

namespace {
Result<> remove_box_of(RuntimeState& runtime, store::BoxRecord record, bool force) {
    const auto id = record.id;
    if (store::is_live(record.state) && force) {
        CAISSON_TRY(kill_supervised(runtime, record));
        CAISSON_TRY(reconcile_now(runtime));
        auto now = find_record(runtime, id);
        // Its supervisor has removed it, if it was started with --rm.
        if (!now && now.error().code == Errc::kNotFound) return release_volumes(runtime.home, id);
        record = CAISSON_TRY(std::move(now));
    }
    if (store::is_live(record.state))
        return failure(Errc::kInUse, "box " + record.name + " is " + shown_state(record.state),
                       "stop it first, or kill it: caisson rm --force " + record.name);
    // Whoever reads its files, or is just starting it, keeps it. A directory that is gone has no lock either.
    std::optional<os::FileLock> lock;
    auto locked = lock_patiently(runtime.home.box(id), record.name);
    if (locked) lock = std::move(*locked);
    else if (locked.error().sys_errno != ENOENT) return base::failure(std::move(locked.error()));
    std::scoped_lock guard(runtime.database_mutex);
    auto now = runtime.database->find_box(id);
    if (!now && now.error().code == Errc::kNotFound) return {};
    if (now && store::is_live(now->state)) return failure(Errc::kInUse, "box " + record.name + " was started meanwhile");
    // Somebody who wants to start it may make the lock again as soon as that is gone: then there must be no record. What
    // is left if this process dies has none either, and goes when the home is opened next.
    CAISSON_TRY(runtime.database->remove_box(id));
    auto released = release_volumes(runtime.home, id);
    CAISSON_TRY(os::remove_tree(runtime.home.box(id)));
    return released;
}
}  // namespace

Result<> remove_record(RuntimeState& runtime, store::BoxRecord record, bool force) {
    auto removed = remove_box_of(runtime, std::move(record), force);
    close_journals(runtime);
    return removed;
}

Result<> remove_replaced(RuntimeState& runtime, const std::string& name) {
    auto holder = find_record(runtime, name);
    if (!holder && holder.error().code == Errc::kNotFound) return {};
    auto record = CAISSON_TRY(std::move(holder));
    if (record.name != name) return {};  // a prefix of an id is no name
    return remove_record(runtime, record, true);
}

Result<wire::ExecutionOpen> ask_for_execution(box::ShimClient& shim, const wire::ToShim& request, const std::string& name) {
    auto answer = ask(shim, request);
    // The supervisor does not know what its box is called.
    if (!answer && (answer.error().code == Errc::kInUse || answer.error().code == Errc::kLimit || answer.error().code == Errc::kNoSpace))
        return base::failure(std::move(answer.error()).with_context("entering box " + name));
    if (!answer) return base::failure(std::move(answer.error()));
    if (answer->has_execution_ended() && answer->execution_ended().kind() == wire::Ended::TIMED_OUT)
        return failure(Errc::kTimeout, "box " + name + " did not start the command in time");
    if (answer->has_execution_ended() || answer->has_ended())
        return failure(Errc::kInUse, "box " + name + " ended before the command ran");
    if (!answer->has_execution_open()) return failure(Errc::kProtocol, "the box's supervisor answered something else");
    return std::move(*answer->mutable_execution_open());
}

Result<std::shared_ptr<BoxState>> start_execution(std::shared_ptr<RuntimeState> runtime, const store::BoxRecord& record,
                                                  const wire::ToShim& request) {
    auto shim = CAISSON_TRY(reach(*runtime, record));
    auto open = CAISSON_TRY(ask_for_execution(*shim, request, record.name));
    auto state = connection_of(std::move(runtime), record, std::move(shim), open);
    CAISSON_TRY(state->make_order_pipe());
    return state;
}

}  // namespace internal

// ---- entering ----

namespace {

Result<wire::ToShim> execution_request(const store::BoxRecord& record, const ExecOptions& options, bool detached) {
    wire::ToShim request;
    auto* start = request.mutable_start_execution();
    *start->mutable_exec() = CAISSON_TRY(box::plan_further_exec(CAISSON_TRY(internal::spec_of(record)), options));
    start->set_id(CAISSON_TRY(os::new_ulid()));
    start->set_detached(detached);
    if (options.timeout) start->set_timeout_ms(static_cast<std::uint32_t>(options.timeout->count()));
    return request;
}

}  // namespace

namespace {
Result<> record_privileged(RuntimeState& runtime, const store::BoxRecord& record, const ExecOptions& options) {
    if (!options.privileged) return {};
    return internal::record_lowering(runtime, record.id, record.name, {"exec privileged"});
}
}  // namespace

Result<Execution> Runtime::exec(const std::string& reference, const ExecOptions& options) {
    auto record = CAISSON_TRY(internal::find_record(*state_, reference));
    auto request = CAISSON_TRY(execution_request(record, options, false));
    CAISSON_TRY(record_privileged(*state_, record, options));
    return Execution(CAISSON_TRY(internal::start_execution(state_, record, request)));
}

Result<ExecutionInfo> Runtime::exec_detached(const std::string& reference, const ExecOptions& options) {
    auto record = CAISSON_TRY(internal::find_record(*state_, reference));
    auto request = CAISSON_TRY(execution_request(record, options, true));
    CAISSON_TRY(record_privileged(*state_, record, options));
    auto shim = CAISSON_TRY(internal::reach(*state_, record));
    CAISSON_TRY(internal::ask_for_execution(*shim, request, record.name));
    return info_of(CAISSON_TRY(internal::find_execution(*state_, record.id, request.start_execution().id())));
}

Result<Execution> Runtime::attach(const std::string& reference, const AttachOptions& options) {
    auto record = CAISSON_TRY(internal::find_record(*state_, reference));
    wire::ToShim request;
    auto* attach = request.mutable_attach();
    attach->set_output(true);
    attach->set_input(options.input);
    std::optional<store::ExecutionRecord> execution;
    if (!options.execution.empty()) {
        execution = CAISSON_TRY(internal::find_execution(*state_, record.id, options.execution));
        attach->set_execution(execution->id);
    }
    const std::string over = "execution " + (execution ? execution->id : "") + " is over";
    if (execution && !execution->running)
        return failure(Errc::kInUse, over, "what it wrote: caisson logs --execution " + execution->id + " " + record.name);
    auto shim = CAISSON_TRY(internal::reach(*state_, record));
    auto answer = CAISSON_TRY(ask(*shim, request));
    if (answer.has_no_such_execution()) return failure(Errc::kInUse, over);
    if (!answer.has_execution_open()) return failure(Errc::kProtocol, "the box's supervisor answered something else");
    auto state = connection_of(state_, record, std::move(shim), answer.execution_open());
    CAISSON_TRY(state->make_order_pipe());
    return Execution(std::move(state));
}

Result<Outcome> Runtime::wait(const std::string& reference, const std::string& execution) {
    auto record = CAISSON_TRY(internal::find_record(*state_, reference));
    std::string execution_id;
    for (;;) {
        if (!execution.empty()) {
            auto found = CAISSON_TRY(internal::find_execution(*state_, record.id, execution));
            if (!found.running) return internal::outcome_of(found.end);
            execution_id = found.id;
        } else if (!store::is_live(record.state)) {
            if (record.state == store::BoxState::kCreated)
                return failure(Errc::kInUse, "box " + record.name + " was never started", "start it: caisson start " + record.name);
            return internal::outcome_of({record.outcome, record.exit_code, record.reason, record.finished_ms});
        }
        auto waited = [&]() -> Result<std::optional<Outcome>> {
            auto shim = CAISSON_TRY(internal::reach(*state_, record));
            wire::ToShim request;
            request.mutable_attach()->set_execution(execution_id);
            auto answer = CAISSON_TRY(ask(*shim, request));
            if (!answer.has_execution_open()) return std::optional<Outcome>();
            for (;;) {
                auto message = CAISSON_TRY(shim->receive());
                if (!message) return std::optional<Outcome>();
                if (message->has_execution_ended())
                    return std::optional(box::outcome_from(message->execution_ended().kind(), message->execution_ended().code(),
                                                           message->execution_ended().reason()));
                if (message->has_ended())
                    return std::optional(box::outcome_from(message->ended().kind(), message->ended().code(), message->ended().reason()));
            }
        }();
        if (waited && *waited) return **waited;
        if (!waited && waited.error().code != Errc::kInUse) return base::failure(std::move(waited.error()));
        // It ended meanwhile: the record says how, unless the box is gone with it.
        std::this_thread::sleep_for(kPoll);
        CAISSON_TRY(internal::reconcile_now(*state_));
        record = CAISSON_TRY(internal::find_record(*state_, record.id));
    }
}

// ---- ending ----

Result<> Runtime::stop(const std::string& reference, std::optional<milliseconds> grace) {
    if (grace && (grace->count() < 0 || *grace > box::limits::kLongestTime))
        return failure(Errc::kUsage, "the time until the kill is out of range");
    auto record = CAISSON_TRY(internal::find_record(*state_, reference));
    if (!store::is_live(record.state)) return {};
    // A life that ends by itself just now may not hear it, and a policy may begin the next one.
    for (int attempt = 0;; ++attempt) {
        auto stopped = [&]() -> Result<bool> {
            auto shim = CAISSON_TRY(internal::reach(*state_, record));
            wire::ToShim request;
            request.mutable_stop_box();
            if (grace) request.mutable_stop_box()->set_grace_ms(static_cast<std::uint32_t>(grace->count()));
            CAISSON_TRY(shim->send(request));
            for (;;) {
                auto message = CAISSON_TRY(shim->receive());
                if (!message || message->has_ended() || message->has_error()) return message.has_value();
            }
        }();
        // Of another version: what every version understands.
        if (!stopped && stopped.error().code == Errc::kUnsupported) {
            CAISSON_TRY(kill_supervised(*state_, record));
            stopped = false;
        }
        if (!stopped && stopped.error().code != Errc::kInUse && stopped.error().code != Errc::kIo)
            return base::failure(std::move(stopped.error()));
        // What the end left to do is done before anybody goes on; also when its supervisor was killed meanwhile.
        std::scoped_lock guard(state_->database_mutex);
        CAISSON_TRY(internal::reconcile(state_->home, *state_->database));
        auto now = state_->database->find_box(record.id);
        if ((stopped && *stopped) || !now || !store::is_live(now->state)) return {};
        if (attempt == kEndTries) return failure(Errc::kTimeout, "box " + record.name + " is still " + to_string(now->state));
        record = std::move(*now);
    }
}

Result<BoxInfo> Runtime::restart(const std::string& reference, std::optional<milliseconds> grace) {
    CAISSON_TRY(stop(reference, grace));
    return start(reference);
}

Result<> Runtime::kill(const std::string& reference, int signal, const std::string& execution) {
    if (signal < 1 || signal > 64) return failure(Errc::kUsage, "there is no signal " + std::to_string(signal));
    auto record = CAISSON_TRY(internal::find_record(*state_, reference));
    // As `docker kill`: it is dead when this returns. Of this life, not of the next one that somebody may start at once.
    const bool until_dead = signal == SIGKILL && execution.empty();
    wire::ToShim attach, request, status;
    attach.mutable_attach();
    request.mutable_signal()->set_signal(signal);
    status.mutable_status();
    if (!execution.empty())
        attach.mutable_attach()->set_execution(CAISSON_TRY(internal::find_execution(*state_, record.id, execution)).id);
    // Whether it was heard: a life that ends by itself just now may not, and a policy may begin the next one.
    auto tell = [&]() -> Result<bool> {
        auto shim = CAISSON_TRY(internal::reach(*state_, record));
        if (until_dead || !execution.empty()) {
            auto answer = CAISSON_TRY(ask(*shim, attach));
            if (!answer.has_execution_open() && execution.empty()) return false;
            if (!answer.has_execution_open()) return failure(Errc::kInUse, "execution " + attach.attach().execution() + " is over");
            request.mutable_signal()->set_id(answer.execution_open().number());
        }
        CAISSON_TRY(shim->send(request));
        // The answer to this comes behind it.
        CAISSON_TRY(shim->send(status));
        for (bool heard = false;;) {
            auto message = CAISSON_TRY(shim->receive());
            if (!message) return heard;
            if (message->has_ended() || message->has_error()) return true;
            heard = heard || message->has_status();
            if (heard && !until_dead) return true;
        }
    };
    for (int attempt = 0;; ++attempt) {
        auto told = tell();
        if (told && (*told || !until_dead)) break;
        if (!told && told.error().code == Errc::kUnsupported && signal == SIGKILL) return kill_supervised(*state_, record);
        const bool gone = told || told.error().code == Errc::kInUse || told.error().code == Errc::kIo;
        if (!until_dead || !gone || attempt == kEndTries) return told ? Result<>() : base::failure(std::move(told.error()));
        auto now = internal::find_record(*state_, record.id);
        if (now && store::is_live(now->state)) {
            record = std::move(*now);
            continue;
        }
        // It has ended by itself, unless it did not run when we began.
        if (attempt == 0 && !told && !store::is_live(record.state)) return base::failure(std::move(told.error()));
        break;
    }
    if (!until_dead) return {};
    return internal::reconcile_now(*state_);
}

Result<> Runtime::pause(const std::string& reference) {
    auto record = CAISSON_TRY(internal::find_record(*state_, reference));
    auto shim = CAISSON_TRY(internal::reach(*state_, record));
    wire::ToShim request;
    request.mutable_pause();
    CAISSON_TRY_CTX(ask(*shim, request), "pausing box " + record.name);
    return {};
}

Result<> Runtime::resume(const std::string& reference) {
    auto record = CAISSON_TRY(internal::find_record(*state_, reference));
    auto shim = CAISSON_TRY(internal::reach(*state_, record));
    wire::ToShim request;
    request.mutable_resume();
    CAISSON_TRY_CTX(ask(*shim, request), "resuming box " + record.name);
    return {};
}

Result<> Runtime::rename(const std::string& reference, const std::string& name) {
    BoxOptions named;
    named.image = "-";
    named.name = name;
    if (name.empty()) return failure(Errc::kUsage, "the new name is empty");
    CAISSON_TRY(box::validate(named));
    auto record = CAISSON_TRY(internal::find_record(*state_, reference));
    {
        std::scoped_lock guard(state_->database_mutex);
        CAISSON_TRY(state_->database->rename_box(record.id, name));
    }
    internal::record(*state_, {"box_renamed", record.id, name, {{"old_name", record.name}}});
    return {};
}

Result<> Runtime::remove_box(const std::string& reference, bool force) {
    return internal::remove_record(*state_, CAISSON_TRY(internal::find_record(*state_, reference)), force);
}

Result<std::vector<BoxInfo>> Runtime::prune_boxes(const std::map<std::string, std::string>& labels) {
    std::vector<BoxInfo> removed;
    for (const auto& box : CAISSON_TRY(boxes())) {
        if (box.state != "created" && box.state != "stopped" && box.state != "failed") continue;
        if (!base::has_labels(box.labels, labels)) continue;
        auto gone = remove_box(box.id);
        if (!gone && gone.error().code != Errc::kInUse && gone.error().code != Errc::kNotFound) return base::failure(std::move(gone.error()));
        if (gone) removed.push_back(box);
    }
    return removed;
}

Result<std::vector<BoxInfo>> Runtime::start_by_policy(const std::function<void(const BoxInfo&, const Error&)>& failed) {
    std::vector<store::BoxRecord> records;
    {
        std::scoped_lock guard(state_->database_mutex);
        records = CAISSON_TRY(state_->database->boxes());
    }
    std::vector<BoxInfo> started;
    for (const auto& record : records) {
        // What a living supervisor decided stands; only where there was none to decide it is done here.
        const bool orphaned = record.reason == box::kHostRebooted || record.reason == box::kSupervisorDied ||
                              record.reason == box::kSupervisorStopped;
        auto spec = internal::spec_of(record);
        if (store::is_live(record.state) || record.stop_requested || !orphaned || !spec || spec->restart() == wire::BoxSpec::NO)
            continue;
        auto box = start(record.id);
        if (box) started.push_back(std::move(*box));
        else if (failed) failed(internal::info_of(record), box.error());
    }
    return started;
}

// ---- looking ----

Result<std::vector<BoxInfo>> Runtime::boxes() const {
    std::scoped_lock guard(state_->database_mutex);
    std::vector<BoxInfo> infos;
    for (auto& record : CAISSON_TRY(state_->database->boxes())) infos.push_back(internal::info_of(record));
    return infos;
}

namespace {
Result<std::vector<MountInfo>> mounts_of(const RuntimeState& runtime, const std::string& id, const wire::Configure& configure) {
    wire::BoxMounts volumes;
    if (os::exists(runtime.home.volumes()))
        volumes = CAISSON_TRY(CAISSON_TRY(volume::Catalogue::open(runtime.home.volumes())).mounts(id));
    return box::mount_infos(volumes, configure);
}
}  // namespace

Result<BoxDetails> Runtime::inspect(const std::string& reference) const {
    auto record = CAISSON_TRY(internal::find_record(*state_, reference));
    BoxDetails details;
    details.info = internal::info_of(record);
    details.image_digest = record.image_digest;
    details.engine = record.engine;
    details.auto_remove = record.auto_remove;
    details.network = "none";
    details.restart = "no";
    details.host_limits = limits_of(state_->home.box(record.id));
    if (auto used = os::disk_usage(state_->home.box(record.id))) details.disk_used_bytes = *used;
    {
        std::scoped_lock guard(state_->database_mutex);
        for (const auto& execution : CAISSON_TRY(state_->database->executions(record.id))) details.executions.push_back(info_of(execution));
    }
    if (auto spec = internal::spec_of(record)) {
        const auto& configure = spec->configure();
        if (spec->has_network()) box::describe_network(spec->network(), details);
        details.hostname = configure.hostname();
        details.working_directory = spec->exec().working_directory();
        details.user = spec->exec().user();
        details.environment.assign(spec->exec().environment().begin(), spec->exec().environment().end());
        details.read_only = configure.root().read_only();
        const auto& privileges = spec->exec().privileges();
        details.privileged = privileges.privileged();
        details.no_new_privileges = privileges.no_new_privileges();
        details.cap_add.assign(privileges.cap_add().begin(), privileges.cap_add().end());
        details.cap_drop.assign(privileges.cap_drop().begin(), privileges.cap_drop().end());
        details.terminal = spec->exec().terminal();
        details.open_stdin = spec->exec().stdin_open();
        details.cpu_millis = spec->cpu_millis();
        details.pids_limit = configure.pids_limit() > 0 ? configure.pids_limit() - 1 : 0;
        details.memory_bytes = spec->memory_bytes();
        details.disk_bytes = spec->disk_bytes();
        for (const auto& mount : configure.tmpfs()) details.tmpfs.push_back({mount.path(), mount.size_bytes(), mount.mode(), mount.executable()});
        details.mounts = CAISSON_TRY(mounts_of(*state_, record.id, configure));
        details.restart = box::restart_text(*spec);
        details.timeout_ms = spec->timeout_ms();
        details.max_duration_ms = spec->max_duration_ms();
        details.idle_timeout_ms = spec->idle_timeout_ms();
        details.stop_timeout_ms = spec->stop_timeout_ms();
        details.stop_signal = spec->stop_signal() > 0 ? spec->stop_signal() : SIGTERM;
        if (spec->has_health()) {
            const auto& health = spec->health();
            details.health_check = HealthCheck{{health.command().begin(), health.command().end()}, milliseconds(health.interval_ms()),
                                               milliseconds(health.timeout_ms()), health.retries(), milliseconds(health.start_period_ms())};
        }
    }
    if (!store::is_live(record.state)) return details;
    details.supervisor_pid = record.owner.pid;
    details.jail = box::jail_of(state_->home.box(record.id), record.owner.pid);
    // What only its supervisor knows; without an answer the rest is still true.
    auto shim = box::ShimClient::connect(state_->home.box(record.id));
    if (!shim) return details;
    wire::ToShim request;
    request.mutable_status();
    auto answer = ask(**shim, request);
    if (!answer || !answer->has_status()) return details;
    details.vmm_pid = answer->status().vmm_pid();
    if (answer->status().network_changes()) {
        details.ports.clear();
        for (const auto& port : box::sound_ports(answer->status().ports()))
            details.ports.push_back({port.address(), static_cast<std::uint16_t>(port.chosen_port()), static_cast<std::uint16_t>(port.guest_port()), port.udp()});
    }
    for (const auto& live : answer->status().executions()) {
        if (live.detached()) continue;
        ExecutionInfo info;
        info.id = live.id();
        info.command = box::command_json({live.command().begin(), live.command().end()});
        info.state = "running";
        info.started_ms = live.started_ms();
        details.executions.push_back(info);
    }
    return details;
}

Result<RuntimeInfo> Runtime::info() const {
    RuntimeInfo info;
    info.version = version();
    info.home = state_->home.root;
    auto engine = box::choose_engine(*state_);
    info.engine = engine ? engine->describe() : engine.error().to_string();
    for (const auto& box : CAISSON_TRY(boxes())) {
        ++info.boxes;
        if (box.state == "running") ++info.running;
        if (box.state == "paused") ++info.paused;
    }
    info.images = CAISSON_TRY(images()).size();
    info.templates = CAISSON_TRY(templates()).size();
    if (auto used = os::disk_usage(state_->home.root)) info.home_bytes = *used;
    return info;
}

}  // namespace caisson
