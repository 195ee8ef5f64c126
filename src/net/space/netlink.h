// Requests to the kernel over netlink(7), many in one packet. Building them is pure; NetlinkSocket sends them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "os/fd.h"

namespace caisson::net {

// Requests one after the other, as they are sent. Each one asks for an answer.
class NetlinkBatch {
  public:
    // Begins a request. `what` says what it does, for its error ("cannot " and that); `type` and `flags` are nlmsghdr's
    // (NLM_F_REQUEST and NLM_F_ACK are added); `fixed` is the structure in front of its attributes.
    void begin(std::string what, std::uint16_t type, std::uint16_t flags, base::ByteView fixed);
    // The same without an answer: begin and end of a transaction.
    void begin_quiet(std::uint16_t type, base::ByteView fixed);

    void attribute(std::uint16_t type, base::ByteView value);
    void text(std::uint16_t type, std::string_view value);  // with the zero byte at its end
    void number8(std::uint16_t type, std::uint8_t value);
    void number32(std::uint16_t type, std::uint32_t value);      // this machine's order: routing netlink
    void big_number32(std::uint16_t type, std::uint32_t value);  // the network's order: netfilter netlink
    // What `body` adds lies within an attribute of `type`.
    template <typename Body>
    void nested(std::uint16_t type, const Body& body) {
        const auto start = open_nest(static_cast<std::uint16_t>(type | kNested));
        body();
        close_nest(start);
    }

    base::ByteView bytes() const { return bytes_; }
    std::size_t answers() const { return answers_; }
    // What the request with this sequence number does; empty if there is none.
    std::string_view what(std::uint32_t sequence) const;

  private:
    static constexpr std::uint16_t kNested = 0x8000;  // NLA_F_NESTED
    void open_message(std::uint16_t type, std::uint16_t flags, base::ByteView fixed);
    std::size_t open_nest(std::uint16_t type);
    void close_nest(std::size_t start);
    void pad();
    void grow_message();

    base::Bytes bytes_;
    std::size_t message_ = 0;  // where the last one begins
    std::vector<std::string> whats_;
    std::size_t answers_ = 0;
};

class NetlinkSocket {
  public:
    // `protocol`: NETLINK_ROUTE, NETLINK_NETFILTER. In the namespace of the calling thread.
    static Result<NetlinkSocket> open(int protocol);
    // Sends it as one packet and waits for every answer. The first that is an error is the error: "cannot " and what the
    // request does, with its errno.
    Result<> carry_out(const NetlinkBatch& batch) const;
    const os::Fd& fd() const { return fd_; }
    os::Fd take() { return std::move(fd_); }

  private:
    explicit NetlinkSocket(os::Fd fd) : fd_(std::move(fd)) {}
    os::Fd fd_;
};

}  // namespace caisson::net
