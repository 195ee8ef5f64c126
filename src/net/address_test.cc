#include "net/address.h"

#include <gtest/gtest.h>

namespace caisson::net {
namespace {

TEST(Address, ReadsAndWritesBothFamilies) {
    for (const char* text : {"192.0.2.1", "0.0.0.0", "2001:db8::1", "::", "fe80::1"}) {
        auto address = Address::parse(text);
        ASSERT_TRUE(address) << text;
        EXPECT_EQ(address->to_string(), text);
    }
}

TEST(Address, AMappedAddressIsTheIpv4Address) {
    EXPECT_EQ(Address::parse("::ffff:192.0.2.1"), Address::parse("192.0.2.1"));
    EXPECT_EQ(Address::parse("::ffff:c000:201")->to_string(), "192.0.2.1");
}

TEST(Address, RefusesEverythingElse) {
    for (const char* text : {"", "1.2.3", "1.2.3.4.5", "0x7f.0.0.1", "127.1", "2130706433", "[::1]", "fe80::1%eth0", "1.2.3.4 ", "01.2.3.4", "::g"})
        EXPECT_FALSE(Address::parse(text)) << text;
}

TEST(Address, ComparesPrefixes) {
    const auto base = *Address::parse("10.1.2.0");
    EXPECT_TRUE(base.shares_prefix(*Address::parse("10.1.2.255"), 96 + 24));
    EXPECT_FALSE(base.shares_prefix(*Address::parse("10.1.3.0"), 96 + 24));
    EXPECT_TRUE(base.shares_prefix(*Address::parse("10.1.3.0"), 96 + 23));
    EXPECT_FALSE(base.shares_prefix(*Address::parse("2001:db8::"), 1 + 96));
}

TEST(Endpoint, GoesThroughASocketsAddress) {
    for (const char* text : {"192.0.2.1", "2001:db8::1"})
        for (bool dual : {false, true}) {
            const Endpoint endpoint{*Address::parse(text), 443};
            const auto address = to_socket(endpoint, dual);
            EXPECT_EQ(from_socket(address.get(), address.length), endpoint);
            EXPECT_FALSE(from_socket(address.get(), 1));
        }
    EXPECT_EQ((Endpoint{*Address::parse("2001:db8::1"), 80}).to_string(), "[2001:db8::1]:80");
}

}  // namespace
}  // namespace caisson::net
