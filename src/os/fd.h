// Fd: the one owner of a file descriptor. Move-only; closes in the destructor; -1 is "none".
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace caisson::os {

class Fd {
  public:
    Fd() = default;
    explicit Fd(int number) : number_(number) {}
    Fd(Fd&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
    Fd& operator=(Fd&& other) noexcept {
        if (this != &other) reset(std::exchange(other.number_, -1));
        return *this;
    }
    Fd(const Fd&) = delete;
    Fd& operator=(const Fd&) = delete;
    ~Fd() { reset(); }

    int get() const { return number_; }
    explicit operator bool() const { return number_ >= 0; }
    int release() { return std::exchange(number_, -1); }
    void reset(int number = -1) {
        if (number_ >= 0) ::close(number_);
        number_ = number;
    }
    // A second descriptor for the same open file, close-on-exec.
    Result<Fd> duplicate() const;

  private:
    int number_ = -1;
};

struct FdPair {
    Fd first;
    Fd second;
};

// pipe2(2): first is the reading end. Close-on-exec, blocking.
Result<FdPair> make_pipe();
// socketpair(2), AF_UNIX, close-on-exec. `type` is SOCK_STREAM or SOCK_SEQPACKET.
Result<FdPair> make_socketpair(int type);
Result<> set_nonblocking(int fd, bool on);

// One packet of a SOCK_SEQPACKET socket, whole or not at all, with descriptors (SCM_RIGHTS, at most
// kMostPacketDescriptors), which stay the caller's; without any by send(2), for who may not call sendmsg(2). Again after
// EINTR. false: errno says why.
inline constexpr std::size_t kMostPacketDescriptors = 3;
bool send_packet(int socket, std::string_view bytes, const std::vector<Fd>& descriptors = {});
struct Packet {
    ssize_t length = 0;  // -1: errno says why; 0: the other end is gone
    std::vector<Fd> descriptors;
    bool cut = false;    // it was longer than `room`, or had more descriptors than there may be
};
Packet receive_packet(int socket, std::span<char> room);

}  // namespace caisson::os
