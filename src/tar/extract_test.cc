// What extraction does, and above all what it never does.
#include "tar/extract.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/sysmacros.h>

#include <chrono>
#include <map>

#include "os/process.h"
#include "tar/tar_builder.h"
#include "tar/test_support.h"

namespace caisson::tar {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class TarExtract : public TarFiles {
  protected:
    void SetUp() override {
        make_directory("target");
        make_directory("outside");
        write("outside/secret", "secret");
    }
    void extracts(const TarBuilder& builder, const std::string& name = "target", const ExtractOptions& options = {}) {
        auto done = unpacked(builder.finish(), name, options);
        EXPECT_TRUE(done) << done.error().to_string();
    }
    Error refuses(const TarBuilder& builder, const std::string& name = "target", const ExtractOptions& options = {}) {
        auto done = unpacked(builder.finish(), name, options);
        EXPECT_FALSE(done);
        return done ? Error() : done.error();
    }
    void only_has(const std::string& directory, const std::vector<std::string>& expected) {
        auto names = os::list_directory(path(directory));
        ASSERT_TRUE(names);
        EXPECT_THAT(*names, testing::UnorderedElementsAreArray(expected));
    }
    // Nothing outside of the target has changed.
    void TearDown() override {
        EXPECT_EQ(content("outside/secret"), "secret");
        auto names = os::list_directory(path("outside"));
        ASSERT_TRUE(names);
        EXPECT_THAT(*names, ElementsAre("secret"));
        EXPECT_EQ(look("outside/secret").st_nlink, 1u);
    }
};

// ---- what it does

TEST_F(TarExtract, MakesWhatTheArchiveSays) {
    extracts(TarBuilder()
                 .directory("d", 0750)
                 .add({.name = "d/f", .data = "text", .mode = 0640, .mtime = 1'234'567'890})
                 .symlink("l", "d/f")
                 .hard_link("h", "d/f")
                 .add({.name = "p", .type = '6', .mode = 0622}));
    EXPECT_EQ(content("target/d/f"), "text");
    EXPECT_EQ(look("target/d").st_mode & 07777, 0750u);
    EXPECT_EQ(look("target/d/f").st_mode & 07777, 0640u);
    EXPECT_EQ(look("target/d/f").st_mtim.tv_sec, 1'234'567'890);
    EXPECT_EQ(link_text("target/l"), "d/f");
    EXPECT_EQ(look("target/h").st_ino, look("target/d/f").st_ino);
    EXPECT_EQ(look("target/p").st_mode, S_IFIFO | 0622u);
    EXPECT_THAT(notices_, IsEmpty());
}

TEST_F(TarExtract, ReadOnlyDirectoriesCanBeFilled) {
    extracts(TarBuilder().directory("d", 0500).directory("d/e", 0500).file("d/e/f", "x").directory("d/e/g", 0));
    EXPECT_EQ(look("target/d/e").st_mode & 07777, 0500u);
    EXPECT_EQ(content("target/d/e/f"), "x");
    EXPECT_EQ(look("target/d/e/g").st_mode & 07777, 0u);
}

TEST_F(TarExtract, ADirectoryHasTheTimeOfTheArchive) {
    extracts(TarBuilder().add({.name = "d/", .type = '5', .mode = 0755, .mtime = 1'000'000'000}).file("d/f"));
    EXPECT_EQ(look("target/d").st_mtim.tv_sec, 1'000'000'000);
}

TEST_F(TarExtract, MissingParentsAreMade) {
    extracts(TarBuilder().file("a/b/c", "x").directory("a", 0700));
    EXPECT_EQ(content("target/a/b/c"), "x");
    EXPECT_EQ(look("target/a").st_mode & 07777, 0700u);
    EXPECT_EQ(look("target/a/b").st_mode & 07777, 0755u);
}

TEST_F(TarExtract, ExistingDirectoriesStayAsTheyAre) {
    make_directory("target/d");
    ASSERT_EQ(::chmod(path("target/d").c_str(), 0711), 0);
    extracts(TarBuilder().directory(".", 0700).directory("d", 0777).file("d/f", "x"));
    EXPECT_EQ(look("target").st_mode & 07777, 0755u);
    EXPECT_EQ(look("target/d").st_mode & 07777, 0711u);
    EXPECT_EQ(content("target/d/f"), "x");
}

TEST_F(TarExtract, AFileTakesTheDestinationsName) {
    extracts(TarBuilder().file("f", "x"), "target/g", {.top = "f"});
    EXPECT_EQ(content("target/g"), "x");
    extracts(TarBuilder().file("f", "y"), "target/g", {.top = "f"});
    EXPECT_EQ(content("target/g"), "y");
}

TEST_F(TarExtract, ADirectoryTakesTheDestinationsName) {
    extracts(TarBuilder().directory("etc").file("etc/a", "x").hard_link("etc/b", "etc/a"), "target/copy", {.top = "etc"});
    EXPECT_EQ(content("target/copy/b"), "x");
    extracts(TarBuilder().directory(".").file("./a", "x").hard_link("./b", "./a"), "target/contents");
    EXPECT_EQ(content("target/contents/b"), "x");
    extracts(TarBuilder().directory("etc").file("etc/a", "x"), "target/copy", {.top = "etc"});
    EXPECT_EQ(content("target/copy/etc/a"), "x");
}

TEST_F(TarExtract, WhatDoesNotFitIsRefused) {
    write("target/f", "x");
    EXPECT_EQ(refuses(TarBuilder().directory("d"), "target/f", {.top = "d"}).code, Errc::kUsage);
    EXPECT_EQ(refuses(TarBuilder().file("d"), "target/missing/", {.top = "d"}).code, Errc::kNotFound);
    EXPECT_EQ(open_destination(path("target/no/where"), false).error().code, Errc::kNotFound);
    EXPECT_EQ(refuses(TarBuilder().file("d"), "target/missing", {.must_exist = true}).code, Errc::kNotFound);
    EXPECT_EQ(content("target/f"), "x");
}

TEST_F(TarExtract, OnlyRootGivesFilesAway) {
    TarBuilder builder;
    builder.add({.name = "f", .mode = 04755, .uid = 1234, .gid = 4321}).add({.name = "d/", .type = '5', .mode = 02755, .uid = 1234});
    extracts(builder);
    EXPECT_EQ(look("target/f").st_uid, ::geteuid());
    EXPECT_EQ(look("target/f").st_mode & 07777, 0755u);
    EXPECT_EQ(look("target/d").st_mode & 07777, 0755u);
    ASSERT_TRUE(os::remove_tree(path("target/d")));
    extracts(builder, "target", {.keep_owner = true});
    const bool root = ::geteuid() == 0;
    EXPECT_EQ(look("target/f").st_uid, root ? 1234u : ::geteuid());
    EXPECT_EQ(look("target/f").st_mode & 07777, root ? 04755u : 0755u);
    EXPECT_EQ(look("target/d").st_mode & 07777, root ? 02755u : 0755u);
    EXPECT_THAT(notices_, SizeIs(root ? 0 : 1));
}

TEST_F(TarExtract, DevicesAreLeftOutWithANotice) {
    extracts(TarBuilder().add({.name = "null", .type = '3', .major = 1, .minor = 3}).file("f", "x"));
    EXPECT_FALSE(there("target/null"));
    EXPECT_EQ(content("target/f"), "x");
    EXPECT_THAT(notices_, ElementsAre(HasSubstr("null")));
}

TEST_F(TarExtract, NoticesEnd) {
    TarBuilder builder;
    for (int i = 0; i < 100; ++i) builder.add({.name = "c" + std::to_string(i), .type = '3', .major = 1, .minor = 3});
    extracts(builder);
    EXPECT_THAT(notices_, SizeIs(21));
}

TEST_F(TarExtract, HolesStayHoles) {
    os::Fd fd(::open(path("sparse").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
    ASSERT_EQ(::ftruncate(fd.get(), 1LL << 30), 0);
    ASSERT_EQ(::pwrite(fd.get(), "middle", 6, 512 << 20), 6);
    auto archive = packed("sparse");
    ASSERT_TRUE(archive);
    ASSERT_TRUE(unpacked(*archive, "target"));
    auto info = look("target/sparse");
    EXPECT_EQ(info.st_size, 1LL << 30);
    EXPECT_LT(info.st_blocks, 2048);
    os::Fd copy(::open(path("target/sparse").c_str(), O_RDONLY | O_CLOEXEC));
    char text[6];
    ASSERT_EQ(::pread(copy.get(), text, 6, 512 << 20), 6);
    EXPECT_EQ(std::string(text, 6), "middle");
}

TEST_F(TarExtract, ABrokenStreamLeavesNoHalfFile) {
    auto whole = TarBuilder().file("a", "x").file("f", std::string(100'000, 'x')).finish();
    auto done = unpacked(whole.substr(0, 50'000), "target");
    ASSERT_FALSE(done);
    EXPECT_EQ(content("target/a"), "x");
    EXPECT_FALSE(there("target/f"));
    only_has("target", {"a"});
}

TEST_F(TarExtract, ABrokenStreamLeavesTheOldFile) {
    write("target/f", "old");
    auto whole = TarBuilder().file("f", std::string(100'000, 'x')).finish();
    ASSERT_FALSE(unpacked(whole.substr(0, 50'000), "target"));
    EXPECT_EQ(content("target/f"), "old");
    ASSERT_FALSE(unpacked(whole.substr(0, 50'000), "target/f", {.top = "f"}));
    EXPECT_EQ(content("target/f"), "old");
    only_has("target", {"f"});
}

TEST_F(TarExtract, ModesAreMasked) {
    extracts(TarBuilder()
                 .directory("d", 0777)
                 .add({.name = "f", .mode = 0666})
                 .add({.name = "p", .type = '6', .mode = 0666})
                 .file("missing/f", "x"),
             "target", {.mask = 027});
    EXPECT_EQ(look("target/d").st_mode & 07777, 0750u);
    EXPECT_EQ(look("target/f").st_mode & 07777, 0640u);
    EXPECT_EQ(look("target/p").st_mode & 07777, 0640u);
    EXPECT_EQ(look("target/missing").st_mode & 07777, 0750u);
}

// ---- what it never does

TEST_F(TarExtract, NamesThatLeadOutAreRefused) {
    for (const char* name : {"../outside/secret", "a/../../outside/secret", "..", "./../outside/new"})
        EXPECT_EQ(refuses(TarBuilder().file(name, "bad")).code, Errc::kCorrupt) << name;
    EXPECT_EQ(refuses(TarBuilder().symlink("../outside/l", "x")).code, Errc::kCorrupt);
    EXPECT_EQ(refuses(TarBuilder().directory("../outside/d")).code, Errc::kCorrupt);
    EXPECT_EQ(refuses(TarBuilder().add({.name = "../outside/p", .type = '6'})).code, Errc::kCorrupt);
}

TEST_F(TarExtract, AbsoluteNamesCountFromTheTarget) {
    extracts(TarBuilder().file("/etc/x", "1").file("//y", "2").file("a//b", "3"));
    EXPECT_EQ(content("target/etc/x"), "1");
    EXPECT_EQ(content("target/y"), "2");
    EXPECT_EQ(content("target/a/b"), "3");
    extracts(TarBuilder().file(path("outside/secret"), "bad"));
}

TEST_F(TarExtract, LinksOfTheArchiveAreNotFollowed) {
    for (const std::string& target : {std::string("../outside"), path("outside"), std::string("."), std::string("/proc/self/cwd")}) {
        SCOPED_TRACE(target);
        auto error = refuses(TarBuilder().symlink("l", target).file("l/new", "bad"));
        EXPECT_EQ(error.code, Errc::kCorrupt);
        EXPECT_THAT(error.to_string(), HasSubstr("l/new"));
        EXPECT_EQ(link_text("target/l"), target);
        refuses(TarBuilder().symlink("l", target).directory("l"));
        refuses(TarBuilder().symlink("l", target).directory("l/d"));
        refuses(TarBuilder().symlink("l", target).symlink("l/m", "x"));
        refuses(TarBuilder().symlink("l", target).add({.name = "l/p", .type = '6'}));
        refuses(TarBuilder().symlink("l", target).file("f").hard_link("l/h", "f"));
    }
}

TEST_F(TarExtract, LinksThatWereThereAreNotFollowed) {
    ASSERT_EQ(::symlink("../outside", path("target/dir").c_str()), 0);
    ASSERT_EQ(::symlink("../outside/secret", path("target/file").c_str()), 0);
    EXPECT_EQ(refuses(TarBuilder().file("dir/new", "bad")).code, Errc::kCorrupt);
    EXPECT_EQ(refuses(TarBuilder().directory("dir")).code, Errc::kCorrupt);
    extracts(TarBuilder().add({.name = "file", .data = "mine", .mode = 0600}));
    EXPECT_EQ(content("target/file"), "mine");
    EXPECT_TRUE(S_ISREG(look("target/file").st_mode));
}

// An earlier copy may have made the link.
TEST_F(TarExtract, ATargetThatIsALinkIsNotFollowed) {
    ASSERT_EQ(::symlink("outside/secret", path("to-file").c_str()), 0);
    ASSERT_EQ(::symlink("outside/new", path("dangling").c_str()), 0);
    for (const char* name : {"to-file", "dangling"}) {
        extracts(TarBuilder().file("f", "mine"), name, {.top = "f"});
        EXPECT_TRUE(S_ISREG(look(name).st_mode)) << name;
        EXPECT_EQ(content(name), "mine");
        EXPECT_THAT(notices_, ElementsAre(HasSubstr("replaces a link")));
        notices_.clear();
    }
    ASSERT_EQ(::symlink("outside", path("way").c_str()), 0);
    ASSERT_EQ(::symlink("outside/secret", path("again").c_str()), 0);
    for (const char* name : {"way", "way/", "way/.", "way//", "way/./", "again/", "again/."}) {
        auto error = refuses(TarBuilder().file("f", "bad"), name, {.top = "f"});
        EXPECT_EQ(error.code, Errc::kUsage) << name;
        EXPECT_THAT(error.to_string(), HasSubstr("is a link"));
        EXPECT_EQ(refuses(TarBuilder().directory(".").file("./f", "bad"), name).code, Errc::kUsage) << name;
    }
    EXPECT_EQ(refuses(TarBuilder().directory("d").file("d/f", "bad"), "again", {.top = "d"}).code, Errc::kUsage);
    EXPECT_EQ(link_text("way"), "outside");
    EXPECT_EQ(link_text("again"), "outside/secret");
}

TEST_F(TarExtract, LinksAboveATargetAreTheUsersOwn) {
    make_directory("target/sub");
    ASSERT_EQ(::symlink("target", path("way").c_str()), 0);
    extracts(TarBuilder().file("f", "x"), "way/sub");
    EXPECT_EQ(content("target/sub/f"), "x");
    extracts(TarBuilder().file("f", "y"), "way/g", {.top = "f"});
    EXPECT_EQ(content("target/g"), "y");
}

TEST_F(TarExtract, InAContainerTheTargetMayBeALink) {
    ASSERT_EQ(::symlink("target", path("way").c_str()), 0);
    extracts(TarBuilder().file("f", "x"), "way", {.follow_links = true});
    EXPECT_EQ(content("target/f"), "x");
    ASSERT_EQ(::symlink("target/f", path("file").c_str()), 0);
    extracts(TarBuilder().file("g", "y"), "file", {.top = "g", .follow_links = true});
    EXPECT_EQ(content("target/f"), "y");
}

TEST_F(TarExtract, LinksThatLeadOutOfTheCopyAreTold) {
    extracts(TarBuilder()
                 .directory("tree/a/b")
                 .symlink("tree/fine", "a/b")
                 .symlink("tree/a/fine", "../a")
                 .symlink("tree/out", path("outside"))
                 .symlink("tree/a/up", "../../x")
                 .symlink("tree/a/b/deep", "../../x"),
             "target", {.top = "tree"});
    EXPECT_THAT(notices_, ElementsAre(HasSubstr("tree/out leads out of the copy: to /"), HasSubstr("tree/a/up leads out of the copy: to ../../x")));
    notices_.clear();
    // Another name, in another place, of a link that did not.
    extracts(TarBuilder().directory("d/e").symlink("d/e/l", "../x").hard_link("d/m", "d/e/l"), "target", {.top = "d"});
    EXPECT_THAT(notices_, ElementsAre(HasSubstr("d/m leads out")));
    notices_.clear();
    extracts(TarBuilder().symlink("alone", "x"), "target", {.top = "alone"});
    extracts(TarBuilder().symlink("alone", "x"), "renamed", {.top = "alone"});
    EXPECT_THAT(notices_, ElementsAre(HasSubstr("alone leads out"), HasSubstr("alone leads out")));
}

TEST_F(TarExtract, OtherNoticesDoNotHideALink) {
    TarBuilder builder;
    for (int i = 0; i < 100; ++i) builder.add({.name = "c" + std::to_string(i), .type = '3', .major = 1, .minor = 3});
    for (int i = 0; i < 30; ++i) builder.symlink("l" + std::to_string(i), "/etc");
    refuses(builder.file("../x"));  // told even if the copy fails
    EXPECT_THAT(notices_, SizeIs(20 + 20 + 2));
    EXPECT_THAT(notices_, testing::Contains("... and 10 more links that lead out of the copy"));
}

TEST_F(TarExtract, WhatIsInTheWayIsNotWrittenTo) {
    write("target/f", "old");
    ASSERT_EQ(::link(path("target/f").c_str(), path("kept").c_str()), 0);
    ASSERT_EQ(::mkfifo(path("target/p").c_str(), 0600), 0);
    extracts(TarBuilder().file("f", "new").file("p", "new"));  // writing to the pipe would wait for ever
    EXPECT_EQ(content("kept"), "old");
    EXPECT_EQ(content("target/f"), "new");
}

TEST_F(TarExtract, AFileIsReplacedByAFileOnly) {
    write("target/f", "old");
    for (const auto& archive : {TarBuilder().symlink("f", "../outside/secret"), TarBuilder().add({.name = "f", .type = '6'}),
                                TarBuilder().symlink("l", "x").hard_link("f", "l"),
                                // In two steps: the archive's own file takes its place first.
                                TarBuilder().file("f", "new").symlink("f", "../outside/secret")}) {
        auto error = refuses(archive);
        EXPECT_EQ(error.code, Errc::kAlreadyExists);
        EXPECT_THAT(error.to_string(), HasSubstr("cannot extract f"));
        EXPECT_TRUE(S_ISREG(look("target/f").st_mode));
    }
    auto error = refuses(TarBuilder().symlink("out", "/etc"), "target/f", {.top = "out"});
    EXPECT_THAT(error.to_string(), HasSubstr("does not replace the file"));
    EXPECT_EQ(content("target/f"), "new");
    extracts(TarBuilder().file("g", "linked").hard_link("f", "g"));
    EXPECT_EQ(content("target/f"), "linked");
    extracts(TarBuilder().symlink("f", "x"), "target", {.replaces_all = true});
    EXPECT_EQ(link_text("target/f"), "x");
    extracts(TarBuilder().symlink("f", "y"));
    EXPECT_EQ(link_text("target/f"), "y") << "a link may replace a link";
    only_has("target", {"f", "g", "l"});
}

TEST_F(TarExtract, ADeviceIsNotReplaced) {
    if (::mknod(path("target/null").c_str(), S_IFCHR | 0666, makedev(1, 3)) != 0) GTEST_SKIP() << "only root makes devices";
    EXPECT_EQ(refuses(TarBuilder().file("null")).code, Errc::kAlreadyExists);
    EXPECT_EQ(refuses(TarBuilder().file("f"), "target/null", {.top = "f"}).code, Errc::kAlreadyExists);
    EXPECT_TRUE(S_ISCHR(look("target/null").st_mode));
    extracts(TarBuilder().file("null"), "target", {.replaces_all = true});
    EXPECT_TRUE(S_ISREG(look("target/null").st_mode));
}

TEST_F(TarExtract, ADirectoryIsNeverReplaced) {
    make_directory("target/d/e");
    EXPECT_EQ(refuses(TarBuilder().file("d")).code, Errc::kUsage);
    EXPECT_EQ(refuses(TarBuilder().symlink("d", "../outside")).code, Errc::kUsage);
    // Nor one that the archive made, between two entries below it.
    EXPECT_EQ(refuses(TarBuilder().directory("n").file("n/a").symlink("n", "../outside").file("n/new")).code, Errc::kUsage);
    EXPECT_TRUE(there("target/d/e"));
    EXPECT_TRUE(S_ISDIR(look("target/n").st_mode));
}

TEST_F(TarExtract, ADirectoryReplacesNothing) {
    write("target/f", "old");
    EXPECT_EQ(refuses(TarBuilder().directory("f")).code, Errc::kCorrupt);
    EXPECT_EQ(refuses(TarBuilder().file("f/x")).code, Errc::kCorrupt);
    EXPECT_EQ(content("target/f"), "old");
}

TEST_F(TarExtract, TheLastOfSeveralEntriesCounts) {
    extracts(TarBuilder().symlink("f", "x").file("f", "1").file("f", "2").directory("d", 0700).directory("d", 0750));
    EXPECT_THAT(notices_, IsEmpty());
    EXPECT_EQ(content("target/f"), "2");
    extracts(TarBuilder().file("f", "1").symlink("f", "x").file("f", "2"), "target", {.replaces_all = true});
    EXPECT_EQ(content("target/f"), "2");
    EXPECT_EQ(look("target/d").st_mode & 07777, 0750u);
}

TEST_F(TarExtract, HardLinksLeadOnlyToWhatTheArchiveMade) {
    write("target/mine", "mine");
    ASSERT_EQ(::symlink("../outside", path("target/dir").c_str()), 0);
    for (const std::string& target : {std::string("mine"), std::string("../outside/secret"), path("outside/secret"),
                                      std::string("dir/secret"), std::string("missing"), std::string("."), std::string("d"),
                                      std::string("d/../f")}) {
        SCOPED_TRACE(target);
        EXPECT_EQ(refuses(TarBuilder().directory("d").file("f").hard_link("h", target)).code, Errc::kCorrupt);
        EXPECT_FALSE(there("target/h"));
    }
    EXPECT_EQ(look("target/mine").st_nlink, 1u);
    // Nor through a link that the archive made itself.
    EXPECT_EQ(refuses(TarBuilder().symlink("l", "../outside").hard_link("h", "l/secret")).code, Errc::kCorrupt);
    // A link to a link is another name of that link.
    extracts(TarBuilder().symlink("s", "../outside/secret").hard_link("t", "s"));
    EXPECT_EQ(link_text("target/t"), "../outside/secret");
}

TEST_F(TarExtract, AHardLinkToItselfChangesNothing) {
    extracts(TarBuilder().file("f", "x").hard_link("f", "f"));
    EXPECT_EQ(content("target/f"), "x");
}

TEST_F(TarExtract, AFileThatTookTheNumberOfAReplacedOneIsNotTheArchives) {
    // The first f is gone when its link comes; the second is what the archive made last under this name.
    extracts(TarBuilder().file("f", "1").file("f", "2").hard_link("h", "f"));
    EXPECT_EQ(content("target/h"), "2");
}

TEST_F(TarExtract, OnlyWhatWasAskedForArrives) {
    EXPECT_EQ(refuses(TarBuilder().file("wanted").file(".bashrc", "bad"), "target", {.top = "wanted"}).code, Errc::kCorrupt);
    EXPECT_EQ(refuses(TarBuilder().directory(".").file("./.bashrc", "bad"), "target", {.top = "wanted"}).code, Errc::kCorrupt);
    EXPECT_FALSE(there("target/.bashrc"));
}

TEST_F(TarExtract, AFileCannotBeTheTargetItself) {
    for (const char* name : {".", "./", "/", "//."}) {
        SCOPED_TRACE(name);
        auto error = refuses(TarBuilder().add({.name = name, .type = '6'}));
        EXPECT_EQ(error.code, Errc::kCorrupt);
    }
}

TEST_F(TarExtract, LongNamesAreAnError) { EXPECT_THAT(refuses(TarBuilder().file(std::string(256, 'n'))).to_string(), HasSubstr("nnn")); }

TEST_F(TarExtract, InAContainerLinksOnTheWayAreFollowed) {
    make_directory("target/usr/bin");
    ASSERT_EQ(::symlink("usr/bin", path("target/bin").c_str()), 0);
    extracts(TarBuilder().directory("bin").file("bin/tool", "x"), "target", {.follow_links = true});
    EXPECT_EQ(content("target/usr/bin/tool"), "x");
    EXPECT_EQ(link_text("target/bin"), "usr/bin");
    // But not links of the kernel's.
    refuses(TarBuilder().symlink("l", "/proc/self/cwd").file("l/x"), "target", {.follow_links = true});
}

// ---- all together

TEST_F(TarExtract, ALargeTreeComesBackAsItWas) {
    make_directory("tree");
    constexpr int kDirectories = 100;
    constexpr int kFiles = 100;
    for (int d = 0; d < kDirectories; ++d) {
        auto directory = "tree/d" + std::to_string(d) + (d % 3 == 0 ? "/\n\xfe " + std::string(100, 'x') : "");
        make_directory(directory);
        for (int f = 0; f < kFiles; ++f) {
            auto name = directory + "/f" + std::string(static_cast<std::size_t>(f % 90), '\t') + std::to_string(f);
            auto full = path(name);
            switch (f % 10) {
                case 0: ASSERT_EQ(::symlink(("../d" + std::to_string(f)).c_str(), full.c_str()), 0); break;
                case 1: ASSERT_EQ(::mkfifo(full.c_str(), 0640), 0); break;
                case 2: ASSERT_EQ(::link(path(directory + "/first").c_str(), full.c_str()), 0); break;
                case 3: {
                    os::Fd fd(::open(full.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
                    ASSERT_EQ(::pwrite(fd.get(), "hole", 4, 256 << 10), 4);
                    break;
                }
                default: {
                    os::Fd fd(::open(full.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600 + f % 64));
                    std::string text(static_cast<std::size_t>(f * 37), static_cast<char>(f));
                    ASSERT_TRUE(os::write_all(fd.get(), text));
                    timespec times[2] = {{1'600'000'000 + f, 5 * f}, {1'600'000'000 + f, 5 * f}};
                    ASSERT_EQ(::futimens(fd.get(), times), 0);
                }
            }
            if (f == 0) {
                os::Fd first(::open(path(directory + "/first").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
                ASSERT_TRUE(os::write_all(first.get(), "first"));
            }
        }
    }
    auto archive = packed("tree");
    ASSERT_TRUE(archive) << archive.error().to_string();
    auto done = unpacked(*archive, "target");
    ASSERT_TRUE(done) << done.error().to_string();
    auto again = packed("target/tree");
    ASSERT_TRUE(again);
    // The order of a directory's names is the file system's, so sets are compared.
    auto sorted = [](const std::string& text) {
        auto read = read_all(text);
        EXPECT_TRUE(read);
        // Which name of a file comes first is the file system's choice as well.
        std::map<std::string, std::tuple<int, std::uint32_t, std::string, std::string, std::int64_t, std::uint32_t>> all;
        std::map<std::string, std::string> contents;
        for (const auto& [entry, data] : *read) {
            if (entry.kind == Kind::kFile) contents[entry.path] = data;
            const auto& content = entry.kind == Kind::kHardLink ? contents[entry.link] : data;
            all[entry.path] = {static_cast<int>(entry.kind == Kind::kHardLink ? Kind::kFile : entry.kind), entry.mode, content,
                               entry.kind == Kind::kSymlink ? entry.link : "", entry.seconds, entry.nanoseconds};
        }
        return all;
    };
    auto before = sorted(*archive);
    EXPECT_GT(before.size(), 10'000u);
    EXPECT_EQ(before, sorted(*again));
    EXPECT_LT(look("target/tree/d1/f" + std::string(3, '\t') + "3").st_blocks, 64);
}

TEST_F(TarExtract, WhatGnuTarWritesArrives) {
    make_directory("tree/" + std::string(150, 'd'));
    write("tree/" + std::string(150, 'd') + "/f", "long");
    write("tree/a", "text");
    ASSERT_EQ(::link(path("tree/a").c_str(), path("tree/b").c_str()), 0);
    ASSERT_EQ(::symlink(std::string(150, 't').c_str(), path("tree/l").c_str()), 0);
    os::Fd fd(::open(path("tree/s").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
    ASSERT_EQ(::ftruncate(fd.get(), 64 << 20), 0);
    for (int i = 0; i < 40; ++i) ASSERT_EQ(::pwrite(fd.get(), "piece", 5, i << 20), 5);
    for (std::vector<std::string> form : {std::vector<std::string>{"--format=gnu"}, {"--format=gnu", "-S"}, {"--format=posix"},
                                          {"--format=posix", "-S"}, {"--format=posix", "-S", "--sparse-version=0.1"}}) {
        SCOPED_TRACE(form.back());
        os::Command command;
        command.arguments = {"/usr/bin/tar", "-cf", path("archive"), "-C", path("tree")};
        command.arguments.insert(command.arguments.end(), form.begin(), form.end());
        command.arguments.push_back(".");
        auto tar = os::spawn(command);
        if (!tar) GTEST_SKIP() << "there is no tar";
        auto ended = tar->wait();
        ASSERT_TRUE(ended);
        ASSERT_EQ(ended->code, 0);
        ASSERT_TRUE(os::remove_tree(path("target")));
        make_directory("target");
        auto archive = os::read_file(path("archive"), 1 << 30);
        ASSERT_TRUE(archive);
        auto done = unpacked(*archive, "target");
        ASSERT_TRUE(done) << done.error().to_string();
        EXPECT_EQ(content("target/" + std::string(150, 'd') + "/f"), "long");
        EXPECT_EQ(look("target/a").st_ino, look("target/b").st_ino);
        EXPECT_EQ(link_text("target/l"), std::string(150, 't'));
        auto original = os::read_file(path("tree/s"), 1 << 30);
        auto copy = os::read_file(path("target/s"), 1 << 30);
        ASSERT_TRUE(original && copy);
        EXPECT_TRUE(*original == *copy);
        if (form.size() > 1) {
            EXPECT_LT(look("target/s").st_blocks, 4096);
        }
    }
}

}  // namespace
}  // namespace caisson::tar
