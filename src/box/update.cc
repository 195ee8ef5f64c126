#include "box/update.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <set>

#include "base/text.h"
#include "box/convert.h"
#include "box/host_limits.h"
#include "box/limits.h"
#include "box/lifecycle.h"
#include "box/network.h"
#include "box/network_request.h"
#include "box/plan.h"
#include "box/recorder.h"

namespace caisson::box {

using base::failure;

namespace {

// As --memory takes it, and exactly.
std::string size_text(std::uint64_t bytes) {
    constexpr std::pair<unsigned, const char*> kUnits[] = {{30, "G"}, {20, "M"}, {10, "K"}};
    for (const auto& [shift, unit] : kUnits)
        if (bytes != 0 && bytes % (std::uint64_t{1} << shift) == 0) return std::to_string(bytes >> shift) + unit;
    return std::to_string(bytes);
}

std::string cpus_text(std::uint32_t millis) {
    auto text = std::to_string(millis / 1000) + "." + std::to_string(1000 + millis % 1000).substr(1);
    text.erase(text.find_last_not_of('0') + 1);
    return text.back() == '.' ? text.substr(0, text.size() - 1) : text;
}

std::string pids_text(std::uint32_t limit) { return limit == 0 ? "none" : std::to_string(limit); }

std::uint32_t pids_of(const wire::BoxSpec& spec) {
    const auto with_init = spec.configure().pids_limit();
    return with_init > 0 ? with_init - 1 : 0;
}

wire::BoxSpec::Restart restart_word(RestartPolicy policy) {
    switch (policy) {
        case RestartPolicy::kOnFailure: return wire::BoxSpec::ON_FAILURE;
        case RestartPolicy::kAlways: return wire::BoxSpec::ALWAYS;
        default: return wire::BoxSpec::NO;
    }
}

std::map<std::string, std::string> labels_of(const wire::BoxSpec& spec) {
    std::map<std::string, std::string> labels;
    for (const auto& label : spec.labels()) labels[label.key()] = label.value();
    return labels;
}

void set_labels(wire::BoxSpec& spec, const std::map<std::string, std::string>& labels) {
    spec.clear_labels();
    for (const auto& [key, value] : labels) {
        auto* label = spec.add_labels();
        label->set_key(key);
        label->set_value(value);
    }
}

// Why a limit cannot change before the next start; empty: it can.
std::string why_later(const std::optional<RunningMachine>& running, bool fits, const std::string& machine_has) {
    if (!running) return "the box does not run";
    if (!running->can_change) return "its supervisor is of an older caisson";
    return fits ? "" : "its machine was made with " + machine_has;
}

bool asks_for_network(const BoxUpdate& update) {
    return update.network || !update.network_policy.empty() || !update.allow_network.empty() || !update.deny_network.empty() || update.network_limits ||
           !update.published.empty() || !update.unpublished.empty() || update.restart_network;
}

// Adds up what changes.
class Planner {
  public:
    Planner(const wire::BoxSpec& spec, const std::optional<RunningMachine>& running, const BoxUpdate& update, bool settle)
        : before_(spec), running_(running), update_(update), settle_(settle) {
        plan_.spec = spec;
    }

    Result<UpdatePlan> plan() {
        CAISSON_TRY(check());
        change_limits();
        change_restart();
        change_labels();
        CAISSON_TRY(change_network());
        return std::move(plan_);
    }

  private:
    // The rules of a new box hold for one that changes.
    Result<> check() const {
        BoxOptions options;
        options.image = "-";
        options.cpu_millis = update_.cpu_millis.value_or(before_.cpu_millis());
        options.memory_bytes = update_.memory_bytes.value_or(before_.memory_bytes());
        options.pids_limit = update_.pids_limit.value_or(0);
        options.auto_remove = before_.auto_remove();
        options.restart = update_.restart.value_or(RestartPolicy::kNo);
        options.restart_limit = update_.restart_limit;
        options.labels = labels_of(before_);
        for (const auto& key : update_.removed_labels) options.labels.erase(key);
        for (const auto& [key, value] : update_.labels) options.labels[key] = value;
        CAISSON_TRY(validate(options));
        if (options.restart != RestartPolicy::kNo && running_ && !running_->detached)
            return failure(Errc::kUsage, "a box that ends with its caller cannot be started again by a policy",
                           "stop it and start it with: caisson start");
        return {};
    }

    bool add(const std::string& what, const std::string& from, const std::string& to, const std::string& later = {}) {
        plan_.changes.push_back({what, from, to, later.empty(), later});
        return later.empty();
    }

