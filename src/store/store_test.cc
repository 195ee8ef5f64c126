#include <gtest/gtest.h>
#include <poll.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

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
    // Another process; `work` says whether it went well.
    static pid_t in_child(const std::function<bool()>& work) {
        pid_t child = ::fork();
        if (child == 0) ::_exit(work() ? 0 : 1);
        return child;
    }
    static bool went_well(pid_t child) {
        int status = 0;
        return ::waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    }
    // The database of an earlier version, with one box.
    void make_old(int version) {
        {
            auto database = Database::open(path("db")).value();
            ASSERT_TRUE(database.insert_box(record("01abc000000000000000000000", "one")).has_value());
        }
        execute("DROP TRIGGER journal_of_box");
        execute("DROP TABLE journal_heads");
        if (version < 3) make_older(version);
        execute("PRAGMA user_version=" + std::to_string(version));
    }
    void make_older(int version) {
        execute("DROP TABLE executions");
        for (const char* column : {"spec", "engine", "started_ms", "outcome", "restarts", "health", "stop_requested"})
            execute(std::string("ALTER TABLE boxes DROP COLUMN ") + column);
        if (version < 2) execute("ALTER TABLE boxes DROP COLUMN base_disk");
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
    ASSERT_TRUE(database.insert_box(record("01abc000000000000000000000", "one")).has_value());
    ASSERT_TRUE(database.insert_box(record("01abd000000000000000000000", "two")).has_value());
    EXPECT_EQ(database.find_box("one")->id, "01abc000000000000000000000");
    EXPECT_EQ(database.find_box("01abd000000000000000000000")->name, "two");
    EXPECT_EQ(database.find_box("01abc000000000000000000000")->owner.start_time, 4242);
    EXPECT_EQ(database.find_box("01abc000000000000000000000")->base_disk, "/home/disks/d.ext4");
    EXPECT_EQ(database.find_box("01ab").error().code, Errc::kUsage);
    EXPECT_EQ(database.find_box("three").error().code, Errc::kNotFound);
    EXPECT_EQ(database.find_box("").error().code, Errc::kNotFound);
    EXPECT_EQ(database.find_box("%").error().code, Errc::kNotFound);
}

TEST_F(StoreTest, ATakenNameNamesItsHolder) {
    auto database = Database::open(path("db")).value();
    ASSERT_TRUE(database.insert_box(record("01abc000000000000000000000", "one")).has_value());
    auto second = database.insert_box(record("01abd000000000000000000000", "one"));
    ASSERT_FALSE(second.has_value());
    EXPECT_EQ(second.error().code, Errc::kAlreadyExists);
    EXPECT_NE(second.error().message.find("01abc000000000000000000000"), std::string::npos);
}

// Whoever takes a supervisor over can write into the database; ids become parts of paths.
TEST_F(StoreTest, RecordsThatMakeNoSenseAreLeftOut) {
    auto database = Database::open(path("db")).value();
    const std::string good = "01abc000000000000000000000", other = "01bcd000000000000000000000", third = "01cde000000000000000000000";
    ASSERT_TRUE(database.insert_box(record(good, "one")).has_value());
    ASSERT_TRUE(database.insert_box(record(other, "two")).has_value());
    ASSERT_TRUE(database.insert_box(record(third, "three")).has_value());
    execute("UPDATE boxes SET id='../../precious',state='running' WHERE name='two'");
    execute("UPDATE boxes SET state='dancing' WHERE name='three'");
    ASSERT_EQ(database.boxes()->size(), 1u);
    EXPECT_EQ(database.boxes()->at(0).id, good);
    const auto live = database.live_boxes().value();
    for (const auto& box : live) EXPECT_EQ(box.id, good);
    EXPECT_EQ(database.find_box("two").error().code, Errc::kCorrupt);
    EXPECT_EQ(database.find_box("three").error().code, Errc::kCorrupt);
    // Their directories are not taken for those of boxes that are no more.
    EXPECT_EQ(database.box_ids()->size(), 3u);
    execute("INSERT INTO executions(id,box_id,command,running,started_ms) VALUES('../x','" + good + "','[]',0,1)");
    EXPECT_TRUE(database.executions(good)->empty());
}

