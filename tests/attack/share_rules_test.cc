// What the server of volumes refuses by itself, without the mount that would refuse it, too: it serves a plain directory,
// and hostile_share.cc speaks to it in the guest's place.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <map>
#include <thread>

#include "hostile_share.h"
#include "os/file.h"
#include "os/loop.h"
#include "volume/share/server.h"

namespace caisson::attack {
namespace {

class ShareRules : public testing::Test {
  protected:
    ShareRules() : place_(os::TemporaryDirectory::create("/var/tmp", "share-rules").value()) {
        EXPECT_TRUE(os::make_directories(at("v/d")));
        for (const char* name : {"v/f", "neighbour"}) EXPECT_TRUE(os::write_file_atomic(at(name), "content"));
        EXPECT_EQ(::chmod(at("v/f").c_str(), 0600), 0);
        EXPECT_EQ(::symlink("/etc", at("v/link").c_str()), 0);
        EXPECT_EQ(::mkfifo(at("v/pipe").c_str(), 0600), 0);
    }
    std::string at(const std::string& name) const { return place_.path() + "/" + name; }

    // What the guest reports of each attempt.
    std::map<std::string, std::string> reports_of(void (*attack)(int, const std::function<void(const std::string&)>&), bool read_only) {
        auto sockets = os::make_socketpair(SOCK_STREAM).value();
        auto loop = os::Loop::create().value();
        volume::share::Server server(loop, std::move(sockets.first));
        server.on_end = [&](const std::string& broken) {
            EXPECT_EQ(broken, "");
            loop.stop();
        };
        auto mount = std::make_shared<volume::share::Mount>();
        mount->number = 1;
        mount->root = os::open_file(at("v"), O_PATH | O_DIRECTORY).value();
        mount->read_only = read_only;
        mount->owner = ::geteuid();
        mount->group = ::getegid();
        server.add_mount(mount);
        EXPECT_TRUE(server.start());
        std::map<std::string, std::string> reports;
        std::thread guest([&, port = std::move(sockets.second)] {
            attack(port.get(), [&](const std::string& line) {
                const auto space = line.rfind(' ');
                reports[line.substr(0, space)] = line.substr(space + 1);
            });
            ::shutdown(port.get(), SHUT_RDWR);
        });
        EXPECT_TRUE(loop.run());
        guest.join();
        EXPECT_EQ(reports["end"], "reached");
        return reports;
    }

  private:
    os::TemporaryDirectory place_;
};

TEST_F(ShareRules, WhatIsReadOnlyIsNotWritten) {
    auto reports = reports_of(attack_read_only_volume, true);
    for (const char* name : {"create", "make_temporary", "make_device", "make_directory", "make_link", "link", "remove_file", "remove_directory",
                             "rename_old", "rename", "open_to_write", "open_to_empty", "resize", "change_mode", "change_owner", "change_times",
                             "set_attribute", "remove_attribute", "write", "allocate", "punch_hole", "copy"})
        EXPECT_EQ(reports[name], "EROFS") << name;
    EXPECT_EQ(os::read_file(at("v/f"), 100).value(), "content");
}

TEST_F(ShareRules, NoNameAndNoNumberLeadsOut) {
    auto reports = reports_of(attack_read_only_volume, true);
    for (const char* name : {"look_up(..)", "look_up(.)", "look_up()", "look_up(../caisson.db)", "look_up(d/../../x)", "look_up(/etc/shadow)",
                             "look_up_in_root(..)", "look_up_in_root(m0)", "look_up_in_root(m2)", "look_up_in_root(m1/..)", "look_up_behind_link"}) {
        ASSERT_TRUE(reports.count(name)) << name;
        EXPECT_NE(reports[name], "ok") << name;
    }
    EXPECT_NE(reports["open_link"], "ok");
    EXPECT_NE(reports["open_pipe"], "ok");
    EXPECT_EQ(reports["guessed"], "0");
}

TEST_F(ShareRules, OwnersModesAndKindsAreNeverTheHosts) {
    auto reports = reports_of(change_writable_volume, false);
    for (const char* name : {"create", "make_device", "make_directory", "change_mode", "change_owner", "set user.x"}) EXPECT_EQ(reports[name], "ok") << name;
    struct Wanted {
        const char* name;
        mode_t mode;
    };
    for (const auto& [name, mode] : {Wanted{"v/f", S_IFREG | 0600}, {"v/new", S_IFREG | 0600}, {"v/device", S_IFREG | 0600}, {"v/new-directory", S_IFDIR | 0700}}) {
        struct stat status {};
        ASSERT_EQ(::lstat(at(name).c_str(), &status), 0) << name;
        EXPECT_EQ(status.st_mode, mode) << name << " has mode " << std::oct << status.st_mode;
        EXPECT_EQ(status.st_uid, ::geteuid()) << name;
    }
    for (const char* name : {"trusted.x", "system.posix_acl_access", "user.caisson.metadata"})
        EXPECT_EQ(reports["set " + std::string(name)], "EOPNOTSUPP") << name;
    // Those of a program are the guest's, beside the file.
    EXPECT_TRUE(reports.count("set security.capability"));
    EXPECT_LT(::getxattr(at("v/f").c_str(), "security.capability", nullptr, 0), 0);
}

}  // namespace
}  // namespace caisson::attack
