// What is left to a caisson-copy that a stream has taken over. Each attempt runs in a process of its own.
#include "box/copy_jail.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <optional>

#include "os/file.h"

namespace caisson::box {
namespace {

class CopyJailDeathTest : public testing::Test {
  protected:
    CopyJailDeathTest() {
        auto made = os::TemporaryDirectory::create("/var/tmp", "caisson-jail-test-");
        if (made) place_.emplace(std::move(*made));
        EXPECT_TRUE(os::make_directories(path("in/sub"), 0755));
        EXPECT_TRUE(os::write_file_atomic(path("in/f"), "inside"));
        EXPECT_TRUE(os::write_file_atomic(path("secret"), "secret"));
        directory_ = os::Fd(::open(path("in").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
        outside_ = os::Fd(::open(path("").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    }
    std::string path(const std::string& name) const { return place_->path() + "/" + name; }
    // Ends the process with 0 if `attempt` gave what `allowed` says.
    template <typename Attempt>
    void ends(CopyKind kind, bool allowed, const Attempt& attempt) const {
        EXPECT_EXIT(
            {
                if (!enter_copy_jail(kind, directory_.get())) ::_exit(99);
                ::_exit(attempt() == allowed ? 0 : 1);
            },
            testing::ExitedWithCode(0), "");
    }
    template <typename Attempt>
    void dies(const Attempt& attempt) const {
        for (auto kind : {CopyKind::kPack, CopyKind::kExtract, CopyKind::kExtractWithOwners})
            EXPECT_EXIT(
                {
                    if (!enter_copy_jail(kind, directory_.get())) ::_exit(99);
                    attempt();
                    ::_exit(0);
                },
                testing::KilledBySignal(SIGSYS), "");
    }
    bool can_open(const std::string& name, int flags) const { return ::openat(directory_.get(), name.c_str(), flags | O_CLOEXEC, 0600) >= 0; }

    os::Fd directory_;
    os::Fd outside_;

  private:
    std::optional<os::TemporaryDirectory> place_;
};

TEST_F(CopyJailDeathTest, APackerReadsAndWritesNothing) {
    ends(CopyKind::kPack, true, [&] { return can_open("f", O_RDONLY); });
    ends(CopyKind::kPack, false, [&] { return can_open("f", O_WRONLY); });
    ends(CopyKind::kPack, false, [&] { return can_open("new", O_WRONLY | O_CREAT); });
    ends(CopyKind::kPack, false, [&] { return ::unlinkat(directory_.get(), "f", 0) == 0; });
}

TEST_F(CopyJailDeathTest, AnExtractorWritesAndReadsNoFile) {
    ends(CopyKind::kExtract, true, [&] { return can_open("new", O_WRONLY | O_CREAT | O_EXCL); });
    ends(CopyKind::kExtract, true, [&] { return ::linkat(directory_.get(), "f", directory_.get(), "sub/g", 0) == 0; });
    ends(CopyKind::kExtract, false, [&] { return can_open("f", O_RDONLY); });
}

TEST_F(CopyJailDeathTest, NothingOutsideIsReached) {
    const auto secret = path("secret");
    for (auto kind : {CopyKind::kPack, CopyKind::kExtract, CopyKind::kExtractWithOwners}) {
        for (const std::string& name : {secret, std::string("/etc/passwd"), std::string("../secret")}) {
            ends(kind, false, [&] { return can_open(name, O_RDONLY); });
            ends(kind, false, [&] { return can_open(name, O_WRONLY); });
        }
        // Even by a descriptor that was forgotten.
        ends(kind, false, [&] { return ::openat(outside_.get(), "secret", O_RDONLY | O_CLOEXEC) >= 0; });
        ends(kind, false, [&] { return ::linkat(outside_.get(), "secret", directory_.get(), "sub/s", 0) == 0; });
    }
}

#ifndef CAISSON_TEST_SANITIZED
TEST_F(CopyJailDeathTest, OtherSystemCallsAreItsEnd) {
    dies([] { ::socket(AF_UNIX, SOCK_STREAM, 0); });
    dies([] { ::execl("/bin/true", "true", static_cast<char*>(nullptr)); });
    dies([] { static_cast<void>(!::chroot(".")); });
    dies([] { ::kill(1, 0); });
    dies([] { static_cast<void>(!::setuid(0)); });
    dies([] { static_cast<void>(::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)); });
}
#endif

TEST_F(CopyJailDeathTest, RootKeepsOnlyWhatItNeeds) {
    if (::geteuid() != 0) GTEST_SKIP() << "only root has capabilities to lose";
    auto give_away = [&] { return ::fchownat(directory_.get(), "f", 1234, 1234, AT_SYMLINK_NOFOLLOW) == 0; };
    ends(CopyKind::kPack, false, give_away);
    ends(CopyKind::kExtract, false, give_away);
    ends(CopyKind::kExtractWithOwners, true, give_away);
    auto device = [&] { return ::mknodat(directory_.get(), "null", S_IFCHR | 0666, makedev(1, 3)) == 0; };
    ends(CopyKind::kExtractWithOwners, false, device);
}

}  // namespace
}  // namespace caisson::box
