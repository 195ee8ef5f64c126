#include "tar/pack.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "os/process.h"
#include "tar/test_support.h"

namespace caisson::tar {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> names_in(const std::string& archive) {
    std::vector<std::string> names;
    auto read = read_all(archive);
    EXPECT_TRUE(read) << read.error().to_string();
    if (read)
        for (const auto& stored : *read) names.push_back(stored.entry.path);
    return names;
}

class TarPack : public TarFiles {
  protected:
    std::string pack_or_fail(const std::string& name, bool follow = false) {
        auto archive = packed(name, follow);
        EXPECT_TRUE(archive) << archive.error().to_string();
        return archive ? *archive : std::string();
    }
};

TEST_F(TarPack, NamesBeginWithTheBaseName) {
    make_directory("a/tree/sub");
    write("a/tree/sub/f", "x");
    EXPECT_THAT(names_in(pack_or_fail("a/tree")), ElementsAre("tree/", "tree/sub/", "tree/sub/f"));
    EXPECT_THAT(names_in(pack_or_fail("a/tree/")), ElementsAre("tree/", "tree/sub/", "tree/sub/f"));
    EXPECT_THAT(names_in(pack_or_fail("a/tree/.")), ElementsAre("./", "./sub/", "./sub/f"));
    EXPECT_THAT(names_in(pack_or_fail("a/tree/sub/f")), ElementsAre("f"));
}

TEST_F(TarPack, WhatIsNotThereIsNotFound) {
    EXPECT_EQ(packed("nothing").error().code, Errc::kNotFound);
    EXPECT_EQ(packed("nothing/below").error().code, Errc::kNotFound);
    write("f", "x");
    EXPECT_FALSE(packed("f/"));
}

TEST_F(TarPack, ALinkIsItselfUnlessItIsToBeFollowed) {
    make_directory("real");
    write("real/f", "x");
    ASSERT_EQ(::symlink("real", path("link").c_str()), 0);
    auto read = read_all(pack_or_fail("link"));
    ASSERT_EQ(read->size(), 1u);
    EXPECT_EQ((*read)[0].entry.kind, Kind::kSymlink);
    EXPECT_EQ((*read)[0].entry.link, "real");
    EXPECT_THAT(names_in(pack_or_fail("link", true)), ElementsAre("link/", "link/f"));
    EXPECT_THAT(names_in(pack_or_fail("link/", true)), ElementsAre("link/", "link/f"));
    EXPECT_THAT(names_in(pack_or_fail("link/.", true)), ElementsAre("./", "./f"));
}

// Whoever made the link in an earlier copy would choose what of the host's is packed.
TEST_F(TarPack, ALinkIsNotFollowedBecauseOfASlash) {
    make_directory("real");
    write("real/f", "x");
    ASSERT_EQ(::symlink("real", path("link").c_str()), 0);
    for (const char* name : {"link/", "link/.", "link//", "link/./"}) {
        auto refused = packed(name);
        ASSERT_FALSE(refused) << name;
        EXPECT_EQ(refused.error().code, Errc::kUsage);
        EXPECT_THAT(refused.error().to_string(), HasSubstr("is a link"));
    }
    EXPECT_THAT(names_in(pack_or_fail("real/.")), ElementsAre("./", "./f"));
    make_directory("real/sub");
    write("real/sub/g", "x");
    EXPECT_THAT(names_in(pack_or_fail("link/sub/")), ElementsAre("sub/", "sub/g")) << "what is above the last part is the user's own";
}

TEST_F(TarPack, LinksBelowAreNeverFollowed) {
    make_directory("tree");
    ASSERT_EQ(::symlink("/etc", path("tree/etc").c_str()), 0);
    auto read = read_all(pack_or_fail("tree", true));
    ASSERT_EQ(read->size(), 2u);
    EXPECT_EQ((*read)[1].entry.kind, Kind::kSymlink);
}

TEST_F(TarPack, NamesOfOneFileAreHardLinks) {
    make_directory("tree");
    write("tree/a", "text");
    ASSERT_EQ(::link(path("tree/a").c_str(), path("tree/b").c_str()), 0);
    auto read = read_all(pack_or_fail("tree"));
    ASSERT_EQ(read->size(), 3u);
    EXPECT_EQ((*read)[1].entry.kind, Kind::kFile);
    EXPECT_EQ((*read)[2].entry.kind, Kind::kHardLink);
    EXPECT_EQ((*read)[2].entry.link, (*read)[1].entry.path);
}

TEST_F(TarPack, HolesAreNotStored) {
    os::Fd fd(::open(path("sparse").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
    constexpr std::uint64_t kSize = 9ULL << 30;
    ASSERT_EQ(::ftruncate(fd.get(), static_cast<off_t>(kSize)), 0);
    ASSERT_EQ(::pwrite(fd.get(), "middle", 6, 5LL << 30), 6);
    auto archive = pack_or_fail("sparse");
    EXPECT_LT(archive.size(), 1u << 20);
    Reader reader(source_of(archive));
    Entry entry;
    ASSERT_TRUE(*reader.next(entry));
    EXPECT_EQ(entry.size, kSize);
    EXPECT_TRUE(entry.sparse);
    EXPECT_LE(entry.extents.size(), 4u);  // the file system decides
}

TEST_F(TarPack, SocketsAreLeftOutWithANotice) {
    make_directory("tree");
    os::Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::snprintf(address.sun_path, sizeof address.sun_path, "%s", path("tree/s").c_str());
    ASSERT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_THAT(names_in(pack_or_fail("tree")), ElementsAre("tree/"));
    EXPECT_THAT(notices_, ElementsAre(HasSubstr("socket")));
}

// The archive stays right while a file changes under it.
TEST_F(TarPack, AFileThatShrinksIsFilledUp) {
    write("f", std::string(3 << 20, 'x'));
    auto origin = open_origin(path("f"), false);
    ASSERT_TRUE(origin);
    std::string archive;
    bool cut = false;
    auto sink = [&](base::ByteView bytes) -> Result<> {
        archive += base::as_text(bytes);
        if (!std::exchange(cut, true)) {
            EXPECT_EQ(::truncate(path("f").c_str(), 1 << 20), 0);
        }
        return {};
    };
    ASSERT_TRUE(pack(*origin, sink, notice()));
    auto read = read_all(archive);
    ASSERT_TRUE(read) << read.error().to_string();
    EXPECT_EQ((*read)[0].data.size(), 3u << 20);
    EXPECT_EQ((*read)[0].data.back(), '\0');
    EXPECT_THAT(notices_, ElementsAre(HasSubstr("changed its size")));
}

TEST_F(TarPack, AFileThatGrowsIsCut) {
    write("f", std::string(1 << 20, 'x'));
    auto origin = open_origin(path("f"), false);
    ASSERT_TRUE(origin);
    std::string archive;
    bool grown = false;
    auto sink = [&](base::ByteView bytes) -> Result<> {
        archive += base::as_text(bytes);
        if (!std::exchange(grown, true)) {
            EXPECT_EQ(::truncate(path("f").c_str(), 2 << 20), 0);
        }
        return {};
    };
    ASSERT_TRUE(pack(*origin, sink, notice()));
    auto read = read_all(archive);
    ASSERT_TRUE(read) << read.error().to_string();
    EXPECT_EQ((*read)[0].data, std::string(1 << 20, 'x'));
    EXPECT_THAT(notices_, ElementsAre(HasSubstr("changed its size")));
}

// Time, mode and names as GNU tar understands them.
TEST_F(TarPack, GnuTarReadsIt) {
    make_directory("tree/" + std::string(120, 'd'));
    write("tree/" + std::string(120, 'd') + "/" + std::string(100, 'f'), "long");
    write("tree/odd \n\xff'\"\\", "odd");
    write("tree/a", "text");
    ASSERT_EQ(::chmod(path("tree/a").c_str(), 04750), 0);
    ASSERT_EQ(::symlink(std::string(150, 't').c_str(), path("tree/l").c_str()), 0);
    ASSERT_EQ(::link(path("tree/a").c_str(), path("tree/b").c_str()), 0);
    ASSERT_EQ(::mkfifo(path("tree/p").c_str(), 0600), 0);
    os::Fd fd(::open(path("tree/s").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
    ASSERT_EQ(::ftruncate(fd.get(), 64 << 20), 0);
    ASSERT_EQ(::pwrite(fd.get(), "middle", 6, 32 << 20), 6);
    struct timespec times[2] = {{1'234'567'890, 123'456'789}, {1'234'567'890, 123'456'789}};
    ASSERT_EQ(::futimens(fd.get(), times), 0);
    ASSERT_TRUE(os::write_file_atomic(path("archive"), pack_or_fail("tree")));
    make_directory("out");
    os::Command command;
    command.arguments = {"/usr/bin/tar", "-xpf", path("archive"), "-C", path("out")};
    auto tar = os::spawn(command);
    if (!tar) GTEST_SKIP() << "there is no tar";
    auto ended = tar->wait();
    ASSERT_TRUE(ended);
    EXPECT_EQ(ended->code, 0);
    EXPECT_EQ(content("out/tree/" + std::string(120, 'd') + "/" + std::string(100, 'f')), "long");
    EXPECT_EQ(content("out/tree/odd \n\xff'\"\\"), "odd");
    EXPECT_EQ(look("out/tree/a").st_mode & 07777, 04750u);
    EXPECT_EQ(look("out/tree/a").st_ino, look("out/tree/b").st_ino);
    EXPECT_EQ(link_text("out/tree/l"), std::string(150, 't'));
    EXPECT_TRUE(S_ISFIFO(look("out/tree/p").st_mode));
    auto sparse = look("out/tree/s");
    EXPECT_EQ(sparse.st_size, 64 << 20);
    EXPECT_LT(sparse.st_blocks, 2048);
    EXPECT_EQ(sparse.st_mtim.tv_sec, 1'234'567'890);
    EXPECT_EQ(sparse.st_mtim.tv_nsec, 123'456'789);
}

}  // namespace
}  // namespace caisson::tar
