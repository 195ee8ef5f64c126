#include "volume/usage.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "os/file.h"

namespace caisson::volume {
namespace {

class Usage : public ::testing::Test {
  protected:
    Usage() : place_(os::TemporaryDirectory::create("/tmp", "usage").value()) {}
    std::uint64_t bytes() const { return allocated_bytes(os::open_file(place_.path(), O_PATH | O_DIRECTORY).value()).value(); }
    std::string at(const std::string& name) const { return place_.path() + "/" + name; }
    os::TemporaryDirectory place_;
};

TEST_F(Usage, CountsAFileOfTwoNamesOnce) {
    ASSERT_TRUE(os::write_file_atomic(at("a"), std::string(100000, 'x')));
    const auto one = bytes();
    EXPECT_GE(one, 100000u);
    ASSERT_EQ(::link(at("a").c_str(), at("b").c_str()), 0);
    EXPECT_LT(bytes(), one + 50000);
}

TEST_F(Usage, DoesNotFollowLinks) {
    const auto before = bytes();
    ASSERT_EQ(::symlink("/usr", at("link").c_str()), 0);
    EXPECT_LT(bytes(), before + 50000);
}

// A path of this depth would be longer than any path may be, and so would be the list of open directories.
TEST_F(Usage, ReachesTheBottomOfADeepTree) {
    constexpr int kDepth = 2500;
    auto directory = os::open_file(place_.path(), O_RDONLY | O_DIRECTORY).value();
    for (int i = 0; i < kDepth; ++i) {
        ASSERT_EQ(::mkdirat(directory.get(), "d", 0700), 0);
        directory = os::open_at(directory, "d", O_RDONLY | O_DIRECTORY).value();
    }
    auto file = os::open_at(directory, "f", O_WRONLY | O_CREAT, 0600).value();
    const auto before = bytes();
    ASSERT_TRUE(os::write_all(file.get(), std::string(1 << 20, 'x')));
    EXPECT_GE(bytes(), before + (1 << 20));
}

// Two-sided: with a way up that is not compared, the count goes on above the volume.
TEST_F(Usage, StaysInATreeWhosePartsAreMoved) {
    ASSERT_TRUE(os::write_file_atomic(at("outside"), std::string(4 << 20, 'x')));
    ASSERT_TRUE(os::make_directories(at("volume/a/b/c/d/e")));
    for (int i = 0; i < 200; ++i) ASSERT_TRUE(os::make_directories(at("volume/a/b/c/d/e/" + std::to_string(i))));
    // Two steps up from "e", where it was moved to, lie directories of the same names as those that wait in "c".
    for (int i = 0; i < 20; ++i) {
        const auto name = "trap" + std::to_string(i);
        ASSERT_TRUE(os::make_directories(at("volume/a/b/c/" + name)));
        ASSERT_TRUE(os::make_directories(at(name)));
        ASSERT_EQ(::link(at("outside").c_str(), at(name + "/large").c_str()), 0);
    }
    std::atomic<bool> done = false;
    std::thread mover([&] {
        while (!done) {
            ::rename(at("volume/a/b/c/d/e").c_str(), at("volume/e").c_str());
            ::rename(at("volume/e").c_str(), at("volume/a/b/c/d/e").c_str());
        }
    });
    auto top = os::open_file(at("volume"), O_PATH | O_DIRECTORY).value();
    for (int i = 0; i < 500; ++i) {
        auto counted = allocated_bytes(top);
        EXPECT_LT(counted.value_or(0), 4u << 20);  // it may give up
    }
    done = true;
    mover.join();
}

}  // namespace
}  // namespace caisson::volume
