#include "volume/archive.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "os/file.h"
#include "tar/extract.h"
#include "tar/pack.h"
#include "volume/metadata.h"

namespace caisson::volume {
namespace {

class Archive : public ::testing::Test {
  protected:
    Archive() : place_(os::TemporaryDirectory::create("/var/tmp", "archive").value()) {
        EXPECT_TRUE(os::make_directories(at("volume/d")));
        EXPECT_TRUE(os::make_directories(at("target")));
        EXPECT_TRUE(os::make_directories(at("outside")));
        volume_ = os::open_file(at("volume"), O_PATH | O_DIRECTORY).value();
        target_ = os::open_file(at("target"), O_PATH | O_DIRECTORY).value();
    }
    std::string at(const std::string& name) const { return place_.path() + "/" + name; }
    void put(const std::string& name, const std::string& content, const Metadata& metadata) {
        ASSERT_TRUE(os::write_file_atomic(at("volume/" + name), content));
        set(name, metadata);
    }
    void set(const std::string& name, const Metadata& metadata) {
        const auto text = encode(metadata);
        ASSERT_EQ(::setxattr(at("volume/" + name).c_str(), kMetadataAttribute, text.data(), text.size(), 0), 0);
    }
    std::optional<Metadata> metadata_in(const std::string& path) const {
        char text[128];
        const auto size = ::lgetxattr(at(path).c_str(), kMetadataAttribute, text, sizeof text);
        return size < 0 ? std::nullopt : decode({text, static_cast<std::size_t>(size)});
    }
    struct stat status_of(const std::string& path) const {
        struct stat status {};
        EXPECT_EQ(::lstat(at(path).c_str(), &status), 0) << path;
        return status;
    }
    std::string packed(OwnerIds owner = {}) {
        auto origin = open_origin(volume_, "", "v:").value();
        std::string bytes;
        auto packing = tar::pack(origin, [&](base::ByteView piece) -> Result<> { bytes += base::as_text(piece); return {}; },
                                 [&](const std::string& text) { notices_.push_back(text); }, guest_view(owner));
        EXPECT_TRUE(packing) << packing.error().to_string();
        return bytes;
    }
    static tar::Source source_of(const std::string& bytes) {
        return [&bytes, position = std::size_t{0}](std::span<std::uint8_t> buffer) mutable -> Result<std::size_t> {
            const auto size = std::min(buffer.size(), bytes.size() - position);
            std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(position), size, buffer.begin());
            position += size;
            return size;
        };
    }
    Result<> extract(const std::string& bytes, tar::ExtractOptions options, OwnerIds owner = {}) {
        auto destination = open_destination(target_, "", "t:").value();
        options.describe = metadata_keeper(owner, options.keep_owner);
        if (options.keep_owner) options.link_as_file = foreign_link(owner);
        const auto mask = ::umask(0);
        auto done = tar::extract(source_of(bytes), destination, options, [&](const std::string& text) { notices_.push_back(text); });
        ::umask(mask);
        return done;
    }
    os::TemporaryDirectory place_;
    os::Fd volume_, target_;
    std::vector<std::string> notices_;
};

TEST_F(Archive, KeepsTheGuestsView) {
    put("mine", "1", {{}, {}, 0640, 0, 0});
    put("other", "2", {999, 998, 04755, 0, 0});
    put("device", "", {0, 0, 0660, S_IFBLK, 0x00100803});  // 8, 259
    put("pipe", "", {{}, {}, 0600, S_IFIFO, 0});
    put("socket", "", {{}, {}, 0600, S_IFSOCK, 0});
    put("theirs", "/etc/group", {5, 6, 0777, S_IFLNK, 0});
    set("d", {33, {}, 02770, 0, 0});
    ASSERT_EQ(::symlink("/etc/passwd", at("volume/link").c_str()), 0);
    ASSERT_EQ(::link(at("volume/other").c_str(), at("volume/d/again").c_str()), 0);
    const auto bytes = packed({1000, 1000});
    EXPECT_EQ(notices_.size(), 1u) << "the socket";
    ASSERT_TRUE(extract(bytes, {.keep_owner = true}, {1000, 1000}));
    EXPECT_EQ(metadata_in("target/mine"), (Metadata{{}, {}, 0640, 0, 0}));
    EXPECT_EQ(metadata_in("target/other"), (Metadata{999, 998, 04755, 0, 0}));
    EXPECT_EQ(metadata_in("target/device"), (Metadata{0, 0, 0660, S_IFBLK, 0x00100803}));
    EXPECT_EQ(metadata_in("target/pipe"), (Metadata{{}, {}, 0600, S_IFIFO, 0}));
    EXPECT_EQ(metadata_in("target/d"), (Metadata{33, {}, 02770, 0, 0}));
    EXPECT_FALSE(os::exists(at("target/socket")));
    EXPECT_EQ(status_of("target/other").st_ino, status_of("target/d/again").st_ino);
    EXPECT_TRUE(S_ISLNK(status_of("target/link").st_mode));
    EXPECT_EQ(metadata_in("target/theirs"), (Metadata{5, 6, 0777, S_IFLNK, 0}));
    EXPECT_EQ(os::read_file(at("target/theirs")).value(), "/etc/group");
}

TEST_F(Archive, WhatAGuestSetNeverReachesTheHostsFiles) {
    put("program", "x", {0, 0, 06755, 0, 0});
    put("device", "", {0, 0, 0666, S_IFCHR, 0x103});
    set("d", {0, 0, 01777, 0, 0});
    const auto bytes = packed();
    ASSERT_TRUE(extract(bytes, {.keep_owner = true}));
    for (const char* name : {"target/program", "target/device"}) {
        EXPECT_EQ(status_of(name).st_mode, S_IFREG | 0600u) << name;
        EXPECT_EQ(status_of(name).st_uid, ::geteuid()) << name;
    }
    EXPECT_EQ(status_of("target/d").st_mode, S_IFDIR | 0700u);
}

TEST_F(Archive, WithoutOwnersEverythingIsTheVolumeOwners) {
    put("program", "x", {999, 999, 06755, 0, 0});
    const auto bytes = packed();
    ASSERT_TRUE(extract(bytes, {}));
    EXPECT_EQ(metadata_in("target/program"), (Metadata{{}, {}, 0755, 0, 0}));
}

TEST_F(Archive, FilesOfTheHostsAreTheOwners) {
    ASSERT_TRUE(os::write_file_atomic(at("volume/put"), "x", 0644));
    const auto bytes = packed({33, 34});
    ASSERT_TRUE(extract(bytes, {.keep_owner = true}));
    EXPECT_EQ(metadata_in("target/put"), (Metadata{33, 34, 0644, 0, 0}));
}

TEST_F(Archive, UpdatesLeaveWhatIsTheSame) {
    put("same", "1", {{}, {}, 0644, 0, 0});
    put("changed", "1", {{}, {}, 0644, 0, 0});
    ASSERT_EQ(::symlink("x", at("volume/link").c_str()), 0);
    ASSERT_TRUE(extract(packed(), {.replaces_all = true, .update = true}));
    const auto before = status_of("target/same"), link = status_of("target/link");
    ASSERT_TRUE(os::write_file_atomic(at("volume/changed"), "22"));
    ASSERT_TRUE(os::write_file_atomic(at("target/foreign"), "x"));
    tar::ExtractOptions::Report report;
    ASSERT_TRUE(extract(packed(), {.replaces_all = true, .update = true, .report = &report}));
    EXPECT_EQ(status_of("target/same").st_ino, before.st_ino);
    EXPECT_EQ(status_of("target/link").st_ino, link.st_ino);
    EXPECT_EQ(os::read_file(at("target/changed")).value(), "22");
    EXPECT_TRUE(os::exists(at("target/foreign")));
    EXPECT_EQ(report.changed, 1u);
    EXPECT_EQ(report.removed, 0u);
}

TEST_F(Archive, OthersAreRemovedWithoutFollowingLinks) {
    put("kept", "1", {{}, {}, 0644, 0, 0});
    ASSERT_TRUE(os::write_file_atomic(at("outside/precious"), "x"));
    ASSERT_TRUE(os::make_directories(at("target/gone/deep")));
    ASSERT_EQ(::symlink(at("outside").c_str(), at("target/link").c_str()), 0);
    ASSERT_EQ(::symlink(at("outside").c_str(), at("target/gone/deep/link").c_str()), 0);
    ASSERT_EQ(::symlink(at("outside").c_str(), at("target/d").c_str()), 0) << "where the archive has a directory";
    tar::ExtractOptions::Report report;
    ASSERT_TRUE(extract(packed(), {.replaces_all = true, .update = true, .remove_others = true, .report = &report}));
    auto names = os::list_directory(at("target")).value();
    std::sort(names.begin(), names.end());
    EXPECT_EQ(names, (std::vector<std::string>{"d", "kept"}));
    EXPECT_TRUE(S_ISDIR(status_of("target/d").st_mode));
    EXPECT_TRUE(os::exists(at("outside/precious")));
}

TEST_F(Archive, TheLimitHolds) {
    put("large", std::string(3 << 20, 'x'), {{}, {}, 0644, 0, 0});
    const auto bytes = packed();
    std::atomic<std::int64_t> used = 0;
    share::Space space(used, 2 << 20);
    auto full = extract(bytes, {.account = accountant(space)});
    ASSERT_FALSE(full);
    EXPECT_EQ(full.error().code, Errc::kNoSpace);
    EXPECT_NE(full.error().message.find("2.0 MiB"), std::string::npos) << full.error().message;
    EXPECT_FALSE(os::exists(at("target/large")));
    EXPECT_LT(used.load(), 64 << 10) << "what is given up does not count";
    share::Space enough(used, 8 << 20);
    ASSERT_TRUE(extract(bytes, {.account = accountant(enough)}));
    ASSERT_TRUE(extract(bytes, {.account = accountant(enough)})) << "the old one makes room";
    ASSERT_TRUE(extract(bytes, {.account = accountant(enough)}));
    EXPECT_LT(used.load(), 4 << 20);
}

// Two-sided: with paths that are simply opened, each of these leads out of the volume.
TEST_F(Archive, NoPlaceIsReachedThroughALink) {
    ASSERT_TRUE(os::write_file_atomic(at("outside/precious"), "x"));
    ASSERT_EQ(::symlink(at("outside").c_str(), at("volume/out").c_str()), 0);
    ASSERT_EQ(::symlink("../../outside", at("volume/d/up").c_str()), 0);
    for (const char* path : {"out/precious", "/out/precious", "out/.", "out/", "d/up/precious", "d/up/."})
        EXPECT_FALSE(open_origin(volume_, path, path)) << path;
    for (const char* path : {"out/new", "/out/", "out/.", "d/up/new", "d/up/"})
        EXPECT_FALSE(open_destination(volume_, path, path)) << path;
    for (const char* path : {"../outside/precious", "d/../../outside/precious", "..", "../", "d/.."}) {
        EXPECT_FALSE(open_origin(volume_, path, path)) << path;
        EXPECT_FALSE(open_destination(volume_, path, path)) << path;
    }
    auto link = open_origin(volume_, "out", "out");
    ASSERT_TRUE(link) << "the link itself";
    EXPECT_EQ(link->name, "out");
    EXPECT_EQ(open_destination(volume_, "out", "out")->present, tar::Present::kOther) << "it is replaced";
}

TEST_F(Archive, FindsItsPlaces) {
    put("d/f", "x", {{}, {}, 0644, 0, 0});
    EXPECT_EQ(open_origin(volume_, "/", "")->top, ".");
    EXPECT_EQ(open_origin(volume_, "d", "")->top, "d");
    EXPECT_EQ(open_origin(volume_, "/d/", "")->top, "d");
    EXPECT_EQ(open_origin(volume_, "d/.", "")->top, ".");
    EXPECT_EQ(open_origin(volume_, "/d/f", "")->top, "f");
    EXPECT_EQ(open_origin(volume_, "d/f/", "").error().code, Errc::kUsage);
    EXPECT_EQ(open_origin(volume_, "d/missing", "").error().code, Errc::kNotFound);
    EXPECT_EQ(open_origin(volume_, "missing/f", "").error().code, Errc::kNotFound);
    EXPECT_EQ(open_destination(volume_, "d", "")->present, tar::Present::kDirectory);
    EXPECT_EQ(open_destination(volume_, "", "")->present, tar::Present::kDirectory);
    EXPECT_EQ(open_destination(volume_, "d/f", "")->present, tar::Present::kOther);
    EXPECT_EQ(open_destination(volume_, "d/new", "")->name, "new");
    EXPECT_EQ(open_destination(volume_, "missing/new", "").error().code, Errc::kNotFound);
}

}  // namespace
}  // namespace caisson::volume
