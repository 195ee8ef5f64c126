#include "agent/init.h"

#include <linux/capability.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/credentials.h"

namespace caisson::agent {

[[noreturn]] void run_container_init() {
    ::prctl(PR_SET_NAME, "init");
    ::prctl(PR_SET_DUMPABLE, 0);
    if (!set_capabilities(1ULL << CAP_KILL)) ::_exit(1);
    sigset_t all;
    ::sigfillset(&all);
    ::sigprocmask(SIG_SETMASK, &all, nullptr);
    ::syscall(SYS_close_range, 0U, ~0U, 0U);

    sigset_t wanted;
    ::sigemptyset(&wanted);
    ::sigaddset(&wanted, SIGCHLD);
    ::sigaddset(&wanted, SIGUSR1);
    for (;;) {
        siginfo_t info{};
        int signal = ::sigwaitinfo(&wanted, &info);
        if (signal == SIGCHLD) {
            while (::waitpid(-1, nullptr, WNOHANG) > 0) {
            }
        } else if (signal == SIGUSR1 && info.si_code == SI_QUEUE && info.si_pid == 0) {
            // The kernel shows a sender outside of this pid namespace as process 0.
            int number = info.si_value.sival_int;
            if (number >= 1 && number < NSIG) ::kill(-1, number);
        }
    }
}

}  // namespace caisson::agent
