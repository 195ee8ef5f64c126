#include "net/space/packet.h"

#include <gtest/gtest.h>

namespace caisson::net {
namespace {

// What Linux sends, with 20 bytes of options.
base::Bytes packet4() {
    base::Bytes packet{0x45, 0, 0, 60, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 2, 15, 192, 0, 2, 7,
                       0x30, 0x39, 0x01, 0xbb, 0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 0, 0xa0, 0x02, 0xff, 0xff, 0, 0, 0, 0};
    packet.resize(60);
    return packet;
}

base::Bytes packet6() {
    base::Bytes packet{0x60, 0, 0, 0, 0, 40, 6, 64};
    base::append(packet, Address::parse("fd00:ca15::2")->bytes());
    base::append(packet, Address::parse("2001:db8::7")->bytes());
    const auto tcp = packet4();
    packet.insert(packet.end(), tcp.begin() + 20, tcp.end());
    return packet;
}

TEST(Packet, ABeginningNamesItsEnds) {
    for (const auto& packet : {packet4(), packet6()}) {
        const auto beginning = parse_beginning(packet);
        ASSERT_TRUE(beginning);
        EXPECT_EQ(beginning->guest.port, 12345);
        EXPECT_EQ(beginning->outside.port, 443);
        EXPECT_EQ(beginning->sequence, 0xdeadbeef);
    }
    EXPECT_EQ(parse_beginning(packet4())->outside.to_string(), "192.0.2.7:443");
    EXPECT_EQ(parse_beginning(packet4())->guest.to_string(), "10.0.2.15:12345");
    EXPECT_EQ(parse_beginning(packet6())->outside.to_string(), "[2001:db8::7]:443");
}

TEST(Packet, OptionsOfIpv4ArePassedOver) {
    auto packet = packet4();
    packet[0] = 0x46;
    packet.insert(packet.begin() + 20, {1, 1, 1, 1});
    ASSERT_TRUE(parse_beginning(packet));
    EXPECT_EQ(parse_beginning(packet)->outside.port, 443);
}

TEST(Packet, OneThatIsCutOffIsNone) {
    for (const auto& whole : {packet4(), packet6()}) {
        const std::size_t least = whole.size() - 20;  // without its options
        for (std::size_t size = 0; size < whole.size(); ++size)
            EXPECT_EQ(parse_beginning(base::ByteView(whole).first(size)).has_value(), size >= least) << size;
    }
}

// `at` becomes `value`, and it is no beginning any more.
void refused(base::Bytes packet, std::size_t at, std::uint8_t value) {
    packet[at] = value;
    EXPECT_FALSE(parse_beginning(packet)) << at << " " << static_cast<int>(value);
}

TEST(Packet, WhatIsNoBeginningIsRefused) {
    for (std::uint8_t flags : std::initializer_list<std::uint8_t>{0x00, 0x10, 0x12, 0x04, 0x06, 0x01}) refused(packet4(), 33, flags);
    refused(packet4(), 0, 0x44);   // a header of 16 bytes
    refused(packet4(), 0, 0x55);   // version 5
    refused(packet4(), 9, 17);     // UDP
    refused(packet4(), 6, 0x20);   // more fragments follow
    refused(packet4(), 7, 0x01);   // not the first fragment
    refused(packet4(), 32, 0x40);  // a TCP header of 16 bytes
    for (std::uint8_t header : std::initializer_list<std::uint8_t>{0, 43, 44, 60, 17, 41}) refused(packet6(), 6, header);
    for (std::size_t port : {20, 22}) {
        auto packet = packet4();
        packet[port] = packet[port + 1] = 0;
        EXPECT_FALSE(parse_beginning(packet));
    }
}

TEST(Packet, Ipv4InIpv6IsNoDestination) {
    auto packet = packet6();
    const auto mapped = Address::parse("10.0.0.1")->bytes();
    std::copy(mapped.begin(), mapped.end(), packet.begin() + 24);
    EXPECT_FALSE(parse_beginning(packet));
}

}  // namespace
}  // namespace caisson::net
