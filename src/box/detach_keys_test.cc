#include "box/detach_keys.h"

#include <gtest/gtest.h>

#include "caisson/runtime.h"

namespace caisson::box {
namespace {

// What is passed on, with "|" where the sequence was found.
std::string typed(const std::string& keys, std::initializer_list<std::string> pieces) {
    DetachKeys detach(keys);
    base::Bytes out;
    bool found = false;
    for (const auto& piece : pieces)
        if (!found) found = detach.feed(base::as_bytes(piece), out);
    return std::string(base::as_text(out)) + (found ? "|" : "");
}

TEST(DetachKeys, FindsTheSequenceAndPassesOnTheRest) {
    EXPECT_EQ(typed("pq", {"abc"}), "abc");
    EXPECT_EQ(typed("pq", {"abpqc"}), "ab|");
    EXPECT_EQ(typed("pq", {"ap", "q"}), "a|");
    EXPECT_EQ(typed("pq", {"ap", "x"}), "apx");
    EXPECT_EQ(typed("pq", {"ppq"}), "p|");
    EXPECT_EQ(typed("pq", {"p"}), "") << "held back until the next key";
    EXPECT_EQ(typed("", {"pq"}), "pq");
    EXPECT_EQ(typed("q", {"aq"}), "a|");
}

TEST(DetachKeys, AreWrittenAsDockerWritesThem) {
    EXPECT_EQ(*parse_detach_keys("ctrl-p,ctrl-q"), "\x10\x11");
    EXPECT_EQ(*parse_detach_keys("a,ctrl-],b"), "a\x1d" "b");
    EXPECT_EQ(*parse_detach_keys("ctrl-@"), std::string(1, '\0'));
    EXPECT_EQ(*parse_detach_keys(""), "");
    for (const char* bad : {"ctrl-", "ctrl-pq", "ab", ",", "a,,b", "alt-x", "ctrl-1", " "})
        EXPECT_EQ(parse_detach_keys(bad).error().code, Errc::kUsage) << bad;
}

}  // namespace
}  // namespace caisson::box
