#include "net/relay/connections.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "net/peek/limits.h"
#include "net/peek/peek.h"

namespace caisson::net::relay {

using Event = wire::NetworkEvent::Connection;
using Said = NetnsMessage::Verdict;

struct Connections::Connection {
    ~Connection() {
        if (peeking && inside) loop.unwatch(inside.get());
        if (listening && outside_socket) loop.unwatch(outside_socket.get());
        if (timer != 0) loop.cancel(timer);
        if (ticket != 0) resolver.cancel(ticket);
    }
    Id id;
    os::Loop& loop;
    dns::Resolver& resolver;
    Endpoint guest;
    Subject subject;
    Verdict verdict;
    std::uint32_t port = 0;     // published, by which it came; 0: it is the guest's own
    bool by_name = false;       // its name has to be shown first
    bool peeking = false;       // `inside` is watched, for its first bytes or until the guest's port answers
    bool listening = false;     // `outside_socket` is watched: its server may speak first
    os::Fd inside, outside_socket;
    base::Bytes first;
    os::Loop::TimerId timer = 0;
    dns::Resolver::Ticket ticket = 0;
    std::unique_ptr<Dial> dial;
    std::unique_ptr<Pump> pump;
};

namespace {

void reset_at_close(const os::Fd& socket) {
    const linger at_once{1, 0};
    ::setsockopt(socket.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
}

void set_no_delay(const os::Fd& socket) {
    const int on = 1;
    ::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

std::optional<Endpoint> name_of(int socket, int (*ask)(int, sockaddr*, socklen_t*)) {
    SocketAddress address;
    address.length = sizeof address.storage;
    if (ask(socket, address.get(), &address.length) != 0) return std::nullopt;
    return from_socket(address.get(), address.length);
}

Verdict limit_verdict(const char* which) { return {.rule = which, .reason = "the box has as many connections as it may have"}; }

// Short, and without anything of the guest's.
std::string forbidden_page(const std::string& rule) {
    const std::string body = "caisson: this box's network policy does not allow this request: " + rule + "\n";
    return "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

}  // namespace

Connections::Connections(Context& context, Options options) : context_(context), options_(std::move(options)) {}

Connections::~Connections() {
    if (clearing_ != 0) context_.loop.cancel(clearing_);
    gone_.clear();
    all_.clear();
    context_.loop.unwatch(options_.listener.get());
    for (auto& [number, port] : ports_) context_.loop.unwatch(port.get());
}

Result<> Connections::start() {
    CAISSON_TRY(os::set_nonblocking(options_.listener.get(), true));
    return context_.loop.watch(options_.listener.get(), EPOLLIN, [this](std::uint32_t) { on_listener(); });
}

Connections::Connection* Connections::find(Id id) {
    auto found = all_.find(id);
    return found == all_.end() ? nullptr : found->second.get();
}

Connections::Connection& Connections::add(const Endpoint& guest, const Endpoint& outside) {
    const auto id = next_++;
    auto made = std::unique_ptr<Connection>(new Connection{.id = id, .loop = context_.loop, .resolver = *context_.resolver, .guest = guest});
    made->subject.outside = outside;
    return *all_.emplace(id, std::move(made)).first->second;
}

bool Connections::has_room() {
    if (all_.size() >= context_.most_connections) return false;
    if (context_.connects.may(1, Rate::Clock::now()) == 0) return false;
    context_.connects.took(1);
    return true;
}

// ---- a connection begins ----

void Connections::refuse(std::uint64_t number, Said said, const Subject& subject, const Verdict& why) {
    context_.space->give_verdict(number, said);
    context_.records.connection(Event::DENIED, subject, why.rule, why.reason);
}

void Connections::begins(std::uint64_t number, const Endpoint& guest, const Endpoint& outside) {
    if (is_gateway(outside.address) && outside.port == kNameServerPort) return context_.space->give_verdict(number, Said::kAccept);
    Subject subject;
    subject.outside = outside;
    context_.look_at(outside.address);
    auto verdict = context_.judge(outside, Protocol::kTcp);
    subject.name = verdict.pinned;
    if (is_gateway(outside.address)) subject.name = kHostName;
    if (verdict.answer == Verdict::Answer::kDeny) return refuse(number, Said::kRefuse, subject, verdict);
    if (!has_room()) return refuse(number, Said::kRefuse, subject, limit_verdict("limit connections"));
    auto& connection = add(guest, outside);
    connection.subject = subject;
    connection.verdict = verdict;
    connection.by_name = verdict.answer == Verdict::Answer::kNeedsName;
    if (!connection.by_name) return dial_for(number, connection);
    context_.space->give_verdict(number, Said::kAccept);
    await(connection);
}

void Connections::dial_for(std::uint64_t number, Connection& connection) {
    auto route = context_.route_to(Context::place_of(connection.subject.outside));
    connection.subject.use(route);
    connection.dial = Dial::start(context_.loop, {std::move(route)}, [this, number, id = connection.id](Dial::End end) {
        auto* one = find(id);
        if (one == nullptr) return;
        context_.space->give_verdict(number, verdict_of(end.error));
        if (end.error != 0) {
            context_.records.connection(Event::FAILED, one->subject, one->verdict.rule, end.why);
            return drop(id);
        }
        one->subject.dialled = end.route.place;
        one->outside_socket = std::move(end.socket);
        await(*one);
    });
}

// It arrives at the listener; a guest that gave up meanwhile does not.
void Connections::await(Connection& connection) {
    const Pair pair{connection.guest, connection.subject.outside};
    if (auto old = awaited_.find(pair); old != awaited_.end()) {
        const auto id = old->second;
        awaited_.erase(old);
        drop(id);
    }
    awaited_[pair] = connection.id;
    connection.timer = context_.loop.after(kClaimTimeout, [this, id = connection.id] {
        if (auto* one = find(id)) one->timer = 0;
        drop(id);
    });
}

void Connections::on_listener() {
    for (std::size_t i = 0; i < kMostAcceptsAtOnce; ++i) {
        os::Fd socket(::accept4(options_.listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
        if (!socket) return not_accepted(options_.listener.get(), errno);
        const auto guest = name_of(socket.get(), ::getpeername), outside = name_of(socket.get(), ::getsockname);
        if (guest && outside) arrived(std::move(socket), *guest, *outside);
    }
}

// With no descriptor or memory left, what waits at the listener goes on waiting, and the loop would hear of nothing else.
void Connections::not_accepted(int listener, int error) {
    if (error != EMFILE && error != ENFILE && error != ENOBUFS && error != ENOMEM) return;
    if (!context_.loop.modify(listener, 0)) return;
    context_.loop.after(kAcceptPause, [this, listener] {
        // A port may have been removed meanwhile, and its descriptor be somebody else's.
        const bool there = listener == options_.listener.get() || std::any_of(ports_.begin(), ports_.end(), [listener](const auto& port) { return port.second.get() == listener; });
        if (there) static_cast<void>(context_.loop.modify(listener, EPOLLIN));
    });
}

void Connections::arrived(os::Fd socket, const Endpoint& guest, const Endpoint& outside) {
    set_no_delay(socket);
    if (is_gateway(outside.address) && outside.port == kNameServerPort) return options_.name_server(std::move(socket));
    const auto awaited = awaited_.find({guest, outside});
    // Nobody has judged it: whatever this is, it ends here.
    if (awaited == awaited_.end()) return reset_at_close(socket);
    auto* connection = find(awaited->second);
    awaited_.erase(awaited);
    if (connection == nullptr) return reset_at_close(socket);
    if (connection->timer != 0) context_.loop.cancel(connection->timer);
    connection->timer = 0;
    connection->inside = std::move(socket);
    if (connection->by_name) return peek(*connection);
    if (connection->verdict.looks || context_.learn) return peek(*connection);
    run(*connection, std::move(connection->outside_socket));
}

// ---- the name that it shows ----

void Connections::peek(Connection& connection) {
    const auto id = connection.id;
    if (!context_.loop.watch(connection.inside.get(), EPOLLIN, [this, id](std::uint32_t) { on_first_bytes(id); })) return drop(id);
    connection.peeking = true;
    // Where connections show names, clients speak first: whoever waits there may want to be taken for one that shows none.
    const bool shows_name = Policy::shows_name(connection.subject.outside.port, Protocol::kTcp);
    if (connection.outside_socket && !shows_name && context_.loop.watch(connection.outside_socket.get(), EPOLLIN, [this, id](std::uint32_t) { on_server_first(id); }))
        connection.listening = true;
    connection.timer = context_.loop.after(kNameTimeout, [this, id, shows_name] {
        auto* one = find(id);
        if (one == nullptr) return;
        one->timer = 0;
        // Elsewhere a name only would be judged as well, and it need not show one; nor may it show half of one.
        if ((!shows_name && one->first.empty()) || only_learns(*one)) return judge_hello(*one, std::nullopt, false);
        deny(*one, {.rule = one->verdict.rule, .reason = "it showed no name in time"}, false);
    });
}

void Connections::on_first_bytes(Id id) {
    auto* connection = find(id);
    if (connection == nullptr) return;
    auto& first = connection->first;
    const auto before = first.size();
    first.resize(kMostFirstBytes);
    const auto got = ::recv(connection->inside.get(), first.data() + before, first.size() - before, 0);
    first.resize(before + static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0 && connection->by_name) return deny(*connection, {.rule = connection->verdict.rule, .reason = "it showed no name"}, false);
    if (got <= 0) return judge_hello(*connection, std::nullopt, false);
    const auto shown = peek_first_bytes(first);
    if (std::holds_alternative<NeedMore>(shown)) return;
    if (auto* hello = std::get_if<TlsHello>(&shown)) return judge_hello(*connection, hello->server_name, false);
    if (auto* head = std::get_if<HttpHead>(&shown)) {
        const bool of_another = head->is_connect || head->is_absolute || (head->host && head->host->port && *head->host->port != connection->subject.outside.port);
        if (of_another && connection->by_name) return deny(*connection, {.rule = connection->verdict.rule, .reason = "it asks for another port, or as of a proxy"}, true);
        return judge_hello(*connection, head->host ? std::optional(head->host->name) : std::nullopt, true);
    }
    auto* malformed = std::get_if<Malformed>(&shown);
    if (malformed != nullptr && !only_learns(*connection)) return deny(*connection, {.rule = connection->verdict.rule, .reason = "what it begins with is malformed: " + malformed->why}, false);
    judge_hello(*connection, std::nullopt, false);
}

// No rule wants to know its name, so nothing that it shows or does not show is held against it.
bool Connections::only_learns(const Connection& connection) { return !connection.by_name && !connection.verdict.looks; }

// A client that waits for its server to speak first shows no name.
void Connections::on_server_first(Id id) {
    on_first_bytes(id);
    auto* connection = find(id);
    if (connection == nullptr || !connection->peeking) return;
    if (connection->first.empty()) return judge_hello(*connection, std::nullopt, false);
    // It has begun to say something, and goes on to.
    context_.loop.unwatch(connection->outside_socket.get());
    connection->listening = false;
}

void Connections::judge_hello(Connection& connection, const std::optional<std::string>& name, bool is_http) {
    context_.loop.unwatch(connection.inside.get());
    connection.peeking = false;
    if (connection.listening) context_.loop.unwatch(connection.outside_socket.get());
    connection.listening = false;
    if (connection.timer != 0) context_.loop.cancel(connection.timer);
    connection.timer = 0;
    const auto port = connection.subject.outside.port;
    if (name) connection.subject.name = *name;
    if (!connection.by_name) {
        if (name && !only_learns(connection))
            if (auto verdict = context_.policy.judge_shown(connection.verdict, *name, port, Protocol::kTcp); !verdict.allowed()) return deny(connection, verdict, is_http);
        return run(connection, std::move(connection.outside_socket));
    }
    if (!name) return deny(connection, {.rule = connection.verdict.rule, .reason = "it shows no name"}, is_http);
    auto verdict = context_.policy.judge_name(*name, port, Protocol::kTcp);
    if (!verdict.allowed()) return deny(connection, verdict, is_http);
    connection.verdict = verdict;
    resolve(connection);
}

void Connections::deny(Connection& connection, const Verdict& verdict, bool is_http) {
    context_.records.connection(Event::DENIED, connection.subject, verdict.rule, verdict.reason);
    if (is_http) {
        const auto page = forbidden_page(verdict.rule);
        // A fresh connection takes as little as this at once.
        static_cast<void>(::send(connection.inside.get(), page.data(), page.size(), MSG_NOSIGNAL));
        ::shutdown(connection.inside.get(), SHUT_WR);
    } else if (connection.inside) {
        if (connection.peeking) context_.loop.unwatch(connection.inside.get());
        connection.peeking = false;
        reset_at_close(connection.inside);
    }
    drop(connection.id);
}

// What the guest thinks is the name's address is of no interest.
void Connections::resolve(Connection& connection) {
    const auto family = context_.ipv6 ? dns::Family::kBoth : dns::Family::kV4;
    connection.ticket = context_.resolver->resolve(connection.subject.name, family, [this, id = connection.id](const dns::Resolved& resolved) {
        auto* one = find(id);
        if (one == nullptr) return;
        one->ticket = 0;
        dial_name(*one, resolved);
    });
}

void Connections::dial_name(Connection& connection, const dns::Resolved& resolved) {
    // As they are: to the outside, the gateway's address is that of somebody else, and no way to the host's loopback.
    std::vector<Route> routes;
    for (const auto& address : resolved.addresses) {
        const Endpoint place{address, connection.subject.outside.port};
        context_.look_at(address);
        if (routes.size() < kMostDialledAddresses && context_.policy.judge_resolved(connection.subject.name, place, Protocol::kTcp).allowed())
            routes.push_back(context_.route_to(place));
    }
    if (routes.empty())
        return failed(connection, resolved.addresses.empty() ? dns::to_string(resolved.kind) : "none of its addresses may be used");
    connection.subject.use(routes.front());
    connection.dial = Dial::start(context_.loop, std::move(routes), [this, id = connection.id](Dial::End end) {
        auto* one = find(id);
        if (one == nullptr) return;
        if (end.error != 0) return failed(*one, end.why);
        one->subject.dialled = end.route.place;
        one->subject.use(end.route);
        // The policy may have changed meanwhile.
        if (auto refusal = refusal_of(*one)) return deny(*one, *refusal, false);
        run(*one, std::move(end.socket));
    });
}

void Connections::failed(Connection& connection, const std::string& reason) {
    context_.records.connection(Event::FAILED, connection.subject, connection.verdict.rule, reason);
    if (connection.inside) reset_at_close(connection.inside);
    drop(connection.id);
}

// ---- it runs ----

void Connections::run(Connection& connection, os::Fd outside) {
    const auto id = connection.id;
    connection.dial.reset();
    set_no_delay(outside);
    context_.records.connection(Event::ALLOWED, connection.subject, connection.verdict.rule, connection.verdict.reason);
    Pump::Options options;
    options.inside = std::move(connection.inside);
    options.outside = std::move(outside);
    options.first = std::move(connection.first);
    options.rates[0] = &context_.rates[0];
    options.rates[1] = &context_.rates[1];
    options.scratch = &context_.scratch;
    connection.pump = std::make_unique<Pump>(context_.loop, std::move(options), [this, id](int error) { end(id, error); });
    if (!connection.pump->start()) end(id, ENOBUFS);
}

void Connections::end(Id id, int error) {
    auto* connection = find(id);
    if (connection == nullptr) return;
    record_end(*connection, error == 0 ? "" : std::strerror(error));
    drop(id);
}

void Connections::record_end(Connection& connection, const std::string& reason) {
    auto& subject = connection.subject;
    subject.bytes_out = connection.pump->bytes(Way::kOut);
    subject.bytes_in = connection.pump->bytes(Way::kIn);
    context_.records.connection(Event::ENDED, subject, connection.verdict.rule, reason);
}

// Later: its pump or its dial may be what just runs.
void Connections::drop(Id id) {
    auto found = all_.find(id);
    if (found == all_.end()) return;
    if (auto awaited = awaited_.find({found->second->guest, found->second->subject.outside}); awaited != awaited_.end() && awaited->second == id)
        awaited_.erase(awaited);
    gone_.push_back(std::move(found->second));
    all_.erase(found);
    if (clearing_ == 0)
        clearing_ = context_.loop.after(std::chrono::milliseconds(0), [this] {
            clearing_ = 0;
            gone_.clear();
        });
}

// Why the policy, as it is now, does not let a connection go on that it let begin.
std::optional<Verdict> Connections::refusal_of(const Connection& connection) const {
    const auto& subject = connection.subject;
    Verdict verdict;
    if (connection.by_name && !subject.name.empty()) {
        // It goes where its name leads, and not where the guest thought.
        verdict = subject.dialled.port != 0 ? context_.policy.judge_resolved(subject.name, subject.dialled, Protocol::kTcp)
                                            : context_.policy.judge_name(subject.name, subject.outside.port, Protocol::kTcp);
    } else {
        verdict = context_.judge(subject.outside, Protocol::kTcp);
        // A pin need not outlive what was begun through it.
        if (!verdict.allowed() && !connection.verdict.pinned.empty())
            verdict = context_.policy.judge_resolved(connection.verdict.pinned, subject.outside, Protocol::kTcp);
        if (verdict.answer == Verdict::Answer::kNeedsName) {
            if (connection.by_name) return std::nullopt;  // its name will be judged when it shows it
            return Verdict{.rule = verdict.rule, .reason = "it has shown no name"};
        }
        if (!subject.name.empty()) verdict = context_.policy.judge_shown(verdict, subject.name, subject.outside.port, Protocol::kTcp);
    }
    return verdict.allowed() ? std::nullopt : std::optional(verdict);
}

void Connections::judge_again() {
    std::vector<Id> gone;
    for (auto& [id, connection] : all_) {
        if (connection->subject.published) continue;
        const auto refusal = refusal_of(*connection);
        if (!refusal) {
            look_anew(*connection);
            continue;
        }
        context_.records.connection(Event::DENIED, connection->subject, refusal->rule, "the policy was changed: " + refusal->reason);
        gone.push_back(id);
    }
    for (const auto id : gone) cut(*find(id));
}

// One that has not shown its name yet, and now may have to.
void Connections::look_anew(Connection& connection) {
    if (connection.by_name || connection.pump) return;
    auto verdict = context_.judge(connection.subject.outside, Protocol::kTcp);
    if (verdict.allowed()) connection.verdict = std::move(verdict);
}

// Both sides hear of it at once.
void Connections::cut(Connection& connection) {
    if (connection.pump) connection.pump->cut();
    if (connection.inside) reset_at_close(connection.inside);
    if (connection.outside_socket) reset_at_close(connection.outside_socket);
    drop(connection.id);
}

// ---- published ports ----

Result<> Connections::publish(os::Fd listener, std::uint16_t guest_port, std::uint16_t number) {
    CAISSON_TRY(os::set_nonblocking(listener.get(), true));
    const int fd = listener.get();
    CAISSON_TRY(context_.loop.watch(fd, EPOLLIN, [this, fd, guest_port, number](std::uint32_t) { on_port(fd, guest_port, number); }));
    ports_[number] = std::move(listener);
    return {};
}

void Connections::unpublish(std::uint32_t number) {
    const auto port = ports_.find(number);
    if (port == ports_.end()) return;
    context_.loop.unwatch(port->second.get());
    ports_.erase(port);
    std::vector<Id> gone;
    for (const auto& [id, connection] : all_)
        if (connection->port == number) gone.push_back(id);
    for (const auto id : gone) {
        auto& connection = *find(id);
        if (connection.pump) record_end(connection, "the port is not published any more");
        cut(connection);
    }
}

void Connections::on_port(int listener, std::uint16_t guest_port, std::uint16_t number) {
    for (std::size_t i = 0; i < kMostAcceptsAtOnce; ++i) {
        os::Fd socket(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
        if (!socket) return not_accepted(listener, errno);
        const auto from = name_of(socket.get(), ::getpeername);
        if (!from || !has_room()) {
            reset_at_close(socket);
            continue;
        }
        auto& connection = add(Endpoint{*Address::parse(kGuestAddress), guest_port}, *from);
        connection.subject.published = true;
        connection.port = number;
        connection.verdict.rule = "port " + std::to_string(guest_port);
        connection.outside_socket = std::move(socket);
        context_.space->dial(connection.guest, Protocol::kTcp, [this, id = connection.id](os::Fd made, int error) {
            auto* one = find(id);
            if (one == nullptr) return;
            if (error != 0) {
                reset_at_close(one->outside_socket);
                return failed(*one, std::strerror(error));
            }
            one->inside = std::move(made);
            const int fd = one->inside.get();
            auto watched = context_.loop.watch(fd, EPOLLOUT, [this, id, fd](std::uint32_t) {
                auto* there = find(id);
                if (there == nullptr) return;
                context_.loop.unwatch(fd);
                there->peeking = false;
                int failure = 0;
                socklen_t length = sizeof failure;
                ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &length);
                if (failure == 0) return run(*there, std::move(there->outside_socket));
                reset_at_close(there->outside_socket);
                failed(*there, std::strerror(failure));
            });
            if (!watched) return drop(id);
            one->peeking = true;
        });
    }
}

}  // namespace caisson::net::relay
