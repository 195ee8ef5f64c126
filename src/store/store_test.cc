#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/file.h"
#include "store/database.h"
#include "store/home.h"

namespace caisson::store {
namespace {

class StoreTest : public testing::Test {
  protected:
    os::TemporaryDirectory directory_ = os::TemporaryDirectory::create("/tmp", "caisson-store-test-").value();
    std::string path(const std::string& name) { return directory_.path() + "/" + name; }
    // What another version of caisson might have done to the database.
    void execute(const std::string& sql) {
        sqlite3* handle = nullptr;
        ASSERT_EQ(sqlite3_open(path("db").c_str(), &handle), SQLITE_OK);
        EXPECT_EQ(sqlite3_exec(handle, sql.c_str(), nullptr, nullptr, nullptr), SQLITE_OK) << sqlite3_errmsg(handle);
        sqlite3_close(handle);
    }
    static BoxRecord record(const std::string& id, const std::string& name) {
        BoxRecord box;
        box.id = id;
        box.name = name;
        box.image = "caisson/base:latest";
        box.command = "[\"true\"]";
        box.owner = {42, 4242, "boot"};
        box.base_disk = "/home/disks/d.ext4";
        return box;
    }
};

TEST_F(StoreTest, ABoxIsFoundByNameIdAndUniquePrefix) {
    auto database = Database::open(path("db")).value();
    ASSERT_TRUE(database.insert_box(record("01abc", "one")).has_value());
    ASSERT_TRUE(database.insert_box(record("01abd", "two")).has_value());
    EXPECT_EQ(database.find_box("one")->id, "01abc");
    EXPECT_EQ(database.find_box("01abd")->name, "two");
    EXPECT_EQ(database.find_box("01abc")->owner.start_time, 4242);
    EXPECT_EQ(database.find_box("01abc")->base_disk, "/home/disks/d.ext4");
    EXPECT_EQ(database.find_box("01ab").error().code, Errc::kUsage);
    EXPECT_EQ(database.find_box("three").error().code, Errc::kNotFound);
    EXPECT_EQ(database.find_box("").error().code, Errc::kNotFound);
    EXPECT_EQ(database.find_box("%").error().code, Errc::kNotFound);
}

TEST_F(StoreTest, ATakenNameNamesItsHolder) {
    auto database = Database::open(path("db")).value();
    ASSERT_TRUE(database.insert_box(record("01abc", "one")).has_value());
    auto second = database.insert_box(record("01abd", "one"));
    ASSERT_FALSE(second.has_value());
    EXPECT_EQ(second.error().code, Errc::kAlreadyExists);
    EXPECT_NE(second.error().message.find("01abc"), std::string::npos);
}

TEST_F(StoreTest, StatesAreKeptAcrossConnections) {
    auto first = Database::open(path("db")).value();
    auto second = Database::open(path("db")).value();
    ASSERT_TRUE(first.insert_box(record("01abc", "one")).has_value());
    ASSERT_TRUE(second.set_box_running("01abc", {7, 77, "b"}).has_value());
    EXPECT_EQ(first.live_boxes()->size(), 1u);
    ASSERT_TRUE(first.finish_box("01abc", BoxState::kStopped, 3, "exited", 99).has_value());
    EXPECT_EQ(second.live_boxes()->size(), 0u);
    auto box = second.find_box("one").value();
    EXPECT_EQ(box.exit_code, 3);
    EXPECT_EQ(box.state, BoxState::kStopped);
    ASSERT_TRUE(second.remove_box("01abc").has_value());
    EXPECT_TRUE(first.boxes()->empty());
}

TEST_F(StoreTest, AHomeFromTheFutureIsRefusedPolitely) {
    { ASSERT_TRUE(Database::open(path("db")).has_value()); }
    execute("PRAGMA user_version=99");
    auto opened = Database::open(path("db"));
    ASSERT_FALSE(opened.has_value());
    EXPECT_EQ(opened.error().code, Errc::kUnsupported);
}

TEST_F(StoreTest, AHomeOfTheFirstVersionKeepsItsBoxes) {
    {
        auto database = Database::open(path("db")).value();
        ASSERT_TRUE(database.insert_box(record("01abc", "one")).has_value());
    }
    execute("ALTER TABLE boxes DROP COLUMN base_disk; PRAGMA user_version=1");
    auto box = Database::open(path("db")).value().find_box("one");
    ASSERT_TRUE(box.has_value()) << box.error().to_string();
    EXPECT_EQ(box->owner.start_time, 4242);
    EXPECT_EQ(box->base_disk, "");
    EXPECT_TRUE(Database::open(path("db")).value().insert_box(record("01abd", "two")).has_value());
}

TEST_F(StoreTest, AFileThatIsNoDatabaseIsCorrupt) {
    ASSERT_TRUE(os::write_file_atomic(path("db"), std::string(4096, 'x')).has_value());
    auto opened = Database::open(path("db"));
    ASSERT_FALSE(opened.has_value());
    EXPECT_EQ(opened.error().code, Errc::kCorrupt);
}

TEST_F(StoreTest, HomeIsMadePrivateAndRefusedWhenOthersMayWrite) {
    ASSERT_TRUE(open_home(path("home")).has_value());
    struct stat info {};
    ASSERT_EQ(::stat(path("home").c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0700u);
    ASSERT_EQ(::chmod(path("home/boxes").c_str(), 0777), 0);
    auto opened = open_home(path("home"));
    ASSERT_FALSE(opened.has_value());
    EXPECT_NE(opened.error().hint.find("chmod go-w"), std::string::npos);
}

TEST_F(StoreTest, DefaultHome) {
    EXPECT_EQ(default_home("/x/", "/home/a", false).value(), "/x");
    EXPECT_EQ(default_home(nullptr, "/home/a", false).value(), "/home/a/.caisson");
    EXPECT_EQ(default_home("", "/root", true).value(), "/var/lib/caisson");
    EXPECT_FALSE(default_home("relative", "/home/a", false).has_value());
    EXPECT_FALSE(default_home(nullptr, nullptr, false).has_value());
}

TEST_F(StoreTest, RootTakesOverOnlyAnEmptyDirectory) {
    ASSERT_TRUE(os::make_directories(path("full")).has_value());
    ASSERT_TRUE(os::write_file_atomic(path("full/file"), "x").has_value());
    if (::geteuid() == 0) {
        EXPECT_FALSE(prepare_home_as_root(path("full"), 61777, 61777).has_value());
        EXPECT_TRUE(prepare_home_as_root(path("new"), 61777, 61777).has_value());
        EXPECT_TRUE(prepare_home_as_root(path("new"), 61777, 61777).has_value());
        EXPECT_FALSE(prepare_home_as_root(path("new"), 61778, 61778).has_value());
    }
    EXPECT_FALSE(prepare_home_as_root(path("full/file"), 61777, 61777).has_value());
}

}  // namespace
}  // namespace caisson::store
