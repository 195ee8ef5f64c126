// caisson-shim: started by libcaisson only. See shim.h.
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>

#include "box/shim.h"

int main() {
    ::umask(0077);
    ::signal(SIGPIPE, SIG_IGN);
    // Nobody of the same user reads this process's memory or takes its descriptors.
    ::prctl(PR_SET_DUMPABLE, 0);
    if (::fcntl(caisson::box::kShimClientFd, F_SETFD, FD_CLOEXEC) != 0) {
        std::fprintf(stderr, "caisson-shim is started by caisson itself; see: caisson --help\n");
        return 2;
    }
    ::fcntl(caisson::box::kShimLockFd, F_SETFD, FD_CLOEXEC);  // absent while a template is made
    ::fcntl(caisson::box::kShimKvmFd, F_SETFD, FD_CLOEXEC);   // absent under software emulation
    auto served = caisson::box::serve(caisson::os::Fd(caisson::box::kShimClientFd));
    if (!served) {
        std::fprintf(stderr, "caisson-shim: %s\n", served.error().to_string().c_str());
        return 1;
    }
    return 0;
}