    void change_limits() {
        const auto cpus = update_.cpu_millis.value_or(before_.cpu_millis());
        const auto memory = update_.memory_bytes.value_or(before_.memory_bytes());
        const auto pids = update_.pids_limit.value_or(pids_of(before_));
        plan_.spec.set_cpu_millis(cpus);
        plan_.spec.set_memory_bytes(memory);
        const auto at_start = guest_limits(*vmm::shape_for(cpus, memory), cpus, memory, pids);
        auto* configure = plan_.spec.mutable_configure();
        configure->set_cpu_limit_millis(at_start.cpu_millis());
        configure->set_memory_limit_bytes(at_start.memory_bytes());
        configure->set_pids_limit(at_start.pids());

        const auto shape = running_ ? running_->shape : vmm::Shape{};
        const auto now = guest_limits(shape, cpus, memory, pids);
        const auto then = guest_limits(shape, before_.cpu_millis(), before_.memory_bytes(), pids_of(before_));
        if (cpus != before_.cpu_millis() &&
            add("cpus", cpus_text(before_.cpu_millis()), cpus_text(cpus), why_later(running_, cpus <= shape.cpus * 1000, cpus_text(shape.cpus * 1000) + " CPUs"))) {
            to_running().mutable_limits()->set_cpu_millis(now.cpu_millis());
            undo().mutable_limits()->set_cpu_millis(then.cpu_millis());
            plan_.cpus_now = true;
        }
        const auto machine_bytes = std::uint64_t{shape.memory_mib} << 20;
        if (memory != before_.memory_bytes() &&
            add("memory", size_text(before_.memory_bytes()), size_text(memory), why_later(running_, memory <= machine_bytes, size_text(machine_bytes)))) {
            to_running().mutable_limits()->set_memory_bytes(now.memory_bytes());
            undo().mutable_limits()->set_memory_bytes(then.memory_bytes());
        }
        if (pids != pids_of(before_) && add("pids_limit", pids_text(pids_of(before_)), pids_text(pids), why_later(running_, true, ""))) {
            to_running().mutable_limits()->set_pids(now.pids());
            undo().mutable_limits()->set_pids(then.pids());
        }
    }

    void change_restart() {
        if (!update_.restart) return;
        plan_.spec.set_restart(restart_word(*update_.restart));
        plan_.spec.set_restart_limit(update_.restart_limit);
        const auto from = restart_text(before_), to = restart_text(plan_.spec);
        // Without a supervisor there is nobody who would have to know; an old one goes by what it was told.
        const std::string later = running_ && !running_->can_change ? why_later(running_, true, "") : "";
        if (from == to || !add("restart", from, to, later) || !running_) return;
        to_running().set_restart(plan_.spec.restart());
        to_running().set_restart_limit(plan_.spec.restart_limit());
        undo().set_restart(before_.restart());
        undo().set_restart_limit(before_.restart_limit());
    }

    void change_labels() {
        const auto before = labels_of(before_);
        auto labels = before;
        for (const auto& key : update_.removed_labels) {
            if (labels.erase(key) > 0 && update_.labels.count(key) == 0) add("label " + key, before.at(key), "");
        }
        for (const auto& [key, value] : update_.labels) {
            const auto was = before.find(key);
            labels[key] = value;
            if (was == before.end() || was->second != value) add("label " + key, was == before.end() ? "" : was->second, value);
        }
        set_labels(plan_.spec, labels);
    }

    // Its machine has a card or none. What becomes of the network as it is needs no other machine.
    Result<> change_network() {
        if (!asks_for_network(update_)) return {};
        const auto* before = before_.has_network() ? &before_.network() : nullptr;
        const auto after = CAISSON_TRY(changed_network(before, running_ ? running_->ports : std::vector<wire::NetworkSpec::Port>(), update_));
        if (running_ && after.has_value() != running_->shape.network) return no_such_card(after.has_value());
        if (update_.restart_network) {
            if (!running_) return failure(Errc::kInUse, "the box does not run: it gets a network when it is started");
            if (!after) return failure(Errc::kUsage, "the box has no network");
            if (!running_->can_change_network) return failure(Errc::kUnsupported, "its supervisor is of an older caisson", "restart the box");
            add("network_process", running_->network_died ? "died" : "running", "a new one");
        }
        const auto later = !running_ ? why_later(running_, true, "") : running_->can_change_network ? "" : "its supervisor is of an older caisson";
        static const wire::NetworkSpec kNone;
        const auto& was = before != nullptr ? *before : kNone;
        const auto& is = after ? *after : kNone;
        bool now = update_.restart_network || (settle_ && running_ && after && running_->can_change_network);
        if (was.policy() != is.policy()) now |= add("network_policy", network_policy_text(was), network_policy_text(is), later);
        if (const auto from = network_limits_text(was.limits()), to = network_limits_text(is.limits()); from != to) now |= add("network_limits", from, to, later);
        now |= change_ports(was, is, later);
        set_network(plan_.spec, after);
        if (!running_ || !now) return {};
        *plan_.network.emplace().mutable_network() = is;
        plan_.network->set_restart_network(update_.restart_network);
        *plan_.network_undo.emplace().mutable_network() = was;
        return {};
    }

