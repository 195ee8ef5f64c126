#include "audit/journal.h"

#include <atomic>
#include <thread>

#include "audit/test_support.h"

namespace caisson::audit {
namespace {

const Actor kActor{1, 2, "test"};
const std::string kBox = "01hzzzzzzzzzzzzzzzzzzzzzzz", kOther = "01hzzzzzzzzzzzzzzzzzzzzzzy";

class JournalOfHome : public JournalTest {
  protected:
    JournalOfHome() : database_(*store::Database::open(path("caisson.db"))), journal_(path("audit")) {}
    void insert(const std::string& id) {
        store::BoxRecord record;
        record.id = id;
        record.name = "box-" + id.substr(20);
        EXPECT_TRUE(database_.insert_box(record));
    }
    void record(const std::string& chain, const std::string& kind) {
        EXPECT_TRUE(journal_.record(database_, chain, {kind, store::box_of_chain(chain), "name"}, kActor, 1777636800000));
    }
    Head head(const std::string& chain) {
        auto known = database_.journal_head(chain);
        return {static_cast<std::uint64_t>(known->sequence), known->hash};
    }
    std::vector<Entry> entries_of(const std::string& chain) {
        Cursor cursor(chain_directory(journal_.root(), chain));
        std::vector<Entry> all;
        while (auto entry = *cursor.next()) all.push_back(std::move(*entry));
        return all;
    }
    store::Database database_;
    Journal journal_;
};

TEST_F(JournalOfHome, HeadsAreAcknowledgedInBatches) {
    insert(kBox);
    record(kBox, "a");
    record(kBox, "b");
    record(kHomeChain, "c");
    EXPECT_EQ(head(kBox).sequence, 0U);
    EXPECT_TRUE(journal_.pending());
    ASSERT_TRUE(journal_.commit(database_));
    EXPECT_FALSE(journal_.pending());
    EXPECT_EQ(head(kBox).sequence, 2U);
    EXPECT_EQ(head(kBox).hash, entries_of(kBox).back().hash);
    EXPECT_EQ(head(kHomeChain).sequence, 1U);
}

TEST_F(JournalOfHome, AHeadNeverGoesBack) {
    insert(kBox);
    record(kBox, "a");
    auto early = journal_.take();
    record(kBox, "b");
    ASSERT_TRUE(journal_.commit(database_));
    ASSERT_TRUE(journal_.acknowledge(database_, early));
    EXPECT_EQ(head(kBox).sequence, 2U);
    ASSERT_TRUE(journal_.leave_out_acknowledged(database_, early));
    EXPECT_TRUE(early.empty());
}

TEST_F(JournalOfHome, WhatWasLostIsCounted) {
    insert(kBox);
    record(kBox, "a");
    const auto directory = chain_directory(journal_.root(), kBox);
    ASSERT_TRUE(os::remove_tree(directory));
    // As if the disk were full: no file can be made.
    ASSERT_TRUE(os::write_file_atomic(directory, ""));
    Journal other(path("audit"));
    EXPECT_FALSE(other.record(database_, kBox, {"b"}, kActor, 0));
    EXPECT_FALSE(other.record(database_, kBox, {"c"}, kActor, 0));
    ASSERT_EQ(::unlink(directory.c_str()), 0);
    ASSERT_TRUE(other.record(database_, kBox, {"d"}, kActor, 0));
    const auto all = entries_of(kBox);
    ASSERT_EQ(all.size(), 2U);
    EXPECT_EQ(all[0].kind, "events_lost");
    EXPECT_EQ(all[0].details, R"({"count":2})");
    EXPECT_EQ(all[1].kind, "d");
}

TEST_F(JournalOfHome, ARemovedBoxIsClosedOnce) {
    insert(kBox);
    insert(kOther);
    record(kBox, "a");
    ASSERT_TRUE(database_.remove_box(kBox));
    for (int i = 0; i < 2; ++i) ASSERT_TRUE(journal_.close_removed(database_, kActor, 1777636800000));
    Journal other(path("audit"));
    ASSERT_TRUE(other.close_removed(database_, kActor, 1777636800000));
    const auto box = entries_of(kBox), home = entries_of(kHomeChain);
    ASSERT_EQ(box.size(), 2U);
    EXPECT_EQ(box[1].kind, "box_removed");
    EXPECT_EQ(box[1].box_name, "name");
    ASSERT_EQ(home.size(), 1U);
    EXPECT_EQ(home[0].kind, "chain_closed");
    EXPECT_EQ(home[0].details, "{\"sequence\":2,\"hash\":\"" + box[1].hash + "\"}");
    ASSERT_TRUE(journal_.commit(database_));
    EXPECT_EQ(head(kBox).sequence, 2U);
}

TEST_F(JournalOfHome, TheChainOfANetworkIsClosedWithItsBoxAndSaysNothingMore) {
    const auto network = network_chain(kBox), quiet = network_chain(kOther);
    EXPECT_EQ(chain_directory("root", network), std::string("root/networks/") + kBox);
    for (const auto& box : {kBox, kOther}) {
        insert(box);
        ASSERT_TRUE(database_.begin_journal(network_chain(box)));
    }
    record(kBox, "box_removed");
    record(network, "connection_denied");
    ASSERT_TRUE(journal_.close_removed(database_, kActor, 1000));
    EXPECT_TRUE(entries_of(kHomeChain).empty());  // its box is there
    for (const auto& box : {kBox, kOther}) ASSERT_TRUE(database_.remove_box(box));
    ASSERT_TRUE(journal_.close_removed(database_, kActor, 1000));
    ASSERT_TRUE(journal_.commit(database_));
    const auto entries = entries_of(network), home = entries_of(kHomeChain);
    ASSERT_EQ(entries.size(), 1U);
    ASSERT_EQ(home.size(), 3U);
    EXPECT_EQ(home[0].box_id, kOther);  // whose network did nothing
    EXPECT_EQ(home[1].box_id, kBox);
    EXPECT_EQ(home[2].box_id, kBox);
    EXPECT_EQ(home[2].details, "{\"sequence\":1,\"hash\":\"" + entries[0].hash + "\",\"of\":\"network\"}");
    EXPECT_TRUE(database_.journals_to_close()->empty());
    EXPECT_EQ(head(network).sequence, 1U);
    EXPECT_EQ(head(quiet).sequence, 0U);
}

TEST_F(JournalOfHome, OldChainsAreForgottenWhileOthersWrite) {
    for (int i = 0; i < 90; ++i) {
        const auto id = std::string("01hzzzzzzzzzzzzzzzzzzzzz") + static_cast<char>('a' + i / 10) + static_cast<char>('0' + i % 10);
        insert(id);
        ASSERT_TRUE(database_.acknowledge_journal(id, 1, std::string(64, 'a')));
        ASSERT_TRUE(database_.remove_box(id));
        ASSERT_TRUE(database_.close_journal(id, 1000 + i, 1, [] { return Result<>(); }));
    }
    insert(kBox);
    std::atomic<bool> done = false;
    std::thread writer([&, other = store::Database::open(path("caisson.db")).value()]() mutable {
        for (std::int64_t i = 1; !done; ++i) static_cast<void>(other.acknowledge_journal(kBox, i, std::string(64, 'b')));
    });
    for (std::uint64_t most = 80; most > 0; most -= 8) {
        auto gone = database_.forget_journals(most, 1 << 30);
        EXPECT_TRUE(gone) << gone.error().message;
    }
    done = true;
    writer.join();
}

TEST_F(JournalOfHome, AnEndThatItsBoxRecordedIsKept) {
    insert(kBox);
    record(kBox, "box_removed");
    ASSERT_TRUE(database_.remove_box(kBox));
    ASSERT_TRUE(journal_.close_removed(database_, kActor, 0));
    EXPECT_EQ(entries_of(kBox).size(), 1U);
}

TEST_F(JournalOfHome, ChainsOfBoxesRemovedLongAgoGo) {
    std::vector<std::string> ids;
    for (int i = 0; i < 20; ++i) {
        ids.push_back(std::string("01hzzzzzzzzzzzzzzzzzzzzz") + static_cast<char>('a' + i / 10) + static_cast<char>('0' + i % 10));
        insert(ids.back());
        record(ids.back(), "a");
        ASSERT_TRUE(database_.remove_box(ids.back()));
        ASSERT_TRUE(journal_.close_removed(database_, kActor, 1000 + i));
    }
    auto gone = database_.forget_journals(16, 1 << 30);
    ASSERT_TRUE(gone);
    EXPECT_EQ(*gone, std::vector<std::string>(ids.begin(), ids.begin() + 6));
    EXPECT_TRUE(database_.forget_journals(16, 1 << 30)->empty());
    EXPECT_GT(database_.forget_journals(100, 4 * 4096)->size(), 5U);
}

TEST_F(JournalOfHome, AFullChainIsTrimmed) {
    insert(kBox);
    Journal small(path("audit"), {1024, 2});
    for (int i = 0; i < 40; ++i) {
        ASSERT_TRUE(small.record(database_, kBox, {"n"}, kActor, 0));
        if (i % 5 == 0) { ASSERT_TRUE(small.commit(database_)); }
    }
    ASSERT_TRUE(small.commit(database_));
    auto known = database_.journal_head(kBox);
    EXPECT_GT(known->first, 1);
    const auto all = entries_of(kBox);
    EXPECT_EQ(all.front().sequence, static_cast<std::uint64_t>(known->first));
    auto verified = verify_chain(chain_directory(small.root(), kBox), known_of(*known));
    ASSERT_TRUE(verified);
    EXPECT_FALSE(verified->finding) << verified->finding->text;
}

}  // namespace
}  // namespace caisson::audit
