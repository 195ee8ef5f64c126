#include "tar/reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tar/limits.h"
#include "tar/tar_builder.h"
#include "tar/test_support.h"

namespace caisson::tar {
namespace {

using testing::HasSubstr;

Errc error_of(const std::string& archive) {
    auto read = read_all(archive);
    EXPECT_FALSE(read);
    return read ? Errc::kInternal : read.error().code;
}

// A header's field set by hand, and its checksum put right.
std::string with_field(std::string archive, std::size_t at, const std::string& bytes) {
    archive.replace(at, bytes.size(), bytes);
    std::memset(archive.data() + 148, ' ', 8);
    unsigned sum = 0;
    for (std::size_t i = 0; i < 512; ++i) sum += static_cast<unsigned char>(archive[i]);
    std::snprintf(archive.data() + 148, 8, "%06o", sum);
    return archive;
}

TEST(TarReader, ReadsWhatIsThere) {
    auto read = read_all(TarBuilder().directory("d").file("d/f", "text").symlink("l", "d/f").hard_link("h", "d/f").finish());
    ASSERT_TRUE(read) << read.error().to_string();
    ASSERT_EQ(read->size(), 4u);
    EXPECT_EQ((*read)[0].entry.kind, Kind::kDirectory);
    EXPECT_EQ((*read)[1].data, "text");
    EXPECT_EQ((*read)[2].entry.link, "d/f");
    EXPECT_EQ((*read)[3].entry.kind, Kind::kHardLink);
}

TEST(TarReader, AnArchiveThatWasCutOffIsAnError) {
    auto whole = TarBuilder().file("f", std::string(1000, 'x')).finish();
    for (std::size_t size : {std::size_t{0}, std::size_t{100}, std::size_t{512}, std::size_t{900}, std::size_t{1536}})
        EXPECT_EQ(error_of(whole.substr(0, size)), Errc::kCorrupt) << size;
}

TEST(TarReader, WhatFollowsTheEndIsRead) {
    std::string rest = TarBuilder().file("f").finish() + std::string(1 << 20, 'x');
    std::size_t taken = 0;
    Reader reader([&](std::span<std::uint8_t> buffer) -> Result<std::size_t> {
        auto count = std::min(buffer.size(), rest.size() - taken);
        std::memcpy(buffer.data(), rest.data() + taken, count);
        taken += count;
        return count;
    });
    Entry entry;
    EXPECT_TRUE(*reader.next(entry));
    EXPECT_FALSE(*reader.next(entry));
    EXPECT_TRUE(reader.drain());
    EXPECT_EQ(taken, rest.size());
}

TEST(TarReader, AWrongChecksumIsAnError) {
    auto archive = TarBuilder().file("f").finish();
    archive[0] = 'g';
    EXPECT_EQ(error_of(archive), Errc::kCorrupt);
    EXPECT_EQ(error_of(std::string(2048, 'x')), Errc::kCorrupt);
}

TEST(TarReader, NumbersMayBeInBase256) {
    auto archive = TarBuilder().file("f").finish();
    // A user id beyond seven octal digits, and a time before 1970, as GNU tar writes them.
    auto read = read_all(with_field(with_field(archive, 108, std::string("\x80\0\0\0\xB2\xD0\x5E\0", 8)), 136,
                                    std::string(11, '\xff') + "\xfe"));
    ASSERT_TRUE(read) << read.error().to_string();
    EXPECT_EQ((*read)[0].entry.user, 0xB2D05E00u);
    EXPECT_EQ((*read)[0].entry.seconds, -2);
}

TEST(TarReader, ImpossibleNumbersAreErrors) {
    auto archive = TarBuilder().file("f").finish();
    EXPECT_EQ(error_of(with_field(archive, 124, "-0000000001")), Errc::kCorrupt);
    EXPECT_EQ(error_of(with_field(archive, 124, "00000000009")), Errc::kCorrupt);
    EXPECT_EQ(error_of(with_field(archive, 124, std::string(12, '\xff'))), Errc::kCorrupt);              // negative
    EXPECT_EQ(error_of(with_field(archive, 124, "\x80\x01" + std::string(10, '\0'))), Errc::kCorrupt);  // 2^80
    EXPECT_EQ(error_of(with_field(archive, 124, std::string("\x80\0\0\0", 4) + "\x7f" + std::string(7, '\xff'))), Errc::kCorrupt);
    EXPECT_EQ(error_of(with_field(archive, 108, std::string("\x80\0\0\0\xff\xff\xff\xff", 8))), Errc::kCorrupt);  // "no id"
    EXPECT_EQ(error_of(TarBuilder().add({.name = "c", .type = '3', .major = 0x1000}).finish()), Errc::kCorrupt);
    EXPECT_EQ(error_of(TarBuilder().add({.name = "c", .type = '3', .minor = 0x100000}).finish()), Errc::kCorrupt);
    for (auto [key, value] : std::vector<std::pair<const char*, const char*>>{
             {"uid", "x"}, {"uid", ""}, {"gid", "4294967295"}, {"size", "99999999999999999999"}, {"size", "9223372036854775807"},
             {"mtime", "."}, {"mtime", "1.x"}, {"mtime", "99999999999999999999"}})
        EXPECT_EQ(error_of(TarBuilder().add({.name = "f", .pax = {{key, value}}}).finish()), Errc::kCorrupt) << key << value;
}

TEST(TarReader, UnknownKindsAreErrors) {
    EXPECT_EQ(error_of(TarBuilder().add({.name = "f", .type = 'M'}).finish()), Errc::kUnsupported);
    EXPECT_EQ(error_of(TarBuilder().add({.name = "f", .type = 'Z'}).finish()), Errc::kUnsupported);
}

TEST(TarReader, NamesHaveBounds) {
    auto name = [](std::size_t size) { return std::string(size, 'n'); };
    EXPECT_TRUE(read_all(TarBuilder().file(name(kMaxPathBytes)).finish()));
    EXPECT_EQ(error_of(TarBuilder().file(name(kMaxPathBytes + 1)).finish()), Errc::kLimit);
    EXPECT_EQ(error_of(TarBuilder().symlink("l", name(kMaxPathBytes + 1)).finish()), Errc::kLimit);
    EXPECT_EQ(error_of(TarBuilder().add({.name = "f", .pax = {{"path", std::string("a\0b", 3)}}}).finish()), Errc::kCorrupt);
    EXPECT_EQ(error_of(TarBuilder().add({.name = "f", .pax = {{"path", ""}}}).finish()), Errc::kCorrupt);
    EXPECT_EQ(error_of(TarBuilder().file("").finish()), Errc::kCorrupt);
    EXPECT_EQ(error_of(TarBuilder().symlink("l", "").finish()), Errc::kCorrupt);
}

std::string gnu_long(char type, const std::string& text) {
    auto size = text.size() + 1;
    auto header = TarBuilder().add({.name = "././@LongLink", .type = type, .claimed_size = static_cast<long long>(size)}).finish();
    auto body = text + '\0';
    body.resize((body.size() + 511) / 512 * 512);
    return header.substr(0, 512) + body;
}

TEST(TarReader, GnusLongNamesAreRead) {
    const std::string name(200, 'n');
    const std::string link(300, 'l');
    auto read = read_all(gnu_long('L', name) + gnu_long('K', link) + TarBuilder().symlink("short", "short").finish());
    ASSERT_TRUE(read) << read.error().to_string();
    EXPECT_EQ((*read)[0].entry.path, name);
    EXPECT_EQ((*read)[0].entry.link, link);
    EXPECT_TRUE(read_all(gnu_long('L', std::string(kMaxPathBytes, 'n')) + TarBuilder().file("f").finish()));
    EXPECT_EQ(error_of(gnu_long('L', std::string(kMaxPathBytes + 1, 'n')) + TarBuilder().file("f").finish()), Errc::kLimit);
}

TEST(TarReader, AnExtendedHeaderThatIsNoListIsAnError) {
    for (std::string body : {"x", "5 a=b", "7 path=\n", "99 path=x\n", "3 a\n", "0 path=x\n", "4 a\n\n", "6 ab\n\n", "-9 path=x\n"}) {
        auto header = TarBuilder().add({.name = "p", .type = 'x', .claimed_size = static_cast<long long>(body.size())}).finish();
        auto padded = body;
        padded.resize(512);
        EXPECT_EQ(error_of(header.substr(0, 512) + padded + TarBuilder().file("f").finish()), Errc::kCorrupt) << body;
    }
}

TEST(TarReader, AnExtendedHeaderHasABound) {
    auto header = TarBuilder().add({.name = "p", .type = 'x', .claimed_size = kMaxHeaderBytes + 1}).finish();
    EXPECT_EQ(error_of(header.substr(0, 512) + std::string(1024, 'x')), Errc::kLimit);
}

std::string sparse_1_0(const std::string& map, const std::string& data, const std::string& size) {
    auto body = map;
    body.resize((map.size() + 511) / 512 * 512);
    return TarBuilder()
        .add({.name = "GNUSparseFile.0/s",
              .data = body + data,
              .pax = {{"GNU.sparse.major", "1"}, {"GNU.sparse.minor", "0"}, {"GNU.sparse.name", "s"}, {"GNU.sparse.realsize", size}}})
        .finish();
}

TEST(TarReader, HolesAreRead) {
    auto read = read_all(sparse_1_0("3\n2\n3\n8\n1\n10\n0\n", "abcd", "10"));
    ASSERT_TRUE(read) << read.error().to_string();
    EXPECT_EQ((*read)[0].entry.path, "s");
    EXPECT_EQ((*read)[0].data, std::string("\0\0abc\0\0\0d\0", 10));
    auto old = TarBuilder()
                   .add({.name = "x", .data = "abcd",
                         .pax = {{"GNU.sparse.size", "10"}, {"GNU.sparse.map", "2,3,8,1"}, {"GNU.sparse.name", "s"}}})
                   .finish();
    read = read_all(old);
    ASSERT_TRUE(read) << read.error().to_string();
    EXPECT_EQ((*read)[0].data, std::string("\0\0abc\0\0\0d\0", 10));
}

TEST(TarReader, HolesThatCannotBeAreErrors) {
    for (const char* map : {"1\n8\n4\n", "2\n4\n2\n2\n2\n", "1\n0\n3\n", "1\n11\n4\n", "x\n", "1\n-1\n4\n", "1\n0\n99999999999999999999\n",
                            "1\n18446744073709551615\n4\n", "\n"})
        EXPECT_EQ(error_of(sparse_1_0(map, "abcd", "10")), Errc::kCorrupt) << map;
    EXPECT_EQ(error_of(sparse_1_0(std::to_string(kMaxExtents + 1) + "\n", "", "10")), Errc::kLimit);
    EXPECT_EQ(error_of(sparse_1_0("1\n0\n4\n", "abcd", "18446744073709551615")), Errc::kCorrupt);
    EXPECT_EQ(error_of(sparse_1_0(std::string(600, '1'), "", "10")), Errc::kCorrupt);
    // The map says more than there is.
    EXPECT_EQ(error_of(sparse_1_0("2000\n", "", "10")), Errc::kCorrupt);
}

TEST(TarReader, LinksAndDirectoriesHaveNoData) {
    auto archive = TarBuilder().add({.name = "l", .type = '2', .link = "t", .claimed_size = 5000}).file("f", "x").finish();
    auto read = read_all(archive);
    ASSERT_TRUE(read) << read.error().to_string();
    EXPECT_EQ(read->size(), 2u);
}

TEST(TarReader, WhatIsNotReadIsSkipped) {
    Reader reader(source_of(TarBuilder().file("a", std::string(700'000, 'x')).file("b", "y").finish()));
    Entry entry;
    ASSERT_TRUE(*reader.next(entry));
    ASSERT_TRUE(*reader.next(entry));
    EXPECT_EQ(entry.path, "b");
}

TEST(TarReader, MessagesArePrintable) {
    auto read = read_all(TarBuilder().add({.name = "\x1b[2J", .type = 'Z'}).finish());
    ASSERT_FALSE(read);
    EXPECT_THAT(read.error().to_string(), HasSubstr("\\x1b[2J"));
}

}  // namespace
}  // namespace caisson::tar
