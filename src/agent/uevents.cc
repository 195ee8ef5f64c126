#include "agent/uevents.h"

#include <linux/netlink.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "os/fd.h"

namespace caisson::agent {

using base::failure_errno;

Result<> wait_for_device(const std::function<bool()>& ready, std::chrono::milliseconds deadline, const char* what) {
    if (ready()) return {};
    os::Fd socket(::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT));
    if (!socket) return failure_errno("cannot listen for devices");
    sockaddr_nl address{};
    address.nl_family = AF_NETLINK;
    address.nl_groups = 1;  // the kernel's own events
    if (::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
        return failure_errno("cannot listen for devices");
    auto end = std::chrono::steady_clock::now() + deadline;
    while (!ready()) {
        auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
        if (left.count() <= 0) return base::failure(Errc::kTimeout, std::string(what) + " did not appear in time");
        // Not every change has an event (a name may be set after it), so it is asked at least every 50 ms.
        pollfd entry{socket.get(), POLLIN, 0};
        if (::poll(&entry, 1, static_cast<int>(std::min<long long>(left.count(), 50))) < 0 && errno != EINTR)
            return failure_errno("cannot listen for devices");
        char buffer[4096];
        while (::recv(socket.get(), buffer, sizeof buffer, 0) > 0) {
        }
    }
    return {};
}

}  // namespace caisson::agent
