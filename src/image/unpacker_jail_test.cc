// caisson-unpack in the jail that the store gives it by default.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <set>

#include "image/protocol.h"
#include "image/registry/client.h"
#include "image/store.h"
#include "image/unpacker.h"
#include "os/file.h"
#include "tar/tar_builder.h"
#ifdef CAISSON_GOLDEN
#include "jail/golden_test.h"
#endif

namespace caisson::image {
namespace {

TEST(UnpackerJail, ImportsAndBuildsADisk) {
    auto directory = os::TemporaryDirectory::create(testing::TempDir(), "jail-");
    ASSERT_TRUE(directory) << directory.error().to_string();
    auto store = Store::open({.images_directory = directory->path() + "/images",
                              .disks_directory = directory->path() + "/disks",
                              .unpack_program = CAISSON_TEST_UNPACKER});
    ASSERT_TRUE(store) << store.error().to_string();
    auto path = directory->path() + "/root.tar";
    ASSERT_TRUE(os::write_file_atomic(path, tar::TarBuilder().file("f", "x").finish()));
    auto image = store->import_rootfs(std::move(*os::open_file(path, O_RDONLY)), {.name = "base"});
    ASSERT_TRUE(image) << image.error().to_string();
    auto disk = store->base_disk(*image, 64ULL << 20, {});
    EXPECT_TRUE(disk) << disk.error().to_string();

    // Refusals come through the jail with their names.
    ASSERT_TRUE(os::write_file_atomic(path, tar::TarBuilder().file("../escape", "x").finish()));
    auto refused = store->import_rootfs(std::move(*os::open_file(path, O_RDONLY)), {.name = "bad"});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::kCorrupt);
    EXPECT_NE(refused.error().to_string().find("../escape"), std::string::npos);
}

#ifdef CAISSON_GOLDEN  // sanitized programs need more of the host

Store::Options reviewed_options() {
    return {.images_directory = "/home/images", .disks_directory = "/home/disks", .unpack_program = "/libexec/caisson-unpack",
            .fetch_program = "/libexec/caisson-fetch", .enter_program = "/libexec/caisson-enter"};
}

TEST(UnpackerJail, IsTheOneThatWasReviewed) {
    auto description = unpacker_jail(reviewed_options(), "disk", 1ULL << 30);
    description.descriptors = {{0, 0}, {0, kStatusFd}};
    jail::expect_golden("unpacker.jail", jail::rendered(description));
}

TEST(ClientJail, IsTheOneThatWasReviewed) {
    auto description = registry::client_jail(reviewed_options(), "/home/images/downloads");
    description.descriptors = {{0, 0}, {0, kStatusFd}};
    // What of these a host has differs; all of it is read-only and nobody's own.
    const std::set<std::string> of_hosts{"/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share/ca-certificates",
                                         "/usr/local/share/ca-certificates", "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/ld.so.cache",
                                         "/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf"};
    const auto shown = std::erase_if(description.mounts, [&](const jail::Mount& mount) {
        return of_hosts.contains(mount.source) && mount.source == mount.target && mount.kind == jail::Mount::Kind::kReadOnly;
    });
    EXPECT_GT(shown, 0u);
    jail::expect_golden("fetch.jail", jail::rendered(description));
}

#endif

}  // namespace
}  // namespace caisson::image