TEST_F(StoreTest, StatesAreKeptAcrossConnections) {
    auto first = Database::open(path("db")).value();
    auto second = Database::open(path("db")).value();
    ASSERT_TRUE(first.insert_box(record("01abc000000000000000000000", "one")).has_value());
    EXPECT_EQ(first.live_boxes()->size(), 1u);  // who makes it may die
    ASSERT_TRUE(first.set_box_created("01abc000000000000000000000").has_value());
    EXPECT_EQ(second.live_boxes()->size(), 0u);
    ASSERT_TRUE(second.begin_start("01abc000000000000000000000", {7, 77, "b"}).has_value());
    EXPECT_EQ(first.begin_start("01abc000000000000000000000", {8, 88, "b"}).error().code, Errc::kInUse);
    ASSERT_TRUE(second.set_box_owner("01abc000000000000000000000", {9, 99, "b"}, "tcg").has_value());
    ASSERT_TRUE(second.set_box_running("01abc000000000000000000000", 5, "starting").has_value());
    EXPECT_EQ(first.live_boxes()->at(0).owner.pid, 9);
    ASSERT_TRUE(first.finish_box("01abc000000000000000000000", BoxState::kStopped, {"exited", 3, "it was asked to", 99}).has_value());
    EXPECT_EQ(second.live_boxes()->size(), 0u);
    auto box = second.find_box("one").value();
    EXPECT_EQ(box.exit_code, 3);
    EXPECT_EQ(box.outcome, "exited");
    EXPECT_EQ(box.state, BoxState::kStopped);
    EXPECT_EQ(box.engine, "tcg");
    ASSERT_TRUE(first.begin_start("01abc000000000000000000000", {8, 88, "b"}).has_value());
    EXPECT_FALSE(second.find_box("one")->exit_code.has_value());
    ASSERT_TRUE(second.remove_box("01abc000000000000000000000").has_value());
    EXPECT_TRUE(first.boxes()->empty());
}

TEST_F(StoreTest, ASpecificationComesBackByteForByte) {
    auto database = Database::open(path("db")).value();
    auto box = record("01abc000000000000000000000", "one");
    box.spec = std::string("\0\xff\n", 3);
    ASSERT_TRUE(database.insert_box(box).has_value());
    EXPECT_EQ(database.find_box("one")->spec, box.spec);
}

TEST_F(StoreTest, ExecutionsGoWithTheirBox) {
    auto database = Database::open(path("db")).value();
    ASSERT_TRUE(database.insert_box(record("01abc000000000000000000000", "one")).has_value());
    for (const char* id : {"0aa10000000000000000000000", "0aa20000000000000000000000", "0b000000000000000000000000"})
        ASSERT_TRUE(database.insert_execution({id, "01abc000000000000000000000", "[]", true, 1, {}}).has_value());
    EXPECT_FALSE(database.insert_execution({"0c", "nobody", "[]", true, 1, {}}).has_value());
    EXPECT_EQ(database.find_execution("01abc000000000000000000000", "0b")->id, "0b000000000000000000000000");
    EXPECT_EQ(database.find_execution("01abc000000000000000000000", "0aa1")->id, "0aa10000000000000000000000");
    EXPECT_EQ(database.find_execution("01abc000000000000000000000", "0aa").error().code, Errc::kUsage);
    EXPECT_EQ(database.find_execution("01abc000000000000000000000", "").error().code, Errc::kNotFound);
    EXPECT_EQ(database.find_execution("other", "0b").error().code, Errc::kNotFound);
    ASSERT_TRUE(database.finish_execution("0b000000000000000000000000", {"exited", 4, "", 9}).has_value());
    ASSERT_TRUE(database.finish_box("01abc000000000000000000000", BoxState::kStopped, {"exited", 0, "", 10}).has_value());
    EXPECT_EQ(database.find_execution("01abc000000000000000000000", "0b")->end.exit_code, 4);
    auto cut_short = database.find_execution("01abc000000000000000000000", "0aa1").value();
    EXPECT_FALSE(cut_short.running);
    EXPECT_EQ(cut_short.end.outcome, "failed");
    ASSERT_TRUE(database.remove_box("01abc000000000000000000000").has_value());
    EXPECT_TRUE(database.executions("01abc000000000000000000000")->empty());
}

TEST_F(StoreTest, ABoxThatItsPolicyStartsAgainKeepsItsLastEnd) {
    auto database = Database::open(path("db")).value();
    ASSERT_TRUE(database.insert_box(record("01abc000000000000000000000", "one")).has_value());
    ASSERT_TRUE(database.insert_execution({"0aa10000000000000000000000", "01abc000000000000000000000", "[]", true, 1, {}}).has_value());
    ASSERT_TRUE(database.restart_box("01abc000000000000000000000", {"exited", 3, "it ended", 9}).has_value());
    auto box = database.find_box("one").value();
    EXPECT_EQ(box.state, BoxState::kStarting);
    EXPECT_EQ(box.restarts, 1);
    EXPECT_EQ(box.exit_code, 3);
    EXPECT_FALSE(database.find_execution("01abc000000000000000000000", "0aa1")->running);
}

TEST_F(StoreTest, ANameIsTakenForNewNamesToo) {
    auto database = Database::open(path("db")).value();
    ASSERT_TRUE(database.insert_box(record("01abc000000000000000000000", "one")).has_value());
    ASSERT_TRUE(database.insert_box(record("01abd000000000000000000000", "two")).has_value());
    EXPECT_EQ(database.rename_box("01abd000000000000000000000", "one").error().code, Errc::kAlreadyExists);
    ASSERT_TRUE(database.rename_box("01abd000000000000000000000", "three").has_value());
    EXPECT_EQ(database.find_box("three")->id, "01abd000000000000000000000");
}

