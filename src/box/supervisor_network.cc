// What a box's network tells: kept in its journal. Nothing of it is believed but as what the network's process says; that
// process is asked nothing, and told nothing. And what an operator changes of the network while the box runs.
#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/text.h"
#include "box/convert.h"
#include "box/limits.h"
#include "box/network_request.h"
#include "box/supervisor.h"
#include "net/relay/limits.h"
#include "wire/net.pb.h"

namespace caisson::box {

namespace {

// Before other things of the loop have their turn.
constexpr int kEventsAtOnce = 32;
constexpr std::size_t kShown = 256;
// Whatever the process claims to have lost.
constexpr std::uint64_t kMostCounted = 1'000'000'000;

std::string shown(const std::string& text) { return base::printable(text, kShown); }

using Details = std::vector<std::pair<std::string, audit::Value>>;

Details details_of(const wire::NetworkEvent::Connection& told) {
    Details details{{"address", shown(told.address())}, {"port", std::int64_t{told.port()}}, {"protocol", std::string(told.udp() ? "udp" : "tcp")},
                    {"name", shown(told.name())}, {"dialled", shown(told.dialled())}, {"rule", shown(told.rule())}, {"reason", shown(told.reason())}};
    if (!told.proxy().empty()) details.emplace_back("proxy", shown(told.proxy()));
    if (told.published()) details.emplace_back("published", true);
    if (told.state() == wire::NetworkEvent::Connection::ENDED) {
        details.emplace_back("bytes_out", static_cast<std::int64_t>(told.bytes_out()));
        details.emplace_back("bytes_in", static_cast<std::int64_t>(told.bytes_in()));
        details.emplace_back("duration_ms", static_cast<std::int64_t>(told.duration_ms()));
    }
    return details;
}

const char* kind_of(wire::NetworkEvent::Connection::State state) {
    switch (state) {
        case wire::NetworkEvent::Connection::ALLOWED: return "connection_allowed";
        case wire::NetworkEvent::Connection::DENIED: return "connection_denied";
        case wire::NetworkEvent::Connection::FAILED: return "connection_failed";
        default: return "connection_ended";
    }
}

std::string joined(const google::protobuf::RepeatedPtrField<std::string>& texts) {
    std::string text;
    for (const auto& one : texts) text += (text.empty() ? "" : " ") + shown(one);
    return base::printable(text, 4 * kShown);
}

}  // namespace

void Supervisor::begin_network_events(os::Fd socket) {
    if (!os::set_nonblocking(socket.get(), true)) return;
    if (vm_.network) loop_.unwatch(vm_.network.get());
    vm_.network = std::move(socket);
    note(loop_.watch(vm_.network.get(), EPOLLIN, [this](std::uint32_t) { on_network_events(); }));
}

void Supervisor::on_network_events() {
    char bytes[net::relay::kMostEventBytes];
    for (int i = 0; i < kEventsAtOnce; ++i) {
        auto packet = os::receive_packet(vm_.network.get(), bytes);
        if (packet.length < 0 && (errno == EAGAIN || errno == EINTR)) return;
        wire::NetworkEvent event;
        if (packet.length <= 0 || packet.cut || !event.ParseFromArray(bytes, static_cast<int>(packet.length))) {
            loop_.unwatch(vm_.network.get());
            vm_.network.reset();
            return;
        }
        record_network(event);
    }
}

// A guest can make as many of these as it likes; the journal takes some, and how many it did not.
bool Supervisor::network_record_is_due() {
    const auto now = std::chrono::steady_clock::now();
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now - vm_.network_second).count();
    if (seconds > 0) {
        const auto back = static_cast<std::uint64_t>(seconds) * limits::kNetworkRecordsPerSecond;
        vm_.network_records = static_cast<std::uint32_t>(std::min<std::uint64_t>(limits::kMostNetworkRecordsAtOnce, vm_.network_records + back));
        vm_.network_second = now;
    }
    if (vm_.network_records == 0) {
        vm_.network_left_out = std::min(vm_.network_left_out + 1, kMostCounted);
        return false;
    }
    --vm_.network_records;
    if (vm_.network_left_out > 0 && vm_.network_records > 0) {
        --vm_.network_records;
        record_in(audit::network_chain(launch_.box_id()), audit::this_actor(), "network_events_left_out", {{"count", static_cast<std::int64_t>(std::exchange(vm_.network_left_out, 0))}});
    }
    return true;
}

// With --net-learn each target is told of once, beside what is told of anyway. Connections begin with their address, so that those
// of an address are found that a name now stands for: they may be another wish by then.
bool Supervisor::is_learnt_anew(const wire::NetworkEvent& event) {
    if (!launch_.spec().network().learn() || vm_.learnt_records >= limits::kMostLearntTargets) return false;
    if (event.has_question()) {
        const auto& told = event.question();
        if (told.addresses_size() > net::relay::kMostEventAddresses) return false;  // an honest process tells no more
        if (!vm_.learnt.insert("? " + told.name() + " " + told.verdict() + " " + joined(told.addresses())).second) return false;
        for (const auto& address : told.addresses())
            std::erase_if(vm_.learnt, [before = address + " "](const std::string& one) { return one.starts_with(before); });
        ++vm_.learnt_records;
        return true;
    }
    const auto& told = event.connection();
    if (!event.has_connection() || told.state() == wire::NetworkEvent::Connection::ENDED || told.published()) return false;
    const auto target = told.address() + " " + std::to_string(told.port()) + (told.udp() ? " udp " : " tcp ") + told.name() + " " + kind_of(told.state());
    if (!vm_.learnt.insert(target).second) return false;
    ++vm_.learnt_records;
    return true;
}

