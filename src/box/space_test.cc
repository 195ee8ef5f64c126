#include "caisson/space.h"

#include <gtest/gtest.h>
#include <sys/statvfs.h>

#include <cerrno>

#include "base/result.h"
#include "box/room.h"
#include "os/file.h"
#include "store/reserve.h"

namespace caisson {
namespace {

constexpr std::uint64_t kMib = 1 << 20;

TEST(Room, IsLeftToOthers) {
    using box::Room;
    // A twentieth of small file systems, 1 GiB of large ones.
    EXPECT_EQ(box::room_to_leave({200 * kMib, 0}), 10 * kMib);
    EXPECT_EQ(box::room_to_leave({1000 * 1024 * kMib, 0}), 1024 * kMib);
    EXPECT_TRUE(box::is_short({200 * kMib, 10 * kMib - 1}));
    EXPECT_FALSE(box::is_short({200 * kMib, 10 * kMib}));
    EXPECT_FALSE(box::has_enough({200 * kMib, 11 * kMib}));
    EXPECT_TRUE(box::has_enough({200 * kMib, 12 * kMib}));
}

TEST(Room, WhatTheReserveGaveBackIsNotForBoxes) {
    // A box waits on a full file system; then the reserve is released. Nothing changes for it.
    for (std::uint64_t total : {200 * kMib, 10 * 1024 * kMib, 1000 * 1024 * kMib}) {
        const auto limit = box::room_to_leave({total, 0});
        EXPECT_TRUE(box::is_short({total, limit - 1}));
        EXPECT_TRUE(box::is_short({total, limit - 1 + store::kReserveBytes, 0}));
        EXPECT_FALSE(box::has_enough({total, limit + store::kReserveBytes, 0}));
    }
    // Where there never is a reserve nothing is kept for it.
    EXPECT_EQ(box::room_to_leave({100 * kMib, 0, 0}), 5 * kMib);
    // And when the reserve can be taken again, a box has room behind it.
    EXPECT_TRUE(box::has_enough({200 * kMib, store::kReserveRoomBytes - store::kReserveBytes, store::kReserveBytes}));
}

class FullDiskHint : public testing::Test {
  protected:
    os::TemporaryDirectory home_ = os::TemporaryDirectory::create("/tmp", "caisson-hint-test-").value();
    std::string hint(const Error& error) { return full_disk_hint(error, home_.path()); }
    bool has_room() {
        struct statvfs status {};
        return ::statvfs(home_.path().c_str(), &status) == 0 && status.f_bavail * status.f_frsize > 2 * store::kReserveRoomBytes;
    }
};

TEST_F(FullDiskHint, IsForEachErrorThatHasOneInItsChain) {
    if (!has_room()) GTEST_SKIP() << "less than 256 MiB are free in /tmp";
    ASSERT_EQ(store::keep_reserve(home_.path()), "");
    for (int number : {ENOSPC, EDQUOT}) {
        auto error = base::failure_errno("cannot write x", number).value();
        EXPECT_NE(hint(error).find("caisson reserve-release"), std::string::npos);
        auto wrapped = std::move(error).with_context("one").with_context("two").with_hint("do something");
        wrapped.code = Errc::kIo;
        EXPECT_NE(hint(wrapped).find("caisson reserve-release"), std::string::npos);
    }
    Error from_helper;
    from_helper.code = Errc::kNoSpace;
    EXPECT_NE(hint(from_helper).find("caisson reserve-release"), std::string::npos);
    EXPECT_EQ(hint(from_helper).find('\n'), std::string::npos);
}

TEST_F(FullDiskHint, NamesNoReserveThatIsNotThere) {
    auto error = base::failure_errno("cannot write x", ENOSPC).value();
    EXPECT_EQ(hint(error).find("reserve-release"), std::string::npos);
    EXPECT_NE(hint(error).find("caisson gc"), std::string::npos);
}

TEST_F(FullDiskHint, IsNotForOtherErrorsNorForOtherLimits) {
    if (!has_room()) GTEST_SKIP() << "less than 256 MiB are free in /tmp";
    ASSERT_EQ(store::keep_reserve(home_.path()), "");
    EXPECT_EQ(hint(base::failure_errno("cannot write x", EIO).value()), "");
    EXPECT_EQ(hint(base::failure(Errc::kNotFound, "there is no box").value()), "");
    // A guest's own disk; a volume's limit, which has a remedy of its own.
    auto guest = base::failure_errno("cannot make the mount point", ENOSPC).value();
    guest.code = Errc::kGuest;
    EXPECT_EQ(hint(guest), "");
    EXPECT_EQ(hint(base::failure(Errc::kNoSpace, "the volume's limit of 1.0 MiB is reached", "remove files from it").value()), "");
}

}  // namespace
}  // namespace caisson
