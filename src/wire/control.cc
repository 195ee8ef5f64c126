#include "wire/control.h"

#include "wire/frame.h"

namespace caisson::wire {

using base::Bytes;
using base::ByteView;
using base::failure;

namespace {

Result<> append_message(Bytes& out, const google::protobuf::MessageLite& message) {
    std::size_t size = message.ByteSizeLong();
    if (size > kMaxControlBytes)
        return failure(Errc::kLimit, "a message of " + std::to_string(size) + " bytes is larger than the limit of " +
                                         std::to_string(kMaxControlBytes));
    CAISSON_CHECK(size > 0);
    std::size_t at = out.size();
    out.resize(at + kHeaderBytes + size);
    store_header(out.data() + at, static_cast<std::uint32_t>(size), 0, FrameType::kControl);
    message.SerializeWithCachedSizesToArray(out.data() + at + kHeaderBytes);
    return {};
}

Result<> bounded(const std::string& text, const char* what) {
    if (text.size() > kMaxTextBytes) return failure(Errc::kProtocol, std::string("the agent sent an endless ") + what);
    return {};
}

Result<> valid_id(std::uint32_t id) {
    if (id == 0 || id > kMaxExecutionId) return failure(Errc::kProtocol, "the agent named an impossible execution");
    return {};
}

}  // namespace

Result<> append_control(Bytes& out, const ToAgent& message) { return append_message(out, message); }
Result<> append_control(Bytes& out, const FromAgent& message) { return append_message(out, message); }

Result<ToAgent> parse_to_agent(ByteView payload) {
    ToAgent message;
    if (!message.ParseFromArray(payload.data(), static_cast<int>(payload.size())))
        return failure(Errc::kProtocol, "the host sent a control frame that is not a message");
    if (message.message_case() == ToAgent::MESSAGE_NOT_SET)
        return failure(Errc::kProtocol, "the host sent a message of an unknown kind");
    return message;
}

Result<FromAgent> parse_from_agent(ByteView payload) {
    FromAgent message;
    if (!message.ParseFromArray(payload.data(), static_cast<int>(payload.size())))
        return failure(Errc::kProtocol, "the agent sent a control frame that is not a message");
    switch (message.message_case()) {
        case FromAgent::MESSAGE_NOT_SET:
            return failure(Errc::kProtocol, "the agent sent a message of an unknown kind");
        case FromAgent::kHello: CAISSON_TRY(bounded(message.hello().software(), "software name")); break;
        case FromAgent::kConfigureFailed:
            CAISSON_TRY(bounded(message.configure_failed().message(), "message"));
            break;
        case FromAgent::kLimitsSet: CAISSON_TRY(bounded(message.limits_set().message(), "message")); break;
        case FromAgent::kSharesChanged: CAISSON_TRY(bounded(message.shares_changed().message(), "message")); break;
        case FromAgent::kStarted:
            CAISSON_TRY(valid_id(message.started().id()));
            if (message.started().pid() < 0) return failure(Errc::kProtocol, "the agent named an impossible process");
            break;
        case FromAgent::kStartFailed:
            CAISSON_TRY(valid_id(message.start_failed().id()));
            CAISSON_TRY(bounded(message.start_failed().message(), "message"));
            if (!StartFailed::Kind_IsValid(message.start_failed().kind()))
                return failure(Errc::kProtocol, "the agent gave a reason of an unknown kind");
            break;
        case FromAgent::kExited: {
            const auto& exited = message.exited();
            CAISSON_TRY(valid_id(exited.id()));
            bool possible = exited.signalled() ? exited.code() >= 1 && exited.code() <= 64
                                               : exited.code() >= 0 && exited.code() <= 255;
            if (!possible) return failure(Errc::kProtocol, "the agent reported an impossible exit status");
            break;
        }
        case FromAgent::kConfigured:
        case FromAgent::kPrepared:
        case FromAgent::kClockSet:
        case FromAgent::kShutDown: break;
    }
    return message;
}

}  // namespace caisson::wire
