#include "volume/metadata.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

namespace caisson::volume {
namespace {

TEST(Metadata, IsReadAsItWasWritten) {
    for (const Metadata& metadata : {Metadata{{}, {}, 0644, 0, 0}, Metadata{0, 33, 07777, 0, 0}, Metadata{{}, 4294967294u, 0, S_IFBLK, 2049},
                                     Metadata{1000, {}, 01777, S_IFSOCK, 0}}) {
        auto again = decode(encode(metadata));
        ASSERT_TRUE(again) << encode(metadata);
        EXPECT_EQ(*again, metadata);
    }
    EXPECT_EQ(encode({{}, 5, 0755, 0, 0}), "1 - 5 755 0 0");
}

TEST(Metadata, AnythingElseIsNone) {
    for (const char* text : {"", "1", "2 - - 644 0 0", "1 - - 644 0", "1 - - 644 0 0 0", "1 - - 10000 0 0", "1 - - 888 0 0", "1 - - 644 100000 0",
                             "1 -1 - 644 0 0", "1 4294967296 - 644 0 0", "1 - - 644 40000 0", " 1 - - 644 0 0", "1  - 644 0 0", "1 - - 644 0 0\n"})
        EXPECT_FALSE(decode(text)) << text;
}

}  // namespace
}  // namespace caisson::volume
