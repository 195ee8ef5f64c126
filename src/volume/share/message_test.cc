#include "volume/share/message.h"

#include <gtest/gtest.h>

#include <string>

namespace caisson::volume::share {
namespace {

base::Bytes message(std::uint32_t length, std::string_view arguments = {}) {
    fuse_in_header header{};
    header.len = length;
    header.opcode = FUSE_LOOKUP;
    const std::string all = std::string(reinterpret_cast<const char*>(&header), sizeof header) + std::string(arguments);
    return {all.begin(), all.end()};
}

TEST(ShareMessage, IsCompleteOrNotYet) {
    auto bytes = message(sizeof(fuse_in_header) + 3, std::string_view("ab\0cd", 5));
    for (std::size_t cut = 0; cut < sizeof(fuse_in_header) + 3; ++cut) EXPECT_FALSE(*first_message(base::ByteView(bytes).first(cut))) << cut;
    auto first = *first_message(bytes);
    ASSERT_TRUE(first);
    EXPECT_EQ(base::as_text(first->arguments), std::string_view("ab\0", 3));
}

TEST(ShareMessage, LengthsHaveLimits) {
    EXPECT_FALSE(first_message(message(sizeof(fuse_in_header) - 1)));
    EXPECT_FALSE(first_message(message(0)));
    EXPECT_TRUE(first_message(message(kMaxMessageBytes)));
    EXPECT_FALSE(first_message(message(kMaxMessageBytes + 1)));
    EXPECT_FALSE(first_message(message(UINT32_MAX)));
}

TEST(ShareMessage, NamesAreOnePart) {
    auto name = [](std::string_view text) {
        Arguments arguments(base::as_bytes(text));
        auto taken = std::string(arguments.name());
        return arguments.ok() ? taken : "(refused)";
    };
    EXPECT_EQ(name(std::string_view("a\0b", 3)), "a");
    EXPECT_EQ(name(std::string_view("...\0", 4)), "...");
    EXPECT_EQ(name(std::string_view("\xff\n\0", 3)), "\xff\n");
    for (std::string_view bad : {std::string_view("a", 1), std::string_view("\0", 1), std::string_view("", 0), std::string_view(".\0", 2),
                                 std::string_view("..\0", 3), std::string_view("a/b\0", 4), std::string_view("/\0", 2)})
        EXPECT_EQ(name(bad), "(refused)") << bad;
    std::string longest(kMaxNameBytes, 'x');
    longest += '\0';
    EXPECT_EQ(name(longest), longest.substr(0, kMaxNameBytes));
    EXPECT_EQ(name("x" + longest), "(refused)");
}

TEST(ShareMessage, NothingIsReadBehindTheEnd) {
    base::Bytes five(5, 1);
    Arguments arguments(five);
    EXPECT_EQ(arguments.take<std::uint32_t>(), 0x01010101u);
    EXPECT_EQ(arguments.take<std::uint32_t>(), 0u);
    EXPECT_FALSE(arguments.ok());
    EXPECT_TRUE(arguments.bytes(1).empty()) << "nothing after the first failure";
    EXPECT_EQ(Arguments(five).bytes(5).size(), 5u);
    EXPECT_EQ(Arguments(five).bytes(6).size(), 0u);
}

}  // namespace
}  // namespace caisson::volume::share
