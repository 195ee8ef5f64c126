#include "volume/gate.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "os/file.h"

namespace caisson::volume {
namespace {

class Gate : public ::testing::Test {
  protected:
    Gate() : place_(os::TemporaryDirectory::create("/tmp", "gate").value()) {
        roots_ = {place_.path() + "/volumes/anonymous", place_.path() + "/volumes/named"};
        for (const auto& root : {roots_.anonymous, roots_.named}) EXPECT_TRUE(os::make_directories(root));
        EXPECT_TRUE(os::make_directories(named("v/etc")));
        EXPECT_TRUE(os::write_file_atomic(named("v/etc/app.conf"), "conf"));
        EXPECT_TRUE(os::make_directories(roots_.anonymous + "/01abc"));
    }
    std::string named(const std::string& path) const { return roots_.named + "/" + path; }
    static ino_t inode(const std::string& path) {
        struct stat status {};
        return ::stat(path.c_str(), &status) == 0 ? status.st_ino : 0;
    }
    static ino_t inode(const os::Fd& file) {
        struct stat status {};
        return ::fstat(file.get(), &status) == 0 ? status.st_ino : 0;
    }
    os::TemporaryDirectory place_;
    Roots roots_;
};

TEST_F(Gate, OpensWhatCaissonMade) {
    EXPECT_EQ(inode(pin(roots_, Kind::kNamed, "v", "")->file), inode(named("v")));
    auto file = pin(roots_, Kind::kNamed, "v", "etc/app.conf");
    ASSERT_TRUE(file);
    EXPECT_FALSE(file->directory);
    EXPECT_EQ(inode(file->file), inode(named("v/etc/app.conf")));
    EXPECT_TRUE(pin(roots_, Kind::kNamed, "v", "etc")->directory);
    EXPECT_TRUE(pin(roots_, Kind::kAnonymous, "01abc", ""));
}

TEST_F(Gate, SaysWhatIsNotThere) {
    EXPECT_EQ(pin(roots_, Kind::kNamed, "w", "").error().code, Errc::kNotFound);
    EXPECT_EQ(pin(roots_, Kind::kNamed, "01abc", "").error().code, Errc::kNotFound);
    EXPECT_EQ(pin(roots_, Kind::kNamed, "v", "no").error().code, Errc::kNotFound);
    EXPECT_EQ(pin(roots_, Kind::kNamed, "v", "etc/app.conf/x").error().code, Errc::kNotFound);
    for (const char* name : {"..", ".", "", "v/etc", "/etc"}) EXPECT_EQ(pin(roots_, Kind::kNamed, name, "").error().code, Errc::kUsage) << name;
    for (const char* path : {"..", "../w", "/etc", "etc/../etc"}) EXPECT_EQ(pin(roots_, Kind::kNamed, "v", path).error().code, Errc::kUsage) << path;
}

TEST_F(Gate, FollowsNoLink) {
    ASSERT_EQ(::symlink("/etc", named("link").c_str()), 0);
    ASSERT_EQ(::symlink("/etc/passwd", named("v/passwd").c_str()), 0);
    ASSERT_EQ(::symlink("/etc", named("v/up").c_str()), 0);
    ASSERT_EQ(::symlink("etc", named("v/inside").c_str()), 0);
    EXPECT_FALSE(pin(roots_, Kind::kNamed, "link", ""));
    for (const char* path : {"passwd", "up/passwd", "up", "inside/app.conf"}) EXPECT_FALSE(pin(roots_, Kind::kNamed, "v", path)) << path;
    ASSERT_EQ(::mkfifo(named("v/pipe").c_str(), 0600), 0);
    EXPECT_FALSE(pin(roots_, Kind::kNamed, "v", "pipe"));
}

TEST_F(Gate, TakesPathsOfVolumesOnly) {
    EXPECT_EQ(inode(pin_path(roots_, named("v"))->file), inode(named("v")));
    EXPECT_EQ(inode(pin_path(roots_, named("v/etc/.."))->file), inode(named("v")));
    EXPECT_TRUE(pin_path(roots_, roots_.anonymous + "/01abc/"));
    ASSERT_EQ(::symlink("/etc", named("out").c_str()), 0);
    ASSERT_EQ(::symlink(named("v").c_str(), (place_.path() + "/in").c_str()), 0);
    EXPECT_TRUE(pin_path(roots_, place_.path() + "/in")) << "it leads to a volume";
    const std::string other = named("../../volumes-2/v");
    ASSERT_TRUE(os::make_directories(place_.path() + "/volumes-2/v"));
    for (const std::string& path : {std::string("/etc"), std::string("/"), std::string(""), roots_.named, roots_.anonymous, place_.path(),
                                    place_.path() + "/volumes", named("v/etc"), named("v/etc/app.conf"), named("missing"), named("out"), other,
                                    std::string("relative")}) {
        auto refused = pin_path(roots_, path);
        ASSERT_FALSE(refused) << path;
        EXPECT_EQ(refused.error().message, "Volume host path '" + path + "' is not a caisson-managed volume");
        EXPECT_NE(refused.error().hint.find(roots_.named), std::string::npos);
        EXPECT_NE(refused.error().hint.find(roots_.anonymous), std::string::npos);
    }
}

TEST_F(Gate, OpensTheVolumeOrNothingWhileItIsSwapped) {
    const auto etc = inode("/etc");
    ASSERT_EQ(::symlink("/etc", named("swap").c_str()), 0);
    std::atomic<bool> done = false;
    std::thread swapper([&] {
        while (!done) ::renameat2(AT_FDCWD, named("swap").c_str(), AT_FDCWD, named("v").c_str(), RENAME_EXCHANGE);
    });
    int opened = 0, refused = 0;
    for (int i = 0; i < 20000 || opened == 0 || refused == 0; ++i) {
        auto pinned = i % 2 == 0 ? pin(roots_, Kind::kNamed, "v", "") : pin_path(roots_, named("v"));
        if (pinned) {
            ASSERT_NE(inode(pinned->file), etc);
            ++opened;
        } else {
            ++refused;
        }
    }
    done = true;
    swapper.join();
}

}  // namespace
}  // namespace caisson::volume
