#include "volume/host.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <thread>

#include "jail/jail.h"
#include "os/file.h"

namespace caisson::volume {
namespace {

// What a box's launcher makes of a volume before it hands it on; all in a process with a mount namespace of its own.
class DetachedMountUserns : public testing::Test {
  protected:
    DetachedMountUserns() : place_(os::TemporaryDirectory::create("/var/tmp", "detached").value()) {
        roots_ = {place_.path() + "/volumes/anonymous", place_.path() + "/volumes/named"};
        for (const auto& directory : {roots_.anonymous, at("v/d"), at("other")}) EXPECT_TRUE(os::make_directories(directory));
        for (const auto& file : {at("v/mine"), at("v/neighbour"), at("v/d/f"), at("other/f")}) EXPECT_TRUE(os::write_file_atomic(file, "content"));
        mount_.set_volume("v");
        mount_.set_directory(true);
    }
    void SetUp() override {
        auto ready = jail::preflight();
        ASSERT_TRUE(ready.has_value()) << ready.error().to_string() << "; " << ready.error().hint;
    }
    std::string at(const std::string& path) const { return roots_.named + "/" + path; }
    Result<os::Fd> mount_of(const std::string& subpath = "") const {
        return detached_mount(CAISSON_TRY(pin(roots_, Kind::kNamed, "v", subpath)), mount_);
    }
    // The errno of one call on a mount; 0: it succeeded.
    template <typename Call>
    int error_of(Call call, const std::string& subpath = "") const {
        int result = -1;
        auto pipe = os::make_pipe().value();
        auto done = os::in_own_mount_namespace([&]() -> Result<> {
            auto tree = CAISSON_TRY(mount_of(subpath));
            const int error = call(tree.get()) < 0 ? errno : 0;
            return os::write_all(pipe.second.get(), base::ByteView(reinterpret_cast<const std::uint8_t*>(&error), sizeof error));
        });
        EXPECT_TRUE(done) << done.error().to_string();
        if (!done) return result;
        EXPECT_EQ(::read(pipe.first.get(), &result, sizeof result), static_cast<ssize_t>(sizeof result));
        return result;
    }
    os::TemporaryDirectory place_;
    Roots roots_;
    wire::BoxMount mount_;
};

TEST_F(DetachedMountUserns, LeadsNowhereElse) {
    EXPECT_EQ(error_of([](int tree) { return ::openat(tree, "mine", O_RDWR); }), 0);
    EXPECT_EQ(error_of([](int tree) { return ::openat(tree, "../other/f", O_RDONLY); }), ENOENT);
    EXPECT_EQ(error_of([](int tree) { return ::openat(tree, "d/../../other/f", O_RDONLY); }), ENOENT);
    EXPECT_EQ(error_of([](int tree) { return ::openat(tree, "../neighbour", O_RDONLY); }, "mine"), ENOTDIR) << "of a single file";
    EXPECT_EQ(error_of([](int tree) { return ::openat(tree, "../mine", O_RDONLY); }, "d"), ENOENT) << "of a directory in a volume";
}

TEST_F(DetachedMountUserns, HasAnEdgeThatNoLinkCrosses) {
    os::Fd other(::open(at("other").c_str(), O_PATH));
    EXPECT_EQ(error_of([&](int tree) { return ::linkat(tree, "mine", other.get(), "linked", 0); }), EXDEV);
    EXPECT_EQ(error_of([&](int tree) { return ::linkat(other.get(), "f", tree, "linked", 0); }), EXDEV);
    EXPECT_EQ(error_of([&](int tree) { return ::renameat(other.get(), "f", tree, "moved"); }), EXDEV);
}

TEST_F(DetachedMountUserns, IsWithoutProgramsAndDevices) {
    ASSERT_EQ(::chmod(at("v/mine").c_str(), 0700), 0);
    auto flags_of = [](int tree) {
        struct statvfs status {};
        if (::fstatvfs(tree, &status) != 0) return -1;
        constexpr unsigned long kWanted = ST_NOSUID | ST_NODEV | ST_NOEXEC;
        errno = static_cast<int>(status.f_flag & kWanted);
        return (status.f_flag & kWanted) == kWanted ? 0 : -1;
    };
    EXPECT_EQ(error_of(flags_of), 0) << "these are set: nosuid " << ST_NOSUID << ", nodev " << ST_NODEV << ", noexec " << ST_NOEXEC;
    EXPECT_EQ(error_of([](int tree) { return ::faccessat(tree, "mine", X_OK, AT_EACCESS); }), EACCES);
}

TEST_F(DetachedMountUserns, IsReadOnlyIfTheVolumeIs) {
    mount_.set_read_only(true);
    EXPECT_EQ(error_of([](int tree) { return ::openat(tree, "mine", O_RDONLY); }), 0);
    EXPECT_EQ(error_of([](int tree) { return ::openat(tree, "mine", O_RDWR); }), EROFS);
    EXPECT_EQ(error_of([](int tree) { return ::openat(tree, "new", O_WRONLY | O_CREAT, 0600); }), EROFS);
    EXPECT_EQ(error_of([](int tree) { return ::unlinkat(tree, "mine", 0); }), EROFS);
    EXPECT_EQ(error_of([](int tree) {
                  const int opened = ::openat(tree, "mine", O_RDONLY);
                  return ::open(("/proc/self/fd/" + std::to_string(opened)).c_str(), O_RDWR);
              }),
              EROFS);
}

TEST_F(DetachedMountUserns, ShowsNothingThatIsMountedOnTheHostLater) {
    int result = -1;
    auto pipe = os::make_pipe().value();
    auto done = os::in_own_mount_namespace([&]() -> Result<> {
        // As hosts are: what is mounted in one place appears wherever that is mounted as well. Some kernels leave out mounts
    // that are in no place by themselves.
        if (::mount(nullptr, "/", nullptr, MS_SHARED | MS_REC, nullptr) != 0) return base::failure_errno("cannot share mounts");
        auto tree = CAISSON_TRY(mount_of());
        if (::mount("later", at("v/d").c_str(), "tmpfs", 0, nullptr) != 0) return base::failure_errno("cannot mount");
        const int error = ::openat(tree.get(), "d/f", O_RDONLY) < 0 ? errno : 0;
        return os::write_all(pipe.second.get(), base::ByteView(reinterpret_cast<const std::uint8_t*>(&error), sizeof error));
    });
    ASSERT_TRUE(done) << done.error().to_string();
    ASSERT_EQ(::read(pipe.first.get(), &result, sizeof result), static_cast<ssize_t>(sizeof result));
    EXPECT_EQ(result, 0);
}

// Another process of the same user exchanges the volume and a link to /etc all the while: 100000 times and more.
TEST_F(DetachedMountUserns, IsTheVolumeOrNothingWhileThatIsSwapped) {
    constexpr long kSwaps = 100000;
    constexpr int kEach = 500;
    ASSERT_EQ(::symlink("/etc", at("swap").c_str()), 0);
    struct stat mine {};
    ASSERT_EQ(::stat(at("v").c_str(), &mine), 0);
    std::atomic<long> swaps = 0;
    std::atomic<bool> done = false;
    const auto swap = at("swap"), volume = at("v");
    std::thread swapper([&] {
        while (!done)
            if (::renameat2(AT_FDCWD, swap.c_str(), AT_FDCWD, volume.c_str(), RENAME_EXCHANGE) == 0) ++swaps;
    });
    int mounted = 0, refused = 0;
    auto pipe = os::make_pipe().value();
    while (swaps < kSwaps || mounted < kEach || refused < kEach) {
        auto all = os::in_own_mount_namespace([&]() -> Result<> {
            int counts[2] = {0, 0};
            for (int i = 0; i < 1000; ++i) {
                auto tree = mount_of();
                ++counts[tree ? 0 : 1];
                if (!tree && tree.error().code != Errc::kNotFound) return base::failure(Error(tree.error()));
                struct stat status {};
                if (tree && (::fstat(tree->get(), &status) != 0 || status.st_ino != mine.st_ino || status.st_dev != mine.st_dev))
                    return base::failure(Errc::kCorrupt, "something else was mounted");
                if (tree && ::faccessat(tree->get(), "passwd", F_OK, AT_SYMLINK_NOFOLLOW) == 0) return base::failure(Errc::kCorrupt, "/etc was mounted");
            }
            return os::write_all(pipe.second.get(), base::ByteView(reinterpret_cast<const std::uint8_t*>(counts), sizeof counts));
        });
        if (!all) ADD_FAILURE() << all.error().to_string();
        int counts[2] = {0, 0};
        if (!all || ::read(pipe.first.get(), counts, sizeof counts) != static_cast<ssize_t>(sizeof counts)) break;
        mounted += counts[0];
        refused += counts[1];
    }
    done = true;
    swapper.join();
    std::printf("%ld swaps; mounted %d times, refused %d times\n", swaps.load(), mounted, refused);
}

}  // namespace
}  // namespace caisson::volume
