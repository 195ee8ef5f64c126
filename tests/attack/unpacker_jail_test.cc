// Whoever owns the reader of layers owns nothing more: hostile_unpacker.cc runs in caisson-unpack's place, in the jail that
// the image store makes.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "image/store.h"
#include "jail/jail.h"
#include "os/file.h"
#include "os/landlock.h"

namespace caisson::image {
namespace {

using testing::HasSubstr;

// Processes of the host that have the file `path`, or whatever lies below it, among their mounts.
int processes_with_mount(const std::string& path) {
    int found = 0;
    const auto names = os::list_directory("/proc").value();
    for (const auto& name : names) {
        if (!base::parse_u64(name)) continue;
        auto mounts = os::read_file("/proc/" + name + "/mountinfo", 1 << 20);
        if (mounts && mounts->find(path) != std::string::npos) ++found;
    }
    return found;
}

TEST(HostileUnpacker, GainsNothingAndEndsWithItsJob) {
    auto place = os::TemporaryDirectory::create("/var/tmp", "caisson-attack-unpacker-").value();
    ASSERT_EQ(::chmod(place.path().c_str(), 0711), 0);
    const auto program = place.path() + "/hostile-unpacker";
    ASSERT_TRUE(os::write_file_atomic(program, os::read_file(CAISSON_HOSTILE_UNPACKER, 64 << 20).value(), 0755).has_value());
    ASSERT_TRUE(os::write_file_atomic(place.path() + "/caisson-enter", os::read_file(CAISSON_ENTER, 64 << 20).value(), 0755).has_value());
    ASSERT_TRUE(os::write_file_atomic(place.path() + "/root.tar", "none").has_value());
    auto store = Store::open({.images_directory = place.path() + "/images",
                              .disks_directory = place.path() + "/disks",
                              .unpack_program = program,
                              .enter_program = place.path() + "/caisson-enter"});
    ASSERT_TRUE(store) << store.error().to_string();
    auto refused = store->import_rootfs(os::open_file(place.path() + "/root.tar", O_RDONLY).value(), {.name = "bad"});
    ASSERT_FALSE(refused.has_value());
    const auto said = refused.error().to_string();
    EXPECT_THAT(said, HasSubstr("mount SYS"));
    EXPECT_THAT(said, HasSubstr("host_file ENOENT"));
    EXPECT_THAT(said, HasSubstr("create EROFS"));
    EXPECT_THAT(said, HasSubstr("packet_socket ENOSYS"));
    EXPECT_THAT(said, HasSubstr("kill_all ENOSYS"));
    EXPECT_THAT(said, HasSubstr("cpu_limit ok"));
    EXPECT_THAT(said, HasSubstr("unshare_user SYS"));
    EXPECT_THAT(said, HasSubstr("ptrace SYS"));
    // Landlock: no signals to what is not under the same rules (from version 6 on, Linux 6.12).
    if (os::landlock_version() >= 6) {
        EXPECT_THAT(said, HasSubstr("signal_first_process EPERM"));
    }
    // A call that kills is told as what it is.
    ASSERT_TRUE(os::write_file_atomic(place.path() + "/die.tar", "die").has_value());
    auto killed = store->import_rootfs(os::open_file(place.path() + "/die.tar", O_RDONLY).value(), {.name = "bad"});
    ASSERT_FALSE(killed.has_value());
    EXPECT_THAT(killed.error().to_string(), HasSubstr("the unpacker was killed by its system call filter"));
    // Its child stayed behind; it is gone when the answer is there.
    EXPECT_EQ(processes_with_mount(place.path().substr(place.path().rfind('/'))), 0);
}

}  // namespace
}  // namespace caisson::image
