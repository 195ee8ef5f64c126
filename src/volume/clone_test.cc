#include "volume/clone.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <atomic>
#include <set>
#include <thread>

#include "os/file.h"

namespace caisson::volume {
namespace {

class Clone : public ::testing::Test {
  protected:
    Clone() : place_(os::TemporaryDirectory::create("/var/tmp", "clone").value()) {
        for (const char* name : {"from/d", "to", "outside"}) EXPECT_TRUE(os::make_directories(at(name)));
        EXPECT_TRUE(os::write_file_atomic(at("outside/secret"), "secret"));
    }
    std::string at(const std::string& name) const { return place_.path() + "/" + name; }
    Result<> clone() {
        auto from = os::open_file(at("from"), O_PATH | O_DIRECTORY).value(), to = os::open_file(at("to"), O_RDONLY | O_DIRECTORY).value();
        return clone_tree(from, to);
    }
    struct stat status_of(const std::string& path) const {
        struct stat status {};
        EXPECT_EQ(::lstat(at(path).c_str(), &status), 0) << path;
        return status;
    }
    os::TemporaryDirectory place_;
};

TEST_F(Clone, KeepsEverything) {
    ASSERT_TRUE(os::write_file_atomic(at("from/d/file"), "content"));
    ASSERT_EQ(::setxattr(at("from/d/file").c_str(), "user.caisson.metadata", "1 - - 644 0 0", 13, 0), 0);
    ASSERT_EQ(::setxattr(at("from/d").c_str(), "user.guests", "own", 3, 0), 0);
    ASSERT_EQ(::link(at("from/d/file").c_str(), at("from/again").c_str()), 0);
    ASSERT_EQ(::symlink("/etc/passwd", at("from/link").c_str()), 0);
    const std::string strange = "from/d/\xff\n '\"";
    ASSERT_TRUE(os::write_file_atomic(at(strange), ""));
    {
        auto sparse = os::open_file(at("from/sparse"), O_WRONLY | O_CREAT, 0600).value();
        ASSERT_EQ(::ftruncate(sparse.get(), 1 << 30), 0);
        ASSERT_EQ(::pwrite(sparse.get(), "middle", 6, 1 << 29), 6);
    }
    const struct timespec times[2] = {{1000, 5}, {2000, 7}};
    ASSERT_EQ(::utimensat(AT_FDCWD, at("from/d").c_str(), times, 0), 0);
    auto cloned = clone();
    ASSERT_TRUE(cloned) << cloned.error().to_string();
    EXPECT_EQ(os::read_file(at("to/d/file")).value(), "content");
    char value[64];
    EXPECT_EQ(::getxattr(at("to/d/file").c_str(), "user.caisson.metadata", value, sizeof value), 13);
    EXPECT_EQ(::getxattr(at("to/d").c_str(), "user.guests", value, sizeof value), 3);
    EXPECT_EQ(status_of("to/again").st_ino, status_of("to/d/file").st_ino);
    EXPECT_TRUE(S_ISLNK(status_of("to/link").st_mode));
    EXPECT_TRUE(os::exists(at("to" + strange.substr(4))));
    EXPECT_EQ(status_of("to/sparse").st_size, 1 << 30);
    EXPECT_LT(status_of("to/sparse").st_blocks * 512, 1 << 20);
    EXPECT_EQ(os::read_file(at("to/sparse"), 2u << 30).value().substr(1 << 29, 6), "middle");
    EXPECT_EQ(status_of("to/d").st_mtim.tv_sec, 2000);
    EXPECT_EQ(status_of("to/d").st_mtim.tv_nsec, 7);
    ASSERT_TRUE(os::write_file_atomic(at("to/d/file"), "other"));
    EXPECT_EQ(os::read_file(at("from/d/file")).value(), "content");
}

// Two-sided: with opens that follow, the secret is copied sooner or later.
TEST_F(Clone, NeverFollowsALinkThatTakesAFilesPlace) {
    ASSERT_TRUE(os::write_file_atomic(at("from/swap"), "mine"));
    ASSERT_TRUE(os::make_directories(at("from/tree")));
    ASSERT_TRUE(os::write_file_atomic(at("from/tree/secret"), "mine"));
    ASSERT_EQ(::symlink(at("outside/secret").c_str(), at("link").c_str()), 0);
    ASSERT_EQ(::symlink(at("outside").c_str(), at("way").c_str()), 0);
    std::set<std::string> found;
    std::atomic<bool> done = false;
    std::thread swapper([&] {
        while (!done) {
            ::renameat2(AT_FDCWD, at("link").c_str(), AT_FDCWD, at("from/swap").c_str(), RENAME_EXCHANGE);
            ::renameat2(AT_FDCWD, at("way").c_str(), AT_FDCWD, at("from/tree").c_str(), RENAME_EXCHANGE);
        }
    });
    for (int i = 0; i < 400; ++i) {
        ASSERT_TRUE(os::empty_directory(at("to")));
        static_cast<void>(clone().has_value());
        // A link that was copied as a link leads wherever it did.
        for (const char* name : {"swap", "tree/secret"})
            if (auto copied = os::open_beneath(os::open_file(at("to"), O_PATH | O_DIRECTORY).value(), name, O_RDONLY))
                found.insert(os::read_fd(copied->get(), 100, name).value());
    }
    done = true;
    swapper.join();
    EXPECT_EQ(found, std::set<std::string>{"mine"});
}

}  // namespace
}  // namespace caisson::volume
