#include "net/name.h"

#include <gtest/gtest.h>

namespace caisson::net {
namespace {

TEST(Name, HasOneSpelling) {
    EXPECT_EQ(canonical_name("example.test"), "example.test");
    EXPECT_EQ(canonical_name("WWW.Example.TEST."), "www.example.test");
    EXPECT_EQ(canonical_name("_dmarc.a-b.xn--p1ai"), "_dmarc.a-b.xn--p1ai");
    EXPECT_EQ(canonical_name("localhost"), "localhost");
    EXPECT_EQ(canonical_name("1.2.3.4.example"), "1.2.3.4.example");
}

TEST(Name, RefusesWhatIsNone) {
    for (std::string_view text : {"", ".", "..", "a..b", ".a", "a..", "-a.b", "a-.b", "a b", "a/b", "a:80", "*.a", "b\xc3\xbc.test", "a\tb", "a@b", "[::1]", "::1"})
        EXPECT_FALSE(canonical_name(text)) << text;
    EXPECT_FALSE(canonical_name(std::string_view("good.test\0.evil.test", 20)));
}

TEST(Name, RefusesEverySpellingOfAnAddress) {
    for (const char* text : {"127.0.0.1", "127.1", "2130706433", "0x7f000001", "0X7F.1", "0177.0.0.1", "1.2.3.4.", "a.1", "a.0x", "a.0xff"})
        EXPECT_FALSE(canonical_name(text)) << text;
    for (const char* text : {"a.0xg", "1a", "0x.a"}) EXPECT_TRUE(canonical_name(text)) << text;
}

TEST(Name, LabelsAndNamesHaveALongest) {
    const std::string label(kLongestLabel, 'a');
    EXPECT_TRUE(canonical_name(label));
    EXPECT_FALSE(canonical_name(label + "a"));
    std::string name = label + "." + label + "." + label + "." + std::string(kLongestName - 3 * (kLongestLabel + 1), 'b');
    EXPECT_EQ(name.size(), kLongestName);
    EXPECT_TRUE(canonical_name(name));
    EXPECT_TRUE(canonical_name(name + "."));
    EXPECT_FALSE(canonical_name(name + "b"));
}

}  // namespace
}  // namespace caisson::net