    bool change_ports(const wire::NetworkSpec& was, const wire::NetworkSpec& is, const std::string& later) {
        std::multiset<std::string> before, after;
        for (const auto& port : was.ports()) before.insert(port_text(port));
        for (const auto& port : is.ports()) after.insert(port_text(port));
        bool now = false;
        auto tell = [&](const std::multiset<std::string>& of, const std::multiset<std::string>& others, bool gone) {
            std::vector<std::string> only;
            std::set_difference(of.begin(), of.end(), others.begin(), others.end(), std::back_inserter(only));
            for (const auto& port : only) now |= add("port", gone ? port : "", gone ? "" : port, later);
        };
        tell(before, after, true);
        tell(after, before, false);
        return now;
    }

    base::Failure no_such_card(bool wanted) const {
        if (wanted)
            return failure(Errc::kInUse, "the machine of the box runs without a network card and cannot get one", "stop the box, change it, and start it again");
        return failure(Errc::kInUse, "the machine of the box runs and keeps its network card",
                       "give it a policy that reaches nothing: --net-policy with {\"version\": 1, \"mode\": \"rules\"}; or stop the box, change it, and start it again");
    }

    wire::UpdateBox& to_running() { return plan_.to_running ? *plan_.to_running : plan_.to_running.emplace(); }
    wire::UpdateBox& undo() { return plan_.undo ? *plan_.undo : plan_.undo.emplace(); }

