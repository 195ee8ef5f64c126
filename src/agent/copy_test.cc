#include "agent/copy.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <optional>

#include "os/file.h"
#include "tar/tar_builder.h"

namespace caisson::agent {
namespace {

using tar::TarBuilder;
using testing::HasSubstr;
using testing::IsEmpty;

// The copy itself, on files instead of pipes.
class AgentCopy : public testing::Test {
  protected:
    AgentCopy() : umask_(::umask(0)) {
        auto made = os::TemporaryDirectory::create("/var/tmp", "caisson-copy-test-");
        if (made) place_.emplace(std::move(*made));
        EXPECT_TRUE(os::make_directories(path("in"), 0755));
    }
    ~AgentCopy() override { ::umask(umask_); }

    std::string path(const std::string& name) const { return place_->path() + "/" + name; }
    std::string content(const std::string& name) const {
        auto text = os::read_file(path(name));
        return text ? *text : "<" + text.error().to_string() + ">";
    }
    wire::Copy copy(wire::Copy::Direction direction, const std::string& name) const {
        wire::Copy copy;
        copy.set_direction(direction);
        copy.set_path(path(name));
        return copy;
    }
    int run(const wire::Copy& copy, const std::string& input = "") {
        EXPECT_TRUE(os::write_file_atomic(path("input"), input));
        os::Fd in(::open(path("input").c_str(), O_RDONLY | O_CLOEXEC));
        os::Fd out(::open(path("output").c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
        os::Fd errors(::open(path("errors").c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
        int code = run_copy(copy, in.get(), out.get(), errors.get());
        errors_ = content("errors");
        return code;
    }

    std::string errors_;

  private:
    mode_t umask_;
    std::optional<os::TemporaryDirectory> place_;
};

TEST_F(AgentCopy, WhatGoesOutCanComeIn) {
    ASSERT_TRUE(os::make_directories(path("d/e"), 0755));
    ASSERT_TRUE(os::write_file_atomic(path("d/e/f"), "text", 0640));
    EXPECT_EQ(run(copy(wire::Copy::OUT, "d")), 0);
    auto in = copy(wire::Copy::IN, "in");
    in.set_top("d");
    EXPECT_EQ(run(in, content("output")), 0);
    EXPECT_EQ(content("in/d/e/f"), "text");
    in.set_path(path("in/renamed"));
    EXPECT_EQ(run(copy(wire::Copy::OUT, "d")), 0);
    EXPECT_EQ(run(in, content("output")), 0);
    EXPECT_EQ(content("in/renamed/e/f"), "text");
    EXPECT_THAT(errors_, IsEmpty());
}

TEST_F(AgentCopy, WhatIsNotThereHasACodeOfItsOwn) {
    EXPECT_EQ(run(copy(wire::Copy::OUT, "missing")), 3);
    EXPECT_THAT(errors_, HasSubstr("missing"));
    EXPECT_EQ(errors_.find('\n'), errors_.size() - 1);
    EXPECT_EQ(run(copy(wire::Copy::IN, "missing/below"), TarBuilder().file("f").finish()), 3);
    auto exact = copy(wire::Copy::IN, "missing");
    exact.set_must_exist(true);
    EXPECT_EQ(run(exact, TarBuilder().file("f").finish()), 3);
}

TEST_F(AgentCopy, OtherFailuresHaveAnother) {
    EXPECT_EQ(run(copy(wire::Copy::IN, "in"), "no archive"), 1);
    EXPECT_EQ(run(copy(wire::Copy::IN, "in"), TarBuilder().file("../x").finish()), 1);
    EXPECT_THAT(errors_, HasSubstr("../x"));
    wire::Copy nul;
    nul.set_path(std::string("a\0b", 3));
    EXPECT_EQ(run(nul), 1);
}

TEST_F(AgentCopy, PathsCountFromTheRoot) {
    wire::Copy out;
    out.set_direction(wire::Copy::OUT);
    out.set_path(path("in").substr(1));
    EXPECT_EQ(run(out), 0);
}

TEST_F(AgentCopy, OwnersAreKeptOnDemand) {
    if (::geteuid() != 0) GTEST_SKIP() << "only root gives files away";
    auto archive = TarBuilder().add({.name = "f", .mode = 04755, .uid = 1234}).finish();
    EXPECT_EQ(run(copy(wire::Copy::IN, "in"), archive), 0);
    struct stat info {};
    ASSERT_EQ(::stat(path("in/f").c_str(), &info), 0);
    EXPECT_EQ(info.st_uid, 0u);
    EXPECT_EQ(info.st_mode & 07777, 0755u);
    auto kept = copy(wire::Copy::IN, "in");
    kept.set_keep_owner(true);
    EXPECT_EQ(run(kept, archive), 0);
    ASSERT_EQ(::stat(path("in/f").c_str(), &info), 0);
    EXPECT_EQ(info.st_uid, 1234u);
    EXPECT_EQ(info.st_mode & 07777, 04755u);
}

TEST_F(AgentCopy, LinksOfTheImageAreFollowed) {
    ASSERT_TRUE(os::make_directories(path("in/usr/bin"), 0755));
    ASSERT_EQ(::symlink("usr/bin", path("in/bin").c_str()), 0);
    EXPECT_EQ(run(copy(wire::Copy::IN, "in"), TarBuilder().directory("bin").file("bin/x", "x").finish()), 0);
    EXPECT_EQ(content("in/usr/bin/x"), "x");
}

TEST_F(AgentCopy, PathsMayBeLinks) {
    ASSERT_TRUE(os::write_file_atomic(path("in/f"), "text"));
    ASSERT_EQ(::symlink("in", path("way").c_str()), 0);
    EXPECT_EQ(run(copy(wire::Copy::OUT, "way/.")), 0);
    EXPECT_EQ(run(copy(wire::Copy::IN, "way"), TarBuilder().file("g", "x").symlink("f", "g").finish()), 0);
    EXPECT_EQ(content("in/f"), "x") << "a link takes a file's place";
    EXPECT_EQ(run(copy(wire::Copy::IN, "way/"), TarBuilder().symlink("l", "/etc").finish()), 0);
    EXPECT_THAT(errors_, IsEmpty());
}

}  // namespace
}  // namespace caisson::agent
