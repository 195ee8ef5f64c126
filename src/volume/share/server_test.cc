// What a guest that sends anything gets from the share server, and what it does not get.
#include <dirent.h>
#include <sys/resource.h>
#include <sys/xattr.h>

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "volume/share/server_fixture.h"
#include "wire/listing.h"

namespace caisson::volume::share {
namespace {

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

// A volume with a limit that one file fills.
class ShareServerWithALimit : public ShareServer {
  protected:
    static constexpr std::uint32_t kBytes = 64 << 10;
    ShareServerWithALimit() {
        auto mount = std::make_shared<Mount>();
        mount->number = 3;
        mount->root = os::Fd(::open(path("outside").c_str(), O_PATH | O_CLOEXEC));
        mount->space = std::make_shared<Space>(used_, kBytes);
        server_.tree().add(mount);
        top_ = look_up(FUSE_ROOT_ID, "m3").as<fuse_entry_out>().nodeid;
        std::tie(full_, full_handle_) = create("full");
        std::tie(other_, other_handle_) = create("other");
        EXPECT_EQ(fill(full_, full_handle_), 0);
        EXPECT_EQ(fill(other_, other_handle_), ENOSPC);
    }
    std::pair<std::uint64_t, std::uint64_t> create(const char* text) {
        fuse_create_in in{};
        in.flags = O_RDWR;
        in.mode = 0600;
        const auto made = ask(FUSE_CREATE, top_, {of(in), name(text)});
        fuse_open_out out{};
        EXPECT_EQ(made.error, 0);
        if (made.error == 0) std::memcpy(&out, made.data.data() + sizeof(fuse_entry_out), sizeof out);
        return {made.as<fuse_entry_out>().nodeid, out.fh};
    }
    int fill(std::uint64_t node, std::uint64_t handle) {
        fuse_write_in in{};
        in.fh = handle;
        in.size = kBytes;
        return ask(FUSE_WRITE, node, {of(in), std::string(kBytes, 'x')}).error;
    }
    void close(std::uint64_t node, std::uint64_t handle) {
        fuse_release_in in{};
        in.fh = handle;
        EXPECT_EQ(ask(FUSE_RELEASE, node, {of(in)}).error, 0);
    }

