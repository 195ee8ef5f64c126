#include "box/place.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

namespace caisson::box {
namespace {

TEST(Place, PrefixIsAboveThePrograms) {
    EXPECT_EQ(prefix_of("/usr/bin"), "/usr");
    EXPECT_EQ(prefix_of("/usr/bin/"), "/usr");
    EXPECT_EQ(prefix_of("/nowhere/at/all/bin"), "/nowhere/at/all");
    EXPECT_EQ(prefix_of("/bin-that-is-missing"), "");
}

TEST(Place, PrefixFollowsLinks) {
    char directory[] = "/tmp/caisson-place-XXXXXX";
    ASSERT_NE(::mkdtemp(directory), nullptr);
    const std::string place = directory;
    ASSERT_EQ(::mkdir((place + "/real").c_str(), 0700), 0);
    ASSERT_EQ(::mkdir((place + "/real/bin").c_str(), 0700), 0);
    ASSERT_EQ(::symlink("real/bin", (place + "/programs").c_str()), 0);
    EXPECT_EQ(prefix_of(place + "/programs"), place + "/real");
    ::unlink((place + "/programs").c_str());
    ::rmdir((place + "/real/bin").c_str());
    ::rmdir((place + "/real").c_str());
    ::rmdir(directory);
}

TEST(Place, ProgramsAreBesideThisTest) { EXPECT_TRUE(own_program_directory().ends_with("/tests")); }

}  // namespace
}  // namespace caisson::box
