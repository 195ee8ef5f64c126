// Which piece of a directory's listing the kernel gets from the agent, and what becomes of those that it does not get.
#include "agent/share_listings.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "agent/share_message.h"
#include "wire/listing.h"

namespace caisson::agent {
namespace {

using base::append;
using base::bytes_of;
using Way = ShareListings::Way;

struct ShareListingsTest : ::testing::Test {
    static constexpr std::uint64_t kTop = 2, kHandle = 9, kUnique = 900;
    static constexpr std::uint32_t kPlus = wire::ShareListed::kPlus, kEnd = wire::ShareListed::kEnd, kDone = wire::ShareListed::kDone;

    // Entries one after the other: where the listing goes on behind each, and the node that it is, if attributes come along.
    static base::Bytes entries(const std::vector<std::uint64_t>& offsets, bool plus) {
        base::Bytes bytes;
        for (const auto offset : offsets) {
            fuse_entry_out file{};
            file.nodeid = 100 + offset;
            fuse_dirent entry{};
            entry.off = offset;
            wire::put_listing_entry(bytes, plus ? &file : nullptr, entry, "abc");
        }
        return bytes;
    }
    void tell(std::uint64_t offset, const std::vector<std::uint64_t>& offsets, std::uint32_t flags, bool holds = true, std::uint64_t handle = kHandle) {
        base::Bytes data;
        append(data, bytes_of(wire::ShareListed{handle, offset, offsets.empty() ? offset : offsets.back(), flags, 0}));
        append(data, entries(offsets, (flags & kPlus) != 0));
        listings_.told(data, holds, now_);
    }
    static base::Bytes request(std::uint64_t offset, bool plus, std::uint64_t handle = kHandle, std::uint32_t size = 4096) {
        fuse_in_header header{};
        fuse_read_in in{};
        header.len = sizeof header + sizeof in;
        header.opcode = plus ? FUSE_READDIRPLUS : FUSE_READDIR;
        header.unique = kUnique;
        header.nodeid = kTop;
        in.fh = handle;
        in.offset = offset;
        in.size = size;
        base::Bytes message;
        append(message, bytes_of(header));
        append(message, bytes_of(in));
        return message;
    }
    Way read(std::uint64_t offset, bool plus, std::uint64_t handle = kHandle, std::uint32_t size = 4096) {
        answer_.clear();
        return listings_.read(request(offset, plus, handle, size), answer_, now_);
    }
    // What the kernel was answered: the listing, without the header.
    base::Bytes got() const {
        fuse_out_header header{};
        base::ByteView rest(answer_);
        EXPECT_TRUE(take(rest, header));
        EXPECT_EQ(header.unique, kUnique);
        EXPECT_EQ(header.error, 0);
        EXPECT_EQ(header.len, answer_.size());
        return {rest.begin(), rest.end()};
    }
    struct Sent {
        std::vector<wire::ShareList> wanted;
        std::vector<std::uint64_t> forgotten;
        std::vector<base::Bytes> others;
    };
    Sent sent() {
        Sent all;
        const auto bytes = listings_.take_requests();
        for (base::ByteView rest(bytes); !rest.empty();) {
            auto message = rest;
            fuse_in_header header{};
            if (!take(message, header) || header.len < sizeof header || header.len > rest.size()) {
                ADD_FAILURE() << "nonsense";
                break;
            }
            message = message.first(header.len - sizeof header);
            if (header.opcode == wire::kShareList) {
                EXPECT_EQ(header.nodeid, kTop);
                EXPECT_EQ(header.unique, 0u);
                take(message, all.wanted.emplace_back());
            } else if (header.opcode == FUSE_BATCH_FORGET) {
                fuse_batch_forget_in batch{};
                take(message, batch);
                for (std::uint32_t i = 0; i < batch.count; ++i) {
                    fuse_forget_one one{};
                    EXPECT_TRUE(take(message, one));
                    EXPECT_EQ(one.nlookup, 1u);
                    all.forgotten.push_back(one.nodeid);
                }
                EXPECT_TRUE(message.empty());
            } else {
                all.others.emplace_back(rest.begin(), rest.begin() + header.len);
            }
            rest = rest.subspan(header.len);
        }
        return all;
    }
    // The kernel read up to `next`, from the server: more is asked for.
    void listed_to(std::uint64_t next, bool plus) {
        EXPECT_EQ(read(next - 1, plus), Way::kToServer);
        listings_.answered(kUnique, 0, entries({next}, plus));
    }

