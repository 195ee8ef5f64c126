#include "volume/share/control.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/text.h"

namespace caisson::volume::share {

using base::failure;
using base::failure_errno;

namespace {
constexpr std::size_t kMaxPacketBytes = 4096;
constexpr std::size_t kMostDescriptors = 2;
}  // namespace

std::string encode(const Order& order) {
    switch (order.kind) {
        case Order::Kind::kMount:
            return "mount " + std::to_string(order.number) + (order.read_only ? " ro " : " rw ") + std::to_string(order.limit_bytes) +
                   " " + std::to_string(order.owner) + " " + std::to_string(order.group);
        case Order::Kind::kUnmount: return "unmount " + std::to_string(order.number);
        case Order::Kind::kEnd: break;
    }
    return "end";
}

Result<Order> parse_order(std::string_view text) {
    auto words = base::split(text, ' ');
    Order order;
    const auto wrong = [&] { return failure(Errc::kProtocol, "'" + base::printable(text, 100) + "' is no order for a share server"); };
    if (text == "end") {
        order.kind = Order::Kind::kEnd;
        return order;
    }
    auto number = words.size() > 1 ? base::parse_u64(words[1]) : Result<std::uint64_t>(wrong());
    if (!number || *number > UINT32_MAX) return wrong();
    order.number = static_cast<std::uint32_t>(*number);
    if (words[0] == "unmount" && words.size() == 2) {
        order.kind = Order::Kind::kUnmount;
        return order;
    }
    if (words[0] != "mount" || words.size() != 6 || (words[2] != "ro" && words[2] != "rw")) return wrong();
    auto limit = base::parse_u64(words[3]);
    auto owner = base::parse_u64(words[4]);
    auto group = base::parse_u64(words[5]);
    if (!limit || *limit > INT64_MAX || !owner || *owner > UINT32_MAX || !group || *group > UINT32_MAX) return wrong();
    order.owner = static_cast<std::uint32_t>(*owner);
    order.group = static_cast<std::uint32_t>(*group);
    order.read_only = words[2] == "ro";
    order.limit_bytes = *limit;
    return order;
}

Result<> give_order(int socket, const Order& order) {
    auto text = encode(order);
    alignas(cmsghdr) std::array<char, CMSG_SPACE(kMostDescriptors * sizeof(int))> control{};
    iovec part{text.data(), text.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (!order.descriptors.empty()) {
        CAISSON_CHECK(order.descriptors.size() <= kMostDescriptors);
        message.msg_control = control.data();
        message.msg_controllen = CMSG_SPACE(order.descriptors.size() * sizeof(int));
        auto* header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(order.descriptors.size() * sizeof(int));
        for (std::size_t i = 0; i < order.descriptors.size(); ++i) {
            const int number = order.descriptors[i].get();
            std::memcpy(CMSG_DATA(header) + i * sizeof number, &number, sizeof number);
        }
    }
    const auto silent = [] { return failure(Errc::kTimeout, "the share server does not answer"); };
    if (::sendmsg(socket, &message, MSG_NOSIGNAL) < 0) {
        if (errno == EAGAIN) return silent();
        return failure_errno("the share server is gone");
    }
    char answer[kMaxPacketBytes];
    const ssize_t length = ::recv(socket, answer, sizeof answer, 0);
    if (length < 0 && errno == EAGAIN) return silent();
    if (length <= 0) return failure(Errc::kCancelled, "the share server is gone");
    std::string_view said(answer, static_cast<std::size_t>(length));
    if (said == "ok") return {};
    constexpr std::string_view kError = "error ";
    return failure(Errc::kIo, base::starts_with(said, kError) ? base::printable(said.substr(kError.size()), 1000) : "the share server answered nonsense");
}

Result<std::optional<Order>> take_order(int socket) {
    char text[kMaxPacketBytes];
    alignas(cmsghdr) std::array<char, CMSG_SPACE(kMostDescriptors * sizeof(int))> control{};
    iovec part{text, sizeof text};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t length = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    if (length < 0) return failure_errno("cannot read an order");
    if (length == 0) return std::nullopt;
    std::vector<os::Fd> descriptors;
    for (auto* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
        for (std::size_t i = 0; i < (header->cmsg_len - CMSG_LEN(0)) / sizeof(int); ++i) {
            int number = -1;
            std::memcpy(&number, CMSG_DATA(header) + i * sizeof number, sizeof number);
            descriptors.emplace_back(number);
        }
    }
    auto order = CAISSON_TRY(parse_order({text, static_cast<std::size_t>(length)}));
    order.descriptors = std::move(descriptors);
    return std::optional<Order>(std::move(order));
}

void answer_order(int socket, const Result<>& done) {
    std::string text = done ? "ok" : "error " + done.error().to_string();
    text.resize(std::min(text.size(), kMaxPacketBytes));
    static_cast<void>(::send(socket, text.data(), text.size(), MSG_NOSIGNAL));
}

}  // namespace caisson::volume::share
