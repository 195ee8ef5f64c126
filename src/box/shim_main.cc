// caisson-shim: started by libcaisson only, see shim.h; and by itself as launcher.h and
// listener.h say.
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <string_view>

#include "box/launcher.h"
#include "box/listener.h"
#include "box/shim.h"

int main(int count, char** words) {
    ::umask(0077);
    ::signal(SIGPIPE, SIG_IGN);
    // Nobody of the same user reads this process's memory or takes its descriptors.
    ::prctl(PR_SET_DUMPABLE, 0);
    if (::fcntl(caisson::box::kShimClientFd, F_SETFD, FD_CLOEXEC) != 0) {
        std::fprintf(stderr, "caisson-shim is started by caisson itself; see: caisson --help\n");
        return 2;
    }
    if (count > 1 && std::string_view(words[0]) == caisson::box::kListenerName)
        return caisson::box::serve_as_listener(caisson::os::Fd(caisson::box::kShimClientFd), words[1]);
    ::fcntl(caisson::box::kShimKvmFd, F_SETFD, FD_CLOEXEC);   // absent under software emulation
    ::fcntl(caisson::box::kShimTunFd, F_SETFD, FD_CLOEXEC);   // absent without a network
    if (count > 0 && std::string_view(words[0]) == caisson::box::kLauncherName)
        return caisson::box::serve_as_launcher(caisson::os::Fd(caisson::box::kShimClientFd));
    ::fcntl(caisson::box::kShimLockFd, F_SETFD, FD_CLOEXEC);  // absent while a template is made
    auto served = caisson::box::serve(caisson::os::Fd(caisson::box::kShimClientFd));
    if (!served) {
        std::fprintf(stderr, "caisson-shim: %s\n", served.error().to_string().c_str());
        return 1;
    }
    return 0;
}
