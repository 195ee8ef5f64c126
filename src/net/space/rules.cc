#include "net/space/rules.h"

#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nf_tables_compat.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <linux/netlink.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>

#include "net/space/limits.h"
#include "net/space/protocol.h"

namespace caisson::net {

namespace {

constexpr const char* kTable = "caisson";
constexpr const char* kGate = "gate";
constexpr const char* kPath = "path";
// After fragments are put together (-400); the latter is where tproxy usually is (mangle).
constexpr std::int32_t kGatePriority = -160;
constexpr std::int32_t kPathPriority = -150;

base::Bytes netfilter_header(std::uint8_t family, std::uint16_t number = 0) {
    nfgenmsg header{};
    header.nfgen_family = family;
    header.version = NFNETLINK_V0;
    header.res_id = htons(number);
    const auto bytes = base::bytes_of(header);
    return {bytes.begin(), bytes.end()};
}

constexpr std::uint16_t tables_type(unsigned message) { return static_cast<std::uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | message); }

base::Bytes big16(std::uint16_t value) { return {static_cast<std::uint8_t>(value >> 8), static_cast<std::uint8_t>(value)}; }
base::Bytes wire(const char* text) {
    const auto address = Address::parse(text).value();
    return {address.bytes().begin() + (address.is_v4() ? 12 : 0), address.bytes().end()};
}

base::Bytes mapped_prefix() {
    constexpr std::size_t kPrefixBytes = 12;
    const auto bytes = Address::v4(0).bytes();
    return {bytes.begin(), bytes.begin() + kPrefixBytes};
}

// The expressions of one rule, left to right; the packet leaves it at the first that does not hold.
class Rule {
  public:
    explicit Rule(NetlinkBatch& batch) : batch_(batch) {}

