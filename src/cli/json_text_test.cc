#include "cli/json_text.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace caisson::cli {
namespace {

TEST(JsonText, IsAsciiWithoutControlCharacters) {
    const std::string bytes = "\xc2\x9b" "2J \x7f\x7f \xe2\x80\xae \x1b \n \xc3\xbc";
    const nlohmann::json document{{bytes, {bytes, 1}}};
    for (int indent : {-1, 2}) {
        const auto text = json_text(document, indent);
        for (char c : text) EXPECT_TRUE((c >= ' ' && c < '\x7f') || (indent == 2 && c == '\n')) << static_cast<int>(c);
        EXPECT_EQ(nlohmann::json::parse(text), document);
    }
    EXPECT_EQ(json_text(nlohmann::json("\x7f\xc2\x9b")), "\"\\u007f\\u009b\"");
}

TEST(JsonText, ReplacesWhatIsNoUtf8) { EXPECT_EQ(json_text(nlohmann::json("a\xff")), "\"a\\ufffd\""); }

TEST(JsonText, KeepsTheOrderOfFields) {
    EXPECT_EQ(json_text(nlohmann::ordered_json{{"z", 1}, {"a", 2}}), R"({"z":1,"a":2})");
}

}  // namespace
}  // namespace caisson::cli
