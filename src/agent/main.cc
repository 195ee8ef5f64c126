// PID 1 of the guest.
#include <malloc.h>
#include <unistd.h>

#include "agent/boot.h"
#include "agent/log.h"
#include "agent/session.h"
#include "os/loop.h"

namespace caisson::agent {
namespace {

Result<> live() {
    auto guest = CAISSON_TRY_CTX(boot(), "booting the guest");
    auto loop = CAISSON_TRY(os::Loop::create());
    Session session(std::move(guest), loop);
    return session.run();
}

}  // namespace
}  // namespace caisson::agent

int main() {
    // Memory that was once used stays with the process, and a little more is taken in advance: a restored agent should
    // not have to ask the kernel for pages.
    ::mallopt(M_TRIM_THRESHOLD, 64 << 20);
    ::mallopt(M_TOP_PAD, 512 << 10);
    if (::getpid() != 1) {
        constexpr char kText[] = "caisson-agent is the first process of a caisson guest; it cannot be started by hand\n";
        static_cast<void>(!::write(2, kText, sizeof kText - 1));
        return 1;
    }
    auto lived = caisson::agent::live();
    if (!lived) caisson::agent::log_failure(lived.error().to_string());
    caisson::agent::power_off();
}
