// What a box was asked to be may change while it runs: its limits in the guest, and what becomes of it at its end.
#include <cerrno>

#include "base/text.h"
#include "box/convert.h"
#include "box/supervisor.h"

namespace caisson::box {

namespace {
// A guest that does not answer keeps nobody waiting.
constexpr std::chrono::milliseconds kLimitsPatience{10000};
}  // namespace

void Supervisor::update_box(Client& client, const wire::UpdateBox& request) {
    if (phase_ != Phase::kRunning || !stop_reason_.empty()) return refuse(client, because(Errc::kInUse, "the box is starting or stopping"));
    if (!wire::BoxSpec::Restart_IsValid(request.restart())) return refuse(client, because(Errc::kUsage, "there is no such restart policy"));
    if (update_) return refuse(client, because(Errc::kInUse, "somebody else is changing the box"));
    if (request.has_network() && (request.has_limits() || request.has_restart())) return refuse(client, because(Errc::kUsage, "a network is changed alone"));
    if (request.has_limits() && (paused_ || waits_for_room()))
        return refuse(client, because(Errc::kInUse, "the box is paused: its limits can be changed when it runs, or before it starts"));
    update_.emplace();
    update_->client = client.number;
    update_->actor = actor_of(client);
    update_->request = request;
    if (request.has_network()) return change_network(request);
    if (!request.has_limits()) return end_update(std::nullopt);
    update_->timer = loop_.after(kLimitsPatience, [this] {
        end_update(because(Errc::kTimeout, "the box's guest does not say that it has other limits now"));
    });
    wire::ToAgent message;
    *message.mutable_set_limits() = request.limits();
    guard_guest(send_to_agent(message));
}

Result<> Supervisor::on_limits_set(const wire::LimitsSet& set) {
    // Late, if nobody waited any longer.
    if (!update_ || !update_->request.has_limits()) return {};
    if (set.message().empty()) end_update(std::nullopt);
    else end_update(because(set.error_number() == EBUSY ? Errc::kInUse : Errc::kGuest, base::printable(set.message(), 1000)));
    return {};
}

void Supervisor::end_update(const std::optional<Error>& error) {
    if (!update_) return;
    auto update = std::exchange(update_, std::nullopt);
    loop_.cancel(update->timer);
    if (!error) {
        // A later life has the same machine, and so the same limits in it.
        auto* spec = launch_.mutable_spec();
        const auto& limits = update->request.limits();
        if (limits.has_memory_bytes()) spec->mutable_configure()->set_memory_limit_bytes(limits.memory_bytes());
        if (limits.has_cpu_millis()) spec->mutable_configure()->set_cpu_limit_millis(limits.cpu_millis());
        if (limits.has_pids()) spec->mutable_configure()->set_pids_limit(limits.pids());
        if (update->request.has_network()) *spec->mutable_network() = update->request.network();
        if (update->request.has_restart()) {
            spec->set_restart(update->request.restart());
            spec->set_restart_limit(update->request.restart_limit());
        }
    }
    answer(update->client, error);
}

}  // namespace caisson::box
