#include "net/relay/datagrams.h"

#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "net/relay/dial.h"

namespace caisson::net::relay {

using Event = wire::NetworkEvent::Connection;
using Clock = std::chrono::steady_clock;

struct Datagrams::Flow {
    Key key;
    Subject subject;
    Verdict verdict;
    os::Fd inside;                 // in the box's namespace; none: it is being made
    os::Fd outside;                // none: of a published port, whose socket it goes through
    Port* port = nullptr;
    std::vector<base::Bytes> waiting;  // for `inside`
    Clock::time_point used = Clock::now();
    std::list<Key>::iterator age;
};

struct Datagrams::Port {
    os::Fd socket;
    std::uint16_t guest_port;
    std::uint16_t number;  // tells its flows from others
};

namespace {

// A denied flow is told of once in a while, not with each datagram.
constexpr std::chrono::seconds kDeniedAgain{60};
constexpr std::size_t kMostDenied = 4096;

// The place that a datagram was for before it was turned here (ip(7), IP_RECVORIGDSTADDR; ipv6(7)).
std::optional<Endpoint> destination_of(msghdr& message) {
    for (auto* part = CMSG_FIRSTHDR(&message); part != nullptr; part = CMSG_NXTHDR(&message, part)) {
        const bool four = part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_ORIGDSTADDR;
        const bool six = part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_ORIGDSTADDR;
        if (!four && !six) continue;
        sockaddr_storage address{};
        const auto size = part->cmsg_len - CMSG_LEN(0);
        std::memcpy(&address, CMSG_DATA(part), std::min<std::size_t>(size, sizeof address));
        return from_socket(reinterpret_cast<const sockaddr*>(&address), static_cast<socklen_t>(size));
    }
    return std::nullopt;
}

struct Received {
    ssize_t length = -1;
    std::optional<Endpoint> from, destination;
};

Received receive(int socket, base::Bytes& room) {
    room.resize(kMostDatagramBytes);
    sockaddr_storage from{};
    alignas(cmsghdr) char control[256];
    iovec data{room.data(), room.size()};
    msghdr message{};
    message.msg_name = &from;
    message.msg_namelen = sizeof from;
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    Received received;
    received.length = ::recvmsg(socket, &message, 0);
    if (received.length < 0) return received;
    received.from = from_socket(reinterpret_cast<const sockaddr*>(&from), message.msg_namelen);
    received.destination = destination_of(message);
    return received;
}

}  // namespace

Datagrams::Datagrams(Context& context, Options options) : context_(context), options_(std::move(options)) {}

Datagrams::~Datagrams() {
    while (!flows_.empty()) end(flows_.begin()->first, "");
    if (timer_ != 0) context_.loop.cancel(timer_);
    context_.loop.unwatch(options_.socket.get());
    for (auto& port : ports_) context_.loop.unwatch(port->socket.get());
}

Result<> Datagrams::start() {
    CAISSON_TRY(os::set_nonblocking(options_.socket.get(), true));
    // Of the name server's own answers there are many, to many ports of the guest's.
    for (const auto& [gateway, guest] : {std::pair(kGatewayAddress, kGuestAddress), std::pair(kGatewayAddress6, kGuestAddress6)}) {
        const Endpoint server{*Address::parse(gateway), kNameServerPort};
        context_.space->make_udp(server, {*Address::parse(guest), 0}, [this, server](os::Fd socket, int) {
            if (socket) name_sockets_[server] = std::move(socket);
        });
    }
    sweep();
    return context_.loop.watch(options_.socket.get(), EPOLLIN, [this](std::uint32_t) { on_socket(); });
}

void Datagrams::on_socket() {
    for (std::size_t i = 0; i < kMostDatagramsAtOnce; ++i) {
        auto got = receive(options_.socket.get(), room_);
        if (got.length < 0) return;
        // Nothing can be answered to port 0 of the guest's, not even that nobody takes its datagrams.
        if (got.from && got.from->port != 0 && got.destination) took(*got.from, *got.destination, {room_.data(), static_cast<std::size_t>(got.length)});
    }
}

void Datagrams::took(const Endpoint& guest, const Endpoint& outside, base::ByteView data) {
    if (is_gateway(outside.address) && outside.port == kNameServerPort) return ask_name_server(guest, outside, data);
    const Key key{guest, outside};
    auto found = flows_.find(key);
    auto* flow = found == flows_.end() ? nullptr : found->second.get();
    if (flow == nullptr) {
        Subject subject;
        subject.protocol = Protocol::kUdp;
        subject.outside = outside;
        context_.look_at(outside.address);
        auto verdict = context_.judge(outside, Protocol::kUdp);
        subject.name = is_gateway(outside.address) ? std::string(kHostName) : verdict.pinned;
        // Datagrams show no name.
        if (!verdict.allowed()) return deny(guest, subject, verdict);
        if (context_.proxy) return deny(guest, subject, {.rule = "network proxy", .reason = "a proxy carries TCP only"});
        flow = begin(key, std::move(subject), std::move(verdict));
        if (flow == nullptr) return;
    }
    send(*flow, false, data);
}

void Datagrams::deny(const Endpoint& guest, const Subject& subject, const Verdict& verdict) {
    context_.space->refuse_udp(guest, subject.outside);
    const auto now = Clock::now();
    auto& told = denied_[{guest, subject.outside}];
    if (told != Clock::time_point() && now - told < kDeniedAgain) return;
    told = now;
    if (denied_.size() > kMostDenied) denied_.clear();
    context_.records.connection(Event::DENIED, subject, verdict.rule, verdict.reason);
}

void Datagrams::ask_name_server(const Endpoint& guest, const Endpoint& server, base::ByteView query) {
    options_.name_server(query, [this, guest, server](base::ByteView answer) {
        auto socket = name_sockets_.find(server);
        if (socket == name_sockets_.end()) return;  // the guest asks again
        const auto to = to_socket(guest);
        static_cast<void>(::sendto(socket->second.get(), answer.data(), answer.size(), MSG_DONTWAIT, to.get(), to.length));
    });
}

// ---- flows ----

Datagrams::Flow* Datagrams::begin(const Key& key, Subject subject, Verdict verdict, Port* port) {
    if (context_.connects.may(1, Clock::now()) == 0) return nullptr;
    context_.connects.took(1);
    if (flows_.size() >= context_.most_flows && !by_age_.empty()) end(Key(by_age_.front()), "others needed its place");
    auto made = std::make_unique<Flow>();
    made->key = key;
    made->subject = std::move(subject);
    made->verdict = std::move(verdict);
    made->port = port;
    if (!made->subject.published) {
        const auto place = Context::place_of(made->subject.outside);
        int error = 0;
        made->outside = connect_udp(place, error);
        if (!made->outside) {
            context_.records.connection(Event::FAILED, made->subject, made->verdict.rule, std::strerror(error));
            return nullptr;
        }
        made->subject.dialled = place;
        if (!context_.loop.watch(made->outside.get(), EPOLLIN, [this, key](std::uint32_t) { to_guest(key); })) return nullptr;
    }
    made->age = by_age_.insert(by_age_.end(), key);
    auto& flow = *flows_.emplace(key, std::move(made)).first->second;
    context_.records.connection(Event::ALLOWED, flow.subject, flow.verdict.rule, flow.verdict.reason);
    make_inside(flow);
    return &flow;
}

void Datagrams::make_inside(Flow& flow) {
    auto made = [this, key = flow.key, begun = flow.subject.begun](os::Fd socket, int error) {
        auto found = flows_.find(key);
        if (found == flows_.end() || found->second->subject.begun != begun) return;
        if (error != 0) return end(key, std::strerror(error));
        auto& one = *found->second;
        if (!context_.loop.watch(socket.get(), EPOLLIN, [this, key](std::uint32_t) { from_guest(key); })) return end(key, "too many sockets");
        one.inside = std::move(socket);
        for (auto& data : std::exchange(one.waiting, {})) send(one, true, data);
    };
    if (flow.subject.published) return context_.space->dial({*Address::parse(kGuestAddress), flow.port->guest_port}, Protocol::kUdp, std::move(made));
    context_.space->make_udp(flow.subject.outside, flow.key.first, std::move(made));
}

void Datagrams::touch(Flow& flow) {
    flow.used = Clock::now();
    by_age_.splice(by_age_.end(), by_age_, flow.age);
}

void Datagrams::send(Flow& flow, bool to_guest, base::ByteView data) {
    touch(flow);
    // Counted once it goes.
    if (to_guest && !flow.inside) {
        if (flow.waiting.size() < kMostWaitingDatagrams) flow.waiting.emplace_back(data.begin(), data.end());
        return;
    }
    auto& rate = context_.rates[to_guest ? 1 : 0];
    // What is too much is lost, as datagrams are.
    if (rate.limits() && rate.may(data.size(), Clock::now()) < data.size()) return;
    rate.took(data.size());
    (to_guest ? flow.subject.bytes_in : flow.subject.bytes_out) += data.size();
    if (const auto& through = to_guest ? flow.inside : flow.outside; through) {
        static_cast<void>(::send(through.get(), data.data(), data.size(), MSG_DONTWAIT | MSG_NOSIGNAL));
        return;
    }
    const auto to = to_socket(flow.subject.outside);
    static_cast<void>(::sendto(flow.port->socket.get(), data.data(), data.size(), MSG_DONTWAIT | MSG_NOSIGNAL, to.get(), to.length));
}

void Datagrams::from_guest(const Key& key) {
    for (std::size_t i = 0; i < kMostDatagramsAtOnce; ++i) {
        auto found = flows_.find(key);
        if (found == flows_.end()) return;
        auto got = receive(found->second->inside.get(), room_);
        if (got.length < 0 && errno != ECONNREFUSED) return;
        if (got.length >= 0) send(*found->second, false, {room_.data(), static_cast<std::size_t>(got.length)});
    }
}

void Datagrams::to_guest(const Key& key) {
    for (std::size_t i = 0; i < kMostDatagramsAtOnce; ++i) {
        auto found = flows_.find(key);
        if (found == flows_.end()) return;
        auto got = receive(found->second->outside.get(), room_);
        const int error = errno;
        if (got.length < 0 && (error == EAGAIN || error == EINTR)) return;
        // Nobody is at the other end, or there is no way to it: datagrams do not come back.
        if (got.length < 0 && !found->second->subject.published) context_.space->refuse_udp(key.first, key.second);
        if (got.length < 0) return end(key, std::strerror(error));
        send(*found->second, true, {room_.data(), static_cast<std::size_t>(got.length)});
    }
}

void Datagrams::end(const Key& key, const std::string& reason) {
    auto found = flows_.find(key);
    if (found == flows_.end()) return;
    auto& flow = *found->second;
    for (const auto* socket : {&flow.inside, &flow.outside})
        if (*socket) context_.loop.unwatch(socket->get());
    context_.records.connection(Event::ENDED, flow.subject, flow.verdict.rule, reason);
    by_age_.erase(flow.age);
    flows_.erase(found);
}

void Datagrams::sweep() {
    const auto now = Clock::now();
    while (!by_age_.empty()) {
        auto found = flows_.find(by_age_.front());
        if (found == flows_.end() || now - found->second->used < kFlowIdle) break;
        end(Key(by_age_.front()), "");
    }
    timer_ = context_.loop.after(std::chrono::seconds(5), [this] { sweep(); });
}

void Datagrams::judge_again() {
    denied_.clear();
    std::vector<std::pair<Key, Verdict>> gone;
    for (const auto& [key, flow] : flows_) {
        if (flow->subject.published) continue;
        const auto& subject = flow->subject;
        auto verdict = context_.judge(subject.outside, Protocol::kUdp);
        // A pin need not outlive what was begun through it.
        if (!verdict.allowed() && !subject.name.empty() && !is_gateway(subject.outside.address))
            verdict = context_.policy.judge_resolved(subject.name, subject.outside, Protocol::kUdp);
        if (!verdict.allowed()) gone.emplace_back(key, verdict);
    }
    for (const auto& [key, verdict] : gone) {
        context_.records.connection(Event::DENIED, flows_.at(key)->subject, verdict.rule, "the policy was changed: " + verdict.reason);
        end(key, "the policy was changed");
    }
}

// ---- published ports ----

Result<> Datagrams::publish(os::Fd socket, std::uint16_t guest_port, std::uint16_t number) {
    CAISSON_TRY(os::set_nonblocking(socket.get(), true));
    ports_.push_back(std::make_unique<Port>(Port{std::move(socket), guest_port, number}));
    auto* port = ports_.back().get();
    return context_.loop.watch(port->socket.get(), EPOLLIN, [this, port](std::uint32_t) { on_port(*port); });
}

void Datagrams::unpublish(std::uint32_t number) {
    const auto port = std::find_if(ports_.begin(), ports_.end(), [number](const auto& one) { return one->number == number; });
    if (port == ports_.end()) return;
    std::vector<Key> gone;
    for (const auto& [key, flow] : flows_)
        if (flow->port == port->get()) gone.push_back(key);
    for (const auto& key : gone) end(key, "the port is not published any more");
    context_.loop.unwatch((*port)->socket.get());
    ports_.erase(port);
}

void Datagrams::on_port(Port& port) {
    for (std::size_t i = 0; i < kMostDatagramsAtOnce; ++i) {
        auto got = receive(port.socket.get(), room_);
        if (got.length < 0) return;
        if (!got.from) continue;
        const Key key{Endpoint{Address(), port.number}, *got.from};
        auto found = flows_.find(key);
        auto* flow = found == flows_.end() ? nullptr : found->second.get();
        if (flow == nullptr) {
            Subject subject;
            subject.protocol = Protocol::kUdp;
            subject.outside = *got.from;
            subject.published = true;
            flow = begin(key, std::move(subject), {.answer = Verdict::Answer::kAllow, .rule = "port " + std::to_string(port.guest_port) + "/udp"}, &port);
            if (flow == nullptr) continue;
        }
        send(*flow, true, {room_.data(), static_cast<std::size_t>(got.length)});
    }
}

}  // namespace caisson::net::relay
