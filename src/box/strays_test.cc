#include "box/strays.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "box/launcher.h"
#include "os/file.h"
#include "os/process.h"

namespace caisson::box {
namespace {

std::string mountinfo(const std::string& root) {
    return "611 600 8:1 " + root + " /box/disk.qcow2 rw,nosuid,nodev,relatime - ext4 /dev/sda1 rw\n";
}

TEST(Strays, AreToldByTheOverlayAmongTheirMounts) {
    const MountedPlace box{"8:1", "/u/.caisson/boxes/01J"};
    EXPECT_TRUE(shows_overlay(mountinfo("/u/.caisson/boxes/01J/disk.qcow2"), box));
    EXPECT_TRUE(shows_overlay(mountinfo("/other") + mountinfo("/u/.caisson/boxes/01J/disk.qcow2"), box));
    EXPECT_FALSE(shows_overlay(mountinfo("/u/.caisson/boxes/01JX/disk.qcow2"), box));
    EXPECT_FALSE(shows_overlay(mountinfo("/u/.caisson/boxes/01J/disk.qcow2.old"), box));
    EXPECT_FALSE(shows_overlay("", box));
    EXPECT_TRUE(shows_overlay(mountinfo("/u/my\\040home/boxes/01J/disk.qcow2"), {"8:1", "/u/my home/boxes/01J"}));
}

// A home that was copied has boxes of the same ids.
TEST(Strays, OfAnotherHomeAreLeftAlone) {
    EXPECT_FALSE(shows_overlay(mountinfo("/u/copy/boxes/01J/disk.qcow2"), {"8:1", "/u/.caisson/boxes/01J"}));
    EXPECT_FALSE(shows_overlay(mountinfo("/boxes/01J/disk.qcow2"), {"8:1", "/u/.caisson/boxes/01J"}));
    EXPECT_FALSE(shows_overlay(mountinfo("/u/.caisson/boxes/01J/disk.qcow2"), {"8:2", "/u/.caisson/boxes/01J"}));
}

// The directory of a box that is removed goes before its processes; proc(5) then marks the mount's source.
TEST(Strays, AreFoundAfterTheirOverlayWasDeleted) {
    const MountedPlace box{"8:1", "/u/.caisson/boxes/01J"};
    EXPECT_TRUE(shows_overlay(mountinfo("/u/.caisson/boxes/01J/disk.qcow2//deleted"), box));
    EXPECT_FALSE(shows_overlay(mountinfo("/u/.caisson/boxes/01J/disk.qcow2//deletedly"), box));
}

TEST(Strays, APlaceIsThatInItsFileSystem) {
    const std::string table = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n36 22 8:2 /sub /mnt/my\\040disk rw - ext4 /dev/sdb1 rw\n";
    auto below = mounted_place(table, "36", "/mnt/my disk/home/boxes");
    ASSERT_TRUE(below.has_value());
    EXPECT_EQ(below->device + below->path, "8:2/sub/home/boxes");
    auto top = mounted_place(table, "22", "/home");
    ASSERT_TRUE(top.has_value());
    EXPECT_EQ(top->device + top->path, "8:1/home");
    EXPECT_FALSE(mounted_place(table, "36", "/mnt/my diskette").has_value());
    EXPECT_FALSE(mounted_place(table, "37", "/home").has_value());
    auto place = os::TemporaryDirectory::create("/var/tmp", "caisson-strays-test-");
    ASSERT_TRUE(place.has_value());
    auto here = mounted_place(place->path()), gone = mounted_place(place->path() + "/boxes/01J");
    ASSERT_TRUE(here.has_value() && gone.has_value());
    EXPECT_EQ(gone->device + gone->path, here->device + here->path + "/boxes/01J");
}

TEST(Strays, AProgramThatMentionsBubblewrapAndTheBoxIsLeftAlone) {
    const std::string box = "/home/u/.caisson/boxes/01J";
    os::Command command;
    command.arguments = {"/bin/sh", "-c", "sleep 100; :", "grep bwrap " + box + "/log"};
    auto process = os::spawn(command);
    ASSERT_TRUE(process.has_value());
    EXPECT_EQ(kill_strays(box), 0);
    EXPECT_FALSE(process->wait(std::chrono::milliseconds(50)).has_value());
}

TEST(Strays, AVmmWithoutAJailIsToldByItsCommandLine) {
    const std::string box = "/home/u/.caisson/boxes/01J";
    const std::string disk = "-blockdev" + std::string(1, '\0') + R"({"file":{"filename":")" + box + R"(/disk.qcow2","locking":"off"}})";
    const std::string zero(1, '\0');
    EXPECT_TRUE(runs_unjailed("/a/usr/lib64/ld-linux-x86-64.so.2" + zero + disk, box));
    EXPECT_FALSE(runs_unjailed("/a/usr/lib64/ld-linux-x86-64.so.2" + zero + disk, box + "X"));
    EXPECT_FALSE(runs_unjailed("/usr/bin/grep" + zero + disk, box));
    EXPECT_FALSE(runs_unjailed("/a/usr/lib64/ld-linux-x86-64.so.2" + zero + box + "/disk.qcow2", box));
    EXPECT_FALSE(runs_unjailed("", box));
}

TEST(Strays, AVmmWithoutAJailThatLostItsLauncherIsEnded) {
    const std::string box = "/home/u/.caisson/boxes/01J";
    os::Command command;
    command.arguments = {"/lib64/ld-linux-x86-64.so.2", "/bin/sh", "-c", "sleep 100; :", R"({"filename":")" + box + R"(/disk.qcow2"})"};
    auto process = os::spawn(command);
    ASSERT_TRUE(process.has_value());
    EXPECT_EQ(kill_strays(box + "X"), 0);
    EXPECT_EQ(kill_strays(box), 1);
    EXPECT_TRUE(process->wait(std::chrono::milliseconds(5000)).has_value());
}

TEST(Strays, ALauncherThatLostItsSupervisorIsEnded) {
    auto place = os::TemporaryDirectory::create("/var/tmp", "caisson-strays-test-");
    ASSERT_TRUE(place.has_value());
    const auto box = place->path() + "/box";  // a pipe, over which the program in the launcher's place waits
    ASSERT_EQ(::mkfifo(box.c_str(), 0600), 0);
    auto program = os::open_file("/bin/cat", O_PATH);
    ASSERT_TRUE(program.has_value());
    os::Command command;
    command.arguments = {kLauncherName, box};
    command.program_fd = program->get();
    auto process = os::spawn(command);
    ASSERT_TRUE(process.has_value());
    EXPECT_EQ(kill_strays(place->path() + "/other"), 0);
    EXPECT_EQ(kill_strays(box), 1);
    auto ended = process->wait(std::chrono::milliseconds(5000));
    ASSERT_TRUE(ended.has_value());
    EXPECT_TRUE(ended->signalled);
}

}  // namespace
}  // namespace caisson::box
