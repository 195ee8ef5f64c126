#include "base/text.h"

#include <gtest/gtest.h>

namespace caisson::base {
namespace {

TEST(Text, ParseU64TakesWholeNumbersOnly) {
    EXPECT_EQ(parse_u64("0").value(), 0u);
    EXPECT_EQ(parse_u64("18446744073709551615").value(), 18446744073709551615ull);
    for (auto bad : {"", "-1", "+1", " 1", "1 ", "1x", "18446744073709551616"})
        EXPECT_FALSE(parse_u64(bad).has_value()) << bad;
}

TEST(Text, ParseSizeKnowsUnits) {
    EXPECT_EQ(parse_size("512").value(), 512u);
    EXPECT_EQ(parse_size("512b").value(), 512u);
    EXPECT_EQ(parse_size("64k").value(), 65536u);
    EXPECT_EQ(parse_size("256M").value(), 268435456u);
    EXPECT_EQ(parse_size("1GB").value(), 1073741824u);
    EXPECT_EQ(parse_size("10GiB").value(), 10737418240u);
    for (auto bad : {"", "M", "1x", "1.5G", "-1G", "17179869184G", "ib", "1ib1"})
        EXPECT_FALSE(parse_size(bad).has_value()) << bad;
}

TEST(Text, ParseDurationAddsParts) {
    using std::chrono::milliseconds;
    EXPECT_EQ(parse_duration("500ms").value(), milliseconds(500));
    EXPECT_EQ(parse_duration("1s").value(), milliseconds(1000));
    EXPECT_EQ(parse_duration("90").value(), milliseconds(90000));
    EXPECT_EQ(parse_duration("1h30m").value(), milliseconds(5400000));
    EXPECT_EQ(parse_duration("1.5s").value(), milliseconds(1500));
    for (auto bad : {"", "s", "-1s", "1x", "1s-", "1e9999s", "nan", "inf"})
        EXPECT_FALSE(parse_duration(bad).has_value()) << bad;
}

TEST(Text, ShellQuoteQuotesOnlyWhatNeedsIt) {
    EXPECT_EQ(shell_quote("a-b=/c"), "a-b=/c");
    EXPECT_EQ(shell_quote(""), "''");
    EXPECT_EQ(shell_quote("it's"), "'it'\\''s'");
}

TEST(Text, PrintableDisarmsControlBytesAndBrokenUtf8) {
    EXPECT_EQ(printable("gr\xc3\xbc\xc3\x9f"), "gr\xc3\xbc\xc3\x9f");
    EXPECT_EQ(printable("\x1b[31m"), "\\x1b[31m");
    EXPECT_EQ(printable("\xff"), "\\xff");
    EXPECT_EQ(printable("\xc2\x9b"), "\\xc2\\x9b");
    EXPECT_EQ(printable("\u202e\u2066"), "\\xe2\\x80\\xae\\xe2\\x81\\xa6") << "they turn the direction of writing";
    EXPECT_EQ(printable("\u2013\u206a"), "\u2013\u206a");
    EXPECT_EQ(printable("abcdef", 3), "abc...");
}

TEST(Text, FormatSize) {
    EXPECT_EQ(format_size(12), "12 B");
    EXPECT_EQ(format_size(1536), "1.5 KiB");
    EXPECT_EQ(format_size(158ull << 20), "158 MiB");
}

TEST(Text, KnowsWhatIsUtf8) {
    for (const char* good : {"", "plain", "gr\xc3\xbc\xc3\x9f", "\xf0\x9f\x93\xa6"}) EXPECT_TRUE(is_utf8(good)) << good;
    // Cut short, overlong, a surrogate, beyond U+10FFFF, a byte that goes on with nothing.
    for (const char* bad : {"a\xc3", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\x80"}) EXPECT_FALSE(is_utf8(bad));
}

}  // namespace
}  // namespace caisson::base
