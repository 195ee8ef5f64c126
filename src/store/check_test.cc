#include "store/check.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "os/file.h"
#include "store/database.h"

namespace caisson::store {
namespace {

constexpr const char* kId = "01k3a0b0c0d0e0f0g0h0j0k0m0";

class Check : public testing::Test {
  protected:
    void SetUp() override {
        auto made = os::TemporaryDirectory::create("/var/tmp", "caisson-check-test-");
        ASSERT_TRUE(made.has_value());
        place_.emplace(std::move(*made));
    }
    std::string path(const std::string& name) const { return place_->path() + "/" + name; }
    std::vector<std::string> names() const {
        auto all = os::list_directory(place_->path()).value_or(std::vector<std::string>());
        std::sort(all.begin(), all.end());
        return all;
    }
    void make_database() {
        auto database = Database::open(path("caisson.db"));
        ASSERT_TRUE(database.has_value());
        BoxRecord record;
        record.id = kId;
        record.name = "box";
        ASSERT_TRUE(database->insert_box(record).has_value());
    }
    std::optional<os::TemporaryDirectory> place_;
};

TEST_F(Check, LookingAtADatabaseMakesNothing) {
    make_database();
    const auto before = names();
    auto database = Database::open_to_look(path("caisson.db"));
    ASSERT_TRUE(database.has_value()) << database.error().to_string();
    EXPECT_EQ(database->boxes()->size(), 1u);
    EXPECT_TRUE(database->flaws()->empty());
    EXPECT_EQ(names(), before);
}

// As a power failure may leave it: the log is there, its index never reached the disk.
TEST_F(Check, ALogWithoutItsIndexIsReadElsewhere) {
    make_database();
    ASSERT_EQ(::unlink(path("caisson.db-shm").c_str()), 0);
    auto database = Database::open_to_look(path("caisson.db"));
    ASSERT_TRUE(database.has_value()) << database.error().to_string();
    EXPECT_EQ(database->boxes()->size(), 1u);
    EXPECT_FALSE(os::exists(path("caisson.db-shm")));
}

TEST_F(Check, WhatSomebodyHasWrittenMeanwhileIsSeen) {
    make_database();
    auto writer = Database::open(path("caisson.db"));
    ASSERT_TRUE(writer.has_value());
    BoxRecord record;
    record.id = "01k3a0b0c0d0e0f0g0h0j0k0m1";
    record.name = "other";
    ASSERT_TRUE(writer->insert_box(record).has_value());
    auto database = Database::open_to_look(path("caisson.db"));
    ASSERT_TRUE(database.has_value()) << database.error().to_string();
    EXPECT_EQ(database->boxes()->size(), 2u);
}

TEST_F(Check, WhatIsNoDatabaseIsCorrupt) {
    ASSERT_TRUE(os::write_file_atomic(path("caisson.db"), std::string(8192, 'x')).has_value());
    auto database = Database::open_to_look(path("caisson.db"));
    ASSERT_FALSE(database.has_value());
    EXPECT_EQ(database.error().code, Errc::kCorrupt);
    EXPECT_EQ(Database::open_to_look(path("none.db")).error().code, Errc::kNotFound);
}

TEST_F(Check, ThingsKeepTheirPathsAside) {
    ASSERT_TRUE(os::make_directories(path("boxes/a")).has_value());
    Aside aside(place_->path());
    EXPECT_TRUE(aside.take(path("gone")).has_value());
    EXPECT_TRUE(aside.directory().empty());
    ASSERT_TRUE(aside.take(path("boxes/a")).has_value());
    ASSERT_TRUE(os::make_directories(path("boxes/a")).has_value());
    ASSERT_TRUE(aside.take(path("boxes/a")).has_value());
    EXPECT_TRUE(os::exists(aside.directory() + "/boxes/a") && os::exists(aside.directory() + "/boxes/a.2"));
    EXPECT_FALSE(os::exists(path("boxes/a")));
}

TEST_F(Check, ALockIsSeenWithoutBeingMade) {
    EXPECT_FALSE(is_held(path("lock")));
    EXPECT_FALSE(os::exists(path("lock")));
    {
        auto lock = os::FileLock::acquire(path("lock"));
        ASSERT_TRUE(lock.has_value());
        EXPECT_TRUE(is_held(path("lock")));
    }
    EXPECT_FALSE(is_held(path("lock")));
}

TEST_F(Check, AHomeThatOthersMayWriteToIsTold) {
    Troubles found;
    ASSERT_EQ(::chmod(place_->path().c_str(), 0770), 0);
    check_mode(place_->path(), place_->path(), false, "home_mode", found);
    ASSERT_EQ(found.size(), 1u);
    Aside aside(place_->path());
    EXPECT_TRUE(found[0].mend(aside).has_value());
    struct stat info {};
    ASSERT_EQ(::stat(place_->path().c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0750u);
}

}  // namespace
}  // namespace caisson::store