    Rule& meta_is(std::uint32_t key, base::ByteView value, nft_cmp_ops compare = NFT_CMP_EQ) {
        load_meta(key);
        return cmp(value, compare);
    }
    Rule& mark_is(Mark mark) { return meta_is(NFT_META_MARK, base::bytes_of(static_cast<std::uint32_t>(mark))); }
    Rule& mark_is_not(Mark mark) { return meta_is(NFT_META_MARK, base::bytes_of(static_cast<std::uint32_t>(mark)), NFT_CMP_NEQ); }
    Rule& family_is(std::uint8_t family) { return meta_is(NFT_META_NFPROTO, base::bytes_of(family)); }
    Rule& protocol_is(std::uint8_t protocol) { return meta_is(NFT_META_L4PROTO, base::bytes_of(protocol)); }
    Rule& payload_is(nft_payload_bases header, std::uint32_t offset, base::ByteView value, nft_cmp_ops compare = NFT_CMP_EQ) {
        load_payload(header, offset, static_cast<std::uint32_t>(value.size()));
        return cmp(value, compare);
    }
    // TCP that may make a connection: SYN without ACK or RST, whatever else.
    Rule& begins_connection() {
        constexpr std::uint32_t kFlagsOffset = 13;
        constexpr std::uint8_t kSyn = 0x02, kRst = 0x04, kAck = 0x10;
        protocol_is(IPPROTO_TCP);
        load_payload(NFT_PAYLOAD_TRANSPORT_HEADER, kFlagsOffset, 1);
        expression("bitwise", [&] {
            batch_.big_number32(NFTA_BITWISE_SREG, NFT_REG_1);
            batch_.big_number32(NFTA_BITWISE_DREG, NFT_REG_1);
            batch_.big_number32(NFTA_BITWISE_LEN, 1);
            value(NFTA_BITWISE_MASK, base::bytes_of(static_cast<std::uint8_t>(kSyn | kRst | kAck)));
            value(NFTA_BITWISE_XOR, base::bytes_of(std::uint8_t{0}));
        });
        return cmp(base::bytes_of(kSyn), NFT_CMP_EQ);
    }
    // To the socket at `port` of this side; a packet for which there is none stays in the chain.
    Rule& led_to(std::uint16_t port) {
        expression("immediate", [&] {
            batch_.big_number32(NFTA_IMMEDIATE_DREG, NFT_REG_1);
            value(NFTA_IMMEDIATE_DATA, big16(port));
        });
        expression("tproxy", [&] {
            batch_.big_number32(NFTA_TPROXY_FAMILY, NFPROTO_UNSPEC);
            batch_.big_number32(NFTA_TPROXY_REG_PORT, NFT_REG_1);
        });
        return *this;
    }
    void verdict(std::uint32_t code) {
        expression("immediate", [&] {
            batch_.big_number32(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
            batch_.nested(NFTA_IMMEDIATE_DATA, [&] { batch_.nested(NFTA_DATA_VERDICT, [&] { batch_.big_number32(NFTA_VERDICT_CODE, code); }); });
        });
    }
    void queue(Queueing by) {
        if (by == Queueing::kTables)
            expression("queue", [&] { batch_.attribute(NFTA_QUEUE_NUM, big16(kGateQueue)); });
        else
            expression("target", [&] {
                batch_.text(NFTA_TARGET_NAME, "NFQUEUE");
                batch_.big_number32(NFTA_TARGET_REV, 0);
                // struct xt_NFQ_info, padded as the kernel wants it
                batch_.attribute(NFTA_TARGET_INFO, base::bytes_of(std::uint64_t{kGateQueue}));
            });
    }
    void reject(std::uint32_t type, std::uint8_t code) {
        expression("reject", [&] {
            batch_.big_number32(NFTA_REJECT_TYPE, type);
            batch_.number8(NFTA_REJECT_ICMP_CODE, code);
        });
    }

  private:
    template <typename Body>
    void expression(const char* name, const Body& body) {
        batch_.nested(NFTA_LIST_ELEM, [&] {
            batch_.text(NFTA_EXPR_NAME, name);
            batch_.nested(NFTA_EXPR_DATA, body);
        });
    }
    void value(std::uint16_t type, base::ByteView bytes) {
        batch_.nested(type, [&] { batch_.attribute(NFTA_DATA_VALUE, bytes); });
    }
    void load_meta(std::uint32_t key) {
        expression("meta", [&] {
            batch_.big_number32(NFTA_META_DREG, NFT_REG_1);
            batch_.big_number32(NFTA_META_KEY, key);
        });
    }
    void load_payload(nft_payload_bases header, std::uint32_t offset, std::uint32_t length) {
        expression("payload", [&] {
            batch_.big_number32(NFTA_PAYLOAD_DREG, NFT_REG_1);
            batch_.big_number32(NFTA_PAYLOAD_BASE, header);
            batch_.big_number32(NFTA_PAYLOAD_OFFSET, offset);
            batch_.big_number32(NFTA_PAYLOAD_LEN, length);
        });
    }
    Rule& cmp(base::ByteView bytes, nft_cmp_ops compare) {
        expression("cmp", [&] {
            batch_.big_number32(NFTA_CMP_SREG, NFT_REG_1);
            batch_.big_number32(NFTA_CMP_OP, compare);
            value(NFTA_CMP_DATA, bytes);
        });
        return *this;
    }

    NetlinkBatch& batch_;
};

template <typename Body>
void rule(NetlinkBatch& batch, const char* chain, const char* needs, const Body& body) {
    batch.begin("add a rule (the kernel part " + std::string(needs) + ")", tables_type(NFT_MSG_NEWRULE), NLM_F_CREATE | NLM_F_APPEND,
                netfilter_header(NFPROTO_INET));
    batch.text(NFTA_RULE_TABLE, kTable);
    batch.text(NFTA_RULE_CHAIN, chain);
    batch.nested(NFTA_RULE_EXPRESSIONS, [&] { body(Rule(batch)); });
}

void add_chain(NetlinkBatch& batch, const char* name, std::int32_t priority, std::uint32_t policy) {
    batch.begin("add a chain (the kernel part nf_tables, with its family inet)", tables_type(NFT_MSG_NEWCHAIN), NLM_F_CREATE,
                netfilter_header(NFPROTO_INET));
    batch.text(NFTA_CHAIN_TABLE, kTable);
    batch.text(NFTA_CHAIN_NAME, name);
    batch.nested(NFTA_CHAIN_HOOK, [&] {
        batch.big_number32(NFTA_HOOK_HOOKNUM, NF_INET_PRE_ROUTING);
        batch.big_number32(NFTA_HOOK_PRIORITY, static_cast<std::uint32_t>(priority));
    });
    batch.big_number32(NFTA_CHAIN_POLICY, policy);
    batch.text(NFTA_CHAIN_TYPE, "filter");
}

constexpr std::uint32_t kSourceOffset4 = 12, kDestinationOffset4 = 16, kSourceOffset6 = 8, kDestinationOffset6 = 24;
constexpr const char* kPlain = "nf_tables";

void add_gate(NetlinkBatch& batch, std::uint32_t tap, Queueing by) {
    rule(batch, kGate, kPlain, [&](Rule r) { r.meta_is(NFT_META_IIF, base::bytes_of(tap), NFT_CMP_NEQ).verdict(NF_DROP); });
    // Questions for a neighbour go to a group. The other chain looks at them more closely.
    rule(batch, kGate, kPlain, [&](Rule r) { r.family_is(NFPROTO_IPV6).protocol_is(IPPROTO_ICMPV6).verdict(NF_ACCEPT); });
    constexpr std::uint8_t kToThisHost = 0;  // PACKET_HOST
    rule(batch, kGate, kPlain, [&](Rule r) { r.meta_is(NFT_META_PKTTYPE, base::bytes_of(kToThisHost), NFT_CMP_NEQ).verdict(NF_DROP); });
    rule(batch, kGate, kPlain, [&](Rule r) {
        r.family_is(NFPROTO_IPV4).payload_is(NFT_PAYLOAD_NETWORK_HEADER, kSourceOffset4, wire(kGuestAddress), NFT_CMP_NEQ).verdict(NF_DROP);
    });
    rule(batch, kGate, kPlain, [&](Rule r) {
        r.family_is(NFPROTO_IPV6).payload_is(NFT_PAYLOAD_NETWORK_HEADER, kSourceOffset6, wire(kGuestAddress6), NFT_CMP_NEQ).verdict(NF_DROP);
    });
    // IPv4 in IPv6's clothes: to sockets of both families it would be the IPv4 address.
    rule(batch, kGate, kPlain, [&](Rule r) {
        r.family_is(NFPROTO_IPV6).payload_is(NFT_PAYLOAD_NETWORK_HEADER, kDestinationOffset6, mapped_prefix()).verdict(NF_DROP);
    });
    rule(batch, kGate, "nft_queue, or nft_compat with xt_NFQUEUE",
         [&](Rule r) { r.begins_connection().queue(by); });
}

void add_answers(NetlinkBatch& batch) {
    constexpr const char* kReject = "nft_reject_inet";
    rule(batch, kPath, kReject, [&](Rule r) { r.mark_is(Mark::kRefuse).protocol_is(IPPROTO_TCP).reject(NFT_REJECT_TCP_RST, 0); });
    const auto unreachable = [&](Mark mark, std::uint8_t code) {
        rule(batch, kPath, kReject, [&](Rule r) { r.mark_is(mark).reject(NFT_REJECT_ICMPX_UNREACH, code); });
    };
    unreachable(Mark::kHostUnreachable, NFT_REJECT_ICMPX_HOST_UNREACH);
    unreachable(Mark::kNetUnreachable, NFT_REJECT_ICMPX_NO_ROUTE);
    unreachable(Mark::kProhibited, NFT_REJECT_ICMPX_ADMIN_PROHIBITED);
}

void add_neighbours_and_echo(NetlinkBatch& batch) {
    for (auto type : {std::uint8_t{ND_NEIGHBOR_SOLICIT}, std::uint8_t{ND_NEIGHBOR_ADVERT}})
        rule(batch, kPath, kPlain, [&](Rule r) {
            r.family_is(NFPROTO_IPV6).protocol_is(IPPROTO_ICMPV6).payload_is(NFT_PAYLOAD_NETWORK_HEADER, kSourceOffset6, wire(kGuestAddress6))
                .payload_is(NFT_PAYLOAD_TRANSPORT_HEADER, 0, base::bytes_of(type)).verdict(NF_ACCEPT);
        });
    rule(batch, kPath, kPlain, [&](Rule r) {
        r.family_is(NFPROTO_IPV4).protocol_is(IPPROTO_ICMP).payload_is(NFT_PAYLOAD_NETWORK_HEADER, kDestinationOffset4, wire(kGatewayAddress))
            .payload_is(NFT_PAYLOAD_TRANSPORT_HEADER, 0, base::bytes_of(std::uint8_t{ICMP_ECHO})).verdict(NF_ACCEPT);
    });
    rule(batch, kPath, kPlain, [&](Rule r) {
        r.family_is(NFPROTO_IPV6).protocol_is(IPPROTO_ICMPV6).payload_is(NFT_PAYLOAD_NETWORK_HEADER, kSourceOffset6, wire(kGuestAddress6))
            .payload_is(NFT_PAYLOAD_NETWORK_HEADER, kDestinationOffset6, wire(kGatewayAddress6))
            .payload_is(NFT_PAYLOAD_TRANSPORT_HEADER, 0, base::bytes_of(std::uint8_t{ICMP6_ECHO_REQUEST})).verdict(NF_ACCEPT);
    });
}

void add_path(NetlinkBatch& batch) {
    constexpr const char* kTproxy = "nft_tproxy";
    add_answers(batch);
    rule(batch, kPath, kPlain, [&](Rule r) { r.begins_connection().mark_is_not(Mark::kAccept).verdict(NF_DROP); });
    rule(batch, kPath, kTproxy, [&](Rule r) { r.protocol_is(IPPROTO_TCP).led_to(kListenerPort).verdict(NF_ACCEPT); });
    rule(batch, kPath, kTproxy, [&](Rule r) { r.protocol_is(IPPROTO_UDP).led_to(kDatagramPort).verdict(NF_ACCEPT); });
    add_neighbours_and_echo(batch);
}

}  // namespace

NetlinkBatch rule_requests(std::uint32_t tap, Queueing by) {
    NetlinkBatch batch;
    batch.begin_quiet(NFNL_MSG_BATCH_BEGIN, netfilter_header(AF_UNSPEC, NFNL_SUBSYS_NFTABLES));
    batch.begin("add a table (the kernel part nf_tables)", tables_type(NFT_MSG_NEWTABLE), NLM_F_CREATE, netfilter_header(NFPROTO_INET));
    batch.text(NFTA_TABLE_NAME, kTable);
    add_chain(batch, kGate, kGatePriority, NF_ACCEPT);
    add_chain(batch, kPath, kPathPriority, NF_DROP);
    add_gate(batch, tap, by);
    add_path(batch);
    batch.begin_quiet(NFNL_MSG_BATCH_END, netfilter_header(AF_UNSPEC, NFNL_SUBSYS_NFTABLES));
    return batch;
}

NetlinkBatch queue_requests() {
    NetlinkBatch batch;
    const auto begin = [&] {
        batch.begin("make a queue for packets (the kernel part nfnetlink_queue)", NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_CONFIG, 0,
                    netfilter_header(AF_UNSPEC, kGateQueue));
    };
    begin();
    nfqnl_msg_config_cmd bind{};
    bind.command = NFQNL_CFG_CMD_BIND;
    batch.attribute(NFQA_CFG_CMD, base::bytes_of(bind));
    begin();
    nfqnl_msg_config_params hand{};
    hand.copy_range = htonl(kGateCopyBytes);
    hand.copy_mode = NFQNL_COPY_PACKET;
    batch.attribute(NFQA_CFG_PARAMS, base::bytes_of(hand));
    batch.big_number32(NFQA_CFG_QUEUE_MAXLEN, kMostHeldConnections);
    return batch;
}

}  // namespace caisson::net
