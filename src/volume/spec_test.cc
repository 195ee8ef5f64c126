#include "volume/spec.h"

#include <gtest/gtest.h>

namespace caisson::volume {
namespace {

// "VOLUME|SUBPATH|TARGET|ro noexec nosuid|size", or the error.
std::string text_of(const MountOption& mount) {
    std::string flags;
    if (mount.read_only) flags += "ro ";
    if (mount.no_exec) flags += "noexec ";
    if (mount.no_suid) flags += "nosuid ";
    if (!flags.empty()) flags.pop_back();
    return mount.volume + "|" + mount.subpath + "|" + mount.target + "|" + flags + (mount.size_bytes > 0 ? "|" + std::to_string(mount.size_bytes) : "");
}

std::string read(std::string_view text) {
    auto mount = parse_volume(text);
    return mount ? text_of(*mount) : "error: " + mount.error().to_string();
}

struct Refusal {
    std::string said, hint;
    Errc code = Errc::kInternal;
};
Refusal refused(std::string_view text, const IsFile& is_file = {}) {
    auto mount = parse_volume(text, is_file);
    if (mount) return {"accepted: " + text_of(*mount), "", Errc::kInternal};
    return {mount.error().to_string(), mount.error().hint, mount.error().code};
}

bool has(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

TEST(VolumeOption, Forms) {
    EXPECT_EQ(read("/data"), "||/data|");
    EXPECT_EQ(read("/data:ro"), "||/data|ro");
    EXPECT_EQ(read("/data:rw"), "||/data|");
    EXPECT_EQ(read("/data:ro,noexec,nosuid,nodev"), "||/data|ro noexec nosuid");
    EXPECT_EQ(read("myvol:/data"), "myvol||/data|");
    EXPECT_EQ(read("myvol:/data:ro"), "myvol||/data|ro");
    EXPECT_EQ(read("myvol/etc/app.conf:/etc/app.conf"), "myvol|etc/app.conf|/etc/app.conf|");
    EXPECT_EQ(read("myvol/etc/app.conf:/etc/app.conf:ro,noexec"), "myvol|etc/app.conf|/etc/app.conf|ro noexec");
    EXPECT_EQ(read("ro:/ro"), "ro||/ro|");  // a name like any other
    EXPECT_EQ(read("a:/a b,c"), "a||/a b,c|");
}

TEST(VolumeOption, WhatOtherEnginesKnowAndHasNoEffectHere) {
    for (const char* option : {"z", "Z", "nocopy", "cached", "delegated", "consistent", "private", "rprivate", "rw"})
        EXPECT_EQ(read(std::string("v:/data:") + option), "v||/data|") << option;
    for (const char* option : {"shared", "rslave", "U", "O", "copy", "bind", "exec", "dev", "volume-opt=x"}) {
        const auto refusal = refused(std::string("v:/data:") + option);
        EXPECT_TRUE(has(refusal.said, std::string("unknown option '") + option + "'")) << refusal.said;
        EXPECT_TRUE(has(refusal.hint, "ro, rw, noexec, nosuid and nodev"));
    }
    EXPECT_TRUE(has(refused("/data:shared").said, "unknown option 'shared'"));
    EXPECT_TRUE(has(refused("/data:ro,rw").said, "both ro and rw"));
    EXPECT_TRUE(has(refused("v:/data:ro,").said, "an option is empty"));
    EXPECT_TRUE(has(refused("v:/data:").said, "an option is empty"));
}

TEST(VolumeOption, RelativeTargetsInEveryForm) {
    for (const char* text : {"data", "data:ro", "data:rw", "data:ro,noexec", "vol:data", "vol:data:ro", "vol:./data", "vol:../data", "./data", "vol/part"}) {
        const auto refusal = refused(text);
        EXPECT_EQ(refusal.code, Errc::kUsage);
        EXPECT_TRUE(has(refusal.said, "the path in the box is relative")) << refusal.said;
        EXPECT_TRUE(has(refusal.said, std::string("-v '") + text + "'")) << refusal.said;
    }
    EXPECT_TRUE(has(refused("data").hint, "-v /data\n"));
    EXPECT_TRUE(has(refused("data").hint, "-v data:/TARGET"));
    EXPECT_TRUE(has(refused("data:ro").hint, "-v /data:ro\n"));
    EXPECT_TRUE(has(refused("vol:data:ro").hint, "-v vol:/data:ro"));
    EXPECT_TRUE(has(refused("vol/part").hint, "-v vol/part:/TARGET"));
}

TEST(VolumeOption, PathsOfTheHostAndWhatToWriteInstead) {
    const auto etc = refused("/etc:/x");
    EXPECT_EQ(etc.code, Errc::kUsage);
    EXPECT_EQ(etc.said, "-v '/etc:/x': '/etc' is a path of the host, and a box sees nothing of the host but volumes");
    EXPECT_EQ(etc.hint, "copy it into a volume once, and give the box that:\n  caisson volume import etc /etc\n  -v etc:/x");
    EXPECT_EQ(refused("/home/me/My Project/:/src:ro").hint,
              "copy it into a volume once, and give the box that:\n  caisson volume import My-Project '/home/me/My Project/'\n  -v My-Project:/src:ro");
    for (const char* path : {"/", "/etc", "./src", "../src", ".", "..", "~/src", ".config"}) {
        const auto refusal = refused(std::string(path) + ":/x");
        EXPECT_TRUE(has(refusal.said, std::string("'") + path + "' is a path of the host")) << refusal.said;
        EXPECT_TRUE(has(refusal.hint, "caisson volume import ")) << refusal.hint;
    }
    // A relative target does not make it better.
    EXPECT_TRUE(has(refused("./src:x").said, "is a path of the host"));
    EXPECT_TRUE(has(refused("./src:x").hint, "-v src:/x"));
}

TEST(VolumeOption, AFileOfTheHostBecomesAFileOfAVolume) {
    auto is_file = [](const std::string& path) { return path == "/etc/app.conf"; };
    EXPECT_TRUE(has(refused("/etc/app.conf:/etc/app.conf:ro", is_file).hint, "\n  -v app.conf/app.conf:/etc/app.conf:ro"));
    EXPECT_TRUE(has(refused("/etc/app:/etc/app", is_file).hint, "\n  -v app:/etc/app"));
}

TEST(VolumeOption, EverythingElseHasAMessageOfItsOwn) {
    EXPECT_TRUE(has(refused("").said, "-v is empty"));
    EXPECT_TRUE(has(refused(std::string_view("/a\0b", 4)).said, "zero byte"));
    EXPECT_TRUE(has(refused(":").said, "before the first ':' is empty"));
    EXPECT_TRUE(has(refused(":/data").said, "before the first ':' is empty"));
    EXPECT_TRUE(has(refused("vol:").said, "behind the first ':' is empty"));
    EXPECT_TRUE(has(refused("vol::ro").said, "behind the first ':' is empty"));
    EXPECT_TRUE(has(refused("/data:").said, "behind the first ':' is empty"));
    EXPECT_TRUE(has(refused("a:/b:ro:x").said, "more than three parts"));
    EXPECT_TRUE(has(refused("/").said, "at / of a box"));
    EXPECT_TRUE(has(refused("vol:/").said, "at / of a box"));
    EXPECT_TRUE(has(refused("vol:/a/../b").said, "a part '..'"));
    EXPECT_TRUE(has(refused("vol:/a//b").said, "an empty part"));
    EXPECT_TRUE(has(refused("/data/").said, "an empty part"));
    EXPECT_TRUE(has(refused("-x:/data").said, "cannot be the name of a volume"));
    EXPECT_TRUE(has(refused("a b:/data").said, "cannot be the name of a volume"));
    EXPECT_TRUE(has(refused("vol/:/data").said, "the path in the volume is no path"));
    EXPECT_TRUE(has(refused("vol//etc:/data").said, "the path in the volume is absolute"));
    EXPECT_TRUE(has(refused("vol/../other:/data").said, "the path in the volume has a part '..'"));
    EXPECT_TRUE(has(refused("vol/a//b:/data").said, "the path in the volume has an empty part"));
}

std::string read_mount(std::string_view text) {
    auto mount = parse_mount(text);
    if (!mount) return "error: " + mount.error().to_string();
    if (auto* volume = std::get_if<MountOption>(&*mount)) return "volume " + text_of(*volume);
    const auto& tmpfs = std::get<TmpfsOption>(*mount);
    return "tmpfs " + tmpfs.path + "|" + std::to_string(tmpfs.size_bytes) + "|" + std::to_string(tmpfs.mode) + (tmpfs.executable ? "|exec" : "");
}

TEST(MountFields, Volumes) {
    EXPECT_EQ(read_mount("type=volume,src=v,dst=/data"), "volume v||/data|");
    EXPECT_EQ(read_mount("source=v,destination=/data"), "volume v||/data|");
    EXPECT_EQ(read_mount("target=/data"), "volume ||/data|");
    EXPECT_EQ(read_mount("src=v,subpath=etc/a,dst=/data,ro,noexec,nosuid,nodev"), "volume v|etc/a|/data|ro noexec nosuid");
    EXPECT_EQ(read_mount("src=v,volume-subpath=a,dst=/data,readonly"), "volume v|a|/data|ro");
    EXPECT_EQ(read_mount("src=v,dst=/data,readonly=true"), "volume v||/data|ro");
    EXPECT_EQ(read_mount("src=v,dst=/data,ro=false,volume-nocopy=1"), "volume v||/data|");
    EXPECT_EQ(read_mount("dst=/data,size=10M"), "volume ||/data||10485760");
    EXPECT_EQ(read_mount("src=v,dst=/data,size=10M"), "volume v||/data||10485760");
}

TEST(MountFields, Tmpfs) {
    EXPECT_EQ(read_mount("type=tmpfs,dst=/t"), "tmpfs /t|0|1023");
    EXPECT_EQ(read_mount("type=tmpfs,dst=/t,size=1M,mode=700,exec"), "tmpfs /t|1048576|448|exec");
    EXPECT_EQ(read_mount("type=tmpfs,dst=/t,tmpfs-size=1M,tmpfs-mode=0700,noexec,nosuid,nodev"), "tmpfs /t|1048576|448");
}

TEST(MountFields, RefusedEachWithAMessageOfItsOwn) {
    const std::pair<const char*, const char*> cases[] = {
        {"", "--mount is empty"},
        {"type=volume,,dst=/x", "a part is empty"},
        {"type=volume,src=v", "it has no dst"},
        {"type=volume,src=v,dst=data", "the path in the box is relative"},
        {"type=volume,src=v,dst=/", "at / of a box"},
        {"type=volume,src=v,dst=/a/../b", "a part '..'"},
        {"type=volume,src=-v,dst=/a", "cannot be the name of a volume"},
        {"type=volume,src=v/etc,dst=/a", "src=v/etc is not the name of a volume"},
        {"type=volume,src=v,dst=/a,foo=1", "unknown option 'foo'"},
        {"type=volume,src=v,dst=/a,volume-opt=o=x", "unknown option 'volume-opt'"},
        {"type=volume,src=v,dst=/a,foo", "unknown option 'foo'"},
        {"type=volume,src=v,source=w,dst=/a", "'source' is given twice"},
        {"type=volume,src=,dst=/a", "'src' has no value"},
        {"type=volume,dst=/a,subpath=b", "none is named"},
        {"type=volume,src=v,dst=/a,subpath=../b", "the path in the volume has a part '..'"},
        {"type=volume,src=v,dst=/a,subpath=/b", "the path in the volume is absolute"},
        {"type=volume,dst=/a,size=0", "no room at all"},
        {"type=volume,dst=/a,size=much", "is not a size"},
        {"type=volume,dst=/a,ro=perhaps", "neither true nor false"},
        {"type=volume,dst=/a,mode=700", "'mode' is for a tmpfs"},
        {"type=tmpfs,dst=/a,src=v", "'src' is for a volume"},
        {"type=tmpfs,dst=/a,ro", "stays empty"},
        {"type=tmpfs,dst=/a,mode=999", "is not octal"},
        {"type=tmpfs,dst=/a,exec,noexec", "both exec and noexec"},
        {"type=npipe,dst=/a", "there is no type 'npipe'"},
        {"type=bind,src=vol,dst=/a", "type=bind would be a path of the host"},
    };
    for (const auto& [text, expected] : cases) {
        auto mount = parse_mount(text);
        ASSERT_FALSE(mount) << text;
        EXPECT_EQ(mount.error().code, Errc::kUsage) << text;
        EXPECT_TRUE(has(mount.error().to_string(), expected)) << mount.error().to_string();
    }
}

TEST(MountFields, PathsOfTheHost) {
    for (const char* type : {"type=bind,", "type=volume,", ""}) {
        auto mount = parse_mount(std::string(type) + "src=/srv/www,dst=/www,ro");
        ASSERT_FALSE(mount);
        EXPECT_TRUE(has(mount.error().message, "'/srv/www' is a path of the host")) << mount.error().message;
        EXPECT_TRUE(has(mount.error().hint, "caisson volume import www /srv/www\n  --mount type=volume,src=www,dst=/www,ro")) << mount.error().hint;
    }
    auto file = parse_mount("type=bind,src=./a.conf,dst=/etc/a.conf", [](const std::string&) { return true; });
    ASSERT_FALSE(file);
    EXPECT_TRUE(has(file.error().hint, "--mount type=volume,src=a.conf,subpath=a.conf,dst=/etc/a.conf")) << file.error().hint;
}

TEST(CopyText, Forms) {
    auto copy = parse_copy("./app.conf:/etc/app.conf");
    ASSERT_TRUE(copy);
    EXPECT_EQ(copy->source + "|" + copy->target, "./app.conf|/etc/app.conf");
    copy = parse_copy("a:b:/c/");
    ASSERT_TRUE(copy);
    EXPECT_EQ(copy->source + "|" + copy->target, "a:b|/c/");
    copy = parse_copy("src/.:/");
    ASSERT_TRUE(copy);
    EXPECT_EQ(copy->source + "|" + copy->target, "src/.|/");
    const std::pair<const char*, const char*> cases[] = {
        {"", "--copy is empty"},          {"/etc", "names no path in the box"}, {"a:b", "the path in the box is relative"},
        {":/b", "names no path of the host"}, {"-:/b", "standard input"},      {"a:/b/../c", "a part '..'"}};
    for (const auto& [text, expected] : cases) {
        auto refusal = parse_copy(text);
        ASSERT_FALSE(refusal) << text;
        EXPECT_TRUE(has(refusal.error().to_string(), expected)) << refusal.error().to_string();
    }
}

TEST(MountCheck, ForThoseWhoFillOneThemselves) {
    EXPECT_TRUE(check_mount({.volume = "v", .target = "/a"}));
    EXPECT_TRUE(check_mount({.host_path = "/home/volumes/named/v", .target = "/a"}));
    EXPECT_TRUE(check_mount({.target = "/a", .size_bytes = 1}));
    EXPECT_TRUE(check_mount({.volume = "v", .target = "/a", .size_bytes = 1}));
    EXPECT_FALSE(check_mount({.volume = "v", .host_path = "/x", .target = "/a"}));
    EXPECT_FALSE(check_mount({.volume = "/etc", .target = "/a"}));
    EXPECT_FALSE(check_mount({.volume = "v", .target = "a"}));
    EXPECT_FALSE(check_mount({.subpath = "x", .target = "/a"}));
    EXPECT_FALSE(check_mount({.volume = "v", .subpath = "../x", .target = "/a"}));
    EXPECT_FALSE(check_mount({.host_path = std::string("/a\0b", 4), .target = "/a"}));
}

}  // namespace
}  // namespace caisson::volume
