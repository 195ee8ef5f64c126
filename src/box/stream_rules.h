// What guest and clients may send each other on the streams of one execution. The supervisor passes frames on between
// peers of which one, the guest, is hostile: these rules bound what it ever has to hold for either, and what the guest
// can make a client believe. Pure: no descriptors, no clock.
//
// Several clients may listen to one execution. Credit is counted in positions, bytes since its beginning: each client
// says up to where it takes output, and the guest may send up to the lowest of these. So a client that stops reading
// holds the command up, as on a pipe of its own, and nothing is ever held for it beyond what it asked for.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "base/result.h"
#include "wire/frame.h"

namespace caisson::box {

// One client's part in an execution's streams.
struct ClientStreams {
    bool output = false;  // it gets what the guest writes
    bool input = false;   // what it writes goes to the guest; at most one client at a time
    std::array<std::uint64_t, 2> limits{};  // up to where it takes each output
    std::array<bool, 2> unwanted{};         // nobody reads that output behind it any more
    bool takes(wire::Channel channel) const;
};

class StreamRules {
  public:
    // `execution`: whose streams these are.
    explicit StreamRules(std::uint32_t execution) : execution_(execution) {}

    // A client that begins to listen now has room for a first window.
    ClientStreams join(bool output, bool input) const;

    // A data, end-of-file or credit frame. kProtocol if its sender may not send it; the message says why, in words that
    // follow "the guest broke the protocol: " and "the client ...".
    //
    // The guest sends output for which it was granted credit, ends each output once and sends nothing behind that, and
    // gives credit for no more input than there was: it could else make the supervisor swallow all of a client's.
    Result<> from_guest(const wire::FrameView& frame);
    // A client sends input for which the guest gave credit, and credit for output.
    Result<> from_client(ClientStreams& client, const wire::FrameView& frame);

    // What the guest is to be granted now so that it can send what all `clients` take; without one that listens, a
    // whole window, for then its output is merely recorded.
    std::uint32_t grant(wire::Channel channel, const std::vector<const ClientStreams*>& clients);
    // Has the guest sent more than this client takes? Only if it was left out of a grant.
    bool behind(const ClientStreams& client, wire::Channel channel) const;
    // Bytes that a client which gets the input now may send before the guest gives credit.
    std::uint32_t input_credit() const;
    bool input_ended() const { return input_ended_; }

  private:
    struct Output {
        std::uint64_t sent = 0;                       // by the guest
        std::uint64_t limit = wire::kInitialCredit;   // up to where it may send
        bool ended = false;
    };

    std::uint32_t execution_;
    std::array<Output, 2> outputs_;
    std::uint64_t input_sent_ = 0;     // bytes, by clients
    std::uint64_t input_granted_ = 0;  // bytes beyond the first window, by the guest
    bool input_ended_ = false;
};

}  // namespace caisson::box
