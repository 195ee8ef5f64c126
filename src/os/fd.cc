#include "os/fd.h"

#include <fcntl.h>
#include <sys/socket.h>

namespace caisson::os {

using base::failure_errno;

Result<Fd> Fd::duplicate() const {
    int copy = ::fcntl(number_, F_DUPFD_CLOEXEC, 0);
    if (copy < 0) return failure_errno("duplicating a file descriptor");
    return Fd(copy);
}

Result<FdPair> make_pipe() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return failure_errno("making a pipe");
    return FdPair{Fd(ends[0]), Fd(ends[1])};
}

Result<FdPair> make_socketpair(int type) {
    int ends[2];
    if (::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends) != 0) return failure_errno("making a socket pair");
    return FdPair{Fd(ends[0]), Fd(ends[1])};
}

Result<> set_nonblocking(int fd, bool on) {
    int flags = ::fcntl(fd, F_GETFL);
    if (flags < 0) return failure_errno("reading the flags of a file descriptor");
    int wanted = on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
    if (wanted != flags && ::fcntl(fd, F_SETFL, wanted) != 0)
        return failure_errno("setting the flags of a file descriptor");
    return {};
}

}  // namespace caisson::os