void Supervisor::record_network(const wire::NetworkEvent& event) {
    if (event.event_case() == wire::NetworkEvent::kLost) {
        vm_.network_left_out = std::min(vm_.network_left_out + std::min(event.lost(), kMostCounted), kMostCounted);
        return;
    }
    if (!is_learnt_anew(event) && !network_record_is_due()) return;
    const auto self = audit::this_actor();
    const auto chain = audit::network_chain(launch_.box_id());
    if (event.has_connection()) record_in(chain, self, kind_of(event.connection().state()), details_of(event.connection()));
    if (event.has_question())
        record_in(chain, self, "name_asked", {{"name", shown(event.question().name())}, {"type", shown(event.question().type())}, {"verdict", shown(event.question().verdict())},
                                    {"addresses", joined(event.question().addresses())}, {"dropped", joined(event.question().dropped())}});
}

void Supervisor::on_network_ended(const std::string& why) {
    const auto text = base::printable(why, 1000);
    record(audit::this_actor(), "network_ended", {{"reason", text}});
    note(base::failure(Errc::kIo, text, "the box runs on without it; give it another one with: caisson update --net-restart " + launch_.name()));
    vm_.network_died = true;
    if (is_at_work()) record_state(store::BoxState::kRunning, running_reason());
}

std::string Supervisor::running_reason() const { return vm_.network_died ? "network process died" : ""; }

// Its record says nothing else of its state.
bool Supervisor::is_at_work() const { return phase_ == Phase::kRunning && stop_reason_.empty() && !paused_ && !waits_for_room(); }

// ---- other ports, and what else an operator changes ----

namespace {

using Ports = google::protobuf::RepeatedPtrField<wire::NetworkSpec::Port>;

Details details_of(const wire::NetworkSpec::Port& port) {
    return {{"address", shown(port.address())}, {"port", std::int64_t{port.chosen_port()}}, {"guest_port", std::int64_t{port.guest_port()}},
            {"protocol", std::string(port.udp() ? "udp" : "tcp")}};
}

// Those of `ports` that are not among `others`.
std::vector<wire::NetworkSpec::Port> missing_from(const Ports& others, const Ports& ports) {
    std::vector<std::string> there;
    for (const auto& port : others) there.push_back(port.SerializeAsString());
    std::vector<wire::NetworkSpec::Port> missing;
    for (const auto& port : ports) {
        const auto found = std::find(there.begin(), there.end(), port.SerializeAsString());
        if (found == there.end()) missing.push_back(port);
        else there.erase(found);
    }
    return missing;
}

}  // namespace

void Supervisor::hear_of_ports(const std::string& packed) {
    wire::NetworkPorts ports;
    if (!ports.ParseFromString(packed) || static_cast<std::size_t>(ports.ports_size()) > net::relay::kMostPorts) return;
    const auto actor = update_ ? update_->actor : starter();
    for (const auto& port : missing_from(ports.ports(), vm_.ports.ports())) record(actor, "port_unpublished", details_of(port));
    for (const auto& port : missing_from(vm_.ports.ports(), ports.ports())) record(actor, "port_published", details_of(port));
    vm_.ports = std::move(ports);
}

// What it is to be, the launcher knows from the operator, and not from here.
void Supervisor::change_network(const wire::UpdateBox& request) {
    // What is said of it would be taken for an answer to this one.
    if (vm_.network_asked) return end_update(because(Errc::kInUse, "the box's launcher is still changing its network"));
    update_->timer = loop_.after(limits::kNetworkPatience, [this] { end_update(because(Errc::kTimeout, "the box's launcher does not say that its network is another one now")); });
    const auto verb = request.restart_network() ? LauncherVerb::kNetworkAnew : LauncherVerb::kNetwork;
    if (!standing_.launcher || !standing_.launcher->ask(verb)) return end_update(because(Errc::kInternal, "the box's launcher is gone"));
    vm_.network_asked = true;
}

void Supervisor::on_network_changed(const Error& error) {
    vm_.network_asked = false;
    // Late, if nobody waited any longer.
    if (!update_ || !update_->request.has_network()) return;
    if (!error.message.empty()) return end_update(error);
    record_network_change(update_->actor, update_->request.network(), update_->request.restart_network());
    end_update(std::nullopt);
}

void Supervisor::record_network_change(const audit::Actor& actor, const wire::NetworkSpec& now, bool anew) {
    const auto& before = launch_.spec().network();
    if (anew) {
        record(actor, "network_restarted", {});
        vm_.network_died = false;
        if (is_at_work()) record_state(store::BoxState::kRunning, running_reason());
    }
    for (auto& [kind, details] : network_changes(before, now)) record(actor, kind, std::move(details));
}

}  // namespace caisson::box
