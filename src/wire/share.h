// The port of shares carries FUSE messages and, before them, one of ours: as whom the box's command runs. It looks like a
// FUSE request, so that both sides need one way of reading only.
#pragma once

#include <array>
#include <cstdint>

namespace caisson::wire {

inline constexpr std::uint32_t kShareIdentity = 0xca150001;  // its operation; arguments: user, group

struct ShareIdentity {
    std::uint32_t user;
    std::uint32_t group;
};

// struct fuse_in_header (length, operation, five more numbers that mean nothing here), then the arguments.
inline std::array<std::uint8_t, 48> share_identity(std::uint32_t user, std::uint32_t group) {
    std::array<std::uint8_t, 48> message{};
    auto put = [&message](std::size_t at, std::uint32_t value) {
        for (std::size_t i = 0; i < 4; ++i) message[at + i] = static_cast<std::uint8_t>(value >> (8 * i));
    };
    put(0, message.size());
    put(4, kShareIdentity);
    put(40, user);
    put(44, group);
    return message;
}

}  // namespace caisson::wire