    std::atomic<std::int64_t> used_{0};
    std::uint64_t top_ = 0, full_ = 0, full_handle_ = 0, other_ = 0, other_handle_ = 0;
};

TEST_F(ShareServerWithALimit, WhatWasRemovedGivesItsRoomBeforeTheGuestForgetsIt) {
    EXPECT_EQ(ask(FUSE_UNLINK, top_, {name("full")}).error, 0);
    EXPECT_EQ(fill(other_, other_handle_), ENOSPC) << "it is open";
    EXPECT_EQ(ask(FUSE_GETATTR, full_, {of(fuse_getattr_in{})}).error, 0);
    close(full_, full_handle_);
    EXPECT_EQ(ask(FUSE_GETATTR, full_, {of(fuse_getattr_in{})}).error, 0) << "nobody needed its room";
    EXPECT_EQ(fill(other_, other_handle_), 0);
    EXPECT_EQ(ask(FUSE_GETATTR, full_, {of(fuse_getattr_in{})}).error, ESTALE);
    const auto used = used_.load();
    say(FUSE_FORGET, full_, {of(fuse_forget_in{1})});
    EXPECT_EQ(used_, used) << "given back twice";
    // One that was renamed over gives its room as well; one with another name keeps it.
    close(other_, other_handle_);
    const auto [third, handle] = [&] {
        EXPECT_EQ(ask(FUSE_LINK, top_, {of(fuse_link_in{other_}), name("link")}).error, 0);
        EXPECT_EQ(ask(FUSE_UNLINK, top_, {name("other")}).error, 0);
        fuse_create_in in{};
        EXPECT_EQ(ask(FUSE_CREATE, top_, {of(in), name("third")}).error, ENOSPC) << "it has a name";
        EXPECT_EQ(ask(FUSE_RENAME2, top_, {of(fuse_rename2_in{top_, 0, 0}), name("f"), name("link")}).error, 0);
        return create("third");
    }();
    EXPECT_EQ(fill(third, handle), 0);
}

TEST_F(ShareServerWithALimit, WhatWasRemovedTakesItsRoomWhileThereIsALockOnIt) {
    fuse_lk_in lock{};
    lock.owner = 1;
    lock.lk = {0, INT64_MAX, F_WRLCK, 0};
    EXPECT_EQ(ask(FUSE_SETLK, full_, {of(lock)}).error, 0);
    EXPECT_EQ(ask(FUSE_UNLINK, top_, {name("full")}).error, 0);
    close(full_, full_handle_);
    say(FUSE_FORGET, full_, {of(fuse_forget_in{1})});
    EXPECT_EQ(fill(other_, other_handle_), ENOSPC);
    fuse_flush_in in{};
    in.lock_owner = 1;
    EXPECT_EQ(ask(FUSE_FLUSH, full_, {of(in)}).error, 0);
    EXPECT_EQ(fill(other_, other_handle_), 0);
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
            wire::each_listing_entry(data, false, [&](const fuse_entry_out&, const fuse_dirent& entry, std::string_view text) {
                found[std::string(text)] = entry.type;
                in.offset = entry.off;
            });
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
    auto go_on_behind = [&](const base::Bytes& data) {
        wire::each_listing_entry(data, false, [&](const fuse_entry_out&, const fuse_dirent& entry, std::string_view) { some.offset = entry.off; });
    };
    const auto beginning = ask_and_hear(FUSE_READDIR, one, {of(some)}).answer.data;
    move("outside/pipe", "written/one/pipe");
    fuse_rename2_in within{};
    within.newdir = one;
    EXPECT_EQ(ask_and_hear(FUSE_RENAME2, one, {of(within), name("pipe"), name("else")}).answer.error, 0);
    move("written/one/else", "outside/pipe");
    go_on_behind(beginning);
    some.size = 4096;
    for (;;) {
        const auto data = ask_and_hear(FUSE_READDIR, one, {of(some)}).answer.data;
        if (data.empty()) break;
        go_on_behind(data);
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

TEST_F(ShareServer, WhatHasNoNumberIsNotAnswered) {
    const auto f = node_of(written_, "f");
    const auto handle = open(f, O_RDONLY).as<fuse_open_out>().fh;
    fuse_release_in in{};
    in.fh = handle;
    const auto heard = say(FUSE_RELEASE, f, {of(in)});
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

TEST_F(ShareServer, WhatOnlyOneWritesGoesPastTheMemoryOfAKernelThatCanDoIt) {
    const auto f = node_of(written_, "f");
    auto opened = [&](std::uint32_t how) { return ask_and_hear(FUSE_OPEN, f, {of(fuse_open_in{how, 0})}).answer.as<fuse_open_out>(); };
    auto goes_past = [](const fuse_open_out& out) { return (out.open_flags & FOPEN_DIRECT_IO) != 0; };
    auto close = [&](const fuse_open_out& out) {
        fuse_release_in in{};
        in.fh = out.fh;
        EXPECT_EQ(ask_and_hear(FUSE_RELEASE, f, {of(in)}).answer.error, 0);
    };
    auto once = [&](std::uint32_t how) {
        const auto out = opened(how);
        close(out);
        return goes_past(out);
    };
    EXPECT_FALSE(once(O_WRONLY)) << "it did not say that it can";
    keep(wire::ShareKeeps::kWritesPast);
    EXPECT_TRUE(once(O_WRONLY));
    EXPECT_TRUE(once(O_WRONLY | O_TRUNC | O_APPEND));
    EXPECT_FALSE(once(O_RDWR));
    EXPECT_FALSE(once(O_RDONLY));
    // Whoever has it open may have mapped it.
    const auto other = opened(O_RDWR);
    EXPECT_FALSE(once(O_WRONLY));
    close(other);
    EXPECT_TRUE(once(O_WRONLY));
    fuse_create_in create{};
    create.flags = O_WRONLY;
    create.mode = 0600;
    const auto made = ask_and_hear(FUSE_CREATE, written_, {of(create), name("made")}).answer;
    ASSERT_EQ(made.error, 0);
    fuse_open_out out{};
    std::memcpy(&out, made.data.data() + sizeof(fuse_entry_out), sizeof out);
    EXPECT_TRUE(goes_past(out));
}

TEST_F(ShareServer, NonsenseEndsIt) {
    const std::uint32_t length = 5;
    ASSERT_EQ(::send(pair_.first.get(), &length, sizeof length, 0), static_cast<ssize_t>(sizeof length));
    ASSERT_TRUE(loop_.step(std::chrono::milliseconds(0)));
    EXPECT_NE(ended_.find("message of 5 bytes"), std::string::npos) << ended_;
}


}  // namespace
}  // namespace caisson::volume::share
