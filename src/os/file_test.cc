#include "os/file.h"
#include "os/lasting.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

namespace caisson::os {
namespace {

class FileTest : public testing::Test {
  protected:
    TemporaryDirectory directory_ = TemporaryDirectory::create("/tmp", "caisson-file-test-").value();
    std::string path(const std::string& name) { return directory_.path() + "/" + name; }
};

TEST_F(FileTest, AtomicWriteReplacesAndLeavesNothingBeside) {
    ASSERT_TRUE(write_file_atomic(path("a"), "one", 0640).has_value());
    ASSERT_TRUE(write_file_atomic(path("a"), "two", 0640).has_value());
    EXPECT_EQ(read_file(path("a")).value(), "two");
    EXPECT_EQ(list_directory(directory_.path()).value().size(), 1u);
    struct stat info {};
    ASSERT_EQ(::stat(path("a").c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 07777, 0640u);
}

TEST_F(FileTest, AtomicWriteIntoMissingDirectoryNamesThePath) {
    auto result = write_file_atomic(path("no/a"), "x");
    ASSERT_FALSE(result.has_value());
    EXPECT_NE(result.error().to_string().find("no/a"), std::string::npos);
}

TEST_F(FileTest, ReadFileHasALimit) {
    ASSERT_TRUE(write_file_atomic(path("a"), std::string(101, 'x')).has_value());
    EXPECT_EQ(read_file(path("a"), 101).value().size(), 101u);
    auto result = read_file(path("a"), 100);
    ASSERT_FALSE(result.has_value());
    EXPECT_EQ(result.error().code, Errc::kLimit);
}

TEST_F(FileTest, RemoveTreeDoesNotFollowLinks) {
    ASSERT_TRUE(make_directories(path("kept")).has_value());
    ASSERT_TRUE(write_file_atomic(path("kept/file"), "x").has_value());
    ASSERT_TRUE(make_directories(path("tree/deep")).has_value());
    ASSERT_EQ(::symlink(path("kept").c_str(), path("tree/deep/link").c_str()), 0);
    ASSERT_EQ(::chmod(path("tree/deep").c_str(), 0500), 0);
    ::chmod(path("tree/deep").c_str(), 0700);
    ASSERT_TRUE(remove_tree(path("tree")).has_value());
    EXPECT_FALSE(exists(path("tree")));
    EXPECT_TRUE(exists(path("kept/file")));
    EXPECT_TRUE(remove_tree(path("tree")).has_value());
}

TEST_F(FileTest, RemoveTreeRemovesWhatIsNestedBeyondEveryPathLimit) {
    ASSERT_TRUE(make_directories(path("tree/wide/a")).has_value());
    ASSERT_TRUE(write_file_atomic(path("tree/wide/a/.remove-0"), "x").has_value());
    auto at = open_file(path("tree"), O_RDONLY | O_DIRECTORY).value();
    for (int depth = 0; depth < 3000; ++depth) {
        ASSERT_EQ(::mkdirat(at.get(), "d", 0700), 0) << depth;
        auto next = open_at(at, "d", O_RDONLY | O_DIRECTORY).value();
        ASSERT_TRUE(open_at(next, ".remove-1", O_WRONLY | O_CREAT, 0600).has_value());
        at = std::move(next);
    }
    auto removed = remove_tree(path("tree"));
    EXPECT_TRUE(removed.has_value()) << removed.error().to_string();
    EXPECT_FALSE(exists(path("tree")));
}

TEST_F(FileTest, RemoveTreeRemovesDirectoriesThatLostTheirMode) {
    ASSERT_TRUE(make_directories(path("tree/a/b/c")).has_value());
    ASSERT_TRUE(write_file_atomic(path("tree/a/b/c/file"), "x").has_value());
    for (auto name : {"tree/a/b/c", "tree/a/b", "tree/a"}) ASSERT_EQ(::chmod(path(name).c_str(), 0), 0);
    auto removed = remove_tree(path("tree"));
    EXPECT_TRUE(removed.has_value()) << removed.error().to_string();
    EXPECT_FALSE(exists(path("tree")));
}

TEST_F(FileTest, OpenBeneathRefusesEscapes) {
    ASSERT_TRUE(make_directories(path("in")).has_value());
    ASSERT_TRUE(write_file_atomic(path("out"), "x").has_value());
    ASSERT_EQ(::symlink("../out", path("in/link").c_str()), 0);
    auto in = open_file(path("in"), O_RDONLY | O_DIRECTORY).value();
    for (auto escape : {"../out", "link", "/etc/passwd", "x/../../out"})
        EXPECT_FALSE(open_beneath(in, escape, O_RDONLY).has_value()) << escape;
    EXPECT_TRUE(open_beneath(in, "new", O_WRONLY | O_CREAT, 0600).has_value());
}

// That they last is what tests/faults/test_power_loss.py sees.
TEST_F(FileTest, LastingDirectoriesAreMadeWithAllAbove) {
    ASSERT_TRUE(make_lasting_directories(path("lasting/a/b"), 0711));
    ASSERT_TRUE(make_lasting_directories(path("lasting/a/b"), 0700));
    struct stat info {};
    ASSERT_EQ(::stat(path("lasting/a/b").c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0711U);
    ASSERT_TRUE(write_file_atomic(path("lasting/file"), "x"));
    auto refused = make_lasting_directories(path("lasting/file"));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().sys_errno, ENOTDIR);
}

// A directory that may be passed but not read cannot be synced: a home below somebody else's, for instance.
TEST_F(FileTest, LastingDirectoriesBelowAClosedOneAreMade) {
    ASSERT_TRUE(make_directories(path("closed"), 0333));
    EXPECT_TRUE(make_lasting_directories(path("closed/in"), 0700));
    ::chmod(path("closed").c_str(), 0700);
}

TEST_F(FileTest, LockExcludesAndIsFreedWithItsOwner) {
    {
        auto held = FileLock::acquire(path("lock")).value();
        auto second = FileLock::try_acquire(path("lock"));
        ASSERT_FALSE(second.has_value());
        EXPECT_EQ(second.error().code, Errc::kInUse);
    }
    EXPECT_TRUE(FileLock::try_acquire(path("lock")).has_value());
}

}  // namespace
}  // namespace caisson::os
