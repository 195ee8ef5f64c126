#include "net/relay/records.h"

#include <algorithm>
#include <span>

#include "net/relay/limits.h"

namespace caisson::net::relay {

namespace {
std::string bytes_of(const Address& address) { return address.to_string(); }
}  // namespace

void Records::connection(wire::NetworkEvent::Connection::State state, const Subject& subject, const std::string& rule, const std::string& reason) {
    wire::NetworkEvent event;
    auto& told = *event.mutable_connection();
    told.set_state(state);
    told.set_udp(subject.protocol == Protocol::kUdp);
    told.set_address(bytes_of(subject.outside.address));
    told.set_port(subject.outside.port);
    told.set_name(subject.name);
    told.set_rule(rule);
    told.set_reason(reason);
    told.set_published(subject.published);
    told.set_proxy(subject.proxy);
    if (subject.dialled.port != 0 && subject.dialled != subject.outside) told.set_dialled(subject.dialled.to_string());
    if (state == wire::NetworkEvent::Connection::ENDED) {
        told.set_bytes_out(subject.bytes_out);
        told.set_bytes_in(subject.bytes_in);
        const auto lasted = std::chrono::steady_clock::now() - subject.begun;
        told.set_duration_ms(static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(lasted).count()));
    }
    send(std::move(event));
}

void Records::question(const dns::Question& question) {
    wire::NetworkEvent event;
    auto& told = *event.mutable_question();
    told.set_name(question.name);
    told.set_type(dns::to_string(question.type));
    told.set_verdict(dns::to_string(question.verdict));
    // An event has room for so many, and nobody's answer may be too long to be told of.
    const auto some_of = [](const auto& addresses) { return std::span(addresses).first(std::min<std::size_t>(addresses.size(), kMostEventAddresses)); };
    for (const auto& address : some_of(question.addresses)) told.add_addresses(bytes_of(address));
    for (const auto& address : some_of(question.dropped)) told.add_dropped(bytes_of(address));
    send(std::move(event));
}

void Records::send(wire::NetworkEvent event) {
    if (!socket_) return;
    std::string packed;
    if (lost_ > 0) {
        wire::NetworkEvent lost;
        lost.set_lost(lost_);
        if (lost.SerializeToString(&packed) && os::send_packet(socket_.get(), packed)) lost_ = 0;
    }
    if (lost_ > 0 || !event.SerializeToString(&packed) || packed.size() > kMostEventBytes || !os::send_packet(socket_.get(), packed)) ++lost_;
}

}  // namespace caisson::net::relay
