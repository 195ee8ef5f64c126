// A machine that is taken over by the image while its template is made: hostile_vmm.cc runs in QEMU's place, and
// build_template() must neither hang nor believe it nor leave anything behind.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>

#include "base/text.h"
#include "os/file.h"
#include "os/landlock.h"
#include "os/user.h"
#include "vmm/machine.h"
#include "vmm/template.h"

namespace caisson::vmm {
namespace {

using testing::HasSubstr;

std::string& payload() {
    static std::string content;
    return content;
}

const std::string kKey(32, 'a');

class HostileTemplate : public testing::Test {
  protected:
    HostileTemplate() {
        EXPECT_EQ(::chmod(place_.path().c_str(), 0711), 0);
        for (const char* directory : {"vmm/usr/bin", "vmm/template", "vmm/box", "vmm/disk", "vmm/run", "templates"})
            EXPECT_TRUE(os::make_directories(path(directory), 0755).has_value());
        write("vmm" + std::string(kQemuPath), payload(), 0755);
        for (const char* name : {"kernel", "modules.list", "agent"}) write(name, "", 0644);
        write("caisson-enter", os::read_file(CAISSON_ENTER).value(), 0755);
        write("base.ext4", std::string(4096, 'o'), 0444);
        request_.templates = path("templates");
        request_.key = kKey;
        request_.shape = {1, 256};
        request_.base_disk_path = path("base.ext4");
        request_.disk_bytes = 1 << 30;
        request_.image = "hostile";
        request_.assets.vmm_root = path("vmm");
        request_.assets.kernel = path("kernel");
        request_.assets.modules_list = path("modules.list");
        request_.assets.agent = path("agent");
        request_.deadline = std::chrono::seconds(3);
    }
    std::string path(const std::string& name) const { return place_.path() + "/" + name; }
    void write(const std::string& name, const std::string& content, unsigned mode) {
        EXPECT_TRUE(os::write_file_atomic(path(name), content, mode).has_value());
    }
    tl::expected<std::string, BuildFailure> build(const std::string& behaviour, int owner_gone_fd = -1) {
        write("vmm/behaviour", behaviour + "\n", 0644);
        return build_template(request_, owner_gone_fd);
    }
    void expect_nothing_is_left() {
        EXPECT_THAT(os::list_directory(path("templates")).value(), testing::UnorderedElementsAre(kKey + ".lock"));
    }

