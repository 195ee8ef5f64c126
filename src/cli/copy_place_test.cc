#include "cli/copy_place.h"

#include <gtest/gtest.h>

namespace caisson::cli {
namespace {

TEST(CopyPlace, IsReadAsDockerReadsIt) {
    struct Case {
        const char* text;
        const char* box;
        const char* path;
    };
    for (const auto& [text, box, path] : {Case{"box:/etc", "box", "/etc"}, Case{"box:etc/", "box", "etc/"}, Case{"box:a:b", "box", "a:b"},
                                          Case{"file", "", "file"}, Case{"/a:b", "", "/a:b"}, Case{"./a:b", "", "./a:b"},
                                          Case{"..", "", ".."}, Case{"-", "", "-"}, Case{"-x:y", "-x", "y"}}) {
        auto place = parse_copy_place(text);
        ASSERT_TRUE(place) << text;
        EXPECT_EQ(place->box, box) << text;
        EXPECT_EQ(place->path, path) << text;
    }
    EXPECT_TRUE(parse_copy_place("-")->stream());
    EXPECT_FALSE(parse_copy_place("box:-")->stream());
}

TEST(CopyPlace, NeedsEachPart) {
    for (const char* text : {"", ":", "box:", ":/etc"}) EXPECT_EQ(parse_copy_place(text).error().code, Errc::kUsage) << text;
}

}  // namespace
}  // namespace caisson::cli
