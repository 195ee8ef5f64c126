// The share server with a kernel before it.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
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

TEST_F(Share, BehavesAsALocalFileSystem) {
    auto bench = Bench::start({.volumes = {{host()}}});
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
    for (int i = 4; i < kDirectories * kFiles; i += 7) {
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
    EXPECT_LT((*bench)->used(), 64 << 10);
    EXPECT_GT(fill("g").first, 900u << 10);
    ASSERT_EQ(::truncate((place + "g").c_str(), 0), 0);
    for (int i = 0; i < 20; ++i) ASSERT_EQ(::mkdir((place + "d" + std::to_string(i)).c_str(), 0700), 0);
    EXPECT_GE((*bench)->used(), 20 * 4096);
    for (int i = 0; i < 20; ++i) ASSERT_EQ(::rmdir((place + "d" + std::to_string(i)).c_str()), 0);
    ASSERT_EQ(::unlink((place + "g").c_str()), 0);
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    EXPECT_LT((*bench)->used(), 64 << 10);
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