TEST_F(StoreTest, WhatABoxIsToBeChangesOnlyFromWhatOneHasSeen) {
    auto database = Database::open(path("db")).value();
    auto box = record("01abc000000000000000000000", "one");
    const std::string first("a\0b", 3), second("c\0d", 3);
    box.spec = first;
    ASSERT_TRUE(database.insert_box(box).has_value());
    ASSERT_TRUE(database.change_box_spec(box.id, first, second).has_value());
    EXPECT_EQ(database.change_box_spec(box.id, first, "e").error().code, Errc::kInUse);
    EXPECT_EQ(database.find_box(box.id)->spec, second);
    EXPECT_EQ(database.change_box_spec("01zzz000000000000000000000", first, "e").error().code, Errc::kNotFound);
}

// Seen as "database is locked" when two commands were the first of a home.
TEST_F(StoreTest, ManyProcessesMayBeTheFirst) {
    for (int round = 0; round < 20; ++round) {
        std::vector<pid_t> children;
        const auto database = path("db" + std::to_string(round));
        for (int i = 0; i < 8; ++i)
            children.push_back(in_child([&] {
                auto opened = Database::open(database);
                if (!opened) std::fprintf(stderr, "%s\n", opened.error().to_string().c_str());
                return opened.has_value() && opened->insert_box(record("0" + std::to_string(i) + std::string(24, '0'), "box" + std::to_string(i))).has_value();
            }));
        for (auto child : children) EXPECT_TRUE(went_well(child));
        EXPECT_EQ(Database::open(database)->boxes()->size(), 8u);
    }
}

// SQLite's locks are fcntl(2) locks, which any close of the file drops.
TEST_F(StoreTest, AnotherConnectionOfThisProcessKeepsItsLocks) {
    auto first = Database::open(path("db")).value();
    sqlite3* writer = nullptr;
    ASSERT_EQ(sqlite3_open(path("db").c_str(), &writer), SQLITE_OK);
    ASSERT_EQ(sqlite3_exec(writer, "BEGIN IMMEDIATE", nullptr, nullptr, nullptr), SQLITE_OK);
    { auto second = Database::open(path("db")); }
    EXPECT_TRUE(went_well(in_child([&] {
        sqlite3* other = nullptr;
        return sqlite3_open(path("db").c_str(), &other) == SQLITE_OK &&
               sqlite3_exec(other, "BEGIN IMMEDIATE", nullptr, nullptr, nullptr) == SQLITE_BUSY;
    })));
    sqlite3_close(writer);
}

TEST_F(StoreTest, AnOldHomeIsLeftAloneWhileAnOldProcessUsesIt) {
    make_old(2);
    int ready[2];
    int done[2];
    ASSERT_TRUE(::pipe(ready) == 0 && ::pipe(done) == 0);
    auto child = in_child([&] {
        sqlite3* old = nullptr;
        bool open = sqlite3_open(path("db").c_str(), &old) == SQLITE_OK &&
                    sqlite3_exec(old, "SELECT count(*) FROM boxes", nullptr, nullptr, nullptr) == SQLITE_OK &&
                    ::write(ready[1], "x", 1) == 1;
        struct pollfd end {done[0], POLLIN, 0};
        return ::poll(&end, 1, 30000) == 1 && open;
    });
    char byte = 0;
    ASSERT_EQ(::read(ready[0], &byte, 1), 1);
    auto refused = Database::open(path("db"));
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error().code, Errc::kInUse);
    EXPECT_NE(refused.error().message.find(std::to_string(child)), std::string::npos) << refused.error().message;
    ASSERT_EQ(::write(done[1], "x", 1), 1);
    EXPECT_TRUE(went_well(child));
    EXPECT_TRUE(Database::open(path("db"))->find_box("one").has_value());
}

TEST_F(StoreTest, AHomeFromTheFutureIsRefusedPolitely) {
    { ASSERT_TRUE(Database::open(path("db")).has_value()); }
    execute("PRAGMA user_version=99");
    auto opened = Database::open(path("db"));
    ASSERT_FALSE(opened.has_value());
    EXPECT_EQ(opened.error().code, Errc::kUnsupported);
}

TEST_F(StoreTest, HomesOfEarlierVersionsKeepTheirBoxes) {
    for (int version : {1, 2}) {
        make_old(version);
        auto box = Database::open(path("db")).value().find_box("one");
        ASSERT_TRUE(box.has_value()) << box.error().to_string();
        EXPECT_EQ(box->owner.start_time, 4242);
        EXPECT_EQ(box->base_disk, version < 2 ? "" : "/home/disks/d.ext4");
        EXPECT_EQ(box->spec, "");
        EXPECT_TRUE(Database::open(path("db")).value().insert_box(record("01abd000000000000000000000", "two")).has_value());
        ASSERT_TRUE(os::remove_tree(path("db")).has_value());
        ASSERT_TRUE(os::remove_tree(path("db-wal")).has_value());
        ASSERT_TRUE(os::remove_tree(path("db-shm")).has_value());
    }
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