    ShareListings listings_;
    ShareListings::Clock::time_point now_ = ShareListings::Clock::now();
    base::Bytes answer_;
};

TEST_F(ShareListingsTest, ASmallDirectoryNeedsNoWayToTheServer) {
    tell(0, {1, 2}, kPlus | kEnd);
    ASSERT_EQ(read(0, true), Way::kAnswered);
    EXPECT_EQ(got(), entries({1, 2}, true));
    for (const bool plus : {false, true}) {
        ASSERT_EQ(read(2, plus), Way::kAnswered);
        EXPECT_TRUE(got().empty());
    }
    listings_.closed(kHandle);
    const auto all = sent();
    EXPECT_TRUE(all.wanted.empty() && all.forgotten.empty() && all.others.empty());
}

TEST_F(ShareListingsTest, MoreIsAskedForBeforeTheKernelDoes) {
    for (const bool plus : {false, true}) {
        listings_ = {};
        const std::uint32_t kind = plus ? kPlus : 0;
        listed_to(5, plus);
        auto all = sent();
        ASSERT_EQ(all.wanted.size(), 1u);
        EXPECT_EQ(all.wanted[0].handle, kHandle);
        EXPECT_EQ(all.wanted[0].offset, 5u);
        EXPECT_EQ(all.wanted[0].plus != 0, plus);
        tell(5, {6, 7}, kind);
        tell(7, {8}, kind);
        tell(8, {}, kDone);
        ASSERT_EQ(read(5, plus), Way::kAnswered);
        EXPECT_EQ(got(), entries({6, 7}, plus));
        all = sent();
        ASSERT_EQ(all.wanted.size(), 1u) << "one is left";
        EXPECT_EQ(all.wanted[0].offset, 8u);
        EXPECT_EQ(all.wanted[0].pieces, wire::kShareMostPieces);
        ASSERT_EQ(read(7, plus), Way::kAnswered);
        EXPECT_TRUE(sent().wanted.empty()) << "it was asked for";
    }
}

// How a listing goes on behind its beginning nobody knows: with attributes if somebody wants those.
TEST_F(ShareListingsTest, NothingIsAskedForBehindTheBeginning) {
    tell(0, {1, 2}, kPlus);
    ASSERT_EQ(read(0, true), Way::kAnswered);
    EXPECT_EQ(read(2, false), Way::kToServer);
    EXPECT_TRUE(sent().wanted.empty());
    listings_.closed(kHandle);
    EXPECT_EQ(read(0, true), Way::kToServer);
    listings_.answered(kUnique, 0, entries({1}, true));
    EXPECT_TRUE(sent().wanted.empty());
}

TEST_F(ShareListingsTest, WhatWasAskedForIsWaitedFor) {
    listed_to(5, true);
    ASSERT_EQ(read(5, true), Way::kWaits);
    EXPECT_TRUE(answer_.empty());
    tell(5, {6}, kPlus);
    answer_ = listings_.take_answer();
    EXPECT_EQ(got(), entries({6}, true));
    EXPECT_TRUE(sent().others.empty());
}

TEST_F(ShareListingsTest, WhoIsQuickerThanTheServerGoesOnGettingMore) {
    listed_to(5, true);
    sent();
    for (std::uint64_t at = 5; at < 9; ++at) {
        ASSERT_EQ(read(at, true), Way::kWaits) << at;
        tell(at, {at + 1}, kPlus);
        EXPECT_FALSE(listings_.take_answer().empty()) << at;
        EXPECT_TRUE(sent().wanted.empty()) << "more may come";
        tell(at + 1, {}, kDone);
        const auto all = sent();
        ASSERT_EQ(all.wanted.size(), 1u) << at;
        EXPECT_EQ(all.wanted[0].offset, at + 1);
        EXPECT_NE(all.wanted[0].plus, 0u);
    }
    // Not behind the end.
    ASSERT_EQ(read(9, true), Way::kWaits);
    tell(9, {10}, kPlus | kEnd);
    tell(10, {}, kDone);
    EXPECT_TRUE(sent().wanted.empty());
}

// Whoever waits is answered, whatever happens.
TEST_F(ShareListingsTest, WhoWaitsForWhatDoesNotComeGoesToTheServer) {
    struct {
        const char* what;
        void (*happens)(ShareListingsTest&);
    } const cases[] = {
        {"nothing was told", [](ShareListingsTest& test) { test.tell(5, {}, kDone); }},
        {"something else was told", [](ShareListingsTest& test) { test.tell(5, {6}, 0); test.tell(6, {}, kDone); }},
        {"something is changed", [](ShareListingsTest& test) { test.listings_.clear(); }},
        {"something was changed", [](ShareListingsTest& test) { test.tell(5, {6}, kPlus, false); test.tell(6, {}, kDone); }},
        {"it is closed", [](ShareListingsTest& test) { test.listings_.closed(kHandle); }},
        {"another comes behind it", [](ShareListingsTest& test) { EXPECT_EQ(test.read(5, true), Way::kToServer); }},
        {"many are listed", [](ShareListingsTest& test) {
             for (std::uint64_t handle = 100; handle < 100 + ShareListings::kMost; ++handle) EXPECT_EQ(test.read(0, true, handle), Way::kToServer);
         }},
    };
    for (const auto& one : cases) {
        listings_ = {};
        listed_to(5, true);
        sent();
        ASSERT_EQ(read(5, true), Way::kWaits) << one.what;
        one.happens(*this);
        EXPECT_TRUE(listings_.take_answer().empty()) << one.what;
        EXPECT_EQ(sent().others, std::vector<base::Bytes>{request(5, true)}) << one.what;
    }
}

// The server counted what it told as looked up: what the kernel never hears of is forgotten.
TEST_F(ShareListingsTest, WhatIsThrownAwayIsForgotten) {
    struct {
        const char* what;
        void (*happens)(ShareListingsTest&);
    } const cases[] = {
        {"something is changed", [](ShareListingsTest& test) { test.listings_.clear(); }},
        {"it is closed", [](ShareListingsTest& test) { test.listings_.closed(kHandle); }},
        {"it is listed from elsewhere", [](ShareListingsTest& test) { EXPECT_EQ(test.read(77, true), Way::kToServer); }},
        {"it is listed without attributes", [](ShareListingsTest& test) { EXPECT_EQ(test.read(0, false), Way::kToServer); }},
        {"the kernel takes less", [](ShareListingsTest& test) { EXPECT_EQ(test.read(0, true, kHandle, 100), Way::kToServer); }},
        {"it is old", [](ShareListingsTest& test) {
             test.now_ += ShareListings::kKeptFor + std::chrono::milliseconds(1);
             EXPECT_EQ(test.read(0, true), Way::kToServer);
         }},
        {"many are listed", [](ShareListingsTest& test) {
             for (std::uint64_t handle = 100; handle < 100 + ShareListings::kMost; ++handle) test.tell(0, {}, kPlus | kEnd, true, handle);
         }},
    };
    for (const auto& one : cases) {
        listings_ = {};
        tell(0, {1, 2}, kPlus);
        EXPECT_TRUE(sent().forgotten.empty());
        one.happens(*this);
        EXPECT_EQ(sent().forgotten, (std::vector<std::uint64_t>{101, 102})) << one.what;
    }
    // While something is under way that may change it, when nobody asked for it, and when the directory is closed.
    listings_ = {};
    tell(0, {1}, kPlus, false);
    EXPECT_EQ(sent().forgotten, std::vector<std::uint64_t>{101});
    EXPECT_EQ(read(0, true), Way::kToServer);
    tell(5, {6}, kPlus);
    tell(6, {7}, kPlus, true, kHandle + 1);
    EXPECT_EQ(sent().forgotten, (std::vector<std::uint64_t>{106, 107}));
}

TEST_F(ShareListingsTest, WhoChangesWhatHeListsGetsNothingTold) {
    listed_to(5, false);
    EXPECT_EQ(sent().wanted.size(), 1u);
    listings_.clear();
    tell(5, {6}, 0);
    tell(6, {}, kDone);
    EXPECT_EQ(read(5, false), Way::kToServer);
    listings_.answered(kUnique, 0, entries({6}, false));
    EXPECT_TRUE(sent().wanted.empty());
}

TEST_F(ShareListingsTest, TheEndIsNotKeptForLong) {
    tell(0, {1}, kPlus | kEnd);
    ASSERT_EQ(read(0, true), Way::kAnswered);
    ASSERT_EQ(read(1, false), Way::kAnswered);
    now_ += ShareListings::kKeptFor + std::chrono::milliseconds(1);
    EXPECT_EQ(read(1, false), Way::kToServer);
}

TEST_F(ShareListingsTest, FailuresAndEndsAskForNothing) {
    EXPECT_EQ(read(4, true), Way::kToServer);
    listings_.answered(kUnique, EIO, {});
    EXPECT_EQ(read(4, true), Way::kToServer);
    listings_.answered(kUnique, 0, {});
    listings_.answered(kUnique, 0, entries({5}, true));  // nobody's
    EXPECT_TRUE(sent().wanted.empty());
}

}  // namespace
}  // namespace caisson::agent