    const wire::BoxSpec& before_;
    const std::optional<RunningMachine>& running_;
    const BoxUpdate& update_;
    const bool settle_;
    UpdatePlan plan_;
};

}  // namespace

Result<UpdatePlan> plan_update(const wire::BoxSpec& spec, const std::optional<RunningMachine>& running, const BoxUpdate& update, bool settle) {
    return Planner(spec, running, update, settle).plan();
}

namespace {

Result<RunningMachine> machine_of(ShimClient& shim) {
    wire::ToShim request;
    request.mutable_status();
    const auto answer = CAISSON_TRY(internal::ask(shim, request));
    if (!answer.has_status()) return failure(Errc::kProtocol, "the box's supervisor answered something else");
    const auto& status = answer.status();
    RunningMachine machine;
    machine.can_change = status.has_shape();
    machine.can_change_network = status.network_changes();
    machine.network_died = status.network_died();
    machine.ports = sound_ports(status.ports());
    if (!machine.can_change) return machine;
    machine.shape = shape_from(status.shape());
    machine.detached = status.detached();
    return machine;
}

Result<> tell(ShimClient& shim, const wire::UpdateBox& update) {
    wire::ToShim request;
    *request.mutable_update_box() = update;
    auto answer = internal::ask(shim, request, update.has_network() ? limits::kNetworkAnswer : internal::kAnswerPatience);
    if (answer) return {};
    if (update.has_network() && answer.error().code == Errc::kTimeout) answer.error().hint = "nobody knows what is in force; settle it with: caisson update --net-restart";
    return base::failure(std::move(answer.error()));
}

// The launcher goes by what it finds beside the box's directory.
Result<> tell_network(ShimClient& shim, NetworkRequest& request, const wire::UpdateBox& update) {
    CAISSON_TRY(request.write(update.network()));
    return tell(shim, update);
}

// The box as it was: what was refused is the first failure, and the one to be told.
void undo(ShimClient& shim, NetworkRequest* turn, const UpdatePlan& plan) {
    if (turn != nullptr && plan.network_undo) static_cast<void>(tell_network(shim, *turn, *plan.network_undo));
    if (plan.undo) static_cast<void>(tell(shim, *plan.undo));
}

// What changes now in a box that runs.
Result<> tell_all(ShimClient& shim, NetworkRequest& turn, const UpdatePlan& plan) {
    if (plan.to_running) CAISSON_TRY(tell(shim, *plan.to_running));
    if (!plan.network) return {};
    auto told = tell_network(shim, turn, *plan.network);
    // What took too long may hold all the same, or come to hold.
    if (!told) undo(shim, told.error().code == Errc::kTimeout ? &turn : nullptr, plan);
    return told;
}

// The journal has kinds of its own for these.
bool is_of_network(const BoxChange& change) { return change.what.starts_with("network_") || change.what == "port"; }

Result<> record_spec(internal::RuntimeState& runtime, const store::BoxRecord& record, const std::string& before, const std::string& after) {
    std::scoped_lock guard(runtime.database_mutex);
    return runtime.database->change_box_spec(record.id, before, after);
}

// Whoever dies before the box has been told leaves word of it in `turn`. The box may be started or end meanwhile.
Result<UpdatePlan> update_once(internal::RuntimeState& runtime, const store::BoxRecord& record, const BoxUpdate& update, NetworkRequest& turn) {
    const bool was_unsettled = turn.unsettled();
    const auto spec = CAISSON_TRY(internal::spec_of(record));
    std::unique_ptr<ShimClient> shim;
    std::optional<RunningMachine> running;
    if (store::is_live(record.state)) {
        shim = CAISSON_TRY(internal::reach(runtime, record));
        running = CAISSON_TRY(machine_of(*shim));
    }
    auto plan = CAISSON_TRY(plan_update(spec, running, update, was_unsettled));
    if (plan.changes.empty() && !plan.network) return plan;
    if (plan.network) CAISSON_TRY(turn.begin());
    const auto after = plan.spec.SerializeAsString();
    if (auto recorded = record_spec(runtime, record, record.spec, after); !recorded) {
        if (!was_unsettled) turn.settle();
        return base::failure(std::move(recorded.error()));
    }
    if (shim) {
        if (auto told = tell_all(*shim, turn, plan); !told) {
            // After a timeout nobody knows what is in force.
            if (auto back = record_spec(runtime, record, after, record.spec); back && told.error().code != Errc::kTimeout && !was_unsettled) turn.settle();
            return base::failure(std::move(told.error()));
        }
    }
    // One that does not run gets at its start what is recorded.
    if (plan.network || !shim) turn.settle();
    for (const auto& change : plan.changes)
        if (!is_of_network(change)) internal::record(runtime, {"box_updated", record.id, record.name, {{"what", change.what}, {"before", change.from}, {"now", change.to}, {"in_force", change.now}}});
    // Of a box that runs its supervisor tells.
    if (!plan.network)
        for (auto& [kind, details] : network_changes(spec.network(), plan.spec.network())) internal::record(runtime, {kind, record.id, record.name, std::move(details)});
    if (plan.cpus_now)
        if (auto changed = change_cpu_limit(runtime.home, record.id, plan.spec.cpu_millis()); !changed)
            runtime.notice("the guest has its new limit of CPU time, the host keeps the old one: " + changed.error().to_string());
    return plan;
}

Result<UpdatePlan> plan_only(internal::RuntimeState& runtime, const store::BoxRecord& record, const BoxUpdate& update) {
    const auto spec = CAISSON_TRY(internal::spec_of(record));
    std::optional<RunningMachine> running;
    if (store::is_live(record.state)) running = CAISSON_TRY(machine_of(*CAISSON_TRY(internal::reach(runtime, record))));
    return plan_update(spec, running, update);
}

}  // namespace

}  // namespace caisson::box

namespace caisson {

Result<BoxUpdatePlan> Runtime::update_box(const std::string& reference, const BoxUpdate& update) {
    constexpr int kTries = 3;
    for (int tried = 1;; ++tried) {
        auto record = CAISSON_TRY(internal::find_record(*state_, reference));
        const auto plan = [&]() -> Result<box::UpdatePlan> {
            if (update.dry_run) return box::plan_only(*state_, record, update);
            // One after the other: what one finds recorded, tells and records is not another's meanwhile.
            auto turn = CAISSON_TRY(box::NetworkRequest::wait(state_->home.box(record.id), box::limits::kUpdateTurn));
            record = CAISSON_TRY(internal::find_record(*state_, record.id));
            return box::update_once(*state_, record, update, turn);
        }();
        if (plan) return BoxUpdatePlan{record.id, record.name, plan->changes};
        const auto now = internal::find_record(*state_, record.id);
        const bool changed = now && (now->spec != record.spec || now->state != record.state);
        if (plan.error().code != Errc::kInUse || !changed || tried == kTries) {
            auto error = plan.error();
            return base::failure(std::move(error).with_context("updating box " + record.name));
        }
    }
}

}  // namespace caisson
