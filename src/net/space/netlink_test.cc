#include "net/space/netlink.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <linux/netlink.h>

#include "net/space/link.h"
#include "net/space/queue.h"
#include "net/space/rules.h"

namespace caisson::net {
namespace {

template <typename T>
T load(base::ByteView bytes, std::size_t at) {
    T value;
    std::memcpy(&value, bytes.data() + at, sizeof value);
    return value;
}

TEST(Netlink, MessagesAndAttributesAreWholeAndAligned) {
    NetlinkBatch batch;
    batch.begin("do one thing", 7, 0, base::as_bytes("abc"));
    batch.text(1, "ab");
    batch.nested(2, [&] { batch.big_number32(3, 0x01020304); });
    batch.begin("do another", 8, NLM_F_CREATE, {});
    const auto bytes = batch.bytes();
    const auto first = load<nlmsghdr>(bytes, 0);
    EXPECT_EQ(first.nlmsg_len, 16u + 4 + 8 + 12);
    EXPECT_EQ(first.nlmsg_flags, NLM_F_REQUEST | NLM_F_ACK);
    EXPECT_EQ(load<nlattr>(bytes, 20).nla_len, 7) << "four of the header, two letters, a zero";
    EXPECT_EQ(load<nlattr>(bytes, 28).nla_len, 12);
    EXPECT_EQ(load<nlattr>(bytes, 28).nla_type, 2 | NLA_F_NESTED);
    EXPECT_EQ(load<std::uint32_t>(bytes, 36), htonl(0x01020304));
    const auto second = load<nlmsghdr>(bytes, first.nlmsg_len);
    EXPECT_EQ(second.nlmsg_flags, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE);
    EXPECT_EQ(first.nlmsg_len + second.nlmsg_len, bytes.size());
    EXPECT_EQ(batch.answers(), 2u);
    EXPECT_EQ(batch.what(second.nlmsg_seq), "do another");
    EXPECT_EQ(batch.what(2), "");
}

TEST(Netlink, RequestsOfABoxFitOnePacket) {
    for (const auto& batch : {link_requests(2, 1), rule_requests(2, Queueing::kTables), rule_requests(2, Queueing::kXtables), queue_requests()}) {
        EXPECT_LT(batch.bytes().size(), 16384u);
        EXPECT_GT(batch.answers(), 0u);
        EXPECT_EQ(batch.bytes().size() % NLMSG_ALIGNTO, 0u);
    }
}

// A message of the queue, as the kernel writes it.
base::Bytes queued(std::uint32_t number, std::string_view packet) {
    nfgenmsg fixed{};
    NetlinkBatch batch;
    batch.begin_quiet(NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET, base::bytes_of(fixed));
    nfqnl_msg_packet_hdr header{};
    header.packet_id = htonl(number);
    batch.attribute(NFQA_PACKET_HDR, base::bytes_of(header));
    batch.number32(NFQA_MARK, 7);
    batch.attribute(NFQA_PAYLOAD, base::as_bytes(packet));
    return {batch.bytes().begin(), batch.bytes().end()};
}

TEST(Queue, PacketsAreFoundAmongMessages) {
    auto bytes = queued(7, "seven");
    base::append(bytes, verdict_message(1, NF_ACCEPT, 2));
    base::append(bytes, queued(9, ""));
    const auto packets = parse_queue(bytes);
    ASSERT_EQ(packets.size(), 2u);
    EXPECT_EQ(packets[0].number, 7u);
    EXPECT_EQ(base::as_text(packets[0].bytes), "seven");
    EXPECT_EQ(packets[1].number, 9u);
    EXPECT_TRUE(packets[1].bytes.empty());
}

TEST(Queue, WhatIsCutOffIsLeftOut) {
    const auto bytes = queued(7, "seven");
    for (std::size_t size = 0; size < bytes.size(); ++size) EXPECT_TRUE(parse_queue(base::ByteView(bytes).first(size)).empty()) << size;
}

}  // namespace
}  // namespace caisson::net