    os::TemporaryDirectory place_ = os::TemporaryDirectory::create("/var/tmp", "caisson-attack-").value();
    BuildRequest request_;
};

TEST_F(HostileTemplate, NothingCanBePutBesideItsFiles) {
    auto built = build("fill_template");
    ASSERT_TRUE(built.has_value()) << built.error().error.to_string();  // it spoke as an honest machine would
    EXPECT_THAT(os::list_directory(*built).value(),
                testing::UnorderedElementsAre("mem", "state", "initramfs", "disk.qcow2", "info.json"));
    for (const char* name : {"/mem", "/state", "/initramfs", "/disk.qcow2", "/info.json"}) {
        struct stat info {};
        ASSERT_EQ(::lstat((*built + name).c_str(), &info), 0) << name;
        EXPECT_EQ(info.st_mode, S_IFREG | 0444U) << name;
        EXPECT_EQ(info.st_nlink, 1U) << name;
        EXPECT_LE(info.st_size, 2LL << 30) << name;
    }
    auto templates = list_templates(path("templates")).value();
    ASSERT_EQ(templates.size(), 1U);
    EXPECT_EQ(templates[0].image, "hostile");
}

TEST_F(HostileTemplate, WhatItTriesIsRefused) {
    // It does not pretend to be frozen afterwards: the error then shows what the machine has printed.
    request_.deadline = std::chrono::seconds(1);
    auto built = build("fill_template_and_stay");
    ASSERT_FALSE(built.has_value());
    const auto& said = built.error().error.hint;
    for (const char* name : {"beside_the_memory", "beside_the_disk"}) EXPECT_THAT(said, HasSubstr(std::string(name) + " EROFS"));
    // Landlock: no signals to what is not under the same rules (from version 6 on, Linux 6.12).
    if (os::landlock_version() >= 6) {
        EXPECT_THAT(said, HasSubstr("signal_first_process EPERM"));
    }
    // The filter answers first.
    for (const char* name : {"make_pipe", "remove_memory", "replace_memory", "link_memory"})
        EXPECT_THAT(said, HasSubstr(std::string(name) + " ENOSYS"));
    for (const char* name : {"open_memory", "open_state"}) EXPECT_THAT(said, HasSubstr(std::string(name) + " ok"));
    EXPECT_THAT(said, testing::ContainsRegex("write_initramfs E(ROFS|ACCES)"));
    for (const char* name : {"grow_memory", "grow_disk"}) EXPECT_THAT(said, HasSubstr(std::string(name) + " EFBIG"));
    expect_nothing_is_left();
}

TEST_F(HostileTemplate, ASecondGreetingIsTheEnd) {
    auto began = std::chrono::steady_clock::now();
    auto built = build("greet_twice");
    ASSERT_FALSE(built.has_value());
    EXPECT_EQ(built.error().error.code, Errc::kProtocol);
    EXPECT_THAT(built.error().error.to_string(), HasSubstr("greeted twice"));
    EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(2));
    expect_nothing_is_left();
}

TEST_F(HostileTemplate, OnlyAMachineThatNeverSpokeCountsAsSilent) {
    auto refused = build("refuse");
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error().error.code, Errc::kGuest);
    EXPECT_FALSE(refused.error().no_answer);
    for (const char* behaviour : {"leave", "silent"}) {
        auto silent = build(behaviour);
        ASSERT_FALSE(silent.has_value());
        EXPECT_EQ(silent.error().error.code, Errc::kGuest) << behaviour;
        EXPECT_TRUE(silent.error().no_answer) << behaviour;
    }
    expect_nothing_is_left();
}

TEST_F(HostileTemplate, WhoWaitsForAnotherMakerLeavesWithItsCaller) {
    auto lock = os::FileLock::acquire(path("templates/" + kKey + ".lock")).value();
    auto owner = os::make_pipe().value();
    owner.second.reset();
    auto began = std::chrono::steady_clock::now();
    auto built = build("silent", owner.first.get());
    ASSERT_FALSE(built.has_value());
    EXPECT_EQ(built.error().error.code, Errc::kCancelled);
    EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(1));
    // And without a caller that leaves, not for ever.
    request_.deadline = std::chrono::seconds(1);
    EXPECT_EQ(build("silent").error().error.code, Errc::kTimeout);
}

TEST_F(HostileTemplate, WhatAnEarlierMakerLeftDoesNotStandInTheWay) {
    auto at = os::open_file(path("templates"), O_RDONLY | O_DIRECTORY).value();
    const std::string name = ".new-" + kKey + "-abc";
    ASSERT_EQ(::mkdirat(at.get(), name.c_str(), 0700), 0);
    at = os::open_at(at, name, O_RDONLY | O_DIRECTORY).value();
    for (int depth = 0; depth < 600; ++depth) {
        ASSERT_EQ(::mkdirat(at.get(), "d", 0700), 0);
        at = os::open_at(at, "d", O_RDONLY | O_DIRECTORY).value();
    }
    EXPECT_EQ(build("refuse").error().error.code, Errc::kGuest);
    expect_nothing_is_left();
}

}  // namespace
}  // namespace caisson::vmm

// As caisson itself: started as root, it works as the service user.
int main(int argc, char** argv) {
    testing::InitGoogleMock(&argc, argv);
    caisson::vmm::payload() = caisson::os::read_file(CAISSON_HOSTILE_VMM, 64 << 20).value();
    if (::geteuid() == 0 && !caisson::os::drop_to(caisson::os::service_identity())) return 1;
    ::umask(022);
    return RUN_ALL_TESTS();
}
