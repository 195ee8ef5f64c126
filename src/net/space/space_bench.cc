// What a box's network costs on the host: its start, and the beginning of a connection that waits for a verdict. Lines of
// one number each, in microseconds, behind a word that says what was measured. See bench/net-space.
//
//   net_space_bench STARTS CONNECTIONS
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "net/space/test_guest.h"

namespace {

using namespace caisson;
using namespace caisson::net::testing_space;
using Clock = std::chrono::steady_clock;

void print(const char* what, Clock::duration took) {
    std::printf("%s %.1f\n", what, std::chrono::duration<double, std::micro>(took).count());
}

// Of one connection that carries so many bytes from the guest: microseconds a gigabyte.
void carry(const Box& box, Guest& guest, std::size_t bytes) {
    auto client = guest.connect({net::Address::parse("192.0.2.7").value(), 443});
    auto question = box.hear(2000);
    if (!question) return;
    box.judge(question->number, net::NetnsMessage::Verdict::kAccept);
    auto accepted = box.accept(2000);
    if (outcome(client, 2000) != 0 || !accepted) return;
    std::thread sender([&] {
        const std::string piece(1 << 18, 'x');
        static_cast<void>(os::set_nonblocking(client.get(), false));
        for (std::size_t sent = 0; sent < bytes;) {
            const ssize_t part = ::send(client.get(), piece.data(), piece.size(), MSG_NOSIGNAL);
            if (part <= 0) break;
            sent += static_cast<std::size_t>(part);
        }
        client.reset();
    });
    const auto begun = Clock::now();
    std::string room(1 << 18, 0);
    std::size_t received = 0;
    for (ssize_t part = 1; part > 0; received += static_cast<std::size_t>(part > 0 ? part : 0)) part = ::recv(accepted.get(), room.data(), room.size(), 0);
    const double seconds = std::chrono::duration<double>(Clock::now() - begun).count();
    sender.join();
    std::printf("gigabyte %.1f\n", seconds * 1e6 * 1e9 / static_cast<double>(received));
}

int measure(int starts, int connections) {
    // A launcher is an ordinary user; root starts it as nobody.
    const uid_t user = ::geteuid() == 0 ? 65534 : ::geteuid();
    for (int i = 0; i < starts; ++i) {
        const auto begun = Clock::now();
        auto box = Box::start(user);
        if (!box) return std::fprintf(stderr, "%s\n", box.error().to_string().c_str()), 1;
        print("start", Clock::now() - begun);
        const auto ending = Clock::now();
        *box = Box();
        print("end", Clock::now() - ending);
    }
    auto box = Box::start(user);
    if (!box) return 1;
    auto guest = Guest::create(box->host.tap);
    if (!guest) return std::fprintf(stderr, "%s\n", guest.error().to_string().c_str()), 1;
    for (int i = 0; i < connections; ++i) {
        const net::Endpoint outside{net::Address::parse(i % 2 == 0 ? "192.0.2.7" : "2001:db8::7").value(), 443};
        const auto begun = Clock::now();
        auto client = (*guest)->connect(outside);
        auto question = box->hear(2000);
        if (!question) return std::fprintf(stderr, "nobody asked\n"), 1;
        print("asked", Clock::now() - begun);
        box->judge(question->number, net::NetnsMessage::Verdict::kAccept);
        if (outcome(client, 2000) != 0) return std::fprintf(stderr, "not connected\n"), 1;
        print("connect", Clock::now() - begun);
        static_cast<void>(box->accept(2000));
    }
    for (int i = 0; i < 5; ++i) carry(*box, **guest, 1'000'000'000);
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3 || !become_able()) return 2;
    return measure(std::atoi(argv[1]), std::atoi(argv[2]));
}
