#include "box/mounts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "box/limits.h"
#include "box/plan.h"
#include "os/file.h"

namespace caisson::box {
namespace {

using testing::HasSubstr;

MountOption at(const std::string& target, const std::string& name = "") { return {.volume = name, .target = target}; }

std::string refused(const BoxOptions& options) {
    auto valid = validate(options);
    if (valid) return "accepted";
    EXPECT_EQ(valid.error().code, Errc::kUsage);
    return valid.error().to_string();
}

TEST(Mounts, AreCheckedForWhoeverFillsThem) {
    EXPECT_EQ(refused({.image = "i", .mounts = {at("/a"), at("/b", "v"), at("/a/b", "v")}}), "accepted");
    EXPECT_THAT(refused({.image = "i", .mounts = {at("a")}}), HasSubstr("the path in the box is relative: 'a'"));
    EXPECT_THAT(refused({.image = "i", .mounts = {at("")}}), HasSubstr("relative"));
    EXPECT_THAT(refused({.image = "i", .mounts = {at("/")}}), HasSubstr("nothing can be mounted at /"));
    EXPECT_THAT(refused({.image = "i", .mounts = {at("/a/../b")}}), HasSubstr("'..'"));
    EXPECT_THAT(refused({.image = "i", .mounts = {at("/a", "/etc")}}), HasSubstr("'/etc' cannot be the name of a volume"));
    EXPECT_THAT(refused({.image = "i", .mounts = {{.volume = "v", .host_path = "/x", .target = "/a"}}}), HasSubstr("names the volume 'v' and the path '/x'"));
    EXPECT_THAT(refused({.image = "i", .mounts = {{.subpath = "p", .target = "/a"}}}), HasSubstr("of no volume"));
}

TEST(Mounts, NoTwoShareAPlace) {
    EXPECT_THAT(refused({.image = "i", .mounts = {at("/a", "v"), at("/a", "w")}}),
                HasSubstr("/a is mounted twice: the volume 'v' and the volume 'w'"));
    EXPECT_THAT(refused({.image = "i", .mounts = {at("/a"), at("/a")}}), HasSubstr("/a is mounted twice"));
    EXPECT_THAT(refused({.image = "i", .tmpfs = {{.path = "/a"}}, .mounts = {at("/a", "v")}}), HasSubstr("a tmpfs and the volume 'v'"));
    // Another spelling of the same place.
    EXPECT_THAT(refused({.image = "i", .tmpfs = {{.path = "/a/./b/"}}, .mounts = {at("/a/b", "v")}}), HasSubstr("is mounted twice"));
    EXPECT_THAT(refused({.image = "i", .tmpfs = {{.path = "/a"}, {.path = "/a//"}}}), HasSubstr("a tmpfs and a tmpfs"));
}

TEST(Mounts, TheirNumberHasALimit) {
    BoxOptions options{.image = "i"};
    for (std::size_t i = 0; i < limits::kMostMounts; ++i) options.mounts.push_back(at("/v" + std::to_string(i), "v"));
    EXPECT_EQ(refused(options), "accepted");
    options.mounts.push_back(at("/more"));
    EXPECT_THAT(refused(options), HasSubstr("more than 256 volumes"));
    options.mounts.clear();
    for (std::size_t i = 0; i <= limits::kMostTmpfs; ++i) options.tmpfs.push_back({.path = "/t" + std::to_string(i)});
    EXPECT_THAT(refused(options), HasSubstr("more than 60 tmpfs"));
    options.tmpfs.clear();
    for (std::size_t i = 0; i <= limits::kMostCopies; ++i) options.copies.push_back({"a", "/a", {}});
    EXPECT_THAT(refused(options), HasSubstr("more than 64 --copy"));
}

TEST(Mounts, ACopyThatAMountWouldHideIsRefused) {
    EXPECT_EQ(refused({.image = "i", .mounts = {at("/data", "v")}, .copies = {{"a", "/database", {}}}}), "accepted");
    EXPECT_THAT(refused({.image = "i", .mounts = {at("/data", "v")}, .copies = {{"a", "/data/x", {}}}}),
                HasSubstr("the volume 'v' is mounted at /data and would hide the copy"));
    EXPECT_THAT(refused({.image = "i", .mounts = {at("/data", "v")}, .copies = {{"../data", "/", {}}}}), HasSubstr("would hide the copy"));
    EXPECT_EQ(refused({.image = "i", .mounts = {at("/data", "v")}, .copies = {{"data/.", "/", {}}}}), "accepted");
    EXPECT_THAT(refused({.image = "i", .tmpfs = {{.path = "/data"}}, .copies = {{"a", "/data/", {}}}}), HasSubstr("a tmpfs is mounted at /data"));
    EXPECT_THAT(refused({.image = "i", .copies = {{"a", "data", {}}}}), HasSubstr("relative"));
    EXPECT_THAT(refused({.image = "i", .copies = {{"", "/data", {}}}}), HasSubstr("names no path of the host"));
    auto declared = plan_mounts({.image = "i", .copies = {{"a", "/data/x", {}}}}, {.volumes = {"/data"}});
    ASSERT_FALSE(declared);
    EXPECT_THAT(declared.error().to_string(), HasSubstr("a volume that the image declares is mounted at /data"));
}

std::vector<std::string> planned(const BoxOptions& options, const std::vector<std::string>& declared) {
    std::vector<std::string> texts;
    const auto mounts = plan_mounts(options, {.volumes = declared}).value();
    for (const auto& mount : mounts) texts.push_back(mount.volume + ":" + mount.target);
    return texts;
}

TEST(Mounts, WhatTheImageDeclaresIsAVolumeUnlessSomethingIsThere) {
    using Texts = std::vector<std::string>;
    EXPECT_EQ(planned({}, {"/data"}), (Texts{":/data"}));
    EXPECT_EQ(planned({.mounts = {at("/data", "v")}}, {"/data"}), (Texts{"v:/data"}));
    EXPECT_EQ(planned({.tmpfs = {{.path = "/data"}}}, {"/data"}), Texts{});
    EXPECT_EQ(planned({.mounts = {at("/data/sub", "v")}}, {"/data"}), (Texts{"v:/data/sub", ":/data"}));
    // As Docker reads them: from the root, whatever they are.
    EXPECT_EQ(planned({}, {"data", "/data/", "/x/../y", "/../z"}), (Texts{":/data", ":/y", ":/z"}));
    for (const char* root : {"/", "", "..", "/.."}) {
        auto plan = plan_mounts({}, {.volumes = {root}});
        ASSERT_FALSE(plan) << root;
        EXPECT_THAT(plan.error().to_string(), HasSubstr("the image declares a VOLUME at")) << root;
    }
    std::vector<std::string> many;
    for (int i = 0; i < 257; ++i) many.push_back("/v" + std::to_string(i));
    EXPECT_FALSE(plan_mounts({}, {.volumes = many}));
}

TEST(Mounts, WhatMustExistIsLookedForAndNothingIsMade) {
    auto place = os::TemporaryDirectory::create("/tmp", "mounts").value();
    const store::Home home{place.path()};
    auto said = [&](const MountOption& mount) {
        auto checked = check_parts(home, {mount});
        return checked ? std::string() : checked.error().to_string();
    };
    EXPECT_THAT(said({.host_path = "/etc", .target = "/x"}), HasSubstr("Volume host path '/etc' is not a caisson-managed volume"));
    EXPECT_THAT(said({.volume = "v", .subpath = "a", .target = "/x"}), HasSubstr("there is no volume 'v'"));
    EXPECT_EQ(said({.volume = "v", .target = "/x"}) + said({.target = "/x"}), "") << "these are made";
    EXPECT_EQ(os::list_directory(place.path())->size(), 0U);

    ASSERT_TRUE(os::make_directories(home.volumes() + "/named/v", 0700));
    ASSERT_TRUE(os::write_file_atomic(home.volumes() + "/named/v/a", "a"));
    EXPECT_EQ(said({.volume = "v", .subpath = "a", .target = "/x"}), "");
    EXPECT_EQ(said({.host_path = home.volumes() + "/named/v", .target = "/x"}), "");
    EXPECT_THAT(said({.volume = "v", .subpath = "b", .target = "/x"}), HasSubstr("there is no 'b' in volume 'v'"));
    EXPECT_THAT(said({.host_path = home.volumes() + "/named/v/a", .target = "/x"}), HasSubstr("not a caisson-managed volume"));
    EXPECT_THAT(said({.host_path = home.volumes() + "/named", .target = "/x"}), HasSubstr("not a caisson-managed volume"));
}

TEST(Mounts, AreShownByTheirPlace) {
    EXPECT_EQ(describe_mount({.volume = "v", .subpath = "etc/a", .target = "/a", .read_only = true, .no_exec = true, .no_suid = true}),
              "/a: the volume 'v', etc/a of it, read-only, noexec, nosuid");
    EXPECT_EQ(describe_mount({.target = "/a", .size_bytes = 10 << 20}), "/a: a volume of its own, removed with the box, at most 10.0 MiB");
    wire::BoxMounts mounts;
    auto* mount = mounts.add_mounts();
    mount->set_volume("v");
    mount->set_target("/z");
    mount->set_read_only(true);
    wire::Configure configure;
    configure.add_tmpfs()->set_path("/b");
    const auto infos = mount_infos(mounts, configure);
    ASSERT_EQ(infos.size(), 2U);
    EXPECT_EQ(infos[0].type + infos[0].target, "tmpfs/b");
    EXPECT_TRUE(infos[0].no_exec);
    EXPECT_EQ(infos[1].type + infos[1].volume + infos[1].target, "volumev/z");
    EXPECT_TRUE(infos[1].read_only);
}

}  // namespace
}  // namespace caisson::box
