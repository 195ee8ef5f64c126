// What a guest that sends anything gets from the share server, and what it does not get.
#include "volume/share/server.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <stdio.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
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
          server_(loop_, std::move(pair_.second)) {
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
        EXPECT_TRUE(hear().news.empty());
    }
    os::Fd presence_file() const { return os::Fd(::open(path("presence").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)); }
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
    EXPECT_EQ(ask_and_hear(FUSE_UNLINK, written_, {name("b")}).news, (News{kGone, kFile, kFile}));
    EXPECT_EQ(ask_and_hear(FUSE_UNLINK, written_, {name("b")}).news, News{kFile});  // failed: nothing is said of the name
    EXPECT_EQ(ask_and_hear(FUSE_RMDIR, written_, {name("d")}).news, (News{kGone, kFile, kFile}));
}

TEST_F(ShareServer, CompanyEndsWhatWasPromised) {
    keep();
    const auto shared = add_shared();
    ASSERT_EQ(ask_and_hear(FUSE_LOOKUP, shared, {name("f")}).news, News{kName});
    std::atomic<bool> entered{false};
    std::shared_ptr<Presence> other;
    const auto begin = std::chrono::steady_clock::now();
    std::thread comes([&] {
        other = Presence::enter(presence_file()).value();
        entered = true;
    });
    News news;
    while (!entered) {
        EXPECT_TRUE(loop_.step(std::chrono::milliseconds(1)));
        for (auto one : hear().news) news.push_back(one);
    }
    comes.join();
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
