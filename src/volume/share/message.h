// FUSE messages as they come from the guest's kernel, or from whoever took the guest over: a length, an operation and
// its arguments, nothing of which is believed. Pure; fuzz/share_message.cc.
//
// Source: include/uapi/linux/fuse.h of Linux, whose structures these are, and https://docs.kernel.org/filesystems/fuse.html.
#pragma once

#include <linux/fuse.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <optional>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"
#include "wire/share.h"

namespace caisson::volume::share {

// What one WRITE carries, and one READ returns, at most.
inline constexpr std::size_t kMaxDataBytes = wire::kShareSlotBytes;
inline constexpr std::size_t kMaxMessageBytes = kMaxDataBytes + 4096;
inline constexpr std::size_t kMaxNameBytes = 255;

struct Message {
    fuse_in_header header;
    base::ByteView arguments;  // of the buffer that it was read from
};

// The first message of `bytes`; nullopt: it is not complete yet. kProtocol: no length that a message can have.
Result<std::optional<Message>> first_message(base::ByteView bytes);

// Takes the arguments of one message apart, front to back. After the first thing that is not there, everything reads as
// empty and ok() is false.
class Arguments {
  public:
    explicit Arguments(base::ByteView bytes) : rest_(bytes) {}

    // By value: nothing in the buffer is aligned.
    template <typename T>
    T take() {
        T value{};
        if (rest_.size() < sizeof(T)) {
            fail();
            return value;
        }
        std::memcpy(&value, rest_.data(), sizeof(T));
        rest_ = rest_.subspan(sizeof(T));
        return value;
    }
    // One part of a path: neither empty nor "." nor "..", no slash, at most kMaxNameBytes, ended by a null.
    std::string_view name();
    // Any text that is ended by a null, of at most `limit` bytes.
    std::string_view text(std::size_t limit);
    base::ByteView bytes(std::size_t count);

    bool ok() const { return ok_; }
    // What the guest is to be told if not ok(): ENAMETOOLONG or EINVAL.
    int error() const { return error_; }

  private:
    void fail(int error = EINVAL) {
        if (ok_) error_ = error;
        ok_ = false;
        rest_ = {};
    }
    base::ByteView rest_;
    bool ok_ = true;
    int error_ = 0;
};

}  // namespace caisson::volume::share
