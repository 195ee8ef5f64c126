// What a guest that sends anything gets from the share server, and what it does not get.
#include "volume/share/server.h"

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <thread>

#include "os/file.h"

namespace caisson::volume::share {
namespace {

struct Answer {
    int error = -1;  // -1: none
    base::Bytes data;
    template <typename T>
    T as() const {
        T value{};
        if (data.size() >= sizeof value) std::memcpy(&value, data.data(), sizeof value);
        return value;
    }
};

// Messages of a kernel, one by one, to a server on the same thread.
class ShareServer : public ::testing::Test {
  protected:
    static constexpr std::uint32_t kWritten = 0, kRead = 1;
    ShareServer()
        : place_(os::TemporaryDirectory::create("/tmp", "share").value()),
          loop_(os::Loop::create().value()),
          pair_(os::make_socketpair(SOCK_STREAM).value()),
          window_(wire::kShareWindowBytes),
          server_(loop_, std::move(pair_.second), window_) {
        for (const char* name : {"written", "read", "outside"}) EXPECT_EQ(::mkdir(path(name).c_str(), 0700), 0);
        for (const char* name : {"written/f", "read/f", "outside/f"}) EXPECT_TRUE(os::write_file_atomic(path(name), "kept"));
        EXPECT_EQ(::symlink("../outside/f", path("written/out").c_str()), 0);
        EXPECT_EQ(::mkfifo(path("written/pipe").c_str(), 0600), 0);
        add(kWritten, "written", false);
        add(kRead, "read", true);
        server_.on_end = [this](const std::string& broken) { ended_ = broken.empty() ? "hung up" : broken; };
        EXPECT_TRUE(server_.start());
        fuse_init_in init{};
        init.major = FUSE_KERNEL_VERSION;
        init.minor = FUSE_KERNEL_MINOR_VERSION;
        EXPECT_EQ(ask(FUSE_INIT, 0, {of(init)}).error, 0);
        written_ = look_up(FUSE_ROOT_ID, "m0").as<fuse_entry_out>().nodeid;
        read_ = look_up(FUSE_ROOT_ID, "m1").as<fuse_entry_out>().nodeid;
    }
    void add(std::uint32_t number, const char* name, bool read_only) {
        auto mount = std::make_shared<Mount>();
        mount->number = number;
        mount->root = os::Fd(::open(path(name).c_str(), O_PATH | O_CLOEXEC));
        mount->read_only = read_only;
        server_.tree().add(mount);
    }
    std::string path(const std::string& name) const { return place_.path() + "/" + name; }
    std::string text(const std::string& name) const { return os::read_file(path(name), 1000).value_or("?"); }

