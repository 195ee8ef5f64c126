#include "cli/audit_text.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace caisson::cli {
namespace {

AuditEvent event() {
    return {"01hzzzzzzzzzzzzzzzzzzzzzzz", 7, 1777636800123, "box_started", "01hzzzzzzzzzzzzzzzzzzzzzzz", "keen-otter", 1000, 4242, "caisson",
            R"({"arguments":["echo","a b"],"code":3})", std::string(64, '0'), std::string(64, 'a')};
}

TEST(AuditText, ALineForPeople) {
    EXPECT_EQ(audit_text_line(event(), false), "2026-05-01T12:00:00.123Z  box_started  keen-otter (01hzzzzzzzzzzzzzzzzzzzzzzz)  arguments=[echo 'a b']  code=3");
    EXPECT_NE(audit_text_line(event(), true).find("  by uid 1000 pid 4242 caisson  box#7"), std::string::npos);
}

TEST(AuditText, ALineForPrograms) {
    const auto line = audit_json_line(event());
    EXPECT_EQ(line.back(), '\n');
    const auto document = nlohmann::json::parse(line);
    EXPECT_EQ(document["seq"], 7);
    EXPECT_EQ(document["time"], "2026-05-01T12:00:00.123Z");
    EXPECT_EQ(document["details"]["arguments"][1], "a b");
    EXPECT_EQ(document["process"], "caisson");
}

// Guests choose the words of reasons, users those of arguments; terminals obey some of them.
TEST(AuditText, NothingReachesATerminal) {
    auto hostile = event();
    hostile.box_name = "\x1b[2Jname\r\n";
    hostile.process = "\x07";
    hostile.details = R"({"\u001b]0;t\u0007":"\u009b31m \u001b[2J\n","arguments":["\r\u001b[A"]})";
    for (const auto& line : {audit_text_line(hostile, true), audit_json_line(hostile)})
        for (std::size_t i = 0; i + 1 < line.size(); ++i) EXPECT_TRUE(static_cast<unsigned char>(line[i]) >= ' ' && line[i] != 0x7f) << line;
    EXPECT_EQ(audit_text_line(hostile, true).find("\xc2\x9b"), std::string::npos);
    hostile.details = "not json";
    EXPECT_NE(audit_text_line(hostile, false).find("box_started"), std::string::npos);
}

TEST(AuditText, HeadsAreReadAsTheyAreWritten) {
    const AuditHead head{"", 12, std::string(64, 'b')};
    auto read = parse_audit_head(audit_head_text(head));
    ASSERT_TRUE(read);
    EXPECT_EQ(read->sequence, 12U);
    EXPECT_EQ(read->hash, head.hash);
    const auto hash = std::string(64, 'b');
    for (const auto& text : {std::string(), std::string("12"), "12:" + hash.substr(1), "0:" + hash, "x:" + hash, "12:" + hash + "b", "-1:" + hash, "12:" + std::string(64, 'B')})
        EXPECT_FALSE(parse_audit_head(text)) << text;
}

}  // namespace
}  // namespace caisson::cli
