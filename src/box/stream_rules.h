// What guest and client may send each other on the streams of a box's main command. The supervisor passes frames on
// between two peers of which one, the guest, is hostile: these rules bound what it ever has to hold for either, and
// what the guest can make the client believe. Pure: no descriptors, no clock.
#pragma once

#include <array>
#include <cstdint>

#include "base/result.h"
#include "wire/frame.h"

namespace caisson::box {

class StreamRules {
  public:
    // `execution`: the only one that has streams.
    explicit StreamRules(std::uint32_t execution) : execution_(execution) {}

    // A data, end-of-file or credit frame. kProtocol if its sender may not send it; the message says why, in words that
    // follow "the guest broke the protocol: " and "the client ...".
    //
    // The guest sends output for which the client gave credit, ends each output once and sends nothing behind that, and
    // gives credit for no more input than there was: it could else make the supervisor swallow all of the client's.
    Result<> from_guest(const wire::FrameView& frame);
    // The client sends input for which the guest gave credit, and credit for output.
    Result<> from_client(const wire::FrameView& frame);
    // For a client that has left: what the guest has to be granted so that it can send a whole window of output again.
    std::uint32_t refill(wire::Channel channel);

  private:
    struct Output {
        wire::SendWindow window;  // what the guest may still send
        bool ended = false;       // by the guest
        bool unwanted = false;    // the client's reader is gone
    };
    Output* output(wire::Channel channel);

    std::uint32_t execution_;
    std::array<Output, 2> outputs_;
    std::uint64_t input_sent_ = 0;     // bytes, by the client
    std::uint64_t input_granted_ = 0;  // bytes beyond the first window, by the guest
    bool input_ended_ = false;
};

}  // namespace caisson::box
