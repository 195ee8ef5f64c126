#include "net/space/netlink.h"

#include <linux/netlink.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cerrno>
#include <chrono>
#include <cstring>

namespace caisson::net {

using base::failure;
using base::failure_errno;

namespace {

constexpr std::size_t kAlignment = NLMSG_ALIGNTO;
constexpr std::chrono::seconds kAnswerPatience{10};

template <typename T>
void put(base::Bytes& bytes, std::size_t at, const T& value) {
    std::memcpy(bytes.data() + at, &value, sizeof value);
}

}  // namespace

void NetlinkBatch::pad() { bytes_.resize((bytes_.size() + kAlignment - 1) / kAlignment * kAlignment); }

void NetlinkBatch::grow_message() {
    put(bytes_, message_ + offsetof(nlmsghdr, nlmsg_len), static_cast<std::uint32_t>(bytes_.size() - message_));
}

void NetlinkBatch::open_message(std::uint16_t type, std::uint16_t flags, base::ByteView fixed) {
    message_ = bytes_.size();
    nlmsghdr header{};
    header.nlmsg_type = type;
    header.nlmsg_flags = static_cast<std::uint16_t>(flags | NLM_F_REQUEST);
    header.nlmsg_seq = static_cast<std::uint32_t>(whats_.size());
    base::append(bytes_, base::bytes_of(header));
    base::append(bytes_, fixed);
    pad();
    grow_message();
}

void NetlinkBatch::begin(std::string what, std::uint16_t type, std::uint16_t flags, base::ByteView fixed) {
    open_message(type, static_cast<std::uint16_t>(flags | NLM_F_ACK), fixed);
    whats_.push_back(std::move(what));
    ++answers_;
}

void NetlinkBatch::begin_quiet(std::uint16_t type, base::ByteView fixed) {
    open_message(type, 0, fixed);
    whats_.emplace_back("begin or end a transaction");
}

void NetlinkBatch::attribute(std::uint16_t type, base::ByteView value) {
    const auto start = open_nest(type);
    base::append(bytes_, value);
    close_nest(start);
}

void NetlinkBatch::text(std::uint16_t type, std::string_view value) {
    const auto start = open_nest(type);
    base::append(bytes_, base::as_bytes(value));
    bytes_.push_back(0);
    close_nest(start);
}

void NetlinkBatch::number8(std::uint16_t type, std::uint8_t value) { attribute(type, base::bytes_of(value)); }
void NetlinkBatch::number32(std::uint16_t type, std::uint32_t value) { attribute(type, base::bytes_of(value)); }

void NetlinkBatch::big_number32(std::uint16_t type, std::uint32_t value) {
    std::uint8_t big[4];
    base::store_be32(big, value);
    attribute(type, big);
}

std::size_t NetlinkBatch::open_nest(std::uint16_t type) {
    const auto start = bytes_.size();
    nlattr header{};
    header.nla_type = type;
    base::append(bytes_, base::bytes_of(header));
    return start;
}

void NetlinkBatch::close_nest(std::size_t start) {
    put(bytes_, start + offsetof(nlattr, nla_len), static_cast<std::uint16_t>(bytes_.size() - start));
    pad();
    grow_message();
}

std::string_view NetlinkBatch::what(std::uint32_t sequence) const {
    return sequence < whats_.size() ? std::string_view(whats_[sequence]) : std::string_view();
}

Result<NetlinkSocket> NetlinkSocket::open(int protocol) {
    os::Fd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol));
    if (!fd) return failure_errno("cannot talk to the kernel over netlink");
    // Answers need not repeat the request; and a kernel that never answers is an error in the end.
    const int on = 1;
    static_cast<void>(::setsockopt(fd.get(), SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on));
    const struct timeval patience {kAnswerPatience.count(), 0};
    if (::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) != 0)
        return failure_errno("cannot limit how long the kernel is waited for");
    return NetlinkSocket(std::move(fd));
}

Result<> NetlinkSocket::carry_out(const NetlinkBatch& batch) const {
    const auto all = batch.bytes();
    if (::send(fd_.get(), all.data(), all.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(all.size()))
        return failure_errno("cannot send requests to the kernel");
    alignas(nlmsghdr) char room[8192];
    for (std::size_t answered = 0; answered < batch.answers();) {
        const ssize_t got = ::recv(fd_.get(), room, sizeof room, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return failure_errno("the kernel does not answer to netlink");
        auto left = static_cast<unsigned>(got);
        for (auto* header = reinterpret_cast<nlmsghdr*>(room); NLMSG_OK(header, left); header = NLMSG_NEXT(header, left)) {
            if (header->nlmsg_type != NLMSG_ERROR || header->nlmsg_len < NLMSG_LENGTH(sizeof(nlmsgerr))) continue;
            const int error = static_cast<const nlmsgerr*>(NLMSG_DATA(header))->error;
            if (error != 0) return failure_errno("cannot " + std::string(batch.what(header->nlmsg_seq)), -error);
            ++answered;
        }
    }
    return {};
}

}  // namespace caisson::net
