// Each of the things that somebody may do to a journal.
#include "audit/verify.h"

#include <unistd.h>

#include <algorithm>

#include "audit/test_support.h"
#include "base/text.h"

namespace caisson::audit {
namespace {

using Problem = Finding::Problem;

class Verify : public JournalTest {
  protected:
    std::vector<std::string> lines() const {
        auto all = base::split(text(), '\n');
        all.pop_back();
        return all;
    }
    void put_lines(const std::vector<std::string>& all) const { put(base::join(all, "\n") + "\n"); }
    // What is found, as "problem sequence"; "none".
    std::string found(const Known& known) const {
        auto verified = verify_chain(path(), known);
        if (!verified) return verified.error().to_string();
        if (!verified->finding) return "none";
        return std::string(to_string(verified->finding->problem)) + " " + std::to_string(verified->finding->sequence);
    }
    // The same entries with another kind in one of them, all hashes made anew.
    void rewrite(int changed, int count) const {
        Head head;
        std::string all;
        for (int i = 0; i < count; ++i) {
            auto [line, next] = make_line({i == changed ? "lie" : "n" + std::to_string(i)}, {1, 2, "test"}, 1777636800000 + i, head);
            all += line;
            head = next;
        }
        put(all);
    }
};

TEST_F(Verify, NothingWasDone) {
    const auto head = fill(6);
    EXPECT_EQ(found({head}), "none");
    EXPECT_EQ(found({head, 1, head}), "none");
    EXPECT_EQ(found({}), "none");
    // More than was acknowledged is no harm: it was written, and a crash may take it.
    EXPECT_EQ(found({{3, parse_line(lines()[2])->hash}}), "none");
}

TEST_F(Verify, OneByteChanged) {
    const auto head = fill(4);
    const auto original = text();
    std::size_t line = 1, failures = 0;
    for (std::size_t at = 0; at < original.size(); ++at) {
        auto changed = original;
        changed[at] = static_cast<char>(changed[at] ^ 4);
        put(changed);
        const auto what = found({head});
        // The end of the last line gone is a line that was never finished; it was acknowledged, so it is cut off.
        const auto expected = (at + 1 == original.size() ? "cut " : "altered ") + std::to_string(line);
        if (what != expected) ++failures, ADD_FAILURE() << at << ": " << what << ", not " << expected;
        if (original[at] == '\n') ++line;
        if (failures > 5) break;
    }
}

TEST_F(Verify, OneLineRemoved) {
    const auto head = fill(6);
    const auto original = lines();
    for (std::size_t i = 0; i < original.size(); ++i) {
        auto some = original;
        some.erase(some.begin() + static_cast<std::ptrdiff_t>(i));
        put_lines(some);
        EXPECT_EQ(found({head}), (i == 5 ? "cut " : "missing ") + std::to_string(i + 1));
    }
}

TEST_F(Verify, TwoSwapped) {
    const auto head = fill(6);
    const auto original = lines();
    for (std::size_t i = 0; i < original.size(); ++i)
        for (std::size_t j = i + 1; j < original.size(); ++j) {
            auto some = original;
            std::swap(some[i], some[j]);
            put_lines(some);
            EXPECT_EQ(found({head}), "reordered " + std::to_string(i + 1));
        }
}

TEST_F(Verify, OneTwice) {
    const auto head = fill(4);
    auto some = lines();
    some.insert(some.begin() + 3, some[1]);
    put_lines(some);
    EXPECT_EQ(found({head}), "reordered 2");
}

TEST_F(Verify, TheEndCutOff) {
    const auto head = fill(5);
    const auto original = text();
    for (std::size_t size = 0; size < original.size(); ++size) {
        put(original.substr(0, size));
        const auto left = static_cast<std::size_t>(std::count(original.begin(), original.begin() + static_cast<std::ptrdiff_t>(size), '\n'));
        EXPECT_EQ(found({head}), "cut " + std::to_string(left + 1));
    }
    ASSERT_TRUE(os::remove_tree(path()));
    EXPECT_EQ(found({head}), "cut 1");
}

TEST_F(Verify, AllWrittenAnew) {
    const auto head = fill(5);
    rewrite(2, 5);
    EXPECT_EQ(found({head}), "rewritten 5");
    // Whoever does that may change the database as well: then only somebody else's note helps.
    EXPECT_EQ(found({}), "none");
    EXPECT_EQ(found({{}, 1, head}), "rewritten 5");
    rewrite(-1, 5);
    EXPECT_EQ(found({head}), "none");
}

TEST_F(Verify, OneWrittenAnewWithItsHash) {
    const auto head = fill(5);
    auto some = lines();
    some[2] = make_line({"lie"}, {1, 2, "test"}, 1777636800002, {2, parse_line(some[1])->hash}).first;
    some[2].pop_back();
    put_lines(some);
    EXPECT_EQ(found({head}), "altered 3");
}

TEST_F(Verify, AnAnchorOlderThanWhatIsKept) {
    const auto old = fill(1, {1, 100});
    const auto head = fill(9, {1, 100});
    EXPECT_EQ(found({head, 1, old}), "none");
    for (std::uint64_t first = 1; first < 5; ++first) ASSERT_EQ(::unlink(file(first).c_str()), 0);
    EXPECT_EQ(found({head, 5, old}), "unknown 1");
    EXPECT_EQ(found({head, 1}), "missing 1");
}

TEST_F(Verify, AnAnchorThatIsAhead) {
    auto head = fill(3);
    head.sequence = 9;
    EXPECT_EQ(found({{}, 1, head}), "cut 4");
}

TEST_F(Verify, ThereIsNone) {
    auto verified = verify_chain(path("nowhere"), {});
    ASSERT_FALSE(verified);
    EXPECT_EQ(verified.error().code, Errc::kNotFound);
}

}  // namespace
}  // namespace caisson::audit
