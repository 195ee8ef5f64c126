// caisson-netd: started by the launcher of a box, see netd.h.
#include <signal.h>
#include <sys/prctl.h>

#include <cstdio>

#include "net/relay/netd.h"

int main() {
    ::signal(SIGPIPE, SIG_IGN);
    ::prctl(PR_SET_DUMPABLE, 0);
    using namespace caisson;
    auto served = net::relay::serve(os::Fd(net::relay::kOrdersFd), os::Fd(net::relay::kEventsFd));
    if (served) return 0;
    std::fprintf(stderr, "caisson-netd: %s\n", served.error().to_string().c_str());
    return 1;
}
