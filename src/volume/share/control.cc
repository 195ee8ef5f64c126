#include "volume/share/control.h"

#include <sys/socket.h>

#include <cerrno>

#include "base/text.h"

namespace caisson::volume::share {

using base::failure;
using base::failure_errno;

namespace {
constexpr std::size_t kMaxPacketBytes = 4096;
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
    const auto silent = [] { return failure(Errc::kTimeout, "the share server does not answer"); };
    if (!os::send_packet(socket, encode(order), order.descriptors)) {
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
    auto packet = os::receive_packet(socket, text);
    if (packet.length < 0) return failure_errno("cannot read an order");
    if (packet.length == 0) return std::nullopt;
    auto order = CAISSON_TRY(parse_order({text, static_cast<std::size_t>(packet.length)}));
    order.descriptors = std::move(packet.descriptors);
    return std::optional<Order>(std::move(order));
}

void answer_order(int socket, const Result<>& done) {
    std::string text = done ? "ok" : "error " + done.error().to_string();
    text.resize(std::min(text.size(), kMaxPacketBytes));
    static_cast<void>(::send(socket, text.data(), text.size(), MSG_NOSIGNAL));
}

}  // namespace caisson::volume::share
