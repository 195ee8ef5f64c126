#include <signal.h>
#include <unistd.h>

#include "box/host_limits.h"
#include "box/lifecycle.h"
#include "box/owner.h"
#include "box/pump.h"
#include "box/recorder.h"
#include "box/state.h"
#include "box/strays.h"
#include "caisson/runtime.h"
#include "os/host.h"

namespace caisson {

using base::failure;

namespace {

Result<> send_order(const internal::BoxState& state, const internal::Order& order, const char* failed) {
    if (::write(state.order_write.get(), &order, sizeof order) != sizeof order) return base::failure_errno(failed);
    return {};
}

void record_copy(internal::BoxState& state, const Result<Outcome>& outcome) {
    auto event = std::move(*std::exchange(state.copy, std::nullopt));
    event.details.emplace_back("bytes", static_cast<std::int64_t>(event.kind == "files_copied_in" ? state.bytes_in : state.bytes_out));
    event.details.emplace_back("exit_code", std::int64_t{outcome ? outcome->shell_code() : base::errc_info(outcome.error().code).exit_code});
    internal::record(*state.runtime, event);
}

}  // namespace

Result<Outcome> Execution::wait(const StreamOptions& streams) {
    if (!state_->shim || state_->ended) return failure(Errc::kUsage, "this execution was waited for before");
    auto outcome = box::pump(*state_, streams);
    state_->ended = true;
    if (state_->copy) record_copy(*state_, outcome);
    if (outcome && outcome->kind == Outcome::Kind::kDetached) {
        state_->shim->leave();
        state_->goes_on = true;
    } else {
        state_->shim->close();
    }
    return outcome;
}

Result<> Execution::signal(int number) {
    if (number < 1 || number >= NSIG) return failure(Errc::kUsage, "there is no signal " + std::to_string(number));
    return send_order(*state_, {.signal = number}, "cannot signal the command");
}

Result<> Execution::resize(std::uint32_t rows, std::uint32_t columns) {
    constexpr std::uint32_t kMost = 0xffff;
    if (rows == 0 || columns == 0 || rows > kMost || columns > kMost)
        return failure(Errc::kUsage, "a terminal has 1 to 65535 rows and columns");
    return send_order(*state_, {.rows = static_cast<std::uint16_t>(rows), .columns = static_cast<std::uint16_t>(columns)},
                      "cannot change the terminal's size");
}

bool Execution::terminal() const { return state_->terminal; }
bool Execution::input() const { return state_->stdin_open; }
std::uint64_t Execution::log_position() const { return state_->log_position; }

Box::Box(std::shared_ptr<internal::BoxState> state) : state_(state), main_(Execution(std::move(state))) {}
const std::string& Box::id() const { return state_->id; }
const std::string& Box::name() const { return state_->name; }
const std::string& Box::engine() const { return state_->engine; }
std::vector<Stage> Box::timings() const { return state_->stages; }

namespace internal {

BoxState::~BoxState() {
    if (!shim || goes_on) return;
    // Closing the socket ends the box; the shim removes it. Should the shim have been killed, we do.
    shim->close();
    // Nor can it remove the last of the box if its launcher was killed.
    const bool left = auto_remove && os::exists(runtime->home.box(id));
    if (owner && (!ended || left)) clean_after_shim("the box's owner let it go");
}

Outcome BoxState::end_without_a_word() {
    const auto record = find_record(*runtime, id);
    // An owner is waited for; its box without a record was tidied away after a supervisor that died.
    const bool removed = !owner && !record && record.error().code == Errc::kNotFound;
    if (removed || (record && !store::is_live(record->state) && record->reason != box::kSupervisorDied)) {
        if (!removed && number == box::kMainExecution)
            return outcome_of({record->outcome, record->exit_code, record->reason, record->finished_ms});
        return {Outcome::Kind::kFailed, 0, 0, removed ? "the box ended and was removed" : "the box ended"};
    }
    Outcome died{Outcome::Kind::kFailed, 0, 0, "the box's supervisor died; the box is gone with it"};
    if (owner) clean_after_shim(died.reason);
    return died;
}

Result<> BoxState::make_order_pipe() {
    auto orders = CAISSON_TRY(os::make_pipe());
    order_read = std::move(orders.first);
    order_write = std::move(orders.second);
    return os::set_nonblocking(order_read.get(), true);
}

void BoxState::clean_after_shim(const std::string& reason) {
    std::scoped_lock guard(runtime->database_mutex);
    const auto directory = runtime->home.box(id);
    box::kill_strays(directory);
    box::remove_groups(runtime->home, id);
    if (auto_remove) {
        // Both are fine when the shim did its work: what is gone stays gone.
        if (os::remove_tree(directory)) static_cast<void>(runtime->database->remove_box(id));
        static_cast<void>(release_volumes(runtime->home, id));
        return;
    }
    auto record = runtime->database->find_box(id);
    if (record && store::is_live(record->state))
        static_cast<void>(runtime->database->finish_box(id, store::BoxState::kFailed, {"failed", 125, reason, os::unix_ms()}));
}

}  // namespace internal
}  // namespace caisson
