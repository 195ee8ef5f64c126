#include "net/relay/dial.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "net/proxy/limits.h"
#include "net/relay/limits.h"

namespace caisson::net::relay {

std::unique_ptr<Dial> Dial::start(os::Loop& loop, std::vector<Route> routes, Done done) {
    std::unique_ptr<Dial> made(new Dial(loop, std::move(routes), std::move(done)));
    // Not at once, so that `done` never comes before this returns.
    made->timer_ = loop.after(std::chrono::milliseconds(0), [dial = made.get()] {
        dial->timer_ = 0;
        dial->next();
    });
    return made;
}

Dial::~Dial() { forget(); }

void Dial::forget() {
    if (socket_) loop_.unwatch(socket_.get());
    socket_.reset();
    if (timer_ != 0) loop_.cancel(timer_);
    timer_ = 0;
    questions_.clear();
    answer_.clear();
    asked_ = 0;
}

void Dial::next() {
    if (at_ >= routes_.size()) {
        auto done = std::move(done_);
        return done({os::Fd(), first_error_ != 0 ? first_error_ : EHOSTUNREACH, {}, std::move(first_why_)});
    }
    const auto& route = routes_[at_];
    const auto address = to_socket(route.proxy ? route.proxy->place : route.place);
    socket_ = os::Fd(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!socket_) return failed(errno);
    const int on = 1;
    ::setsockopt(socket_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (::connect(socket_.get(), address.get(), address.length) != 0 && errno != EINPROGRESS) return failed(errno);
    if (!loop_.watch(socket_.get(), EPOLLOUT, [this](std::uint32_t) { questions_.empty() ? on_connected() : on_answer(); })) return failed(ENOBUFS);
    timer_ = loop_.after(kDialTimeout, [this] {
        timer_ = 0;
        failed(ETIMEDOUT, questions_.empty() ? std::string() : "the proxy does not answer in time");
    });
}

void Dial::failed(int error, std::string why) {
    const bool no_proxy = routes_[at_].proxy && questions_.empty();
    if (why.empty()) why = std::string(no_proxy ? "the proxy is not reached: " : "") + std::strerror(error);
    if (first_error_ == 0) {
        first_error_ = error;
        first_why_ = std::move(why);
    }
    forget();
    // Where that is not reached, what else is behind it is not either.
    do ++at_;
    while (no_proxy && at_ < routes_.size() && routes_[at_].proxy);
    next();
}

void Dial::on_connected() {
    int error = 0;
    socklen_t length = sizeof error;
    if (::getsockopt(socket_.get(), SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
    if (error != 0) return failed(error);
    const auto& route = routes_[at_];
    if (!route.proxy) return connected();
    questions_ = proxy_questions(route.proxy->kind, route.place);
    if (!loop_.modify(socket_.get(), EPOLLIN)) return failed(ENOBUFS);
    ask();
}

// A fresh connection takes as little as this at once.
void Dial::ask() {
    const auto& said = questions_[asked_].said;
    const auto sent = ::send(socket_.get(), said.data(), said.size(), MSG_NOSIGNAL);
    if (sent != static_cast<ssize_t>(said.size())) return failed(EHOSTUNREACH, "the proxy does not take the question");
}

// No byte is taken from the socket that belongs to the connection: those stay for whoever reads it next.
void Dial::on_answer() {
    const auto before = answer_.size();
    answer_.resize(kMostProxyAnswerBytes);
    const auto got = ::recv(socket_.get(), answer_.data() + before, answer_.size() - before, MSG_PEEK);
    const int error = errno;
    answer_.resize(before + (got > 0 ? static_cast<std::size_t>(got) : 0));
    if (got < 0 && (error == EAGAIN || error == EINTR)) return;
    if (got < 0) return failed(EHOSTUNREACH, std::string("the proxy does not answer: ") + std::strerror(error));
    if (got == 0) return failed(EHOSTUNREACH, "the proxy closed the connection without an answer");
    const auto answer = questions_[asked_].read(answer_);
    if (answer && answer->error != 0) return failed(answer->error, answer->why);
    const auto taken = (answer ? answer->bytes : answer_.size()) - before;
    base::Bytes gone(taken);
    if (::recv(socket_.get(), gone.data(), gone.size(), 0) != static_cast<ssize_t>(taken)) return failed(EHOSTUNREACH, "the proxy's answer is gone");
    if (!answer) return;
    answer_.clear();
    if (++asked_ == questions_.size()) return connected();
    ask();
}

void Dial::connected() {
    loop_.unwatch(socket_.get());
    auto socket = std::move(socket_);
    auto route = std::move(routes_[at_]);
    forget();
    auto done = std::move(done_);
    done({std::move(socket), 0, std::move(route), {}});
}

os::Fd connect_udp(const Endpoint& place, int& error) {
    const auto address = to_socket(place);
    os::Fd socket(::socket(address.storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (socket && ::connect(socket.get(), address.get(), address.length) == 0) return socket;
    error = errno;
    return {};
}

}  // namespace caisson::net::relay
