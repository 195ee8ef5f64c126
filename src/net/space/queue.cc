#include "net/space/queue.h"

#include <arpa/inet.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <linux/netlink.h>

#include <cstring>

#include "net/space/netlink.h"
#include "net/space/rules.h"

namespace caisson::net {

namespace {

constexpr std::uint16_t kPacketType = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET;
constexpr std::uint16_t kVerdictType = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_VERDICT;

std::size_t aligned(std::size_t length) { return (length + NLA_ALIGNTO - 1) / NLA_ALIGNTO * NLA_ALIGNTO; }

template <typename T>
T load(base::ByteView bytes) {
    T value;
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
}

// Calls with type and value of each attribute.
template <typename Use>
void each_attribute(base::ByteView bytes, const Use& use) {
    while (bytes.size() >= sizeof(nlattr)) {
        const auto header = load<nlattr>(bytes);
        if (header.nla_len < sizeof header || header.nla_len > bytes.size()) return;
        use(static_cast<std::uint16_t>(header.nla_type & NLA_TYPE_MASK), bytes.subspan(sizeof header, header.nla_len - sizeof header));
        bytes = bytes.subspan(std::min(aligned(header.nla_len), bytes.size()));
    }
}

}  // namespace

std::vector<Queued> parse_queue(base::ByteView messages) {
    std::vector<Queued> packets;
    while (messages.size() >= sizeof(nlmsghdr)) {
        const auto header = load<nlmsghdr>(messages);
        if (header.nlmsg_len < sizeof header || header.nlmsg_len > messages.size()) break;
        constexpr std::size_t kFixed = NLMSG_HDRLEN + NLMSG_ALIGN(sizeof(nfgenmsg));
        if (header.nlmsg_type == kPacketType && header.nlmsg_len >= kFixed) {
            Queued queued;
            bool numbered = false;
            each_attribute(messages.subspan(kFixed, header.nlmsg_len - kFixed), [&](std::uint16_t type, base::ByteView value) {
                if (type == NFQA_PACKET_HDR && value.size() >= sizeof(nfqnl_msg_packet_hdr)) {
                    queued.number = ntohl(load<nfqnl_msg_packet_hdr>(value).packet_id);
                    numbered = true;
                }
                if (type == NFQA_PAYLOAD) queued.bytes = value;
            });
            if (numbered) packets.push_back(queued);
        }
        messages = messages.subspan(std::min(aligned(header.nlmsg_len), messages.size()));
    }
    return packets;
}

base::Bytes verdict_message(std::uint32_t packet, std::uint32_t verdict, std::uint32_t mark) {
    nfgenmsg fixed{};
    fixed.nfgen_family = AF_UNSPEC;
    fixed.version = NFNETLINK_V0;
    fixed.res_id = htons(kGateQueue);
    NetlinkBatch batch;
    batch.begin_quiet(kVerdictType, base::bytes_of(fixed));
    nfqnl_msg_verdict_hdr header{};
    header.verdict = htonl(verdict);
    header.id = htonl(packet);
    batch.attribute(NFQA_VERDICT_HDR, base::bytes_of(header));
    if (mark != 0) batch.big_number32(NFQA_MARK, mark);
    return {batch.bytes().begin(), batch.bytes().end()};
}

}  // namespace caisson::net
