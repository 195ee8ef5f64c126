#include "os/thread.h"

#include <signal.h>

#include <system_error>

namespace caisson::os {

Result<std::thread> start_quiet_thread(std::function<void()> body) {
    sigset_t all, before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = 0;
    std::thread thread;
    try {
        thread = std::thread(std::move(body));
    } catch (const std::system_error& refused) {
        error = refused.code().value();
    }
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (error != 0) return base::failure_errno("cannot start a thread", error);
    return thread;
}

}  // namespace caisson::os
