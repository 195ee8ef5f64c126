// The share server with a kernel before it.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <thread>

#include "share/bench.h"

namespace caisson::volume::share {
namespace {

class Share : public ::testing::Test {
  protected:
    static void SetUpTestSuite() { missing_ = new std::string(Bench::missing()); }
    void SetUp() override {
        if (!missing_->empty()) GTEST_SKIP() << *missing_;
        host_.emplace(os::TemporaryDirectory::create("/var/tmp", "share-host").value());
    }
    std::string host(const std::string& path = "") const { return path.empty() ? host_->path() : host_->path() + "/" + path; }
    std::optional<os::TemporaryDirectory> host_;
    static std::string* missing_;
};
std::string* Share::missing_ = nullptr;

// Alone with the volume, as an agent has it, and as one that believes nothing.
class ShareKinds : public Share, public ::testing::WithParamInterface<bool> {};
INSTANTIATE_TEST_SUITE_P(, ShareKinds, ::testing::Bool(), [](const auto& one) { return one.param ? "Keeps" : "KeepsNothing"; });

TEST_P(ShareKinds, BehavesAsALocalFileSystem) {
    auto bench = Bench::start({.volumes = {{host()}}, .keeps = GetParam()});
    ASSERT_TRUE(bench) << bench.error().to_string();
    auto ran = run({CAISSON_POSIX, (*bench)->place()});
    // docs/volumes.md says why.
    for (const char* known : {"attribute_access_lists"}) {
        auto line = ran.output.find(std::string("differs ") + known + ":");
        ASSERT_NE(line, std::string::npos) << known << " is as it should be now, which docs/volumes.md denies";
        ran.output.erase(line, ran.output.find('\n', line) + 1 - line);
    }
    for (auto line = ran.output.find("differs "); line != std::string::npos; line = ran.output.find("differs ", line + 1))
        ADD_FAILURE() << ran.output.substr(line, ran.output.find('\n', line) - line);
    EXPECT_NE(ran.output.find(" cases, "), std::string::npos) << ran.output;
}

// Pieces of all sizes, some of which go through the window, by more processes than it has slots, each with a file of its own
// and all with one of which each has its part.
TEST_P(ShareKinds, MuchArrivesAsItWasSent) {
    constexpr std::size_t kWriters = 7, kPart = 3 << 20;
    auto bench = Bench::start({.volumes = {{host()}}, .keeps = GetParam()});
    ASSERT_TRUE(bench) << bench.error().to_string();
    const std::string place = (*bench)->place() + "/";
    ASSERT_TRUE(os::write_file_atomic(place + "all", ""));
    auto contents = [](std::size_t writer) {
        std::string text(kPart, 0);
        std::uint32_t state = static_cast<std::uint32_t>(writer) + 1;
        for (auto& c : text) c = static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
        return text;
    };
    auto work = [&](std::size_t writer) {
        const auto text = contents(writer);
        const auto begin = writer * kPart;
        const os::Fd own(::open((place + std::to_string(writer)).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
        const os::Fd all(::open((place + "all").c_str(), O_RDWR | O_CLOEXEC));
        std::size_t piece = 1;
        for (std::size_t at = 0; at < kPart; piece = piece * 7 % 1300021 + 4096) {
            const auto length = std::min(piece, kPart - at);
            EXPECT_EQ(::pwrite(own.get(), text.data() + at, length, static_cast<off_t>(at)), static_cast<ssize_t>(length));
            EXPECT_EQ(::pwrite(all.get(), text.data() + at, length, static_cast<off_t>(begin + at)), static_cast<ssize_t>(length));
            at += length;
        }
        // Not from the kernel's memory.
        for (const auto* file : {&own, &all}) {
            EXPECT_EQ(::fsync(file->get()), 0);
            EXPECT_EQ(::posix_fadvise(file->get(), 0, 0, POSIX_FADV_DONTNEED), 0);
        }
        std::string read(kPart, 0);
        EXPECT_EQ(::pread(own.get(), read.data(), kPart, 0), static_cast<ssize_t>(kPart));
        EXPECT_TRUE(read == text);
        EXPECT_EQ(::pread(all.get(), read.data(), kPart, static_cast<off_t>(begin)), static_cast<ssize_t>(kPart));
        EXPECT_TRUE(read == text);
    };
    std::vector<std::thread> writers;
    for (std::size_t i = 0; i < kWriters; ++i) writers.emplace_back(work, i);
    for (auto& writer : writers) writer.join();
    std::string whole;
    for (std::size_t i = 0; i < kWriters; ++i) {
        const auto text = contents(i);
        EXPECT_TRUE(os::read_file(host(std::to_string(i)), 2 * kPart).value() == text);
        whole += text;
    }
    EXPECT_TRUE(os::read_file(host("all"), whole.size() + 1).value() == whole);
}

TEST_F(Share, TheSuiteFindsNothingOnALocalDisk) {
    auto ran = run({CAISSON_POSIX, host()});
    EXPECT_EQ(ran.code, 0) << ran.output;
}

// One file after the other, in directories of 1000, with and without listing them: what the guest's kernel remembers of
// them is far more than the server may have open.
TEST_F(Share, KnowsMoreFilesThanItMayHaveOpen) {
    constexpr int kDirectories = 60, kFiles = 1000;
    auto bench = Bench::start({.volumes = {{host()}}, .descriptors = 4096});
    ASSERT_TRUE(bench) << bench.error().to_string();
    const std::string place = (*bench)->place() + "/";
    auto name = [](int i) { return "d" + std::to_string(i % kDirectories) + "/f" + std::to_string(i / kDirectories); };
    for (int i = 0; i < kDirectories; ++i) ASSERT_EQ(::mkdir((host("d" + std::to_string(i))).c_str(), 0700), 0);
    for (int i = 0; i < kDirectories * kFiles; ++i) {
        os::Fd file(::open(host(name(i)).c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
        ASSERT_EQ(::write(file.get(), &i, sizeof i), sizeof i);
    }
    std::vector<ino_t> inodes;
    const os::Fd first(::open((place + name(0)).c_str(), O_RDONLY | O_CLOEXEC));
    const os::Fd nameless(::open((place + name(1)).c_str(), O_PATH | O_CLOEXEC));
    ASSERT_EQ(::unlink((place + name(1)).c_str()), 0);
    for (int i = 2; i < kDirectories * kFiles; ++i) {
        struct stat status {};
        ASSERT_EQ(::stat((place + name(i)).c_str(), &status), 0) << name(i) << ": " << std::strerror(errno);
        inodes.push_back(status.st_ino);
    }
    EXPECT_LT((*bench)->open_descriptors(), 2200u);
    // What was closed meanwhile is still the same file, also under another name.
    ASSERT_EQ(::rename((place + name(2)).c_str(), (place + "moved").c_str()), 0);
    ASSERT_EQ(::rename((place + "d3").c_str(), (place + "e3").c_str()), 0);
    for (int i = 4; i < kDirectories * kFiles; i += 17) {
        if (i % kDirectories == 3) continue;
        os::Fd file(::open((place + name(i)).c_str(), O_RDONLY | O_CLOEXEC));
        int holds = -1;
        struct stat status {};
        ASSERT_EQ(::read(file.get(), &holds, sizeof holds), sizeof holds) << name(i);
        ASSERT_EQ(holds, i);
        ASSERT_EQ(::fstat(file.get(), &status), 0);
        ASSERT_EQ(status.st_ino, inodes[static_cast<std::size_t>(i - 2)]);
    }
    struct stat status {};
    EXPECT_EQ(::fstat(nameless.get(), &status), 0) << "a file without a name cannot be opened again, and is kept";
    EXPECT_EQ(status.st_nlink, 0u);
    EXPECT_EQ(::stat((place + "moved").c_str(), &status), 0);
    EXPECT_EQ(::stat((place + "e3/f500").c_str(), &status), 0);
    // Removed by somebody else and made anew: another file, never the old one's node with new contents.
    for (int i = 4; i < 500; i += kDirectories) {
        ASSERT_EQ(::unlink(host(name(i)).c_str()), 0);
        ASSERT_TRUE(os::write_file_atomic(host(name(i)), "new"));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1100));  // what the kernel believes without asking
    for (int i = 4; i < 500; i += kDirectories) EXPECT_EQ(os::read_file(place + name(i), 100).value_or("?"), "new") << name(i);
    auto listed = run({"/usr/bin/find", place, "-type", "f", "-size", "+0"});
    EXPECT_EQ(listed.code, 0);
    EXPECT_EQ(std::count(listed.output.begin(), listed.output.end(), '\n'), kDirectories * kFiles - 1);
}

TEST_F(Share, TooManyOpenFilesAreRefusedAndNothingElse) {
    auto bench = Bench::start({.volumes = {{host()}}, .descriptors = 1024});
    ASSERT_TRUE(bench) << bench.error().to_string();
    const std::string place = (*bench)->place() + "/";
    std::vector<os::Fd> files;
    int refused = 0;
    for (int i = 0; i < 1000 && refused == 0; ++i) {
        os::Fd file(::open((place + std::to_string(i)).c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
        if (!file) refused = errno;
        else files.push_back(std::move(file));
    }
    EXPECT_EQ(refused, ENFILE);
    EXPECT_EQ(files.size(), 360u);
    struct stat status {};
    EXPECT_EQ(::stat((place + "0").c_str(), &status), 0);
    EXPECT_EQ(::write(files[0].get(), "x", 1), 1);
    files.pop_back();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    EXPECT_TRUE(os::Fd(::open((place + "new").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600)));
}

// What is on the host below a directory: everything but times of reading.
std::string tree_of(const std::string& directory) { return run({"/usr/bin/find", directory, "-printf", "%P %i %M %U %G %s %C@ %l\\n"}).output; }

TEST_F(Share, AReadOnlyVolumeIsNotWritten) {
    ASSERT_TRUE(os::write_file_atomic(host("f"), "kept"));
    ASSERT_EQ(::mkdir(host("d").c_str(), 0700), 0);
    ASSERT_TRUE(os::write_file_atomic(host("d/g"), "kept"));
    ASSERT_EQ(::symlink("f", host("l").c_str()), 0);
    const auto other = os::TemporaryDirectory::create("/var/tmp", "share-other").value();
    const auto before = tree_of(host());
    {
        // The mount itself is not read-only: it is the server that refuses.
        auto bench = Bench::start({.volumes = {{host(), true}, {other.path()}}});
        ASSERT_TRUE(bench) << bench.error().to_string();
        const std::string place = (*bench)->place() + "/";
        const std::string f = place + "f";
        const timespec times[2] = {{1, 0}, {2, 0}};
        const os::Fd reader(::open(f.c_str(), O_RDONLY | O_CLOEXEC));
        const os::Fd directory(::open(place.c_str(), O_RDONLY | O_CLOEXEC));
        const struct {
            const char* what;
            std::function<long()> call;
        } writes[] = {
            {"open to write", [&] { return ::open(f.c_str(), O_WRONLY | O_CLOEXEC); }},
            {"open to read and write", [&] { return ::open(f.c_str(), O_RDWR | O_CLOEXEC); }},
            {"open truncating", [&] { return ::open(f.c_str(), O_RDONLY | O_TRUNC | O_CLOEXEC); }},
            {"create", [&] { return ::open((place + "new").c_str(), O_CREAT | O_RDONLY | O_CLOEXEC, 0600); }},
            {"create nameless", [&] { return ::open(place.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600); }},
            {"truncate", [&] { return ::truncate(f.c_str(), 0); }},
            {"chmod", [&] { return ::chmod(f.c_str(), 0777); }},
            {"chown", [&] { return ::chown(f.c_str(), 1, 1); }},
            {"lchown", [&] { return ::lchown((place + "l").c_str(), 1, 1); }},
            {"utimens", [&] { return ::futimens(reader.get(), times); }},
            {"unlink", [&] { return ::unlink(f.c_str()); }},
            {"rmdir", [&] { return ::rmdir((place + "d").c_str()); }},
            {"mkdir", [&] { return ::mkdir((place + "e").c_str(), 0700); }},
            {"mkfifo", [&] { return ::mkfifo((place + "p").c_str(), 0600); }},
            {"mknod", [&] { return ::mknod((place + "c").c_str(), S_IFCHR | 0600, 259); }},
            {"symlink", [&] { return ::symlink("x", (place + "m").c_str()); }},
            {"link", [&] { return ::link(f.c_str(), (place + "h").c_str()); }},
            {"rename", [&] { return ::rename(f.c_str(), (place + "g").c_str()); }},
            {"rename over", [&] { return ::rename((place + "d/g").c_str(), f.c_str()); }},
            {"exchange", [&] { return ::renameat2(AT_FDCWD, f.c_str(), AT_FDCWD, (place + "d").c_str(), RENAME_EXCHANGE); }},
            {"setxattr", [&] { return ::setxattr(f.c_str(), "user.a", "x", 1, 0); }},
            {"removexattr", [&] { return ::removexattr(f.c_str(), "user.a"); }},
            {"access", [&] { return ::access(f.c_str(), W_OK) == 0 ? (errno = EROFS, -1) : -1; }},
        };
        for (const auto& write : writes) {
            errno = 0;
            EXPECT_EQ(write.call(), -1) << write.what;
            EXPECT_EQ(errno, EROFS) << write.what;
        }
        // To and from another volume.
        const std::string writable = (*bench)->place(1) + "/";
        ASSERT_TRUE(os::write_file_atomic(writable + "x", "x"));
        EXPECT_EQ(::rename((writable + "x").c_str(), (place + "x").c_str()), -1);
        EXPECT_EQ(::rename(f.c_str(), (writable + "f").c_str()), -1);
        EXPECT_EQ(::link(f.c_str(), (writable + "f").c_str()), -1);
        EXPECT_EQ(errno, EXDEV);
        EXPECT_EQ(os::read_file(f, 100).value_or("?"), "kept");
        EXPECT_EQ(::flock(reader.get(), LOCK_EX), 0) << "a lock is no change";
    }
    EXPECT_EQ(tree_of(host()), before);
}

TEST_F(Share, TheHostsFilesStayTheOwnersAndPlain) {
    auto bench = Bench::start({.volumes = {{host()}}, .user = 1000, .group = 1000});
    ASSERT_TRUE(bench) << bench.error().to_string();
    const std::string place = (*bench)->place() + "/";
    ::umask(0);
    ASSERT_TRUE(os::write_file_atomic(place + "program", "#!/bin/sh\n"));
    ASSERT_EQ(::chown((place + "program").c_str(), 0, 0), 0);
    ASSERT_EQ(::chmod((place + "program").c_str(), 06777), 0);
    ASSERT_EQ(::mkdir((place + "d").c_str(), 01777), 0);
    ASSERT_EQ(::chown((place + "d").c_str(), 33, 33), 0);
    ASSERT_EQ(::mkfifo((place + "p").c_str(), 0666), 0);
    ASSERT_EQ(::mknod((place + "disk").c_str(), S_IFBLK | 0666, 259), 0);
    ASSERT_EQ(::symlink("/etc/passwd", (place + "l").c_str()), 0);
    ASSERT_EQ(::lchown((place + "l").c_str(), 77, 1000), 0);
    ASSERT_EQ(::symlink("/etc/passwd", (place + "roots").c_str()), 0);
    struct stat status {};
    auto of = [&](const std::string& path) {
        EXPECT_EQ(::lstat(path.c_str(), &status), 0) << path;
        return status.st_mode;
    };
    EXPECT_EQ(of(place + "program"), S_IFREG | 06777u);
    EXPECT_EQ(of(place + "disk"), S_IFBLK | 0666u);
    for (const char* file : {"program", "p", "disk", "roots"}) EXPECT_EQ(of(host(file)), S_IFREG | 0600u) << file;
    EXPECT_EQ(of(host("d")), S_IFDIR | 0700u);
    for (const char* file : {"program", "p", "disk", "d", "roots", "l"}) {
        of(host(file));
        EXPECT_EQ(status.st_uid, ::geteuid()) << file;
        EXPECT_EQ(status.st_gid, ::getegid()) << file;
    }
    // What is the box's user's on the host is that user's in the box; the rest says whose it is.
    ASSERT_TRUE(os::write_file_atomic(host("by-hand"), "x"));
    of(place + "by-hand");
    EXPECT_EQ(status.st_uid, 1000u);
    of(place + "d");
    EXPECT_EQ(status.st_uid, 33u);
    of(place + "roots");
    EXPECT_EQ(status.st_uid, 0u);
    EXPECT_EQ(of(place + "l"), S_IFLNK | 0777u);
    EXPECT_EQ(status.st_uid, 77u);
}

TEST_F(Share, WhatAnotherBoxWritesIsSeenAtOnce) {
    const auto files = os::TemporaryDirectory::create("/var/tmp", "share-file").value();
    const BenchVolume volume{.path = host(), .own_file = files.path() + "/file"};
    auto one = Bench::start({.volumes = {volume}}), two = Bench::start({.volumes = {volume}});
    ASSERT_TRUE(one && two);
    const std::string here = (*one)->place() + "/", there = (*two)->place() + "/";
    for (int i = 0; i < 50; ++i) {
        const auto text = std::to_string(i);
        ASSERT_TRUE(os::write_file_atomic(here + "f", text));
        EXPECT_EQ(os::read_file(there + "f", 100).value_or("?"), text);
        ASSERT_EQ(::unlink((there + "f").c_str()), 0);
        EXPECT_NE(::access((here + "f").c_str(), F_OK), 0);
    }
}

TEST_F(Share, ASingleFileHasNoNeighbours) {
    ASSERT_TRUE(os::write_file_atomic(host("shown"), "shown"));
    ASSERT_TRUE(os::write_file_atomic(host("hidden"), "hidden"));
    auto bench = Bench::start({.volumes = {{host("shown")}}});
    ASSERT_TRUE(bench) << bench.error().to_string();
    const auto file = (*bench)->place();
    EXPECT_EQ(os::read_file(file, 100).value_or("?"), "shown");
    for (const char* path : {"/hidden", "/../hidden", "/.", "/.."}) EXPECT_FALSE(os::read_file(file + path, 100)) << path;
    os::Fd writer(::open(file.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC));
    EXPECT_EQ(::write(writer.get(), "new", 3), 3);
    EXPECT_EQ(os::read_file(host("shown"), 100).value_or("?"), "new");
    const std::string root = file.substr(0, file.size() - 3);
    auto listed = run({"/usr/bin/find", root, "-mindepth", "1"});
    EXPECT_EQ(listed.output, file + "\n");
    EXPECT_EQ(::unlink(file.c_str()), -1);
    EXPECT_EQ(errno, EROFS);
    EXPECT_FALSE(os::Fd(::open((root + "/new").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600)));
    EXPECT_EQ(errno, EROFS);
}

TEST_F(Share, TwoBoxesExcludeEachOther) {
    auto one = Bench::start({.volumes = {{host()}}}), two = Bench::start({.volumes = {{host()}}});
    ASSERT_TRUE(one && two);
    auto opened = [](const auto& bench) { return os::Fd(::open(((*bench)->place() + "/f").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600)); };
    const auto here = opened(one), there = opened(two);
    struct flock range {};
    range.l_type = F_WRLCK;
    range.l_len = 10;
    EXPECT_EQ(::fcntl(here.get(), F_SETLK, &range), 0);
    EXPECT_EQ(::fcntl(there.get(), F_SETLK, &range), -1);
    EXPECT_EQ(errno, EAGAIN);
    range.l_start = 10;
    EXPECT_EQ(::fcntl(there.get(), F_SETLK, &range), 0) << "another part";
    EXPECT_EQ(::flock(there.get(), LOCK_EX | LOCK_NB), 0) << "other locks";
    EXPECT_EQ(::flock(here.get(), LOCK_SH | LOCK_NB), -1);
    const os::Fd host_file(::open(host("f").c_str(), O_RDWR | O_CLOEXEC));
    EXPECT_EQ(::flock(host_file.get(), LOCK_EX | LOCK_NB), -1) << "a program of the host is excluded, too";
    std::thread waiter([&] { EXPECT_EQ(::flock(here.get(), LOCK_EX), 0); });
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    EXPECT_EQ(::flock(there.get(), LOCK_UN), 0);
    waiter.join();
}

TEST_F(Share, SqliteInTwoBoxes) {
    if (::access("/usr/bin/sqlite3", X_OK) != 0) GTEST_SKIP() << "no sqlite3";
    const auto files = os::TemporaryDirectory::create("/var/tmp", "share-file").value();
    const BenchVolume volume{.path = host(), .own_file = files.path() + "/file"};
    auto one = Bench::start({.volumes = {volume}}), two = Bench::start({.volumes = {volume}});
    ASSERT_TRUE(one && two);
    auto sqlite = [](const auto& bench, const std::string& statements) {
        return run({"/usr/bin/sqlite3", "-cmd", ".timeout 60000", (*bench)->place() + "/t.db", statements});
    };
    // In one box with a write-ahead log, which needs memory shared by all who use the database: one box at a time.
    EXPECT_EQ(sqlite(one, "pragma journal_mode=wal; create table t(n); insert into t values(1);").output, "wal\n");
    EXPECT_EQ(sqlite(one, "insert into t values(2); select count(*) from t; pragma integrity_check;").output, "2\nok\n");
    std::thread beside([&] {
        for (int i = 0; i < 20; ++i) EXPECT_EQ(sqlite(one, "insert into t values(3);").code, 0);
    });
    for (int i = 0; i < 20; ++i) EXPECT_EQ(sqlite(one, "insert into t values(3);").code, 0);
    beside.join();
    EXPECT_EQ(sqlite(one, "select count(*) from t; pragma integrity_check; pragma journal_mode=delete;").output, "42\nok\ndelete\n");
    // In two with a rollback journal, which needs locks alone.
    std::thread other([&] {
        for (int i = 0; i < 20; ++i) {
            auto ran = sqlite(two, "insert into t values(4);");
            EXPECT_EQ(ran.code, 0) << ran.output;
        }
    });
    for (int i = 0; i < 20; ++i) {
        auto ran = sqlite(one, "insert into t values(4);");
        EXPECT_EQ(ran.code, 0) << ran.output;
    }
    other.join();
    EXPECT_EQ(sqlite(two, "select count(*) from t; pragma integrity_check;").output, "82\nok\n");
}

TEST_F(Share, GitWorksThere) {
    if (::access("/usr/bin/git", X_OK) != 0) GTEST_SKIP() << "no git";
    auto bench = Bench::start({.volumes = {{host()}}});
    ASSERT_TRUE(bench) << bench.error().to_string();
    const std::string script =
        "set -e; git init -q a; cd a; for i in $(seq 200); do echo $i >f$i; done; ln -s f1 l; chmod +x f2; git add .;"
        "git -c user.name=n -c user.email=e commit -qm one; cd ..; git clone -q a b; cd b; test -z \"$(git status --porcelain)\";"
        "git fsck --full 2>/dev/null; git checkout -qb side; git mv f3 g3; git -c user.name=n -c user.email=e commit -qm two; git gc -q; git checkout -q -;"
        "git merge -q side; git log --oneline | wc -l; test -L l; test -x f2";
    auto ran = run({"/bin/sh", "-c", script}, (*bench)->place());
    EXPECT_EQ(ran.code, 0);
    EXPECT_EQ(ran.output, "2\n");
}

TEST_F(Share, ALimitedVolumeIsFullAndGetsRoomAgain) {
    auto bench = Bench::start({.volumes = {{host(), false, 1 << 20}}});
    ASSERT_TRUE(bench) << bench.error().to_string();
    const std::string place = (*bench)->place() + "/";
    auto fill = [&](const std::string& name) {
        const std::string block(64 << 10, 'x');
        os::Fd file(::open((place + name).c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
        std::size_t done = 0;
        for (;;) {
            const ssize_t put = ::write(file.get(), block.data(), block.size());
            if (put < 0) break;
            done += static_cast<std::size_t>(put);
        }
        return std::pair(done, errno);
    };
    auto [bytes, error] = fill("f");
    EXPECT_EQ(error, ENOSPC);
    EXPECT_GT(bytes, 900u << 10);
    EXPECT_LE(bytes, 1u << 20);
    EXPECT_EQ(::mkdir((place + "d").c_str(), 0700) == 0 ? 0 : errno, ENOSPC);
    EXPECT_EQ(::symlink("x", (place + "l").c_str()) == 0 ? 0 : errno, ENOSPC);
    EXPECT_EQ(::unlink((place + "f").c_str()), 0);
    // The kernel says a little later that nobody has it open.
    auto is_empty = [&] {
        for (int i = 0; i < 100 && (*bench)->used() >= 64 << 10; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(20));
        return (*bench)->used() < 64 << 10;
    };
    EXPECT_TRUE(is_empty());
    EXPECT_GT(fill("g").first, 900u << 10);
    ASSERT_EQ(::truncate((place + "g").c_str(), 0), 0);
    for (int i = 0; i < 20; ++i) ASSERT_EQ(::mkdir((place + "d" + std::to_string(i)).c_str(), 0700), 0);
    EXPECT_GE((*bench)->used(), 20 * 4096);
    for (int i = 0; i < 20; ++i) ASSERT_EQ(::rmdir((place + "d" + std::to_string(i)).c_str()), 0);
    ASSERT_EQ(::unlink((place + "g").c_str()), 0);
    EXPECT_TRUE(is_empty());
    // Many names, and attributes, take space, too.
    int made = 0;
    const std::string value(2000, 'v');
    for (; made < 2000; ++made) {
        const auto name = place + std::to_string(made);
        if (!os::Fd(::open(name.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600))) break;
        if (::setxattr(name.c_str(), "user.a", value.data(), value.size(), 0) != 0) break;
    }
    EXPECT_EQ(errno, ENOSPC);
    EXPECT_LT(made, 300);
}

}  // namespace
}  // namespace caisson::volume::share

// By hand: share_test --bench [-v DIRECTORY[:ro]]... [-u USER] [-n DESCRIPTORS] COMMAND...: "{}" there is the mount.
namespace {
int by_hand(int count, char** words) {
    using namespace caisson::volume::share;
    Bench::Options options;
    int at = 2;
    for (; at + 1 < count && words[at][0] == '-'; at += 2) {
        std::string value = words[at + 1];
        if (words[at][1] == 'v') {
            const bool read_only = value.size() > 3 && value.substr(value.size() - 3) == ":ro";
            options.volumes.push_back({read_only ? value.substr(0, value.size() - 3) : value, read_only, 0});
        }
        if (words[at][1] == 'l') options.volumes.back().limit_bytes = std::stoull(value);
        if (words[at][1] == 'u') options.user = options.group = static_cast<std::uint32_t>(std::stoul(value));
        if (words[at][1] == 'n') options.descriptors = std::stoull(value);
    }
    if (auto missing = Bench::missing(); !missing.empty()) return std::fprintf(stderr, "%s\n", missing.c_str()), 2;
    auto bench = Bench::start(options);
    if (!bench) return std::fprintf(stderr, "%s\n", bench.error().to_string().c_str()), 2;
    std::vector<std::string> arguments;
    for (; at < count; ++at) {
        std::string word = words[at];
        for (auto found = word.find("{}"); found != std::string::npos; found = word.find("{}", found)) word.replace(found, 2, (*bench)->place().substr(0, (*bench)->place().size() - 3));
        arguments.push_back(word);
    }
    auto ran = run(arguments);
    std::fputs(ran.output.c_str(), stdout);
    return ran.code;
}
}  // namespace

int main(int count, char** words) {
    caisson::volume::share::Bench::be_pump(count, words);
    if (count > 2 && std::string(words[1]) == "--bench") return by_hand(count, words);
    ::testing::InitGoogleTest(&count, words);
    return RUN_ALL_TESTS();
}
