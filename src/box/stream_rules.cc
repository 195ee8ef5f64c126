#include "box/stream_rules.h"

namespace caisson::box {

using base::failure;
using wire::Channel;
using wire::FrameType;

StreamRules::Output* StreamRules::output(Channel channel) {
    if (channel == Channel::kStdout) return &outputs_[0];
    if (channel == Channel::kStderr) return &outputs_[1];
    return nullptr;
}

Result<> StreamRules::from_guest(const wire::FrameView& frame) {
    if (wire::execution_of(frame.stream) != execution_)
        return failure(Errc::kProtocol, "it wrote to a stream that does not exist");
    const auto channel = wire::channel_of(frame.stream);
    if (frame.type == FrameType::kCredit) {
        if (channel != Channel::kStdin) return failure(Errc::kProtocol, "it granted credit on its own output");
        input_granted_ += wire::credit_of(frame);
        if (input_granted_ > input_sent_) return failure(Errc::kProtocol, "it granted credit for input that it never got");
        return {};
    }
    auto* stream = output(channel);
    if (stream == nullptr) return failure(Errc::kProtocol, "it wrote to an input stream");
    if (stream->ended)
        return failure(Errc::kProtocol, frame.type == FrameType::kEof ? "it ended a stream twice" : "it wrote behind the end of a stream");
    if (frame.type == FrameType::kEof) {
        stream->ended = true;
        return {};
    }
    if (frame.payload.size() > stream->window.available())
        return failure(Errc::kProtocol, "it sent more than it had credit for");
    stream->window.consume(static_cast<std::uint32_t>(frame.payload.size()));
    return {};
}

std::uint32_t StreamRules::refill(wire::Channel channel) {
    auto* stream = output(channel);
    if (stream == nullptr || stream->window.available() >= wire::kInitialCredit) return 0;
    std::uint32_t grant = wire::kInitialCredit - stream->window.available();
    CAISSON_CHECK(stream->window.add(grant).has_value());  // far below the limit
    return grant;
}

Result<> StreamRules::from_client(const wire::FrameView& frame) {
    if (wire::execution_of(frame.stream) != execution_)
        return failure(Errc::kProtocol, "wrote to a stream that does not exist");
    const auto channel = wire::channel_of(frame.stream);
    if (auto* stream = output(channel)) {
        if (frame.type == FrameType::kCredit) return stream->window.add(wire::credit_of(frame));
        // An end of file on an output says that nobody reads it any more.
        if (frame.type == FrameType::kData || stream->unwanted)
            return failure(Errc::kProtocol, "wrote to an output stream");
        stream->unwanted = true;
        return {};
    }
    if (channel != Channel::kStdin || frame.type == FrameType::kCredit)
        return failure(Errc::kProtocol, "granted credit for its own input");
    if (input_ended_) return failure(Errc::kProtocol, "wrote behind the end of its input");
    if (frame.type == FrameType::kEof) {
        input_ended_ = true;
        return {};
    }
    if (input_sent_ + frame.payload.size() > input_granted_ + wire::kInitialCredit)
        return failure(Errc::kProtocol, "sent more input than it had credit for");
    input_sent_ += frame.payload.size();
    return {};
}

}  // namespace caisson::box
