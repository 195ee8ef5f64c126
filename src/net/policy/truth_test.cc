// docs/network.md says what policies do, row by row; each row is tried here.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/text.h"
#include "net/policy/policy.h"
#include "os/file.h"

namespace caisson::net {
namespace {

using base::split;
using Cells = std::vector<std::string>;

// What stands between the first and the last backtick of a cell, or the cell.
std::string plain(std::string_view cell) {
    cell = base::trim(cell);
    if (cell.size() >= 2 && cell.front() == '`' && cell.back() == '`') cell = cell.substr(1, cell.size() - 2);
    return std::string(cell);
}

// The rows of all tables with this header.
std::vector<Cells> rows_of(const std::string& header) {
    const auto page = os::read_file(CAISSON_NETWORK_PAGE);
    EXPECT_TRUE(page);
    std::vector<Cells> rows;
    bool inside = false;
    for (const auto& line : split(*page, '\n')) {
        if (line == header) inside = true;
        else if (!line.starts_with("|")) inside = false;
        else if (inside && !line.starts_with("|---")) {
            Cells cells;
            for (const auto& cell : split(std::string_view(line).substr(1, line.size() - 2), '|')) cells.push_back(plain(cell));
            rows.push_back(cells);
        }
    }
    return rows;
}

Policy policy_of(const std::string& text) {
    if (text.starts_with("{")) {
        auto policy = Policy::parse(text);
        EXPECT_TRUE(policy) << text;
        return policy ? *policy : Policy();
    }
    PolicyWords words;
    const auto parts = split(text, ' ');
    for (std::size_t i = 0; i + 1 < parts.size(); i += 2) {
        if (parts[i] == "--net") words.net = parts[i + 1];
        else if (parts[i] == "--allow-net") words.allow.push_back(parts[i + 1]);
        else if (parts[i] == "--deny-net") words.deny.push_back(parts[i + 1]);
        else ADD_FAILURE() << text;
    }
    auto policy = Policy::from_words(words);
    EXPECT_TRUE(policy) << text << ": " << (policy ? "" : policy.error().to_string());
    return policy ? *policy : Policy();
}

struct Where {
    std::string host;
    std::uint16_t port = 0;
    Protocol protocol = Protocol::kTcp;
};

Where where_of(std::string text) {
    Where where;
    if (text.ends_with("/udp")) {
        where.protocol = Protocol::kUdp;
        text.resize(text.size() - 4);
    }
    const auto colon = text.rfind(':');
    where.host = text.substr(0, colon);
    if (where.host.starts_with("[")) where.host = where.host.substr(1, where.host.size() - 2);
    where.port = static_cast<std::uint16_t>(std::atoi(text.c_str() + colon + 1));
    return where;
}

// connect HOST:PORT [given NAME] [showing NAME]
Verdict connect(const Policy& policy, const std::vector<std::string>& words) {
    const auto where = where_of(words[1]);
    const auto address = Address::parse(where.host);
    if (!address) return policy.judge_name(where.host, where.port, where.protocol);
    Pins pins;
    std::string shown;
    for (std::size_t i = 2; i + 1 < words.size(); i += 2) {
        if (words[i] == "given") pins.add(words[i + 1], *address, std::chrono::seconds(60), {});
        else shown = words[i + 1];
    }
    auto verdict = policy.judge_address({*address, where.port}, where.protocol, pins, {});
    if (shown.empty()) return verdict;
    const bool is_read = verdict.answer == Verdict::Answer::kNeedsName || verdict.looks;
    return is_read ? policy.judge_shown(verdict, shown, where.port, where.protocol) : verdict;
}

Verdict verdict_of(const Policy& policy, const std::string& target) {
    const auto words = split(target, ' ');
    if (words[0] == "connect") return connect(policy, words);
    if (words[0] == "ask") return policy.judge_question(words[1]);
    if (words[0] == "answer") return policy.judge_resolved(words[1], *Address::parse(words[2]));
    EXPECT_EQ(words[0], "dial");
    const auto where = where_of(words[2]);
    return policy.judge_resolved(words[1], {*Address::parse(where.host), where.port}, where.protocol);
}

TEST(TruthTable, HoldsRowByRow) {
    const auto rows = rows_of("| policy | target | verdict | decided by |");
    EXPECT_GT(rows.size(), 100u);
    for (const auto& row : rows) {
        ASSERT_EQ(row.size(), 4u);
        const auto verdict = verdict_of(policy_of(row[0]), row[1]);
        const std::string answer = verdict.answer == Verdict::Answer::kNeedsName ? "needs name" : to_string(verdict.answer);
        EXPECT_EQ(answer, row[2]) << row[0] << " | " << row[1] << " | " << verdict.reason;
        EXPECT_EQ(verdict.rule, row[3]) << row[0] << " | " << row[1] << " | " << verdict.reason;
        EXPECT_FALSE(verdict.reason.empty());
    }
}

TEST(TruthTable, ThePageListsEverySpecialRange) {
    std::vector<Cells> code;
    for (const auto& range : special_ranges()) code.push_back({range.text, to_string(range.reach), range.what});
    EXPECT_THAT(rows_of("| range | kind | is |"), testing::UnorderedElementsAreArray(code));
}

}  // namespace
}  // namespace caisson::net
