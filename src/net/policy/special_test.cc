#include "net/policy/special.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace caisson::net {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::string range_of(const char* address) {
    const auto* range = special_range_of(*Address::parse(address));
    return range == nullptr ? "internet" : std::string(range->text) + " " + to_string(range->reach);
}

std::vector<std::string> embedded(const char* address) {
    std::vector<std::string> found;
    for (const auto& each : embedded_in(*Address::parse(address))) found.push_back(each.to_string());
    return found;
}

TEST(SpecialRange, TheSmallestCounts) {
    EXPECT_EQ(range_of("100.100.100.200"), "100.100.100.200/32 metadata");
    EXPECT_EQ(range_of("100.100.100.201"), "100.64.0.0/10 private");
    EXPECT_EQ(range_of("192.0.0.192"), "192.0.0.192/32 metadata");
    EXPECT_EQ(range_of("168.63.129.16"), "168.63.129.16/32 metadata");
    EXPECT_EQ(range_of("168.63.129.17"), "internet");
    EXPECT_EQ(range_of("255.255.255.255"), "255.255.255.255/32 special");
    EXPECT_EQ(range_of("2001::1"), "2001::/32 special");
    EXPECT_EQ(range_of("2001:1::1"), "2001::/23 special");
    EXPECT_EQ(range_of("2001:200::1"), "internet");
    EXPECT_EQ(range_of("fd00:ec2::254"), "fd00:ec2::254/128 metadata");
    EXPECT_EQ(range_of("fd00:ec2::1"), "fd00:ec2::/32 metadata");
    EXPECT_EQ(range_of("::1"), "::1/128 host");
    EXPECT_EQ(range_of("::2"), "::/96 special");
}

TEST(SpecialRange, EndsWhereItEnds) {
    for (const char* outside :
         {"9.255.255.255",   "11.0.0.0",       "100.63.255.255", "100.128.0.0",     "126.255.255.255", "128.0.0.0",       "169.253.255.255",
          "169.255.0.0",     "172.15.255.255", "172.32.0.0",     "192.167.255.255", "192.169.0.0",     "198.17.255.255",  "198.20.0.0",
          "223.255.255.255", "1.0.0.0",        "2000::",         "3fff:1000::",     "3ffe::1",         "2002:909:909::1", "64:ff9b::9.9.9.9"})
        EXPECT_EQ(range_of(outside), "internet") << outside;
    for (const char* inside :
         {"10.255.255.255", "100.127.255.255", "127.255.255.255", "169.254.0.0",       "172.31.255.255",    "192.168.255.255", "198.19.255.255",
          "224.0.0.0",      "239.255.255.255", "240.0.0.0",       "0.255.255.255",     "1fff::1",           "4000::",          "fbff::1",
          "fe80::1",        "fec0::1",         "ff02::1",         "64:ff9b:0:0:0:1::", "64:ff9b:1:ffff::1", "3fff:fff::1"})
        EXPECT_NE(range_of(inside), "internet") << inside;
}

TEST(SpecialRange, AMappedAddressIsTheIpv4Address) {
    EXPECT_EQ(range_of("::ffff:127.0.0.1"), "127.0.0.0/8 host");
    EXPECT_EQ(range_of("::ffff:a9fe:a9fe"), "169.254.169.254/32 metadata");
    EXPECT_EQ(range_of("::ffff:9.9.9.9"), "internet");
}

TEST(SpecialRange, TheTableIsConsistent) {
    for (const auto& range : special_ranges()) {
        EXPECT_TRUE(range.first.shares_prefix(range.first, range.bits));
        const auto* found = special_range_of(range.first);
        // The first address of a range may be a smaller one's.
        EXPECT_TRUE(found == nullptr || found->bits >= range.bits) << range.text;
    }
}

TEST(EmbeddedAddress, IsFoundInEverySpelling) {
    EXPECT_THAT(embedded("64:ff9b::10.0.0.1"), ElementsAre("10.0.0.1"));
    EXPECT_THAT(embedded("64:ff9b:1:2:3:4:a00:1"), ElementsAre("10.0.0.1"));
    EXPECT_THAT(embedded("2002:a00:1::5"), ElementsAre("10.0.0.1"));
    EXPECT_THAT(embedded("2001:0:909:909:8000:63bf:f5ff:fffe"), ElementsAre("10.0.0.1"));
    EXPECT_THAT(embedded("::10.0.0.1"), ElementsAre("10.0.0.1"));
    EXPECT_THAT(embedded("::ffff:0:10.0.0.1"), ElementsAre("10.0.0.1"));
    EXPECT_THAT(embedded("2620:fe::5efe:10.0.0.1"), ElementsAre("10.0.0.1"));
    EXPECT_THAT(embedded("2620:fe::200:5efe:10.0.0.1"), ElementsAre("10.0.0.1"));
    EXPECT_THAT(embedded("2002:909:909::5efe:10.0.0.1"), ElementsAre("9.9.9.9", "10.0.0.1"));
    for (const char* none : {"::", "::1", "10.0.0.1", "::ffff:10.0.0.1", "2620:fe::fe", "64:ff9c::1", "2620:fe::100:5efe:10.0.0.1"})
        EXPECT_THAT(embedded(none), IsEmpty()) << none;
}

}  // namespace
}  // namespace caisson::net
