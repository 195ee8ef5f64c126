#include "box/stream_rules.h"

#include <algorithm>

namespace caisson::box {

using base::failure;
using wire::Channel;
using wire::FrameType;

namespace {

// 0 and 1 for the outputs, -1 for anything else.
int output_index(Channel channel) {
    if (channel == Channel::kStdout) return 0;
    if (channel == Channel::kStderr) return 1;
    return -1;
}

}  // namespace

bool ClientStreams::takes(Channel channel) const {
    const int index = output_index(channel);
    return output && index >= 0 && !unwanted[static_cast<std::size_t>(index)];
}

ClientStreams StreamRules::join(bool output, bool input) const {
    ClientStreams client;
    client.output = output;
    client.input = input;
    for (std::size_t i = 0; i < outputs_.size(); ++i) client.limits[i] = outputs_[i].sent + wire::kInitialCredit;
    return client;
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
    const int index = output_index(channel);
    if (index < 0) return failure(Errc::kProtocol, "it wrote to an input stream");
    auto& output = outputs_[static_cast<std::size_t>(index)];
    if (output.ended)
        return failure(Errc::kProtocol, frame.type == FrameType::kEof ? "it ended a stream twice" : "it wrote behind the end of a stream");
    if (frame.type == FrameType::kEof) {
        output.ended = true;
        return {};
    }
    if (frame.payload.size() > output.limit - output.sent)
        return failure(Errc::kProtocol, "it sent more than it had credit for");
    output.sent += frame.payload.size();
    return {};
}

Result<> StreamRules::from_client(ClientStreams& client, const wire::FrameView& frame) {
    if (wire::execution_of(frame.stream) != execution_)
        return failure(Errc::kProtocol, "wrote to a stream that does not exist");
    const auto channel = wire::channel_of(frame.stream);
    if (const int output = output_index(channel); output >= 0) {
        const auto index = static_cast<std::size_t>(output);
        if (!client.output || frame.type == FrameType::kData || client.unwanted[index])
            return failure(Errc::kProtocol, "wrote to an output stream");
        if (frame.type == FrameType::kCredit) {
            client.limits[index] += wire::credit_of(frame);
            if (client.limits[index] > outputs_[index].sent + wire::kMaxCredit)
                return failure(Errc::kProtocol, "granted more credit than there may be");
            return {};
        }
        // An end of file on an output says that nobody reads it any more.
        client.unwanted[index] = true;
        return {};
    }
    if (channel != Channel::kStdin || frame.type == FrameType::kCredit)
        return failure(Errc::kProtocol, "granted credit for its own input");
    if (!client.input) return failure(Errc::kProtocol, "sent input to what takes another's");
    if (input_ended_) return failure(Errc::kProtocol, "wrote behind the end of its input");
    if (frame.type == FrameType::kEof) {
        input_ended_ = true;
        return {};
    }
    if (frame.payload.size() > input_credit()) return failure(Errc::kProtocol, "sent more input than it had credit for");
    input_sent_ += frame.payload.size();
    return {};
}

std::uint32_t StreamRules::grant(Channel channel, const std::vector<const ClientStreams*>& clients) {
    const int output_number = output_index(channel);
    if (output_number < 0) return 0;
    const auto index = static_cast<std::size_t>(output_number);
    auto& output = outputs_[index];
    bool listened = false;
    std::uint64_t limit = UINT64_MAX;
    for (const auto* client : clients) {
        if (!client->takes(channel)) continue;
        listened = true;
        limit = std::min(limit, client->limits[index]);
    }
    if (!listened) {
        limit = output.sent + wire::kInitialCredit;
        // Half a window at a time, so that credit frames stay few.
        if (output.limit > output.sent + wire::kInitialCredit / 2) return 0;
    }
    if (output.ended || limit <= output.limit) return 0;
    const auto granted = static_cast<std::uint32_t>(limit - output.limit);
    output.limit = limit;
    return granted;
}

bool StreamRules::behind(const ClientStreams& client, Channel channel) const {
    const int index = output_index(channel);
    return index >= 0 && outputs_[static_cast<std::size_t>(index)].sent > client.limits[static_cast<std::size_t>(index)];
}

std::uint32_t StreamRules::input_credit() const {
    return static_cast<std::uint32_t>(input_granted_ + wire::kInitialCredit - input_sent_);
}

}  // namespace caisson::box
