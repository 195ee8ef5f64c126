#include "box/strays.h"

#include <gtest/gtest.h>

#include "os/process.h"

namespace caisson::box {
namespace {

std::string mountinfo(const std::string& root) {
    return "611 600 8:1 " + root + " /box/disk.qcow2 rw,nosuid,nodev,relatime - ext4 /dev/sda1 rw\n";
}

TEST(Strays, AreToldByTheOverlayAmongTheirMounts) {
    const std::string box = "/home/u/.caisson/boxes/01J";
    EXPECT_TRUE(shows_overlay(mountinfo("/u/.caisson/boxes/01J/disk.qcow2"), box));
    EXPECT_TRUE(shows_overlay(mountinfo("/other") + mountinfo("/boxes/01J/disk.qcow2"), box));
    EXPECT_FALSE(shows_overlay(mountinfo("/u/.caisson/boxes/01JX/disk.qcow2"), box));
    EXPECT_FALSE(shows_overlay(mountinfo("/u/.caisson/boxes/01J/disk.qcow2.old"), box));
    EXPECT_FALSE(shows_overlay("", box));
}

// The directory of a box that is removed goes before its processes; proc(5) then marks the mount's source.
TEST(Strays, AreFoundAfterTheirOverlayWasDeleted) {
    const std::string box = "/home/u/.caisson/boxes/01J";
    EXPECT_TRUE(shows_overlay(mountinfo("/u/.caisson/boxes/01J/disk.qcow2//deleted"), box));
    EXPECT_FALSE(shows_overlay(mountinfo("/u/.caisson/boxes/01J/disk.qcow2//deletedly"), box));
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

}  // namespace
}  // namespace caisson::box
