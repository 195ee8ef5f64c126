// Fd: the one owner of a file descriptor. Move-only; closes in the destructor; -1 is "none".
#pragma once

#include <unistd.h>

#include <utility>

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

}  // namespace caisson::os
