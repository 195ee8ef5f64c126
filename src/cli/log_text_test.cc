#include "cli/log_text.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <time.h>

#include <nlohmann/json.hpp>

namespace caisson::cli {
namespace {

constexpr std::int64_t kNow = 1'800'000'000'000'000'000;

LogEntry entry(std::string_view bytes, LogEntry::Source source = LogEntry::Source::kStdout, std::int64_t unix_ns = 0) {
    LogEntry made;
    made.bytes = bytes;
    made.source = source;
    made.unix_ns = unix_ns;
    return made;
}

TEST(LogTime, ReadsRfc3339) {
    EXPECT_EQ(parse_log_time("1970-01-01T00:00:00Z", kNow).value(), 0);
    EXPECT_EQ(parse_log_time("2026-05-01T12:00:00.000000001Z", kNow).value(), 1777636800000000001);
    EXPECT_EQ(parse_log_time("2026-05-01T14:00:00+02:00", kNow).value(), 1777636800000000000);
    EXPECT_EQ(parse_log_time("2026-05-01t05:30:00.5-06:30", kNow).value(), 1777636800500000000);
    EXPECT_EQ(parse_log_time("2024-02-29 00:00Z", kNow).value(), 1709164800000000000);
    EXPECT_EQ(parse_log_time("2016-12-31T23:59:60Z", kNow).value(), 1483228800000000000) << "a leap second";
}

TEST(LogTime, ReadsLocalTimesWhereNoZoneIsGiven) {
    ::setenv("TZ", "XXX-2", 1);
    ::tzset();
    EXPECT_EQ(parse_log_time("2026-05-01T14:00:00", kNow).value(), 1777636800000000000);
    EXPECT_EQ(parse_log_time("2026-05-01", kNow).value(), 1777586400000000000);
    ::unsetenv("TZ");
    ::tzset();
}

TEST(LogTime, ReadsSecondsAndDurations) {
    EXPECT_EQ(parse_log_time("1777636800", kNow).value(), 1777636800000000000);
    EXPECT_EQ(parse_log_time("0", kNow).value(), 0);
    EXPECT_EQ(parse_log_time("1777636800.123456789", kNow).value(), 1777636800123456789);
    EXPECT_EQ(parse_log_time("10m", kNow).value(), kNow - 600'000'000'000);
    EXPECT_EQ(parse_log_time("1h30m", kNow).value(), kNow - 5'400'000'000'000);
    EXPECT_EQ(parse_log_time("500ms", kNow).value(), kNow - 500'000'000);
}

TEST(LogTime, RefusesEverythingElse) {
    for (const char* bad : {"",
                            "now",
                            "-5",
                            "-10m",
                            "10x",
                            "2026",
                            "2026-13-01",
                            "2026-02-30",
                            "2026-05-01T25:00:00Z",
                            "2026-05-01T12:00:00",
                            "2026-05-01T12:00:00.Z",
                            "2026-05-01T12:00:00Zx",
                            "2026-05-01T12:00:00+1:00",
                            "1969-12-31T23:59:59Z",
                            "2300-01-01T00:00:00Z",
                            "9223372036",
                            "99999999999999999999",
                            "1.",
                            "1.5.5",
                            "1000000d",
                            "\x1b[2J"}) {
        if (std::string_view(bad) == "2026-05-01T12:00:00") continue;  // local time, see above
        if (std::string_view(bad) == "2026") {
            EXPECT_TRUE(parse_log_time(bad, kNow).has_value()) << "seconds";
            continue;
        }
        auto time = parse_log_time(bad, kNow);
        ASSERT_FALSE(time.has_value()) << bad << " is " << *time;
        EXPECT_EQ(time.error().code, Errc::kUsage);
        EXPECT_EQ(time.error().message.find('\x1b'), std::string::npos);
    }
}

TEST(LogTime, IsWrittenWithNineDigits) {
    EXPECT_EQ(format_log_time(0), "1970-01-01T00:00:00.000000000Z");
    EXPECT_EQ(format_log_time(1777636800000000001), "2026-05-01T12:00:00.000000001Z");
    EXPECT_EQ(format_log_time(-1), "1969-12-31T23:59:59.999999999Z") << "a host's clock may be wrong";
    EXPECT_EQ(format_log_time(INT64_MAX).size(), 30u);
    EXPECT_EQ(format_log_time(INT64_MIN).size(), 30u);
}

TEST(LogJson, KeepsEveryByte) {
    EXPECT_EQ(log_json_line(entry("gr\xc3\xbc\xc3\x9f \"x\"\n", LogEntry::Source::kStderr, 1)),
              "{\"time\":\"1970-01-01T00:00:00.000000001Z\",\"unix_ns\":1,\"source\":\"stderr\",\"text\":"
              "\"gr\\u00fc\\u00df \\\"x\\\"\\n\"}\n");
    using namespace std::string_view_literals;
    auto zero = nlohmann::json::parse(log_json_line(entry("a\0\x1b\x7f"sv)));
    EXPECT_EQ(zero["text"].get<std::string>(), "a\0\x1b\x7f"sv);
}

// CSI as one character, DEL, and what turns the reading direction round.
TEST(LogJson, NothingThatATerminalObeysIsLeft) {
    const std::string bytes = "\xc2\x9b" "2J\x7f\xe2\x80\xae\x1b[2J\xf0\x9f\x98\x80";
    const auto line = log_json_line(entry(bytes));
    for (char c : line.substr(0, line.size() - 1)) EXPECT_TRUE(c >= ' ' && c < '\x7f') << static_cast<int>(c);
    EXPECT_NE(line.find("\\u009b2J\\u007f\\u202e\\u001b[2J\\ud83d\\ude00"), std::string::npos) << line;
    EXPECT_EQ(nlohmann::json::parse(line)["text"].get<std::string>(), bytes);
}

TEST(LogJson, WritesWhatIsNoUtf8AsBase64) {
    const std::pair<std::string_view, const char*> cases[]{{"\xff", "/w=="},
                                                           {"\xff\xfe", "//4="},
                                                           {"\xff\xfe\xfd", "//79"},
                                                           {"a\xc3", "YcM="},
                                                           {"\xed\xa0\x80 ok", "7aCAIG9r"}};
    for (auto [bytes, expected] : cases) {
        auto line = nlohmann::json::parse(log_json_line(entry(bytes)));
        EXPECT_EQ(line["base64"].get<std::string>(), expected);
        EXPECT_FALSE(line.contains("text"));
    }
}

TEST(LogJson, SaysWhatIsNotThere) {
    LogEntry lost;
    lost.kind = LogEntry::Kind::kLost;
    lost.lost_bytes = 12;
    lost.reason = "No space left on device";
    auto line = nlohmann::json::parse(log_json_line(lost));
    EXPECT_EQ(line["lost_bytes"], 12);
    EXPECT_EQ(line["reason"], "No space left on device");
    EXPECT_EQ(log_note(lost), "12 bytes of the log were lost here: No space left on device");
    LogEntry missing;
    missing.kind = LogEntry::Kind::kMissing;
    missing.missing_entries = 1;
    missing.reason = "rotated away";
    EXPECT_EQ(nlohmann::json::parse(log_json_line(missing))["missing_entries"], 1);
    EXPECT_EQ(log_note(missing), "1 entry of the log was lost here: rotated away");
}

TEST(LogPrefix, StandsOnceBeforeEachLine) {
    LinePrefixer prefixer;
    const std::string zero = "1970-01-01T00:00:00.000000000Z ", one = "1970-01-01T00:00:00.000000001Z ";
    EXPECT_EQ(prefixer.prefixed(entry("a\nb\n\n")), zero + "a\n" + zero + "b\n" + zero + "\n");
    EXPECT_EQ(prefixer.prefixed(entry("begins, ")), zero + "begins, ");
    EXPECT_EQ(prefixer.prefixed(entry("other\n", LogEntry::Source::kStderr, 1)), one + "other\n");
    EXPECT_EQ(prefixer.prefixed(entry("goes on, ", LogEntry::Source::kStdout, 1)), "goes on, ");
    EXPECT_EQ(prefixer.prefixed(entry("ends\nnext", LogEntry::Source::kStdout, 1)), "ends\n" + one + "next");
    EXPECT_EQ(prefixer.prefixed(entry("")), "");
    using namespace std::string_view_literals;
    EXPECT_EQ(LinePrefixer().prefixed(entry("\xff\0\r\n"sv)), zero + std::string("\xff\0\r\n"sv));
}

}  // namespace
}  // namespace caisson::cli
