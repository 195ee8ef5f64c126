// What a supervisor records in its box's chain of the journal: how its lives go, and what was executed in them.
#include <sys/socket.h>

#include "box/limits.h"
#include "box/supervisor.h"
#include "os/host.h"

namespace caisson::box {

namespace {

// Longer than for others: the loop stands still while the disk works.
constexpr std::chrono::milliseconds kBatchDelay{100};

std::string id_of(const LiveExecution& execution) { return execution.number == kMainExecution ? "main" : execution.id; }
// The supervisor's or a copy's, of which something else tells.
bool is_own(const LiveExecution& execution) { return execution.on_end || execution.copies; }

}  // namespace

// Opened before the lock, which leaves it these chains.
Result<> Supervisor::open_journal() {
    if (standing_.journal || launch_.audit().empty() || launch_.without_command()) return {};
    standing_.journal.emplace(launch_.audit());
    for (const auto& chain : chains()) CAISSON_TRY(standing_.journal->open(chain));
    return {};
}

std::vector<std::string> Supervisor::chains() const {
    std::vector<std::string> chains{launch_.box_id()};
    if (launch_.shape().network()) chains.push_back(audit::network_chain(launch_.box_id()));
    return chains;
}

std::vector<std::string> Supervisor::journal_directories() const {
    std::vector<std::string> directories;
    if (standing_.journal)
        for (const auto& chain : chains()) directories.push_back(audit::chain_directory(launch_.audit(), chain));
    return directories;
}

// A client is who the kernel says it is; what it is called is not known here.
audit::Actor Supervisor::actor_of(const Client& client) const {
    if (client.launcher) return starter();
    struct ucred peer {};
    socklen_t size = sizeof peer;
    if (::getsockopt(client.fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return {};
    return {static_cast<std::int64_t>(peer.uid), static_cast<std::int64_t>(peer.pid), ""};
}

audit::Actor Supervisor::starter() const { return {launch_.caller_uid(), launch_.caller_pid(), launch_.caller_process()}; }

void Supervisor::record(const audit::Actor& actor, const std::string& kind, std::vector<std::pair<std::string, audit::Value>> details) {
    record_in(launch_.box_id(), actor, kind, std::move(details));
}

void Supervisor::record_in(const std::string& chain, const audit::Actor& actor, const std::string& kind, std::vector<std::pair<std::string, audit::Value>> details) {
    if (!standing_.journal || !standing_.database) return;
    std::erase_if(details, [](const auto& detail) { return detail.second == audit::Value(std::string()); });
    note(standing_.journal->record(*standing_.database, chain, {kind, launch_.box_id(), launch_.name(), std::move(details)}, actor,
                                   os::unix_ms()));
    if (journal_timer_ != 0 || finished_) return;
    journal_timer_ = loop_.after(kBatchDelay, [this] {
        journal_timer_ = 0;
        commit_journal();
    });
}

void Supervisor::commit_journal() {
    if (standing_.journal && standing_.database) note(standing_.journal->commit(*standing_.database));
}

void Supervisor::record_execution_started(LiveExecution& execution) {
    if (is_own(execution)) return;
    execution.begun = std::chrono::steady_clock::now();
    record(execution.actor, "execution_started",
           {{"execution", id_of(execution)}, {"arguments", execution.command}, {"user", execution.user},
            {"terminal", execution.terminal}, {"privileged", execution.privileged}});
}

void Supervisor::record_execution_ended(LiveExecution& execution, const wire::ExecutionEnded& ended) {
    if (execution.begun == std::chrono::steady_clock::time_point()) return;
    const auto lasted = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - execution.begun);
    const auto end = end_record(ended.kind(), ended.code(), ended.reason());
    record(execution.actor, "execution_completed",
           {{"execution", id_of(execution)}, {"outcome", end.outcome},
            {"exit_code", std::int64_t{end.exit_code.value_or(125)}}, {"reason", ended.reason()}, {"duration_ms", std::int64_t{lasted.count()}}});
    execution.begun = {};
}

void Supervisor::record_execution_not_started(LiveExecution& execution, const std::string& reason) {
    if (is_own(execution)) return;
    record(execution.actor, "execution_not_started",
           {{"execution", id_of(execution)}, {"arguments", execution.command}, {"reason", reason}});
}

void Supervisor::record_life_ended(bool removed) {
    const auto self = audit::this_actor();
    // Whatever still ran ended with its machine.
    wire::ExecutionEnded cut_short;
    cut_short.set_kind(wire::Ended::FAILED);
    cut_short.set_reason("the box ended");
    wire::ExecutionEnded own;
    own.set_kind(ended_.kind());
    own.set_code(ended_.code());
    own.set_reason(ended_.reason());
    for (auto& [number, execution] : executions_) record_execution_ended(*execution, number == kMainExecution ? own : cut_short);
    const auto end = end_record(ended_.kind(), ended_.code(), ended_.reason());
    if (error_) record(self, "box_start_failed", {{"reason", ended_.reason()}});
    else
        record(self, "box_stopped", {{"outcome", end.outcome}, {"exit_code", std::int64_t{end.exit_code.value_or(125)}},
                                     {"reason", ended_.reason()}, {"starts_again", restart_}});
    if (removed) record(self, "box_removed", {});
}

}  // namespace caisson::box
