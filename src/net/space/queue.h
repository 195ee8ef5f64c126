// The kernel's queue of packets that wait for a verdict, as it comes over netfilter netlink. Pure.
// Source: linux/netfilter/nfnetlink_queue.h
#pragma once

#include <cstdint>
#include <vector>

#include "base/bytes.h"

namespace caisson::net {

struct Queued {
    std::uint32_t number = 0;
    base::ByteView bytes;  // of the packet from its network header on, cut off; within what was parsed
};
// The packets among the messages of what one recv(2) got; others, answers to verdicts for instance, are passed over.
std::vector<Queued> parse_queue(base::ByteView messages);

// One request: `verdict` is NF_ACCEPT or NF_DROP; `mark` becomes the packet's, unless 0.
base::Bytes verdict_message(std::uint32_t packet, std::uint32_t verdict, std::uint32_t mark);

}  // namespace caisson::net