    template <typename T>
    static std::string of(const T& value) {
        return {reinterpret_cast<const char*>(&value), sizeof value};
    }
    static std::string name(const std::string& text) { return text + '\0'; }
    static base::Bytes message(std::uint32_t operation, std::uint64_t node, const std::vector<std::string>& parts) {
        std::string arguments;
        for (const auto& part : parts) arguments += part;
        fuse_in_header header{};
        header.len = static_cast<std::uint32_t>(sizeof header + arguments.size());
        header.opcode = operation;
        header.unique = 77;
        header.nodeid = node;
        auto all = of(header) + arguments;
        return {all.begin(), all.end()};
    }
    Answer ask(std::uint32_t operation, std::uint64_t node, const std::vector<std::string>& parts) {
        const auto bytes = message(operation, node, parts);
        EXPECT_EQ(::send(pair_.first.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
        for (int i = 0; i < 3; ++i) EXPECT_TRUE(loop_.step(std::chrono::milliseconds(0)));
        Answer answer;
        fuse_out_header header{};
        if (::recv(pair_.first.get(), &header, sizeof header, MSG_DONTWAIT) != sizeof header) return answer;
        EXPECT_EQ(header.unique, 77u);
        answer.error = -header.error;
        answer.data.resize(header.len - sizeof header);
        const ssize_t rest = answer.data.empty() ? 0 : ::recv(pair_.first.get(), answer.data.data(), answer.data.size(), MSG_DONTWAIT);
        EXPECT_EQ(rest, static_cast<ssize_t>(answer.data.size()));
        return answer;
    }
    // What the server sent: what it tells the agent, and at the end the answer, if there is one.
    struct Heard {
        std::vector<wire::ShareNews> news;
        Answer answer;
        std::vector<base::Bytes> data;
    };
    Heard hear() {
        Heard heard;
        for (int i = 0; i < 3; ++i) EXPECT_TRUE(loop_.step(std::chrono::milliseconds(0)));
        fuse_out_header header{};
        while (::recv(pair_.first.get(), &header, sizeof header, MSG_DONTWAIT) == sizeof header) {
            base::Bytes data(header.len - sizeof header);
            const ssize_t rest = data.empty() ? 0 : ::recv(pair_.first.get(), data.data(), data.size(), MSG_DONTWAIT);
            EXPECT_EQ(rest, static_cast<ssize_t>(data.size()));
            if (header.unique != 0) {
                heard.answer = {-header.error, data};
                continue;
            }
            heard.news.push_back(static_cast<wire::ShareNews>(header.error));
            heard.data.push_back(data);
        }
        return heard;
    }
    // As ask_and_hear(), of a request with a slot: 1 is the first one.
    Heard ask_with_slot(std::uint32_t operation, std::uint64_t node, const std::vector<std::string>& parts, wire::ShareSlot slot) {
        auto bytes = message(operation, node, parts);
        std::memcpy(bytes.data() + wire::kShareSlotAt, &slot, sizeof slot);
        EXPECT_EQ(::send(pair_.first.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
        return hear();
    }
    Heard ask_and_hear(std::uint32_t operation, std::uint64_t node, const std::vector<std::string>& parts) {
        const auto bytes = message(operation, node, parts);
        EXPECT_EQ(::send(pair_.first.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
        return hear();
    }
    // From now on the server tells what it promises.
    void keep() {
        const auto message = wire::share_keeps();
        const auto bytes = base::bytes_of(message);
        EXPECT_EQ(::send(pair_.first.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
        EXPECT_EQ(hear().news, std::vector<wire::ShareNews>{wire::ShareNews::kWindow});
    }
    os::Fd presence_file() const { return os::Fd(::open(path("presence").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)); }
    // Somebody who comes to that volume while the server serves, and what it tells its agent meanwhile.
    std::shared_ptr<Presence> company(std::vector<wire::ShareNews>& news) {
        std::shared_ptr<Presence> other;
        std::atomic<bool> entered{false};
        std::thread comes([&] {
            other = Presence::enter(presence_file()).value();
            entered = true;
        });
        while (!entered) {
            EXPECT_TRUE(loop_.step(std::chrono::milliseconds(1)));
            for (auto one : hear().news) news.push_back(one);
        }
        comes.join();
        return other;
    }
    // A mount of a volume that others may have as well. The node of its directory.
    std::uint64_t add_shared() {
        auto mount = std::make_shared<Mount>();
        mount->number = 2;
        mount->root = os::Fd(::open(path("written").c_str(), O_PATH | O_CLOEXEC));
        mount->presence = Presence::enter(presence_file()).value();
        server_.add_mount(std::move(mount));
        return ask_and_hear(FUSE_LOOKUP, FUSE_ROOT_ID, {name("m2")}).answer.as<fuse_entry_out>().nodeid;
    }
    Answer look_up(std::uint64_t node, const std::string& text) { return ask(FUSE_LOOKUP, node, {name(text)}); }
    std::uint64_t node_of(std::uint64_t parent, const std::string& text) { return look_up(parent, text).as<fuse_entry_out>().nodeid; }
    Answer open(std::uint64_t node, std::uint32_t flags) { return ask(FUSE_OPEN, node, {of(fuse_open_in{flags, 0})}); }
    Answer write(std::uint64_t node, std::uint64_t handle) {
        fuse_write_in in{};
        in.fh = handle;
        in.size = 3;
        return ask(FUSE_WRITE, node, {of(in), "new"});
    }

    os::TemporaryDirectory place_;
    os::Loop loop_;
    os::FdPair pair_;
    base::Bytes window_;
    Server server_;
    std::string ended_;
    std::uint64_t written_ = 0, read_ = 0;
};

TEST_F(ShareServer, NamesLeadNowhereElse) {
    for (const char* bad : {"..", ".", "", "out/x", "../outside", "/etc"}) EXPECT_EQ(look_up(written_, bad).error, EINVAL) << bad;
    EXPECT_EQ(look_up(written_, std::string(256, 'n')).error, ENAMETOOLONG);
    for (const char* bad : {"m2", "m", "m-1", "x", "m4294967296", "m0x"}) EXPECT_EQ(look_up(FUSE_ROOT_ID, bad).error, ENOENT) << bad;
    fuse_rename2_in rename{};
    rename.newdir = written_;
    EXPECT_EQ(ask(FUSE_RENAME2, written_, {of(rename), name("f"), name("../outside/g")}).error, EINVAL);
    EXPECT_EQ(ask(FUSE_UNLINK, written_, {name("../outside/f")}).error, EINVAL);
    EXPECT_EQ(text("outside/f"), "kept");
}

TEST_F(ShareServer, LinksAreNotFollowed) {
    auto found = look_up(written_, "out").as<fuse_entry_out>();
    EXPECT_EQ(found.attr.mode & S_IFMT, static_cast<std::uint32_t>(S_IFLNK));
    EXPECT_NE(open(found.nodeid, O_RDWR).error, 0);
    fuse_create_in create{};
    create.flags = O_RDWR | O_CREAT | O_TRUNC;
    create.mode = S_IFREG | 0600;
    EXPECT_NE(ask(FUSE_CREATE, written_, {of(create), name("out")}).error, 0);
    fuse_setattr_in attributes{};
    attributes.valid = FATTR_SIZE;
    EXPECT_NE(ask(FUSE_SETATTR, found.nodeid, {of(attributes)}).error, 0);
    EXPECT_EQ(text("outside/f"), "kept");
}

TEST_F(ShareServer, WhatIsNoFileIsNotOpened) {
    // The host's owner may have put a pipe there: whoever opens it to write waits for ever.
    const auto pipe = node_of(written_, "pipe");
    for (std::uint32_t flags : {O_RDONLY, O_WRONLY, O_RDWR}) EXPECT_EQ(open(pipe, flags).error, ENXIO);
    EXPECT_EQ(open(written_, O_RDONLY).error, EISDIR);
    EXPECT_EQ(open(FUSE_ROOT_ID, O_RDONLY).error, EISDIR);
}

TEST_F(ShareServer, NothingIsWrittenWhereNothingMayBe) {
    const auto f = node_of(read_, "f"), mine = node_of(written_, "f");
    const auto handle = open(f, O_RDONLY).as<fuse_open_out>().fh, to = open(mine, O_RDWR).as<fuse_open_out>().fh;
    fuse_setattr_in attributes{};
    attributes.valid = FATTR_MODE | FATTR_SIZE;
    fuse_fallocate_in allocate{};
    allocate.fh = handle;
    allocate.length = 10;
    fuse_copy_file_range_in copy{};
    copy.fh_in = to;
    copy.nodeid_out = f;
    copy.fh_out = handle;
    copy.len = 4;
    fuse_rename2_in rename{};
    rename.newdir = read_;
    fuse_create_in create{};
    create.mode = S_IFREG | 0600;
    const struct {
        const char* what;
        int error;
    } refused[] = {
        {"mknod", ask(FUSE_MKNOD, read_, {of(fuse_mknod_in{S_IFREG | 0600, 0, 0, 0}), name("n")}).error},
        {"mkdir", ask(FUSE_MKDIR, read_, {of(fuse_mkdir_in{0700, 0}), name("n")}).error},
        {"symlink", ask(FUSE_SYMLINK, read_, {name("n"), name("x")}).error},
        {"link", ask(FUSE_LINK, read_, {of(fuse_link_in{f}), name("n")}).error},
        {"unlink", ask(FUSE_UNLINK, read_, {name("f")}).error},
        {"rmdir", ask(FUSE_RMDIR, read_, {name("f")}).error},
        {"rename", ask(FUSE_RENAME, read_, {of(fuse_rename_in{read_}), name("f"), name("n")}).error},
        {"rename2", ask(FUSE_RENAME2, read_, {of(rename), name("f"), name("n")}).error},
        {"setattr", ask(FUSE_SETATTR, f, {of(attributes)}).error},
        {"setxattr", ask(FUSE_SETXATTR, f, {of(std::uint32_t{1}), of(std::uint32_t{0}), name("user.a"), "x"}).error},
        {"removexattr", ask(FUSE_REMOVEXATTR, f, {name("user.a")}).error},
        {"create", ask(FUSE_CREATE, read_, {of(create), name("n")}).error},
        {"tmpfile", ask(FUSE_TMPFILE, read_, {of(create), name("n")}).error},
        {"write", write(f, handle).error},
        {"fallocate", ask(FUSE_FALLOCATE, f, {of(allocate)}).error},
        {"copy", ask(FUSE_COPY_FILE_RANGE, mine, {of(copy)}).error},
        {"open to write", open(f, O_WRONLY).error},
        {"open to read and write", open(f, O_RDWR).error},
        {"open to truncate", open(f, O_RDONLY | O_TRUNC).error},
    };
    for (const auto& one : refused) EXPECT_EQ(one.error, EROFS) << one.what;
    EXPECT_EQ(ask(FUSE_MKDIR, FUSE_ROOT_ID, {of(fuse_mkdir_in{0700, 0}), name("n")}).error, EROFS);
    EXPECT_EQ(text("read/f"), "kept");
    EXPECT_EQ(os::list_directory(path("read"))->size(), 1u);
}

TEST_F(ShareServer, NothingMovesFromOneVolumeToAnother) {
    const auto f = node_of(read_, "f");
    EXPECT_EQ(ask(FUSE_LINK, written_, {of(fuse_link_in{f}), name("n")}).error, EXDEV);
    fuse_rename2_in rename{};
    rename.newdir = read_;
    EXPECT_EQ(ask(FUSE_RENAME2, written_, {of(rename), name("f"), name("n")}).error, EXDEV);
    rename.newdir = written_;
    EXPECT_EQ(ask(FUSE_RENAME2, read_, {of(rename), name("f"), name("n")}).error, EROFS);
    rename.newdir = FUSE_ROOT_ID;
    EXPECT_EQ(ask(FUSE_RENAME2, written_, {of(rename), name("f"), name("m7")}).error, EROFS);
    EXPECT_EQ(text("written/f"), "kept");
    EXPECT_EQ(text("read/f"), "kept");
}

TEST_F(ShareServer, HandlesAreOfTheirNode) {
    const auto f = node_of(written_, "f"), other = node_of(read_, "f");
    const auto handle = open(f, O_RDWR).as<fuse_open_out>().fh;
    EXPECT_EQ(write(f, handle).error, 0);
    EXPECT_EQ(write(f, handle + 1).error, EBADF);
    EXPECT_EQ(write(written_, handle).error, EBADF) << "another node of the same volume";
    fuse_read_in in{};
    in.fh = handle;
    in.size = 10;
    EXPECT_EQ(ask(FUSE_READ, other, {of(in)}).error, EBADF);
    EXPECT_EQ(ask(FUSE_READDIR, written_, {of(in)}).error, EBADF);
    fuse_release_in release{};
    release.fh = handle;
    EXPECT_EQ(ask(FUSE_RELEASE, other, {of(release)}).error, EBADF);
    EXPECT_EQ(ask(FUSE_RELEASE, f, {of(release)}).error, 0);
    EXPECT_EQ(write(f, handle).error, EBADF) << "closed";
}

std::size_t open_descriptors() { return os::list_directory("/proc/self/fd")->size(); }

TEST_F(ShareServer, FilesAreClosedAndOpenedAgain) {
    constexpr int kFiles = 300;
    ASSERT_EQ(::mkdir(path("written/d").c_str(), 0700), 0);
    for (int i = 0; i < kFiles; ++i) ASSERT_TRUE(os::write_file_atomic(path("written/d/" + std::to_string(i)), std::string(static_cast<std::size_t>(i), 'x')));
    server_.tree().set_most_open(40);
    const auto before = open_descriptors();
    const auto directory = node_of(written_, "d");
    std::vector<std::uint64_t> nodes;
    for (int i = 0; i < kFiles; ++i) nodes.push_back(node_of(directory, std::to_string(i)));
    EXPECT_LE(open_descriptors(), before + 40);
    auto size_of = [&](int i) {
        const auto answer = ask(FUSE_GETATTR, nodes[static_cast<std::size_t>(i)], {of(fuse_getattr_in{})});
        return answer.error != 0 ? -answer.error : static_cast<long>(answer.as<fuse_attr_out>().attr.size);
    };
    for (int i = 0; i < kFiles; ++i) ASSERT_EQ(size_of(i), i);
    // Under the names that this guest gave them.
    EXPECT_EQ(ask(FUSE_RENAME, written_, {of(fuse_rename_in{written_}), name("d"), name("e")}).error, 0);
    fuse_rename2_in exchange{};
    exchange.newdir = written_;
    exchange.flags = RENAME_EXCHANGE;
    EXPECT_EQ(ask(FUSE_RENAME2, directory, {of(exchange), name("7"), name("f")}).error, 0);
    EXPECT_EQ(ask(FUSE_LINK, written_, {of(fuse_link_in{nodes[8]}), name("eight")}).error, 0);
    EXPECT_EQ(ask(FUSE_UNLINK, directory, {name("8")}).error, 0);
    EXPECT_EQ(ask(FUSE_UNLINK, directory, {name("9")}).error, 0);
    for (int i = 0; i < kFiles; ++i) ASSERT_EQ(size_of(i), i) << "also without a name";
    for (int i = kFiles - 1; i >= 0; --i) ASSERT_EQ(size_of(i), i);
    EXPECT_LE(open_descriptors(), before + 40);
}

TEST_F(ShareServer, AnotherFileUnderAClosedOnesNameIsNotTakenForIt) {
    server_.tree().set_most_open(20);
    ASSERT_EQ(::mkdir(path("written/d").c_str(), 0700), 0);
    ASSERT_EQ(::symlink("../outside", path("written/d-out").c_str()), 0);
    for (int i = 0; i < 60; ++i) ASSERT_TRUE(os::write_file_atomic(path("written/d/" + std::to_string(i)), "x"));
    const auto f = node_of(written_, "f"), directory = node_of(written_, "d"), inside = node_of(directory, "f0");
    EXPECT_EQ(inside, 0u);
    const auto zero = node_of(directory, "0");
    for (int round = 0; round < 2; ++round)
        for (int i = 1; i < 60; ++i) node_of(directory, std::to_string(i));
    // Somebody else changes what is there.
    ASSERT_TRUE(os::write_file_atomic(path("new"), "another"));
    ASSERT_EQ(::rename(path("new").c_str(), path("written/f").c_str()), 0);
    ASSERT_EQ(::rename(path("written/d/0").c_str(), path("written/d/away").c_str()), 0);
    ASSERT_EQ(::symlink("../../outside/f", path("written/d/0").c_str()), 0);
    EXPECT_EQ(open(f, O_RDONLY).error, ESTALE);
    EXPECT_EQ(open(zero, O_RDONLY).error, ESTALE);
    EXPECT_EQ(open(node_of(written_, "f"), O_RDONLY).error, 0);
    EXPECT_EQ(open(node_of(directory, "away"), O_RDONLY).error, 0);
}

TEST_F(ShareServer, ForgottenAndNeverKnownNodesAreStale) {
    const auto f = node_of(written_, "f");
    EXPECT_EQ(open(f + 1000, O_RDONLY).error, ESTALE);
    EXPECT_EQ(open(0, O_RDONLY).error, ESTALE);
    ask(FUSE_FORGET, f, {of(fuse_forget_in{1000})});
    EXPECT_EQ(open(f, O_RDONLY).error, ESTALE);
    ask(FUSE_FORGET, f, {of(fuse_forget_in{1})});
    EXPECT_NE(node_of(written_, "f"), f) << "a number is never used again";
}

TEST_F(ShareServer, ARemovedVolumeIsGone) {
    const auto f = node_of(written_, "f");
    const auto handle = open(f, O_RDWR).as<fuse_open_out>().fh;
    EXPECT_TRUE(server_.remove_mount(kWritten));
    EXPECT_EQ(write(f, handle).error, ESTALE);
    EXPECT_EQ(open(f, O_RDONLY).error, ESTALE);
    EXPECT_EQ(look_up(written_, "f").error, ESTALE);
    EXPECT_EQ(look_up(FUSE_ROOT_ID, "m0").error, ENOENT);
    add(kWritten, "outside", false);
    EXPECT_EQ(open(f, O_RDONLY).error, ESTALE) << "what comes under the same number later is something else";
    EXPECT_EQ(text("written/f"), "kept");
}

TEST_F(ShareServer, CaissonsAttributesAreNotTheGuests) {
    const auto f = node_of(written_, "f");
    for (const char* bad : {kMetadataAttribute, "user.caisson.x", "trusted.a", "security.selinux", "system.posix_acl_access"}) {
        EXPECT_EQ(ask(FUSE_SETXATTR, f, {of(std::uint32_t{1}), of(std::uint32_t{0}), name(bad), "x"}).error, EOPNOTSUPP) << bad;
        EXPECT_EQ(ask(FUSE_GETXATTR, f, {of(fuse_getxattr_in{10, 0}), name(bad)}).error, EOPNOTSUPP) << bad;
        EXPECT_EQ(ask(FUSE_REMOVEXATTR, f, {name(bad)}).error, EOPNOTSUPP) << bad;
    }
}

TEST_F(ShareServer, OnTheHostFilesAreTheOwnersAlone) {
    fuse_create_in create{};
    create.mode = S_IFREG | 06777;
    create.flags = O_RDWR | O_CREAT;
    EXPECT_EQ(ask(FUSE_CREATE, written_, {of(create), name("made")}).error, 0);
    EXPECT_EQ(ask(FUSE_MKDIR, written_, {of(fuse_mkdir_in{07777, 0}), name("dir")}).error, 0);
    EXPECT_EQ(ask(FUSE_MKNOD, written_, {of(fuse_mknod_in{S_IFBLK | 0666, 259, 0, 0}), name("disk")}).error, 0);
    auto mode = [&](const char* file) {
        struct stat status {};
        EXPECT_EQ(::lstat(path(std::string("written/") + file).c_str(), &status), 0);
        return status.st_mode;
    };
    EXPECT_EQ(mode("made"), S_IFREG | 0600u);
    EXPECT_EQ(mode("disk"), S_IFREG | 0600u);
    EXPECT_EQ(mode("dir"), S_IFDIR | 0700u);
}

long most_memory() {
    struct rusage used {};
    ::getrusage(RUSAGE_SELF, &used);
    return used.ru_maxrss;
}

TEST_F(ShareServer, AGuestThatTakesNoAnswersIsNotListenedTo) {
    const auto f = node_of(written_, "f");
    ASSERT_EQ(::truncate(path("written/f").c_str(), 4 << 20), 0);
    fuse_read_in in{};
    in.fh = open(f, O_RDONLY).as<fuse_open_out>().fh;
    in.size = 16 << 10;  // a few bytes in, many out
    const auto bytes = message(FUSE_READ, f, {of(in)});
    // More than it keeps: what it does not read stays with the sender.
    const auto before = most_memory();
    std::size_t sent = 0;
    for (int quiet = 0; quiet < 20; ++quiet) {
        ssize_t put = 0;
        while ((put = ::send(pair_.first.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL)) > 0) {
            sent += static_cast<std::size_t>(put);
            quiet = 0;
            ASSERT_LT(sent, std::size_t{16} << 20) << "it takes everything";
        }
        ASSERT_TRUE(loop_.step(std::chrono::milliseconds(1)));
        ASSERT_LT(most_memory(), before + (40 << 10)) << "KiB";
    }
    EXPECT_EQ(ended_, "");
}

TEST_F(ShareServer, OpenFilesAreCounted) {
    struct rlimit limit {};
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
    const auto most = budget_of(limit.rlim_cur).handles;
    int error = 0;
    std::size_t opened = 0;
    // The root directory takes no descriptor of the host, and is counted all the same.
    for (; error == 0 && opened <= most; ++opened) error = ask(FUSE_OPENDIR, FUSE_ROOT_ID, {of(fuse_open_in{0, 0})}).error;
    EXPECT_EQ(error, ENFILE);
    EXPECT_EQ(opened, most + 1);
}

TEST_F(ShareServer, WaitingForLocksIsLimited) {
    const auto f = node_of(written_, "f");
    fuse_lk_in lock{};
    lock.owner = 1;
    lock.lk = {0, INT64_MAX, F_WRLCK, 0};
    ASSERT_EQ(ask(FUSE_SETLK, f, {of(lock)}).error, 0);
    lock.owner = 2;
    int error = -1;
    std::size_t waiting = 0;
    for (; error == -1 && waiting <= kMostWaiting; ++waiting) error = ask(FUSE_SETLKW, f, {of(lock)}).error;
    EXPECT_EQ(error, ENOLCK);
    EXPECT_EQ(waiting, kMostWaiting + 1);
}

using News = std::vector<wire::ShareNews>;
using enum wire::ShareNews;

TEST_F(ShareServer, MuchGoesThroughASlot) {
    const auto f = node_of(written_, "f");
    const auto handle = open(f, O_RDWR).as<fuse_open_out>().fh;
    fuse_write_in write{};
    write.fh = handle;
    write.size = wire::kShareSlotBytes;
    std::memset(window_.data() + wire::kShareSlotBytes, 'w', wire::kShareSlotBytes);
    auto heard = ask_with_slot(FUSE_WRITE, f, {of(write)}, 2);
    EXPECT_EQ(heard.answer.error, 0);
    EXPECT_EQ(heard.answer.as<fuse_write_out>().size, wire::kShareSlotBytes);
    EXPECT_EQ(os::read_file(path("written/f"), 2 << 20).value(), std::string(wire::kShareSlotBytes, 'w'));

    fuse_read_in read{};
    read.fh = handle;
    read.offset = 5;
    read.size = wire::kShareSlotBytes;
    heard = ask_with_slot(FUSE_READ, f, {of(read)}, 4);
    ASSERT_EQ(heard.news, News{kInSlot});
    wire::ShareInSlot in{};
    ASSERT_EQ(heard.data[0].size(), sizeof in);
    std::memcpy(&in, heard.data[0].data(), sizeof in);
    EXPECT_EQ(in.unique, 77u);
    EXPECT_EQ(in.slot, 3u);
    EXPECT_EQ(in.length, wire::kShareSlotBytes - 5);
    EXPECT_TRUE(std::all_of(window_.end() - wire::kShareSlotBytes, window_.end() - 5, [](auto byte) { return byte == 'w'; }));
    EXPECT_EQ(window_.back(), 0);
    EXPECT_EQ(heard.answer.error, -1) << "it is answered once";
    // What does not read has its usual answer, and so has the end of a file.
    read.offset = wire::kShareSlotBytes;
    heard = ask_with_slot(FUSE_READ, f, {of(read)}, 4);
    EXPECT_TRUE(heard.news.empty());
    EXPECT_EQ(heard.answer.error, 0);
    EXPECT_TRUE(heard.answer.data.empty());
    EXPECT_EQ(ask_with_slot(FUSE_GETATTR, f, {of(fuse_getattr_in{})}, 1).answer.error, 0);
}

TEST_F(ShareServer, ASlotEndsWhereTheWindowDoes) {
    const auto f = node_of(written_, "f");
    const auto handle = open(f, O_RDWR).as<fuse_open_out>().fh;
    fuse_write_in write{};
    write.fh = handle;
    write.size = 3;
    fuse_read_in read{};
    read.fh = handle;
    read.size = 3;
    for (unsigned slot : {5u, 6u, 4096u, 65535u}) {
        EXPECT_EQ(ask_with_slot(FUSE_WRITE, f, {of(write), "new"}, static_cast<wire::ShareSlot>(slot)).answer.error, EINVAL) << slot;
        EXPECT_EQ(ask_with_slot(FUSE_READ, f, {of(read)}, static_cast<wire::ShareSlot>(slot)).answer.error, EINVAL) << slot;
    }
    for (std::uint32_t size : {std::uint32_t{wire::kShareSlotBytes + 1}, UINT32_MAX}) {
        write.size = read.size = size;
        EXPECT_EQ(ask_with_slot(FUSE_WRITE, f, {of(write)}, 4).answer.error, EINVAL) << size;
        EXPECT_EQ(ask_with_slot(FUSE_READ, f, {of(read)}, 4).news, News{kInSlot}) << "a read is cut";
    }
    EXPECT_EQ(text("written/f"), "kept");
    EXPECT_EQ(ended_, "");
}

TEST_F(ShareServer, TellsWhatIsInASmallFileThatIsOpenedToBeRead) {
    keep();
    const auto f = ask_and_hear(FUSE_LOOKUP, written_, {name("f")}).answer.as<fuse_entry_out>().nodeid;
    auto heard = ask_and_hear(FUSE_OPEN, f, {of(fuse_open_in{O_RDONLY, 0})});
    ASSERT_FALSE(heard.news.empty());
    EXPECT_EQ(heard.news[0], kContents);
    EXPECT_EQ(base::as_text(heard.data[0]), of(f) + "kept");
    auto tells = [&](std::uint32_t flags) {
        const auto news = ask_and_hear(FUSE_OPEN, f, {of(fuse_open_in{flags, 0})}).news;
        return std::count(news.begin(), news.end(), kContents) == 1;
    };
    EXPECT_FALSE(tells(O_RDWR));
    EXPECT_TRUE(os::write_file_atomic(path("written/f"), std::string(wire::kShareMostContents, 'x')));
    const auto full = ask_and_hear(FUSE_LOOKUP, written_, {name("f")}).answer.as<fuse_entry_out>().nodeid;
    EXPECT_EQ(ask_and_hear(FUSE_OPEN, full, {of(fuse_open_in{O_RDONLY, 0})}).data[0].size(), sizeof full + wire::kShareMostContents);
    EXPECT_TRUE(os::write_file_atomic(path("written/f"), std::string(wire::kShareMostContents + 1, 'x')));
    const auto large = ask_and_hear(FUSE_LOOKUP, written_, {name("f")}).answer.as<fuse_entry_out>().nodeid;
    const auto news = ask_and_hear(FUSE_OPEN, large, {of(fuse_open_in{O_RDONLY, 0})}).news;
    EXPECT_EQ(std::count(news.begin(), news.end(), kContents), 0);
}

TEST_F(ShareServer, TellsNothingOfContentsInCompany) {
    keep();
    const auto top = add_shared();
    const auto f = ask_and_hear(FUSE_LOOKUP, top, {name("f")}).answer.as<fuse_entry_out>().nodeid;
    auto opened = [&] { return ask_and_hear(FUSE_OPEN, f, {of(fuse_open_in{O_RDONLY, 0})}).news; };
    auto alone = opened();
    EXPECT_EQ(std::count(alone.begin(), alone.end(), kContents), 1);
    News news;
    const auto other = company(news);
    auto together = opened();
    EXPECT_EQ(std::count(together.begin(), together.end(), kContents), 0);
}

// Kinds of files as a listing tells them, by name.
TEST_F(ShareServer, ListsWhatAGuestMadeAsWhatItIs) {
    keep();
    auto kinds = [&](std::uint64_t directory) {
        const auto handle = ask_and_hear(FUSE_OPENDIR, directory, {of(fuse_open_in{})}).answer.as<fuse_open_out>().fh;
        std::map<std::string, std::uint32_t> found;
        fuse_read_in in{};
        in.fh = handle;
        in.size = 4096;
        for (;;) {
            const auto data = ask_and_hear(FUSE_READDIR, directory, {of(in)}).answer.data;
            if (data.empty()) return found;
            for (std::size_t at = 0; at < data.size();) {
                fuse_dirent entry{};
                std::memcpy(&entry, data.data() + at, offsetof(fuse_dirent, name));
                found[{reinterpret_cast<const char*>(data.data()) + at + offsetof(fuse_dirent, name), entry.namelen}] = entry.type;
                at += FUSE_DIRENT_ALIGN(offsetof(fuse_dirent, name) + entry.namelen);
                in.offset = entry.off;
            }
        }
    };
    auto make = [&](std::uint64_t directory, const char* what, std::uint32_t mode) {
        fuse_mknod_in in{};
        in.mode = mode;
        EXPECT_EQ(ask_and_hear(FUSE_MKNOD, directory, {of(in), name(what)}).answer.error, 0);
    };
    auto make_directory = [&](const char* what) {
        return ask_and_hear(FUSE_MKDIR, written_, {of(fuse_mkdir_in{0700, 0}), name(what)}).answer.as<fuse_entry_out>().nodeid;
    };
    const auto one = make_directory("one"), two = make_directory("two");
    make(one, "file", S_IFREG | 0600);
    // Twice: what the first one found is believed by the second.
    for (int i = 0; i < 2; ++i) EXPECT_EQ(kinds(one)["file"], static_cast<std::uint32_t>(DT_REG));
    for (int i = 0; i < 2; ++i) EXPECT_EQ(kinds(two).size(), 2u);
    make(one, "pipe", S_IFIFO | 0600);
    for (int i = 0; i < 2; ++i) EXPECT_EQ(kinds(one)["pipe"], static_cast<std::uint32_t>(DT_FIFO));
    // Under another name while somebody has listed the beginning, who then meets neither name: here, because it is not there.
    auto move = [&](const char* from, const char* to) { EXPECT_EQ(::rename(path(from).c_str(), path(to).c_str()), 0); };
    move("written/one/pipe", "outside/pipe");
    fuse_read_in some{};
    some.fh = ask_and_hear(FUSE_OPENDIR, one, {of(fuse_open_in{})}).answer.as<fuse_open_out>().fh;
    some.size = 64;
    fuse_dirent last{};
    const auto beginning = ask_and_hear(FUSE_READDIR, one, {of(some)}).answer.data;
    for (std::size_t at = 0; at < beginning.size(); at += FUSE_DIRENT_ALIGN(offsetof(fuse_dirent, name) + last.namelen))
        std::memcpy(&last, beginning.data() + at, offsetof(fuse_dirent, name));
    move("outside/pipe", "written/one/pipe");
    fuse_rename2_in within{};
    within.newdir = one;
    EXPECT_EQ(ask_and_hear(FUSE_RENAME2, one, {of(within), name("pipe"), name("else")}).answer.error, 0);
    move("written/one/else", "outside/pipe");
    some.offset = last.off;
    some.size = 4096;
    for (;;) {
        const auto data = ask_and_hear(FUSE_READDIR, one, {of(some)}).answer.data;
        if (data.empty()) break;
        for (std::size_t at = 0; at < data.size(); at += FUSE_DIRENT_ALIGN(offsetof(fuse_dirent, name) + last.namelen))
            std::memcpy(&last, data.data() + at, offsetof(fuse_dirent, name));
        some.offset = last.off;
    }
    move("outside/pipe", "written/one/pipe");
    EXPECT_EQ(kinds(one)["pipe"], static_cast<std::uint32_t>(DT_FIFO));
    // Into a directory that was found to have no such thing.
    fuse_rename2_in rename{};
    rename.newdir = two;
    EXPECT_EQ(ask_and_hear(FUSE_RENAME2, one, {of(rename), name("pipe"), name("moved")}).answer.error, 0);
    for (int i = 0; i < 2; ++i) EXPECT_EQ(kinds(two)["moved"], static_cast<std::uint32_t>(DT_FIFO));
    for (int i = 0; i < 2; ++i) EXPECT_EQ(kinds(one).size(), 3u);
    const auto pipe = ask_and_hear(FUSE_LOOKUP, two, {name("moved")}).answer.as<fuse_entry_out>().nodeid;
    EXPECT_EQ(ask_and_hear(FUSE_LINK, one, {of(fuse_link_in{pipe}), name("linked")}).answer.error, 0);
    for (int i = 0; i < 2; ++i) EXPECT_EQ(kinds(one)["linked"], static_cast<std::uint32_t>(DT_FIFO));
    // A link of somebody else's is a file with its text.
    const auto three = make_directory("three");
    EXPECT_EQ(kinds(three).size(), 2u);
    auto link = message(FUSE_SYMLINK, three, {name("link"), name("text")});
    const std::uint32_t somebody = 1234;
    std::memcpy(link.data() + offsetof(fuse_in_header, uid), &somebody, sizeof somebody);
    EXPECT_EQ(::send(pair_.first.get(), link.data(), link.size(), MSG_NOSIGNAL), static_cast<ssize_t>(link.size()));
    EXPECT_EQ(hear().answer.error, 0);
    for (int i = 0; i < 2; ++i) EXPECT_EQ(kinds(three)["link"], static_cast<std::uint32_t>(DT_LNK));
    // What another box made while it had the volume, too.
    const auto top = add_shared();
    const auto shared = ask_and_hear(FUSE_LOOKUP, top, {name("one")}).answer.as<fuse_entry_out>().nodeid;
    for (int i = 0; i < 2; ++i) EXPECT_EQ(kinds(shared).size(), 4u);
    {
        News news;
        const auto other = company(news);
        EXPECT_EQ(kinds(shared).size(), 4u);
        const std::string text = encode(Metadata{.mode = 0600, .special = S_IFSOCK});
        EXPECT_TRUE(os::write_file_atomic(path("written/one/socket"), ""));
        EXPECT_EQ(::setxattr(path("written/one/socket").c_str(), kMetadataAttribute, text.data(), text.size(), 0), 0);
    }
    for (int i = 0; i < 2; ++i) EXPECT_EQ(kinds(shared)["socket"], static_cast<std::uint32_t>(DT_SOCK));
}

TEST_F(ShareServer, TellsWhatTheAgentMayAnswer) {
    EXPECT_TRUE(ask_and_hear(FUSE_LOOKUP, written_, {name("f")}).news.empty());  // nobody keeps it
    keep();
    auto heard = ask_and_hear(FUSE_LOOKUP, written_, {name("f")});
    ASSERT_EQ(heard.news, News{kName});
    const auto f = heard.answer.as<fuse_entry_out>().nodeid;
    wire::ShareName above{};
    wire::ShareFile file{};
    ASSERT_EQ(heard.data[0].size(), sizeof above + sizeof file + 1);
    std::memcpy(&above, heard.data[0].data(), sizeof above);
    std::memcpy(&file, heard.data[0].data() + sizeof above, sizeof file);
    EXPECT_EQ(above.parent, written_);
    EXPECT_EQ(file.node, f);
    EXPECT_EQ(file.flags, wire::ShareFile::kNoCapability);
    EXPECT_EQ(file.attributes.size, 4u);
    EXPECT_EQ(heard.data[0].back(), 'f');

    heard = ask_and_hear(FUSE_OPEN, f, {of(fuse_open_in{O_RDWR, 0})});
    EXPECT_TRUE(heard.news.empty());
    fuse_write_in in{};
    in.fh = heard.answer.as<fuse_open_out>().fh;
    in.offset = 4;
    in.size = 3;
    heard = ask_and_hear(FUSE_WRITE, f, {of(in), "new"});
    ASSERT_EQ(heard.news, News{kFile});
    std::memcpy(&file, heard.data[0].data(), sizeof file);
    EXPECT_EQ(file.attributes.size, 7u);
    const std::string capability = name("security.capability");
    const std::uint32_t head[] = {5, 0};
    heard = ask_and_hear(FUSE_SETXATTR, f, {of(head), capability, "bytes"});
    ASSERT_EQ(heard.answer.error, 0);
    ASSERT_EQ(heard.news, News{kFile});
    std::memcpy(&file, heard.data[0].data(), sizeof file);
    EXPECT_EQ(file.flags, 0u);
}

TEST_F(ShareServer, TellsWhatBecameOfNames) {
    keep();
    ask_and_hear(FUSE_LOOKUP, FUSE_ROOT_ID, {name("m0")});  // now the directory is known as well
    auto heard = ask_and_hear(FUSE_MKDIR, written_, {of(fuse_mkdir_in{0755, 0}), name("d")});
    ASSERT_EQ(heard.news, (News{kName, kFile}));  // the new one, and the times of the one that it is in
    wire::ShareFile file{};
    std::memcpy(&file, heard.data[0].data() + sizeof(wire::ShareName), sizeof file);
    EXPECT_EQ(file.flags, wire::ShareFile::kEmpty);
    const auto d = heard.answer.as<fuse_entry_out>().nodeid;
    EXPECT_EQ(ask_and_hear(FUSE_MKNOD, d, {of(fuse_mknod_in{S_IFREG | 0600, 0, 0, 0}), name("a")}).news, (News{kName, kFile}));
    // The name that it gets may be known to lead elsewhere, the old one leads nowhere; the file has a new time of change.
    EXPECT_EQ(ask_and_hear(FUSE_RENAME2, d, {of(fuse_rename2_in{written_, 0, 0}), name("a"), name("b")}).news,
              (News{kNoName, kGone, kFile, kFile, kFile}));
    EXPECT_EQ(ask_and_hear(FUSE_UNLINK, written_, {name("b")}).news, (News{kGone, kNoFile, kFile}));
    EXPECT_EQ(ask_and_hear(FUSE_UNLINK, written_, {name("b")}).news, News{kFile});  // failed: nothing is said of the name
    EXPECT_EQ(ask_and_hear(FUSE_RMDIR, written_, {name("d")}).news, (News{kGone, kNoFile, kFile}));
}

TEST_F(ShareServer, CompanyEndsWhatWasPromised) {
    keep();
    const auto shared = add_shared();
    ASSERT_EQ(ask_and_hear(FUSE_LOOKUP, shared, {name("f")}).news, News{kName});
    News news;
    const auto begin = std::chrono::steady_clock::now();
    auto other = company(news);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(900)) << "it was not heard";
    EXPECT_EQ(news, News{kNothing});
    EXPECT_TRUE(ask_and_hear(FUSE_LOOKUP, shared, {name("f")}).news.empty());
    other.reset();
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    EXPECT_EQ(ask_and_hear(FUSE_LOOKUP, shared, {name("f")}).news, News{kName});
}

// A server that does not listen harms its own guest, and keeps nobody else waiting for long.
TEST_F(ShareServer, WhoComesDoesNotWaitForEver) {
    keep();
    ASSERT_NE(add_shared(), 0u);
    const auto begin = std::chrono::steady_clock::now();
    const auto other = Presence::enter(presence_file()).value();
    const auto took = std::chrono::steady_clock::now() - begin;
    EXPECT_GT(took, std::chrono::milliseconds(900));
    EXPECT_LT(took, std::chrono::seconds(10));
    EXPECT_TRUE(other->has_company());
}

TEST_F(ShareServer, ASecondMountInTheSameBoxIsCompany) {
    keep();
    ASSERT_NE(add_shared(), 0u);
    server_.leave_alone();
    const auto begin = std::chrono::steady_clock::now();
    const auto other = Presence::enter(presence_file()).value();
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(900));
    EXPECT_FALSE(other->is_alone());
}

TEST_F(ShareServer, WhatHasNoNumberIsNotAnswered) {
    const auto f = node_of(written_, "f");
    const auto handle = open(f, O_RDONLY).as<fuse_open_out>().fh;
    fuse_release_in in{};
    in.fh = handle;
    auto bytes = message(FUSE_RELEASE, f, {of(in)});
    std::memset(bytes.data() + offsetof(fuse_in_header, unique), 0, sizeof(std::uint64_t));
    ASSERT_EQ(::send(pair_.first.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
    const auto heard = hear();
    EXPECT_EQ(heard.answer.error, -1);
    EXPECT_TRUE(heard.news.empty());
    fuse_read_in read{};
    read.fh = handle;
    EXPECT_EQ(ask(FUSE_READ, f, {of(read)}).error, EBADF);  // but done
}

TEST_F(ShareServer, ClosingIsToldWhereLocksMayBe) {
    const auto f = node_of(written_, "f");
    auto flags = [&](std::uint32_t how) { return open(f, how).as<fuse_open_out>().open_flags; };
    EXPECT_EQ(flags(O_RDONLY), static_cast<std::uint32_t>(FOPEN_NOFLUSH));
    EXPECT_EQ(flags(O_WRONLY), static_cast<std::uint32_t>(FOPEN_NOFLUSH));
    EXPECT_EQ(flags(O_RDWR), 0u);
    fuse_lk_in lock{};
    lock.owner = 1;
    lock.lk = {0, INT64_MAX, F_WRLCK, 0};
    ASSERT_EQ(ask(FUSE_SETLK, f, {of(lock)}).error, 0);
    EXPECT_EQ(flags(O_RDONLY), 0u);
}

TEST_F(ShareServer, ContentsAreKeptWhileNobodyElseComes) {
    keep();
    const auto f = ask_and_hear(FUSE_LOOKUP, written_, {name("f")}).answer.as<fuse_entry_out>().nodeid;
    auto keeps = [&] { return (open(f, O_RDWR).as<fuse_open_out>().open_flags & FOPEN_KEEP_CACHE) != 0; };
    EXPECT_FALSE(keeps());  // what the guest has may be from before
    EXPECT_TRUE(keeps());
    server_.leave_alone();
    EXPECT_EQ(hear().news, News{kNothing});
    EXPECT_FALSE(keeps());
    EXPECT_TRUE(keeps());
}

TEST_F(ShareServer, NonsenseEndsIt) {
    const std::uint32_t length = 5;
    ASSERT_EQ(::send(pair_.first.get(), &length, sizeof length, 0), static_cast<ssize_t>(sizeof length));
    ASSERT_TRUE(loop_.step(std::chrono::milliseconds(0)));
    EXPECT_NE(ended_.find("message of 5 bytes"), std::string::npos) << ended_;
}

}  // namespace
}  // namespace caisson::volume::share
