#include "net/relay/dial.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>

#include "net/relay/limits.h"

namespace caisson::net::relay {

std::unique_ptr<Dial> Dial::start(os::Loop& loop, std::vector<Endpoint> places, Done done) {
    std::unique_ptr<Dial> made(new Dial(loop, std::move(places), std::move(done)));
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
}

void Dial::next() {
    if (at_ == places_.size()) {
        auto done = std::move(done_);
        return done({os::Fd(), first_error_ != 0 ? first_error_ : EHOSTUNREACH, {}});
    }
    const auto address = to_socket(places_[at_]);
    socket_ = os::Fd(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!socket_) return failed(errno);
    const int on = 1;
    ::setsockopt(socket_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (::connect(socket_.get(), address.get(), address.length) != 0 && errno != EINPROGRESS) return failed(errno);
    if (!loop_.watch(socket_.get(), EPOLLOUT, [this](std::uint32_t) { on_writable(); })) return failed(ENOBUFS);
    timer_ = loop_.after(kDialTimeout, [this] {
        timer_ = 0;
        failed(ETIMEDOUT);
    });
}

void Dial::failed(int error) {
    if (first_error_ == 0) first_error_ = error;
    forget();
    ++at_;
    next();
}

void Dial::on_writable() {
    int error = 0;
    socklen_t length = sizeof error;
    if (::getsockopt(socket_.get(), SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
    if (error != 0) return failed(error);
    loop_.unwatch(socket_.get());
    auto socket = std::move(socket_);
    const auto place = places_[at_];
    forget();
    auto done = std::move(done_);
    done({std::move(socket), 0, place});
}

os::Fd connect_udp(const Endpoint& place, int& error) {
    const auto address = to_socket(place);
    os::Fd socket(::socket(address.storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (socket && ::connect(socket.get(), address.get(), address.length) == 0) return socket;
    error = errno;
    return {};
}

}  // namespace caisson::net::relay
