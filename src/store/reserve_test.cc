#include "store/reserve.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "os/file.h"
#include "store/database.h"

namespace caisson::store {
namespace {

constexpr std::uint64_t kMib = 1 << 20;

TEST(ReserveRule, IsTakenOnlyWhileTwiceAsMuchIsFree) {
    struct Case {
        std::uint64_t total, free, held;
        ReserveStep step;
    };
    const Case cases[] = {
        {1000 * kMib, 500 * kMib, 0, ReserveStep::kTake},
        {1000 * kMib, 500 * kMib, 64 * kMib, ReserveStep::kKeep},
        {1000 * kMib, 0, 64 * kMib, ReserveStep::kKeep},
        {1000 * kMib, 500 * kMib, 65 * kMib, ReserveStep::kKeep},
        // One that shrank is no reserve, whatever is left of it.
        {1000 * kMib, 500 * kMib, 64 * kMib - 1, ReserveStep::kTake},
        {1000 * kMib, 127 * kMib, 63 * kMib, ReserveStep::kWait},
        {1000 * kMib, 128 * kMib, 0, ReserveStep::kTake},
        {1000 * kMib, 128 * kMib - 1, 0, ReserveStep::kWait},
        // Just given back on a full disk: not retaken.
        {1000 * kMib, 64 * kMib, 0, ReserveStep::kWait},
        {1000 * kMib, 0, 0, ReserveStep::kWait},
        {200 * kMib, 190 * kMib, 0, ReserveStep::kTake},
        // There never will be room: nothing to warn of.
        {128 * kMib - 1, 100 * kMib, 0, ReserveStep::kNone},
        {0, 0, 0, ReserveStep::kNone},
        {UINT64_MAX, UINT64_MAX, 0, ReserveStep::kTake},
    };
    for (const auto& one : cases) EXPECT_EQ(reserve_step(one.total, one.free, one.held), one.step) << one.total << " " << one.free << " " << one.held;
}

TEST(ReserveRule, WhoWritesOnLeavesWhatTheReserveLacks) {
    EXPECT_EQ(reserve_owed(1000 * kMib, 64 * kMib), 0u);
    EXPECT_EQ(reserve_owed(1000 * kMib, 0), 64 * kMib);
    EXPECT_EQ(reserve_owed(1000 * kMib, 60 * kMib), 4 * kMib);
    EXPECT_EQ(reserve_owed(128 * kMib, 0), 64 * kMib);
    EXPECT_EQ(reserve_owed(128 * kMib - 1, 0), 0u);
    EXPECT_EQ(reserve_owed(1000 * kMib, 70 * kMib), 0u);
}

class Reserve : public testing::Test {
  protected:
    os::TemporaryDirectory directory_ = os::TemporaryDirectory::create("/tmp", "caisson-reserve-test-").value();
    const std::string home_ = directory_.path();
    const std::string file_ = home_ + "/.reserve", unfinished_ = home_ + "/.reserve.new";
    void SetUp() override {
        struct statvfs status {};
        ASSERT_EQ(::statvfs(home_.c_str(), &status), 0);
        if (status.f_bavail * status.f_frsize < 4 * kReserveRoomBytes) GTEST_SKIP() << "less than 512 MiB are free in /tmp";
    }
    struct stat look() const {
        struct stat info {};
        EXPECT_EQ(::lstat(file_.c_str(), &info), 0);
        return info;
    }
};

TEST_F(Reserve, IsMadeOnceAndStays) {
    EXPECT_EQ(keep_reserve(home_), "");
    const auto made = look();
    EXPECT_EQ(static_cast<std::uint64_t>(made.st_size), kReserveBytes);
    EXPECT_GE(static_cast<std::uint64_t>(made.st_blocks) * 512, kReserveBytes);
    EXPECT_EQ(made.st_mode & 07777, 0600u);
    EXPECT_EQ(held_reserve(home_), kReserveBytes);
    EXPECT_FALSE(os::exists(unfinished_));
    EXPECT_EQ(keep_reserve(home_), "");
    EXPECT_EQ(look().st_ino, made.st_ino);
}

TEST_F(Reserve, ComesBackWhenItIsRemovedShrunkOrHollow) {
    ASSERT_EQ(keep_reserve(home_), "");
    ASSERT_EQ(::unlink(file_.c_str()), 0);
    ASSERT_EQ(keep_reserve(home_), "");
    EXPECT_EQ(held_reserve(home_), kReserveBytes);
    ASSERT_EQ(::truncate(file_.c_str(), 4096), 0);
    ASSERT_EQ(keep_reserve(home_), "");
    EXPECT_EQ(held_reserve(home_), kReserveBytes);
    // As large as it should be, and takes nothing: what a copy of a home may look like.
    ASSERT_EQ(::truncate(file_.c_str(), 0), 0);
    ASSERT_EQ(::truncate(file_.c_str(), static_cast<off_t>(kReserveBytes)), 0);
    EXPECT_EQ(held_reserve(home_), 0u);
    ASSERT_EQ(keep_reserve(home_), "");
    EXPECT_EQ(held_reserve(home_), kReserveBytes);
    // With a second name its removal would give nothing back.
    ASSERT_EQ(::link(file_.c_str(), (home_ + "/other").c_str()), 0);
    EXPECT_EQ(held_reserve(home_), 0u);
    ASSERT_EQ(keep_reserve(home_), "");
    EXPECT_EQ(held_reserve(home_), kReserveBytes);
}

TEST_F(Reserve, WhatAKilledMakerLeftIsTakenOver) {
    ASSERT_TRUE(os::write_file_atomic(unfinished_, "half").has_value());
    EXPECT_EQ(keep_reserve(home_), "");
    EXPECT_EQ(held_reserve(home_), kReserveBytes);
    EXPECT_FALSE(os::exists(unfinished_));
}

TEST_F(Reserve, TheIndexHasRoomOfItsOwnThatIsLentInPieces) {
    const auto database = home_ + "/caisson.db", room = database + "-room";
    EXPECT_FALSE(lend_index_room(database));
    ASSERT_TRUE(os::write_file_atomic(database, "").has_value());
    EXPECT_FALSE(index_lacks_room(database));  // much is free
    hold_index_room(database);
    struct stat made {};
    ASSERT_EQ(::lstat(room.c_str(), &made), 0);
    EXPECT_EQ(static_cast<std::uint64_t>(made.st_size), kIndexRoomBytes);
    EXPECT_GE(static_cast<std::uint64_t>(made.st_blocks) * 512, kIndexRoomBytes);
    EXPECT_EQ(made.st_mode & 07777, 0600u);
    for (std::uint64_t lent = kIndexLoanBytes; lent <= kIndexRoomBytes; lent += kIndexLoanBytes) {
        ASSERT_TRUE(lend_index_room(database)) << lent;
        struct stat rest {};
        ASSERT_EQ(::lstat(room.c_str(), &rest), 0);
        EXPECT_EQ(static_cast<std::uint64_t>(rest.st_size), kIndexRoomBytes - lent);
    }
    EXPECT_FALSE(lend_index_room(database));
    hold_index_room(database);
    EXPECT_TRUE(lend_index_room(database));
    // What a link names is nobody's to shrink.
    ASSERT_EQ(::unlink(room.c_str()), 0);
    ASSERT_TRUE(os::write_file_atomic(home_ + "/victim", "precious").has_value());
    ASSERT_EQ(::symlink("victim", room.c_str()), 0);
    EXPECT_FALSE(lend_index_room(database));
    hold_index_room(database);
    EXPECT_EQ(os::read_file(home_ + "/victim").value(), "precious");
}

TEST_F(Reserve, LinksAreNotFollowed) {
    ASSERT_TRUE(os::write_file_atomic(home_ + "/victim", "precious").has_value());
    for (const auto& place : {file_, unfinished_}) {
        ASSERT_EQ(::symlink("victim", place.c_str()), 0);
        EXPECT_EQ(held_reserve(home_), place == file_ ? 0u : kReserveBytes);
        static_cast<void>(keep_reserve(home_));
        EXPECT_EQ(os::read_file(home_ + "/victim").value(), "precious") << place;
    }
    // A link in its place is replaced.
    EXPECT_TRUE(S_ISREG(look().st_mode));
}

TEST_F(Reserve, SomethingElseInItsPlaceIsToldOf) {
    ASSERT_EQ(::mkdir(file_.c_str(), 0700), 0);
    EXPECT_NE(keep_reserve(home_).find("there is no reserve"), std::string::npos);
    EXPECT_FALSE(os::exists(unfinished_));
}

TEST_F(Reserve, SeveralProcessesMakeOne) {
    std::vector<pid_t> children;
    for (int i = 0; i < 8; ++i) {
        pid_t child = ::fork();
        if (child == 0) ::_exit(keep_reserve(home_).empty() ? 0 : 1);
        children.push_back(child);
    }
    for (pid_t child : children) {
        int status = 0;
        ASSERT_EQ(::waitpid(child, &status, 0), child);
        EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    EXPECT_EQ(held_reserve(home_), kReserveBytes);
    EXPECT_EQ(os::list_directory(home_).value().size(), 1u);
}

TEST_F(Reserve, IsReleasedWithNothingElseInTheHome) {
    EXPECT_EQ(release_reserve(home_).error().code, Errc::kNotFound);
    ASSERT_EQ(keep_reserve(home_), "");
    ASSERT_TRUE(os::write_file_atomic(unfinished_, "half").has_value());
    EXPECT_EQ(release_reserve(home_).value(), kReserveBytes + 4);
    EXPECT_TRUE(os::list_directory(home_).value().empty());
    EXPECT_EQ(release_reserve(home_).error().code, Errc::kNotFound);
    EXPECT_EQ(release_reserve(home_ + "/missing").error().code, Errc::kNotFound);
}

TEST_F(Reserve, ADatabaseHasItsLogBeforehand) {
    const auto path = home_ + "/caisson.db";
    auto database = Database::open(path);
    ASSERT_TRUE(database);
    BoxRecord record;
    record.id = "01arz3ndektsv4rrffq69g5fav";
    record.name = "kept";
    ASSERT_TRUE(database->insert_box(record).has_value());
    struct stat before {}, after {};
    ASSERT_EQ(::stat((path + "-wal").c_str(), &before), 0);
    hold_database_log(path);
    ASSERT_EQ(::stat((path + "-wal").c_str(), &after), 0);
    EXPECT_EQ(before.st_size, after.st_size);
    EXPECT_GE(static_cast<std::uint64_t>(after.st_blocks) * 512, kDatabaseLogBytes);
    // The log is used as before, by this connection and by others.
    ASSERT_TRUE(database->rename_box(record.id, "renamed").has_value());
    auto other = Database::open(path);
    ASSERT_TRUE(other);
    EXPECT_EQ(other->find_box("renamed").value().id, record.id);
    hold_database_log(home_ + "/missing");
    EXPECT_FALSE(os::exists(home_ + "/missing-wal"));
}

}  // namespace
}  // namespace caisson::store
