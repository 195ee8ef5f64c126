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

#include "net/space/test_guest.h"

namespace {

using namespace caisson;
using namespace caisson::net::testing_space;
using Clock = std::chrono::steady_clock;

void print(const char* what, Clock::duration took) {
    std::printf("%s %.1f\n", what, std::chrono::duration<double, std::micro>(took).count());
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
        box->launcher.reset();
        static_cast<void>(box->netns.wait());
        *box = Box();
        print("end", Clock::now() - ending);
    }
    auto box = Box::start(user);
    if (!box) return 1;
    auto guest = Guest::create(box->tap);
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
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3 || !become_able()) return 2;
    return measure(std::atoi(argv[1]), std::atoi(argv[2]));
}
