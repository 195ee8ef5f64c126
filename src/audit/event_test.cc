#include "audit/event.h"

#include <gtest/gtest.h>

#include "audit/limits.h"
#include "base/text.h"

namespace caisson::audit {
namespace {

constexpr std::int64_t kTime = 1777636800123;
const Actor kActor{1000, 4242, "caisson"};

Entry parsed(const Event& event) {
    auto line = make_line(event, kActor, kTime, {}).first;
    EXPECT_EQ(line.back(), '\n');
    line.pop_back();
    auto entry = parse_line(line);
    EXPECT_TRUE(entry.has_value());
    return entry.value_or(Entry());
}

TEST(AuditEvent, ComesBackAsItWasWritten) {
    const auto entry = parsed({"box_created", "01id", "keen-otter", {{"image", std::string("base")}, {"cpus", std::int64_t{2}}, {"words", std::vector<std::string>{"a", "b c"}}}});
    EXPECT_TRUE(entry.intact);
    EXPECT_EQ(entry.sequence, 1U);
    EXPECT_EQ(entry.unix_ms, kTime);
    EXPECT_EQ(entry.kind, "box_created");
    EXPECT_EQ(entry.box_id, "01id");
    EXPECT_EQ(entry.box_name, "keen-otter");
    EXPECT_EQ(entry.actor.uid, 1000);
    EXPECT_EQ(entry.actor.pid, 4242);
    EXPECT_EQ(entry.actor.process, "caisson");
    EXPECT_EQ(entry.details, R"({"image":"base","cpus":2,"words":["a","b c"]})");
    EXPECT_EQ(entry.previous, std::string(64, '0'));
}

TEST(AuditEvent, FollowsTheOneBefore) {
    const auto first = make_line({"a"}, kActor, kTime, {}).second;
    const auto [line, second] = make_line({"b"}, kActor, kTime, first);
    auto entry = parse_line(std::string_view(line).substr(0, line.size() - 1));
    ASSERT_TRUE(entry);
    EXPECT_EQ(entry->previous, first.hash);
    EXPECT_EQ(entry->sequence, 2U);
    EXPECT_EQ(entry->hash, second.hash);
}

TEST(AuditEvent, NoByteCanBeChanged) {
    auto line = make_line({"box_created", "", "", {{"image", std::string("base")}}}, kActor, kTime, {}).first;
    line.pop_back();
    for (std::size_t at = 0; at < line.size(); ++at) {
        auto changed = line;
        changed[at] = static_cast<char>(changed[at] ^ 1);
        auto entry = parse_line(changed);
        EXPECT_TRUE(!entry || !entry->intact) << changed;
    }
}

// What guests and users choose is shown as it is written: nothing of it may reach a terminal.
TEST(AuditEvent, ALineIsPrintableAscii) {
    std::string every;
    for (int byte = 0; byte < 256; ++byte) every += static_cast<char>(byte);
    for (const auto& text : {every, std::string("gr\xc3\xbc\xc3\x9f \xc2\x9b[31m \x1b[2J\r\n"), std::string("\xff\xfe")}) {
        auto line = make_line({"k", text, text, {{"text", text}, {"list", std::vector<std::string>{text}}}}, {1, 2, text}, kTime, {}).first;
        line.pop_back();
        for (char c : line) EXPECT_TRUE(c >= ' ' && c <= '\x7f') << static_cast<int>(c);
        EXPECT_TRUE(parse_line(line));
    }
}

TEST(AuditEvent, LongTextsAreCut) {
    const std::string longest(limits::kLongestText, 'x'), longer = longest + "y";
    EXPECT_EQ(parsed({"k", "", "", {{"text", longest}}}).details, "{\"text\":\"" + longest + "\"}");
    EXPECT_EQ(parsed({"k", "", "", {{"text", longer}}}).details, "{\"text\":\"" + longest + "...\"}");
    const auto list = parsed({"k", "", "", {{"list", std::vector<std::string>(limits::kMostWords + 1, "w")}}}).details;
    EXPECT_NE(list.find("\"...\""), std::string::npos);
    const std::vector<std::string> words(100, std::string(limits::kLongestText * 10, 'x'));
    EXPECT_LE(parsed({"k", "", "", {{"list", words}}}).details.size(), limits::kLongestList + 1000);
    // Not in the middle of a character.
    std::string umlauts;
    while (umlauts.size() <= limits::kLongestText + 1) umlauts += "\xe2\x82\xac";
    EXPECT_TRUE(parsed({"k", "", "", {{"text", umlauts}}}).intact);
}

TEST(AuditEvent, ALineIsNeverTooLongToBeRead) {
    std::vector<std::pair<std::string, Value>> many;
    for (int i = 0; i < 40; ++i) many.emplace_back("key" + std::to_string(i), std::string(limits::kLongestText, '\x01'));
    EXPECT_EQ(parsed({"k", "", "", many}).details, R"({"too_long":true})");
}

TEST(AuditEvent, WhatIsNoEntryIsRefused) {
    for (const char* text : {"", "{}", "x", "[]", "\"hash\":\"\"}"}) EXPECT_FALSE(parse_line(text));
    auto line = make_line({"k"}, kActor, kTime, {}).first;
    line.pop_back();
    for (std::size_t size = 0; size < line.size(); ++size) EXPECT_FALSE(parse_line(std::string_view(line).substr(0, size)));
    EXPECT_FALSE(parse_line(line + " "));
    EXPECT_FALSE(parse_line(std::string(limits::kLongestLine + 1, 'x')));
}

// A supervisor that was taken over writes its own chain, and everybody who opens the home reads the end of it.
TEST(AuditEvent, ALineIsNeitherDeepNorFullOfKeys) {
    auto line = make_line({"a"}, kActor, kTime, {}).first;
    line.pop_back();
    auto with_details = [&](const std::string& details) {
        auto changed = line;
        const std::string none = "\"details\":{}";
        const auto at = changed.find(none);
        EXPECT_NE(at, std::string::npos) << line;
        return changed.replace(at, none.size(), "\"details\":" + details);
    };
    EXPECT_TRUE(parse_line(with_details("{\"args\":[\"sh\",\"-c\"]}")));
    for (std::size_t depth : {10, 1000, 60000})
        EXPECT_FALSE(parse_line(with_details("{\"a\":" + std::string(depth, '[') + std::string(depth, ']') + "}"))) << depth;
    std::string many = "{\"k\":0";
    for (int i = 0; i < 9000; ++i) many += ",\"k" + std::to_string(i) + "\":0";
    EXPECT_FALSE(parse_line(with_details(many + "}")));
}

TEST(AuditEvent, TimesAreUtc) {
    EXPECT_EQ(format_time(kTime), "2026-05-01T12:00:00.123Z");
    EXPECT_EQ(format_time(0), "1970-01-01T00:00:00.000Z");
    EXPECT_EQ(format_time(-1).size(), format_time(kTime).size());
    EXPECT_EQ(format_time(INT64_MAX).size(), format_time(kTime).size());
}

}  // namespace
}  // namespace caisson::audit
