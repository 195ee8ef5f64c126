#include "net/policy/rule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "net/policy/limits.h"
#include "net/name.h"

namespace caisson::net {
namespace {

using testing::HasSubstr;

std::string text_of(std::string_view text, Effect effect = Effect::kAllow) {
    const auto rule = Rule::parse(text, effect);
    return rule ? rule->text() : "error: " + rule.error().message + "; " + rule.error().hint;
}

// What is said to whoever writes this.
std::string said(std::string_view text, Effect effect = Effect::kAllow) {
    const auto rule = Rule::parse(text, effect);
    EXPECT_FALSE(rule) << text;
    return rule ? "" : rule.error().message + "; " + rule.error().hint;
}

bool covers(std::string_view rule, std::string_view name, Effect effect = Effect::kAllow) { return Rule::parse(rule, effect)->covers(name); }
bool covers(std::string_view rule, std::uint16_t port, Protocol protocol, Effect effect = Effect::kAllow) {
    return Rule::parse(rule, effect)->covers(port, protocol);
}
bool covers_address(std::string_view rule, std::string_view address) { return Rule::parse(rule, Effect::kAllow)->covers(*Address::parse(address)); }
bool names(std::string_view rule, std::string_view address, bool of_the_host = false) {
    return Rule::parse(rule, Effect::kAllow)->names(*Address::parse(address), of_the_host);
}

TEST(Rule, HasOneShortestSpelling) {
    for (const auto& [written, canonical] : std::vector<std::pair<std::string, std::string>>{{"api.example.com", "api.example.com"},
                                                                                             {"API.Example.COM.", "api.example.com"},
                                                                                             {"api.example.com/tcp", "api.example.com"},
                                                                                             {"api.example.com:443", "api.example.com:443"},
                                                                                             {"api.example.com:443/tcp", "api.example.com:443"},
                                                                                             {"a.b:53/udp", "a.b:53/udp"},
                                                                                             {"a.b:*", "a.b:*"},
                                                                                             {"a.b:1-65535", "a.b:*"},
                                                                                             {"a.b:*/udp", "a.b:*/udp"},
                                                                                             {"a.b:7-7", "a.b:7"},
                                                                                             {"a.b:0007-08", "a.b:7-8"},
                                                                                             {"*.Example.com", "*.example.com"},
                                                                                             {"*.example.com:22", "*.example.com:22"},
                                                                                             {"host.Caisson.internal", "host.caisson.internal"},
                                                                                             {"9.9.9.9", "9.9.9.9"},
                                                                                             {"9.9.9.9/32", "9.9.9.9"},
                                                                                             {"9.9.9.9:*", "9.9.9.9"},
                                                                                             {"9.9.9.9/tcp", "9.9.9.9/tcp"},
                                                                                             {"9.9.9.9:53/tcp", "9.9.9.9:53"},
                                                                                             {"10.0.0.0/8", "10.0.0.0/8"},
                                                                                             {"10.0.0.0/8:80-90/udp", "10.0.0.0/8:80-90/udp"},
                                                                                             {"0.0.0.0/0", "0.0.0.0/0"},
                                                                                             {"2620:FE::fe", "2620:fe::fe"},
                                                                                             {"[2620:fe::fe]", "2620:fe::fe"},
                                                                                             {"[2620:fe::fe]:53", "[2620:fe::fe]:53"},
                                                                                             {"2620:fe::fe/128", "2620:fe::fe"},
                                                                                             {"2620:fe::/48", "2620:fe::/48"},
                                                                                             {"[2620:fe::/48]:53/udp", "[2620:fe::/48]:53/udp"},
                                                                                             {"2620:fe::/48/udp", "2620:fe::/48/udp"},
                                                                                             {"::/0", "::/0"},
                                                                                             {"::ffff:9.9.9.9", "9.9.9.9"},
                                                                                             {"[::ffff:9.9.9.0/120]:80", "9.9.9.0/24:80"},
                                                                                             {"::ffff:0:0/96", "0.0.0.0/0"},
                                                                                             {"1.2.3.com", "1.2.3.com"},
                                                                                             {"_srv._tcp.a-b.com", "_srv._tcp.a-b.com"},
                                                                                             {"xn--bcher-kva.example", "xn--bcher-kva.example"},
                                                                                             {"db", "db"}}) {
        EXPECT_EQ(text_of(written), canonical) << written;
        EXPECT_EQ(text_of(canonical), canonical);
    }
    EXPECT_EQ(text_of("a.b/tcp", Effect::kDeny), "a.b/tcp");
    EXPECT_EQ(text_of("a.b:443/udp", Effect::kDeny), "a.b:443/udp");
    EXPECT_EQ(text_of("a.b:*", Effect::kDeny), "a.b");
    EXPECT_EQ(text_of("a.b/udp", Effect::kDeny), "a.b/udp");
    EXPECT_EQ(Rule::parse("a.b", Effect::kDeny)->to_string(), "deny a.b");
}

TEST(Rule, MeansTheLesserReachOfWhatItLeavesOut) {
    EXPECT_TRUE(covers("a.b", 80, Protocol::kTcp) && covers("a.b", 443, Protocol::kTcp));
    EXPECT_FALSE(covers("a.b", 81, Protocol::kTcp) || covers("a.b", 443, Protocol::kUdp));
    EXPECT_TRUE(covers("a.b:22", 22, Protocol::kTcp));
    EXPECT_FALSE(covers("a.b:22", 22, Protocol::kUdp) || covers("a.b:22", 443, Protocol::kTcp));
    EXPECT_TRUE(covers("a.b:*", 1, Protocol::kUdp) && covers("a.b:*", 65535, Protocol::kTcp));
    EXPECT_TRUE(covers("9.9.9.9", 1, Protocol::kUdp) && covers("9.9.9.9", 65535, Protocol::kTcp));
    EXPECT_TRUE(covers("9.9.9.9:20-30", 30, Protocol::kTcp));
    EXPECT_FALSE(covers("9.9.9.9:20-30", 30, Protocol::kUdp) || covers("9.9.9.9:20-30", 31, Protocol::kTcp));

    EXPECT_TRUE(covers("a.b", 22, Protocol::kUdp, Effect::kDeny) && covers("a.b:22", 22, Protocol::kUdp, Effect::kDeny));
    EXPECT_FALSE(covers("a.b:22/tcp", 22, Protocol::kUdp, Effect::kDeny) || covers("a.b:22", 23, Protocol::kTcp, Effect::kDeny));
}

TEST(Rule, ASuffixCoversWhatIsBelowAndNotItself) {
    EXPECT_TRUE(covers("*.example.com", "a.example.com") && covers("*.example.com", "b.a.example.com"));
    EXPECT_FALSE(covers("*.example.com", "example.com"));
    EXPECT_FALSE(covers("*.example.com", "badexample.com"));
    EXPECT_FALSE(covers("*.example.com", "example.com.evil.net"));
    EXPECT_FALSE(covers("example.com", "a.example.com"));
}

TEST(Rule, OnlyItsOwnNameReachesTheHost) {
    EXPECT_TRUE(covers("host.caisson.internal", kHostName));
    EXPECT_FALSE(covers("*.caisson.internal", kHostName));
    EXPECT_TRUE(covers("*.caisson.internal", kHostName, Effect::kDeny));
}

TEST(Rule, ARangeIsOfOneFamily) {
    EXPECT_TRUE(covers_address("0.0.0.0/0", "9.9.9.9") && covers_address("::/0", "2620:fe::fe"));
    EXPECT_FALSE(covers_address("::/0", "9.9.9.9") || covers_address("0.0.0.0/0", "2620:fe::fe"));
    EXPECT_FALSE(covers_address("0.0.0.0/0", "::ffff:0:1.2.3.4"));
    EXPECT_TRUE(covers_address("10.0.0.0/9", "10.127.255.255"));
    EXPECT_FALSE(covers_address("10.0.0.0/9", "10.128.0.0"));
}

TEST(Rule, AWideRangeNamesNothingSpecial) {
    EXPECT_TRUE(names("0.0.0.0/0", "9.9.9.9"));
    EXPECT_FALSE(names("0.0.0.0/0", "10.0.0.1") || names("10.0.0.0/7", "10.0.0.1") || names("0.0.0.0/0", "127.0.0.1"));
    EXPECT_TRUE(names("10.0.0.0/8", "10.0.0.1") && names("10.0.0.1", "10.0.0.1") && names("127.0.0.0/8", "127.0.0.1"));
    EXPECT_FALSE(names("10.0.0.0/8", "11.0.0.1"));
}

TEST(Rule, MetadataAndTheHostAreNamedByThemselvesAlone) {
    EXPECT_FALSE(names("169.254.0.0/16", "169.254.169.254") || names("169.254.169.254/31", "169.254.169.254"));
    EXPECT_TRUE(names("169.254.169.254", "169.254.169.254"));
    EXPECT_FALSE(names("fd00:ec2::/32", "fd00:ec2::254"));
    EXPECT_TRUE(names("fd00:ec2::254", "fd00:ec2::254"));
    EXPECT_FALSE(names("9.9.9.0/24", "9.9.9.9", true));
    EXPECT_TRUE(names("9.9.9.9", "9.9.9.9", true));
}

TEST(RuleError, SaysWhatToWriteInstead) {
    for (const auto& [written, what] : std::vector<std::pair<std::string, std::string>>{
             {"", "a rule is empty"},
             {"*", "'*' alone would be everything; use --net public"},
             {"*:443", "'*' alone would be everything"},
             {"*.com", "every name below com; write at least two parts after the *, such as *.example.com"},
             {"*.", "it has no name"},
             {"a.*.com", "'*' stands for whole parts of a name, once and at its front; write *.example.com"},
             {"*.*.com", "once and at its front"},
             {"*a.com", "at its front"},
             {"10.0.0.1/8", "10.0.0.1 is not the first address of that range; write 10.0.0.0/8 for the range, or 10.0.0.1 for the one address"},
             {"2620:fe::1/48", "write 2620:fe::/48 for the range, or 2620:fe::1 for the one address"},
             {"[2620:fe::1/48]:80", "write 2620:fe::/48 for the range"},
             {"10.0.0.0/33", "/33 is no length of a range; write 0 to 32"},
             {"2620:fe::/129", "/129 is no length of a range; write 0 to 128"},
             {"10.0.0.0/4294967304", "is no length of a range"},
             {"0.0.0.0", "no address of anybody; write 0.0.0.0/0"},
             {"::", "no address of anybody; write ::/0"},
             {"a..b", "a part of the name is empty"},
             {".a.b", "a part of the name is empty"},
             {"a.b..", "a part of the name is empty"},
             {".", "a part of the name is empty"},
             {":80", "it has no host"},
             {"/tcp", "it has no host"},
             {"a.b:", "no port follows the ':'"},
             {"a.b:/udp", "no port follows the ':'"},
             {"a.b/", "nothing follows the '/'"},
             {"a.b:80/", "nothing follows the '/'"},
             {"a.b:0", "there is no port 0"},
             {"a.b:0-80", "there is no port 0"},
             {"a.b:90-80", "the ports run backwards; write 80-90"},
             {"a.b:80-", "a port is missing"},
             {"a.b:-80", "a port is missing"},
             {"a.b:80-90-100", "\"90-100\" is no port"},
             {"a.b:65536", "\"65536\" is no port; write a number from 1 to 65535"},
             {"a.b:http", "\"http\" is no port"},
             {"a.b:80,443", "it is a list; give each rule in an option of its own"},
             {"a.b:80/sctp", "\"sctp\" is no protocol; write tcp or udp"},
             {"a.b:80/TCP", "\"TCP\" is no protocol"},
             {"a.b:80/tcp/udp", "\"tcp/udp\" is no protocol"},
             {"10.0.0.0:80/8", "the length of a range comes before the port; write ADDRESS/8:PORT"},
             {"a.b/24", "only addresses have a length"},
             {"a.b/udp", "which ports of UDP; write the port, such as a.b:53/udp"},
             {"a.b:443/udp", "port 443 of UDP is QUIC"},
             {"*.a.b:443/udp", "port 443 of UDP is QUIC"},
             {"127.1", "a spelling that programs understand differently; write 127.0.0.1"},
             {"0x7f.1", "write 127.0.0.1"},
             {"2130706433", "write 127.0.0.1"},
             {"010.0.0.1", "write 8.0.0.1"},
             {"1.2.3", "write 1.2.0.3"},
             {"1.2.3.4.5", "a name does not end with a number"},
             {"a.0x1f", "a name does not end with a number"},
             {"256.1.1.1", "a name does not end with a number; write an address as four numbers from 0 to 255"},
             {"2620:fe::fe:gg", "more than one ':'"},
             {"2620:fe::fe::1", "this is no IPv6 address"},
             {"x.y:80:90", "more than one ':'"},
             {"fe80::1%eth0", "an address has no zone here"},
             {"[2620:fe::fe", "its [ has no ]"},
             {"[9.9.9.9]:80", "in brackets there is no IPv6 address"},
             {"[a.b]:80", "in brackets there is no IPv6 address"},
             {"[2620:fe::]/32:80", "the length stands outside of the brackets; write [2620:fe::/32]"},
             {"[2620:fe::/32x]", "is no length of a range"},
             {"[2620:fe::/32:80]", "there is more than an address and its length"},
             {"[2620:fe::fe]80", "after ] comes neither"},
             {"https://a.b/c", "it is a URL, and rules are about hosts; write a.b"},
             {"http://", "it is a URL"},
             {"a b", "it has a space or a control character"},
             {std::string("a\0b", 3), "it has a space or a control character"},
             {"b\xc3\xbc" "cher.example", "letters outside ASCII; write the name as DNS has it, with xn--"},
             {"a@b.c", "neither a name nor an address"},
             {"localhost", "in a box, localhost is the box itself; write host.caisson.internal"},
             {"x.localhost:80", "write host.caisson.internal"}}) {
        const auto message = said(written);
        EXPECT_THAT(message, HasSubstr(what)) << written;
    }
    EXPECT_THAT(said("*", Effect::kDeny), HasSubstr("use --net none"));
}

TEST(RuleError, AtItsLimits) {
    const std::string part(kLongestLabel, 'a');
    EXPECT_EQ(text_of(part + ".b"), part + ".b");
    EXPECT_THAT(said("a" + part + ".b"), HasSubstr("a part of the name has more than 63"));
    const std::string longest = part + "." + part + "." + part + "." + std::string(kLongestName - 3 * 64, 'b');
    ASSERT_EQ(longest.size(), kLongestName);
    EXPECT_EQ(text_of(longest), longest);
    EXPECT_EQ(text_of(longest + ".:1-65534"), longest + ":1-65534");
    EXPECT_THAT(said(longest + "b"), HasSubstr("the name has more than 253"));
    EXPECT_EQ(Rule::parse(std::string(limits::kLongestRule + 1, 'a'), Effect::kAllow).error().code, Errc::kLimit);
    EXPECT_EQ(Rule::parse(std::string(limits::kLongestRule, 'a'), Effect::kAllow).error().code, Errc::kUsage);
}

TEST(Name, IsComparedInOneForm) {
    EXPECT_EQ(canonical_name("WWW.Example.COM."), "www.example.com");
    EXPECT_EQ(canonical_name("_dmarc.a-b.c1"), "_dmarc.a-b.c1");
    for (const char* bad :
         {"", ".", "a..b", ".a", "a..", "a b", "a/b", "a:80", "1.2.3.4", "1.2.3.4.", "a.1", "a.0x", "a.0xff", "::1", "a\xc3\xa4", "a*"})
        EXPECT_FALSE(canonical_name(bad)) << bad;
    EXPECT_TRUE(canonical_name("0xa.b") && canonical_name("1.2.3.4.com") && canonical_name("a.0xfg"));
    EXPECT_FALSE(canonical_name(std::string("a\0b", 3)));
}

}  // namespace
}  // namespace caisson::net
