#include "volume/share/message.h"

#include <algorithm>

namespace caisson::volume::share {

using base::failure;

Result<std::optional<Message>> first_message(base::ByteView bytes) {
    if (bytes.size() < sizeof(std::uint32_t)) return std::nullopt;
    std::uint32_t length = 0;
    std::memcpy(&length, bytes.data(), sizeof length);
    if (length < sizeof(fuse_in_header) || length > kMaxMessageBytes)
        return failure(Errc::kProtocol, "the guest sent a file system message of " + std::to_string(length) + " bytes");
    if (bytes.size() < length) return std::nullopt;
    Message message{};
    std::memcpy(&message.header, bytes.data(), sizeof message.header);
    message.arguments = bytes.subspan(sizeof message.header, length - sizeof message.header);
    return message;
}

std::string_view Arguments::text(std::size_t limit) {
    const auto* end = rest_.empty() ? nullptr : static_cast<const std::uint8_t*>(std::memchr(rest_.data(), 0, rest_.size()));
    const bool ended = end != nullptr;
    if (!ended || static_cast<std::size_t>(end - rest_.data()) > limit) {
        fail(ended ? ENAMETOOLONG : EINVAL);
        return {};
    }
    const auto length = static_cast<std::size_t>(end - rest_.data());
    std::string_view text(reinterpret_cast<const char*>(rest_.data()), length);
    rest_ = rest_.subspan(length + 1);
    return text;
}

std::string_view Arguments::name() {
    auto name = text(kMaxNameBytes);
    if (name.empty() || name == "." || name == ".." || name.find('/') != std::string_view::npos) {
        fail();
        return {};
    }
    return name;
}

base::ByteView Arguments::bytes(std::size_t count) {
    if (rest_.size() < count) {
        fail();
        return {};
    }
    auto taken = rest_.first(count);
    rest_ = rest_.subspan(count);
    return taken;
}

}  // namespace caisson::volume::share
