#include "tar/names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace caisson::tar {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(TarNames, TheBaseNameIsTheLastPart) {
    for (auto [path, name] : std::vector<std::pair<const char*, const char*>>{
             {"/a/b", "b"}, {"b", "b"}, {"/a/b/", "b"}, {"/a//b//", "b"}, {"/a/..b", "..b"},
             // these mean contents
             {"/", "."}, {".", "."}, {"/a/.", "."}, {"/a/./", "."}, {"/a/..", "."}, {"", "."}, {"//", "."}})
        EXPECT_EQ(base_name(path), name) << path;
}

TEST(TarNames, TheParentIsWhatComesBefore) {
    for (auto [path, name] : std::vector<std::pair<const char*, const char*>>{
             {"/a/b", "/a"}, {"b", "."}, {"/b", "/"}, {"a/b/", "a"}, {"a//b", "a"}, {"//b", "/"}})
        EXPECT_EQ(parent_name(path), name) << path;
}

TEST(TarNames, SlashesAndDotsMeanADirectory) {
    for (const char* path : {"a/", "a/.", "a/..", ".", "..", "/"}) EXPECT_TRUE(means_directory(path)) << path;
    for (const char* path : {"a", "a/b", "a/.b", "..a"}) EXPECT_FALSE(means_directory(path)) << path;
}

// The table of docker cp.
TEST(TarNames, APlainPathIsNoDirectorysByItsForm) {
    const std::pair<const char*, const char*> cases[]{{"a", "a"}, {"a/", "a"}, {"a//", "a"}, {"a/.", "a"}, {"/a/././", "/a"},
                                                      {"/", "/"}, {"/.", "/"}, {".", "."}, {"./.", "."}, {"a/..", "a/.."},
                                                      {"a/../", "a/.."}, {"a.", "a."}, {"..", ".."}, {"", ""}};
    for (auto [path, plain] : cases) EXPECT_EQ(plain_path(path), plain) << path;
}

TEST(TarNames, LinksThatMayLeadOutOfATree) {
    for (const char* text : {"x", "./x", "x/y", "x/", ".", "", "..x", "x/...", "a/./b"}) {
        EXPECT_FALSE(leads_out(text, 0)) << text;
        EXPECT_TRUE(leads_out(text, -1)) << text << ": a link alone is no tree";
    }
    for (const char* text : {"/", "/x", "..", "../x", "./../x", "x/..", "x/../..", "x/../y", "../../x", ".//.."})
        EXPECT_TRUE(leads_out(text, 0)) << text;
    EXPECT_FALSE(leads_out("../x", 1));
    EXPECT_FALSE(leads_out(".././../x", 2));
    EXPECT_TRUE(leads_out("../../../x", 2));
    EXPECT_TRUE(leads_out("../x/../y", 2)) << "x may be a link that leads upwards";
}

TEST(TarNames, AThingGoesWhereDockerWouldPutIt) {
    // An existing directory takes in everything.
    EXPECT_EQ(place_for(false, Present::kDirectory, false, "d"), Place::kInside);
    EXPECT_EQ(place_for(true, Present::kDirectory, true, "d"), Place::kInside);
    // A file or a directory gets the name of what is not there yet.
    EXPECT_EQ(place_for(false, Present::kNothing, false, "d"), Place::kInstead);
    EXPECT_EQ(place_for(true, Present::kNothing, false, "d"), Place::kInstead);
    EXPECT_EQ(place_for(true, Present::kNothing, true, "d"), Place::kInstead);
    EXPECT_EQ(place_for(false, Present::kOther, false, "d"), Place::kInstead);
    EXPECT_EQ(place_for(false, Present::kNothing, true, "d").error().code, Errc::kNotFound);
    EXPECT_EQ(place_for(true, Present::kOther, false, "d").error().code, Errc::kUsage);
    EXPECT_EQ(place_for(false, Present::kOther, true, "d").error().code, Errc::kUsage);
}

TEST(TarNames, NamesStayBelowTheDirectory) {
    Names names;
    EXPECT_THAT(*names.map("a/b"), ElementsAre("a", "b"));
    EXPECT_THAT(*names.map("/a//./b/"), ElementsAre("a", "b"));
    EXPECT_THAT(*names.map("./"), IsEmpty());
    EXPECT_THAT(*names.map("..a/...b"), ElementsAre("..a", "...b"));
    for (const char* path : {"..", "../a", "a/../b", "a/..", "/../a", "./.."})
        EXPECT_EQ(names.map(path).error().code, Errc::kCorrupt) << path;
}

TEST(TarNames, TheFirstPartIsReplaced) {
    Names names{.top = "etc", .instead = "copy"};
    EXPECT_THAT(*names.map("etc"), ElementsAre("copy"));
    EXPECT_THAT(*names.map("etc/passwd"), ElementsAre("copy", "passwd"));
    Names contents{.top = "", .instead = "copy"};
    EXPECT_THAT(*contents.map("."), ElementsAre("copy"));
    EXPECT_THAT(*contents.map("./passwd"), ElementsAre("copy", "passwd"));
}

TEST(TarNames, WhatWasNotAskedForIsRefused) {
    Names names{.top = "etc"};
    for (const char* path : {".bashrc", ".", "etcetera/x", "x/etc"}) EXPECT_EQ(names.map(path).error().code, Errc::kCorrupt) << path;
}

}  // namespace
}  // namespace caisson::tar
