#include "volume/names.h"

#include <gtest/gtest.h>

namespace caisson::volume {
namespace {

TEST(Names, OfVolumes) {
    for (const char* good : {"a", "data", "My_vol-1.2", "0", "a..b"}) EXPECT_TRUE(check_name(good)) << good;
    for (const char* bad : {"", ".", "..", ".hidden", "-x", "a/b", "a b", "a:b", "\xc3\xa4", "_a"}) EXPECT_FALSE(check_name(bad)) << bad;
    EXPECT_TRUE(check_name(std::string(kMaxNameBytes, 'a')));
    EXPECT_FALSE(check_name(std::string(kMaxNameBytes + 1, 'a')));
    EXPECT_FALSE(check_name(std::string_view("a\0b", 3)));
}

TEST(Names, OfPlacesInABox) {
    for (const char* good : {"/data", "/a/b", "/..a", "/ "}) EXPECT_TRUE(check_target(good)) << good;
    for (const char* bad : {"", "data", "ro", "./a", "../a", "/", "//", "/a/", "/a//b", "/a/./b", "/a/../b", "/.."})
        EXPECT_FALSE(check_target(bad)) << bad;
    EXPECT_NE(check_target("data").error().message.find("relative"), std::string::npos);
    EXPECT_NE(check_target("/a/../b").error().message.find("'..'"), std::string::npos);
    EXPECT_NE(check_target("/a//b").error().message.find("empty"), std::string::npos);
    EXPECT_TRUE(check_target("/" + std::string(kMaxPathBytes - 1, 'a')));
    EXPECT_FALSE(check_target("/" + std::string(kMaxPathBytes, 'a')));
}

TEST(Names, OfPlacesInAVolume) {
    for (const char* good : {"etc/app.conf", "a", "...", "a b"}) EXPECT_TRUE(check_subpath(good)) << good;
    for (const char* bad : {"", "/a", "a/", "a//b", "..", "a/..", "./a"}) EXPECT_FALSE(check_subpath(bad)) << bad;
}

TEST(Names, MadeOfAHostPath) {
    EXPECT_EQ(name_for("/home/me/My Project/"), "My-Project");
    EXPECT_EQ(name_for("/"), "data");
    EXPECT_EQ(name_for("./.config"), "config");
    EXPECT_EQ(name_for("/x/\xc3\xa4"), "data");
    for (const char* path : {"/a/b.conf", "~/x", "..", "/etc", "/x/------"}) EXPECT_TRUE(check_name(name_for(path))) << path;
}

}  // namespace
}  // namespace caisson::volume
