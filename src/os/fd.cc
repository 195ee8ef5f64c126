#include "os/fd.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstring>

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

bool send_packet(int socket, std::string_view bytes, const std::vector<Fd>& descriptors) {
    CAISSON_CHECK(descriptors.size() <= kMostPacketDescriptors);
    ssize_t sent;
    if (descriptors.empty()) {
        do sent = ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
        while (sent < 0 && errno == EINTR);
        return sent >= 0;
    }
    struct iovec part {const_cast<char*>(bytes.data()), bytes.size()};
    alignas(struct cmsghdr) char control[CMSG_SPACE(kMostPacketDescriptors * sizeof(int))]{};
    struct msghdr message {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(descriptors.size() * sizeof(int));
    auto* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(descriptors.size() * sizeof(int));
    for (std::size_t i = 0; i < descriptors.size(); ++i) {
        const int number = descriptors[i].get();
        std::memcpy(CMSG_DATA(rights) + i * sizeof number, &number, sizeof number);
    }
    do sent = ::sendmsg(socket, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent >= 0;
}

Packet receive_packet(int socket, std::span<char> room) {
    alignas(struct cmsghdr) char control[CMSG_SPACE(kMostPacketDescriptors * sizeof(int))];
    struct iovec part {room.data(), room.size()};
    struct msghdr message {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    Packet packet;
    do packet.length = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    while (packet.length < 0 && errno == EINTR);
    if (packet.length < 0) return packet;
    for (auto* rights = CMSG_FIRSTHDR(&message); rights != nullptr; rights = CMSG_NXTHDR(&message, rights)) {
        if (rights->cmsg_level != SOL_SOCKET || rights->cmsg_type != SCM_RIGHTS) continue;
        const auto count = (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (std::size_t i = 0; i < count; ++i) {
            int number = -1;
            std::memcpy(&number, CMSG_DATA(rights) + i * sizeof number, sizeof number);
            packet.descriptors.emplace_back(number);
        }
    }
    packet.cut = (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
    return packet;
}

}  // namespace caisson::os
