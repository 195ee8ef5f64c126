// HostCopy with its program, and what the two say to each other.
#include "caisson/copy.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <optional>

#include "box/copy_protocol.h"
#include "os/file.h"
#include "tar/tar_builder.h"

namespace caisson {
namespace {

using tar::TarBuilder;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class HostCopyTest : public testing::Test {
  protected:
    HostCopyTest() {
        auto made = os::TemporaryDirectory::create("/var/tmp", "caisson-copy-test-");
        if (made) place_.emplace(std::move(*made));
        EXPECT_TRUE(os::make_directories(path("target"), 0755));
        EXPECT_TRUE(os::make_directories(path("outside"), 0755));
    }
    std::string path(const std::string& name) const { return place_->path() + "/" + name; }
    std::string content(const std::string& name) const {
        auto text = os::read_file(path(name));
        return text ? *text : "<" + text.error().to_string() + ">";
    }
    HostCopyOptions options(const std::string& top = ".") {
        HostCopyOptions options;
        options.top = top;
        options.program_directory = CAISSON_TEST_PROGRAMS;
        options.on_notice = [this](const std::string& text) { notices_.push_back(text); };
        return options;
    }
    Result<> extract(const std::string& archive, const std::string& name, const std::string& top = ".") {
        auto copy = CAISSON_TRY(HostCopy::extract(path(name), options(top)));
        // A copy that failed reads no further.
        ::signal(SIGPIPE, SIG_IGN);
        static_cast<void>(os::write_all(copy.stream_fd(), archive));
        return copy.finish();
    }
    Result<std::string> pack(const std::string& name, bool follow = false) {
        auto with = options();
        with.follow_link = follow;
        auto copy = CAISSON_TRY(HostCopy::pack(path(name), with));
        auto archive = CAISSON_TRY(os::read_fd(copy.stream_fd(), 64 << 20, "archive"));
        CAISSON_TRY(copy.finish());
        return archive;
    }

    std::vector<std::string> notices_;

  private:
    std::optional<os::TemporaryDirectory> place_;
};

TEST_F(HostCopyTest, WhatIsPackedCanBeExtracted) {
    ASSERT_TRUE(os::make_directories(path("tree/sub"), 0755));
    ASSERT_TRUE(os::write_file_atomic(path("tree/sub/f"), "text", 0640));
    ASSERT_EQ(::link(path("tree/sub/f").c_str(), path("tree/g").c_str()), 0);
    ASSERT_EQ(::symlink("sub/f", path("tree/l").c_str()), 0);
    ASSERT_EQ(::mkfifo(path("tree/p").c_str(), 0600), 0);
    auto archive = pack("tree");
    ASSERT_TRUE(archive) << archive.error().to_string();
    auto done = extract(*archive, "target", "tree");
    ASSERT_TRUE(done) << done.error().to_string();
    EXPECT_EQ(content("target/tree/sub/f"), "text");
    EXPECT_EQ(content("target/tree/g"), "text");
    EXPECT_EQ(content("target/tree/l"), "text");
    done = extract(*archive, "target/renamed", "tree");
    ASSERT_TRUE(done) << done.error().to_string();
    EXPECT_EQ(content("target/renamed/sub/f"), "text");
    EXPECT_THAT(notices_, IsEmpty());
}

TEST_F(HostCopyTest, FilesAndLinksArePackedAlone) {
    ASSERT_TRUE(os::write_file_atomic(path("f"), std::string(1 << 20, 'x')));
    ASSERT_EQ(::symlink(path("f").c_str(), path("l").c_str()), 0);
    for (const char* name : {"f", "l"}) {
        auto archive = pack(name, true);
        ASSERT_TRUE(archive) << archive.error().to_string();
        ASSERT_TRUE(extract(*archive, "target", name));
        EXPECT_EQ(content(std::string("target/") + name), std::string(1 << 20, 'x'));
    }
}

TEST_F(HostCopyTest, WhatIsNotThereIsNotFound) {
    EXPECT_EQ(HostCopy::pack(path("missing"), options()).error().code, Errc::kNotFound);
    EXPECT_EQ(HostCopy::extract(path("missing/below"), options()).error().code, Errc::kNotFound);
    EXPECT_EQ(extract(TarBuilder().file("f").finish(), "missing/", "f").error().code, Errc::kNotFound);
}

TEST_F(HostCopyTest, AHostileArchiveChangesNothingOutside) {
    auto error = extract(TarBuilder().symlink("l", path("outside")).file("l/new", "bad").finish(), "target");
    ASSERT_FALSE(error);
    EXPECT_THAT(error.error().to_string(), HasSubstr("l/new"));
    EXPECT_EQ(error.error().code, Errc::kCorrupt);
    EXPECT_FALSE(extract(TarBuilder().file("../outside/new", "bad").finish(), "target"));
    EXPECT_FALSE(extract(TarBuilder().file(".bashrc", "bad").finish(), "target", "report"));
    EXPECT_FALSE(os::exists(path("outside/new")));
    EXPECT_FALSE(os::exists(path("target/.bashrc")));
}

// A box makes of the same name first a link, then a file.
TEST_F(HostCopyTest, ALinkOfAnEarlierCopyIsReplacedNotFollowed) {
    ASSERT_TRUE(os::write_file_atomic(path("outside/victim"), "untouched"));
    ASSERT_TRUE(extract(TarBuilder().symlink("out", path("outside/victim")).finish(), "out", "out"));
    EXPECT_THAT(notices_, ElementsAre(HasSubstr("leads out of the copy")));
    auto done = extract(TarBuilder().file("out", "the box's").finish(), "out", "out");
    ASSERT_TRUE(done) << done.error().to_string();
    EXPECT_EQ(content("out"), "the box's");
    EXPECT_EQ(content("outside/victim"), "untouched");
    ASSERT_TRUE(extract(TarBuilder().symlink("x", path("outside")).finish(), "target", "x"));
    for (const char* name : {"target/x", "target/x/", "target/x/."}) {
        EXPECT_EQ(HostCopy::extract(path(name), options()).error().code, Errc::kUsage) << name;
        if (std::string(name) != "target/x") {
            EXPECT_EQ(HostCopy::pack(path(name), options()).error().code, Errc::kUsage) << name;
        }
    }
}

TEST_F(HostCopyTest, ACopyThatFailsLeavesWhatWasThere) {
    ASSERT_TRUE(os::write_file_atomic(path("target/f"), "old"));
    auto archive = TarBuilder().file("f", std::string(100'000, 'x')).finish();
    EXPECT_FALSE(extract(archive.substr(0, 9000), "target/f", "f"));
    EXPECT_EQ(content("target/f"), "old");
    EXPECT_EQ(extract(TarBuilder().symlink("f", "/etc/passwd").finish(), "target/f", "f").error().code, Errc::kAlreadyExists);
    EXPECT_EQ(content("target/f"), "old");
    ASSERT_TRUE(extract(archive, "target/f", "f"));
    EXPECT_EQ(content("target/f").size(), 100'000u);
    auto names = os::list_directory(path("target"));
    ASSERT_TRUE(names);
    EXPECT_THAT(*names, ElementsAre("f"));
}

TEST_F(HostCopyTest, ModesAreThoseOfTheUmask) {
    const auto archive = TarBuilder().add({.name = "f", .mode = 0666}).finish();
    const auto mode_of = [&](std::optional<unsigned> umask, bool keep_owner) {
        auto with = options("f");
        with.umask = umask;
        with.keep_owner = keep_owner;
        auto copy = HostCopy::extract(path("target"), with);
        EXPECT_TRUE(copy);
        EXPECT_TRUE(os::write_all(copy->stream_fd(), archive));
        EXPECT_TRUE(copy->finish());
        struct stat info {};
        EXPECT_EQ(::stat(path("target/f").c_str(), &info), 0);
        return info.st_mode & 07777;
    };
    EXPECT_EQ(mode_of(0022, false), 0644u);
    EXPECT_EQ(mode_of(0077, false), 0600u);
    EXPECT_EQ(mode_of(0077, true), 0666u);
    const auto before = ::umask(0027);
    EXPECT_EQ(mode_of({}, false), 0640u);
    ::umask(before);
}

TEST_F(HostCopyTest, NoticesArrive) {
    ASSERT_TRUE(extract(TarBuilder().add({.name = "null", .type = '3', .major = 1, .minor = 3}).finish(), "target"));
    EXPECT_THAT(notices_, ElementsAre(HasSubstr("null")));
}

TEST_F(HostCopyTest, AStreamThatWasCutOffIsAnError) {
    EXPECT_EQ(extract("", "target").error().code, Errc::kCorrupt);
    EXPECT_EQ(extract(TarBuilder().file("f", std::string(100'000, 'x')).finish().substr(0, 9000), "target").error().code, Errc::kCorrupt);
    EXPECT_FALSE(os::exists(path("target/f")));
}

TEST_F(HostCopyTest, GivingItUpDoesNotWait) {
    ASSERT_TRUE(os::write_file_atomic(path("f"), std::string(8 << 20, 'x')));
    auto unread = HostCopy::pack(path("f"), options());
    ASSERT_TRUE(unread);
    EXPECT_TRUE(unread->finish());
    ASSERT_TRUE(HostCopy::pack(path("f"), options()));
    ASSERT_TRUE(HostCopy::extract(path("target"), options()));
}

TEST_F(HostCopyTest, AMissingProgramIsSaid) {
    auto with = options();
    with.program_directory = path("bin");
    EXPECT_EQ(HostCopy::pack(path("target"), with).error().code, Errc::kHostMissing);
}

TEST(CopyProtocol, ArgumentsComeBack) {
    tar::Destination destination;
    destination.name = "odd \n name";
    destination.present = tar::Present::kOther;
    destination.slash = true;
    destination.shown = "x/odd \n name/";
    auto order = box::parse_copy_arguments(box::extract_arguments(destination, "top", true, 0027));
    ASSERT_TRUE(order);
    EXPECT_FALSE(order->packs);
    EXPECT_EQ(order->destination.name, destination.name);
    EXPECT_EQ(order->destination.present, tar::Present::kOther);
    EXPECT_TRUE(order->destination.slash);
    EXPECT_EQ(order->destination.shown, destination.shown);
    EXPECT_EQ(order->options.top, "top");
    EXPECT_TRUE(order->options.keep_owner);
    EXPECT_EQ(order->umask, 0027u);
    EXPECT_FALSE(box::parse_copy_arguments(box::extract_arguments(destination, "top", false, {}))->umask);
    EXPECT_FALSE(order->options.make_devices);
    EXPECT_FALSE(order->options.follow_links);
    EXPECT_FALSE(order->options.replaces_all);
    EXPECT_EQ(box::parse_copy_arguments({"extract"}).error().code, Errc::kUsage);
    EXPECT_EQ(box::parse_copy_arguments({}).error().code, Errc::kUsage);
}

TEST(CopyProtocol, ReportsComeBack) {
    Error error;
    error.code = Errc::kNoSpace;
    error.message = "cannot write a\nb";
    error.hint = "make room";
    auto report = box::parse_copy_report(box::notice_line("left out x") + box::error_line(error));
    EXPECT_THAT(report.notices, ElementsAre("left out x"));
    ASSERT_TRUE(report.error);
    EXPECT_EQ(report.error->code, Errc::kNoSpace);
    EXPECT_EQ(report.error->message, "cannot write a\\x0ab");
    EXPECT_EQ(report.error->hint, "make room");
}

TEST(CopyProtocol, AProgramThatWasTakenOverSaysNothingToTheTerminal) {
    auto report = box::parse_copy_report("notice \x1b[2J\nerror 99 \x1b[2J\nhint \x1b\nerror\nnotice\nerror x\n");
    for (const auto& notice : report.notices) EXPECT_EQ(notice.find('\x1b'), std::string::npos);
    ASSERT_TRUE(report.error);
    EXPECT_EQ(report.error->code, Errc::kIo);
    EXPECT_EQ(report.error->to_string().find('\x1b'), std::string::npos);
}

}  // namespace
}  // namespace caisson
