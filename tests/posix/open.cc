// Making and opening files.
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cstring>

#include "posix/check.h"

using namespace posix;

CASE(open_creates_with_mode) {
    ::close(static_cast<int>(OKAY(::open("f", O_CREAT | O_RDWR, 0640))));
    EQUAL(status_of("f").st_mode, S_IFREG | 0640);
    EQUAL(status_of("f").st_size, 0);
    EQUAL(status_of("f").st_nlink, 1);
}
CASE(open_obeys_the_umask) {
    ::umask(027);
    ::close(static_cast<int>(OKAY(::open("f", O_CREAT | O_RDWR, 0666))));
    OKAY(::mkdir("d", 0777));
    OKAY(::mkfifo("p", 0666));
    EQUAL(status_of("f").st_mode & 07777, 0640);
    EQUAL(status_of("d").st_mode & 07777, 0750);
    EQUAL(status_of("p").st_mode & 07777, 0640);
}
CASE(open_exclusive_refuses_what_exists) {
    put("f");
    OKAY(::mkdir("d", 0755));
    OKAY(::symlink("nowhere", "l"));
    REFUSED(EEXIST, ::open("f", O_CREAT | O_EXCL | O_RDWR, 0644));
    REFUSED(EEXIST, ::open("d", O_CREAT | O_EXCL | O_RDWR, 0644));
    REFUSED(EEXIST, ::open("l", O_CREAT | O_EXCL | O_RDWR, 0644));
    ::close(static_cast<int>(OKAY(::open("new", O_CREAT | O_EXCL | O_RDWR, 0644))));
}
CASE(open_missing) {
    REFUSED(ENOENT, ::open("f", O_RDWR));
    REFUSED(ENOENT, ::open("d/f", O_CREAT | O_RDWR, 0644));
    put("f");
    REFUSED(ENOTDIR, ::open("f/g", O_RDONLY));
    REFUSED(ENOTDIR, ::open("f/g", O_CREAT | O_RDWR, 0644));
}
CASE(open_keeps_contents_without_truncation) {
    put("f", "abc");
    ::close(static_cast<int>(OKAY(::open("f", O_CREAT | O_WRONLY, 0600))));
    EXPECT(text_of("f") == "abc");
    EQUAL(status_of("f").st_mode & 07777, 0644);
}
CASE(open_truncates) {
    put("f", "abc");
    ::close(static_cast<int>(OKAY(::open("f", O_WRONLY | O_TRUNC))));
    EQUAL(status_of("f").st_size, 0);
    put("f", "abc");
    ::close(static_cast<int>(OKAY(::open("f", O_CREAT | O_RDWR | O_TRUNC, 0600))));
    EQUAL(status_of("f").st_size, 0);
}
CASE(open_truncation_changes_times) {
    put("f", "abc");
    const auto before = status_of("f");
    pause_ms(30);
    ::close(static_cast<int>(OKAY(::open("f", O_WRONLY | O_TRUNC))));
    const auto after = status_of("f");
    EXPECT(nanoseconds(after.st_mtim) > nanoseconds(before.st_mtim));
    EXPECT(nanoseconds(after.st_ctim) > nanoseconds(before.st_ctim));
}
CASE(open_directory_for_writing) {
    OKAY(::mkdir("d", 0755));
    REFUSED(EISDIR, ::open("d", O_WRONLY));
    REFUSED(EISDIR, ::open("d", O_RDWR));
    REFUSED(EISDIR, ::open("d", O_RDONLY | O_CREAT, 0644));
    ::close(static_cast<int>(OKAY(::open("d", O_RDONLY))));
}
CASE(open_directory_flag) {
    OKAY(::mkdir("d", 0755));
    put("f");
    ::close(static_cast<int>(OKAY(::open("d", O_RDONLY | O_DIRECTORY))));
    REFUSED(ENOTDIR, ::open("f", O_RDONLY | O_DIRECTORY));
    REFUSED(ENOTDIR, ::open("f/", O_RDONLY));
}
CASE(open_nofollow) {
    put("f");
    OKAY(::symlink("f", "l"));
    REFUSED(ELOOP, ::open("l", O_RDONLY | O_NOFOLLOW));
    const int link = static_cast<int>(OKAY(::open("l", O_PATH | O_NOFOLLOW)));
    char text[10];
    EQUAL(::readlinkat(link, "", text, sizeof text), 1);
}
CASE(open_creates_through_a_dangling_link) {
    OKAY(::symlink("target", "l"));
    ::close(static_cast<int>(OKAY(::open("l", O_CREAT | O_RDWR, 0644))));
    EXPECT(S_ISREG(status_of("target").st_mode));
    EXPECT(S_ISLNK(status_of("l").st_mode));
}
CASE(open_with_no_permissions_keeps_the_descriptor) {
    as(1000, 1000, [] {
        const int file = static_cast<int>(OKAY(::open("f", O_CREAT | O_RDWR, 0)));
        EQUAL(::write(file, "abc", 3), 3);
        REFUSED(EACCES, ::open("f", O_RDONLY));
        char text[3];
        EQUAL(::pread(file, text, 3, 0), 3);
    });
    EQUAL(status_of("f").st_mode & 07777, 0);
    EQUAL(status_of("f").st_size, 3);
}
CASE(open_read_only_cannot_write) {
    put("f", "abc");
    const int file = static_cast<int>(OKAY(::open("f", O_RDONLY)));
    REFUSED(EBADF, ::write(file, "x", 1));
    REFUSED(EINVAL, ::ftruncate(file, 0));
    const int writer = static_cast<int>(OKAY(::open("f", O_WRONLY)));
    char byte;
    REFUSED(EBADF, ::read(writer, &byte, 1));
}
CASE(open_append_writes_at_the_end) {
    put("f", "abc");
    const int file = static_cast<int>(OKAY(::open("f", O_WRONLY | O_APPEND)));
    OKAY(::lseek(file, 0, SEEK_SET));
    EQUAL(::write(file, "de", 2), 2);
    EQUAL(::lseek(file, 0, SEEK_CUR), 5);
    EXPECT(text_of("f") == "abcde");
}
CASE(open_append_by_two_descriptors_loses_nothing) {
    put("f");
    const int one = static_cast<int>(OKAY(::open("f", O_WRONLY | O_APPEND)));
    const int other = static_cast<int>(OKAY(::open("f", O_WRONLY | O_APPEND)));
    for (int i = 0; i < 300; ++i) {
        EQUAL(::write(one, "aaa\n", 4), 4);
        EQUAL(::write(other, "b\n", 2), 2);
    }
    EQUAL(status_of("f").st_size, 1800);
    EXPECT(text_of("f").substr(0, 12) == "aaa\nb\naaa\nb\n");
}
CASE(open_append_by_two_processes_loses_nothing) {
    put("f");
    const pid_t other = ::fork();
    const int file = static_cast<int>(OKAY(::open("f", O_WRONLY | O_APPEND)));
    const char* line = other == 0 ? "child\n" : "adult\n";
    for (int i = 0; i < 500; ++i) EQUAL(::write(file, line, 6), 6);
    if (other == 0) ::_exit(0);
    int status = 0;
    OKAY(::waitpid(other, &status, 0));
    EQUAL(status, 0);
    EQUAL(status_of("f").st_size, 6000);
}
CASE(open_temporary_is_nameless) {
    const int file = static_cast<int>(OKAY(::open(".", O_TMPFILE | O_RDWR, 0640)));
    EXPECT(names_in(".").empty());
    struct stat status {};
    OKAY(::fstat(file, &status));
    EQUAL(status.st_nlink, 0);
    EQUAL(status.st_mode, S_IFREG | 0640);
    EQUAL(::write(file, "abc", 3), 3);
    OKAY(::fstat(file, &status));
    EQUAL(status.st_size, 3);
}
CASE(open_temporary_gets_a_name) {
    const int file = static_cast<int>(OKAY(::open(".", O_TMPFILE | O_RDWR, 0640)));
    EQUAL(::write(file, "abc", 3), 3);
    OKAY(::linkat(AT_FDCWD, ("/proc/self/fd/" + std::to_string(file)).c_str(), AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    EXPECT(text_of("named") == "abc");
    EQUAL(status_of("named").st_nlink, 1);
    EQUAL(status_of("named").st_mode & 07777, 0640);
}
CASE(open_temporary_exclusive_gets_no_name) {
    const int file = static_cast<int>(OKAY(::open(".", O_TMPFILE | O_EXCL | O_RDWR, 0640)));
    REFUSED(ENOENT, ::linkat(AT_FDCWD, ("/proc/self/fd/" + std::to_string(file)).c_str(), AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
}
CASE(open_path_descriptor) {
    put("f", "abc", 0);
    const int file = static_cast<int>(OKAY(::open("f", O_PATH)));
    char byte;
    REFUSED(EBADF, ::read(file, &byte, 1));
    struct stat status {};
    OKAY(::fstat(file, &status));
    EQUAL(status.st_size, 3);
}
CASE(open_again_through_proc) {
    put("f", "abc");
    const int file = static_cast<int>(OKAY(::open("f", O_RDONLY)));
    OKAY(::unlink("f"));
    const int again = static_cast<int>(OKAY(::open(("/proc/self/fd/" + std::to_string(file)).c_str(), O_RDWR)));
    EQUAL(::write(again, "x", 1), 1);
    char text[3];
    EQUAL(::pread(file, text, 3, 0), 3);
    EXPECT(std::memcmp(text, "xbc", 3) == 0);
}
CASE(open_needs_search_permission) {
    OKAY(::mkdir("d", 0700));
    put("d/f");
    as(1000, 1000, [] {
        REFUSED(EACCES, ::open("d/f", O_RDONLY));
        REFUSED(EACCES, ::open("d", O_RDONLY));
        REFUSED(EACCES, ::open("d/new", O_CREAT | O_RDWR, 0644));
    });
}
CASE(open_many_at_once) {
    std::vector<int> files;
    for (int i = 0; i < 300; ++i) files.push_back(static_cast<int>(OKAY(::open(("f" + std::to_string(i)).c_str(), O_CREAT | O_RDWR, 0644))));
    for (int i = 0; i < 300; ++i) EQUAL(::write(files[static_cast<std::size_t>(i)], &i, sizeof i), sizeof i);
    for (int i = 0; i < 300; ++i) {
        int back = -1;
        EQUAL(::pread(files[static_cast<std::size_t>(i)], &back, sizeof back, 0), sizeof back);
        EQUAL(back, i);
    }
}

CASE(fifo_works) {
    OKAY(::mkfifo("p", 0640));
    EQUAL(status_of("p").st_mode, S_IFIFO | 0640);
    in_child([] {
        const pid_t writer = ::fork();
        if (writer == 0) {
            const int out = ::open("p", O_WRONLY);
            ::_exit(::write(out, "through", 7) == 7 ? 0 : 1);
        }
        const int in = static_cast<int>(OKAY(::open("p", O_RDONLY)));
        char text[8] = "";
        EQUAL(::read(in, text, 7), 7);
        EXPECT(std::strcmp(text, "through") == 0);
    });
    EQUAL(status_of("p").st_size, 0);
}
CASE(fifo_without_reader) {
    OKAY(::mkfifo("p", 0644));
    REFUSED(ENXIO, ::open("p", O_WRONLY | O_NONBLOCK));
    ::close(static_cast<int>(OKAY(::open("p", O_RDONLY | O_NONBLOCK))));
    REFUSED(EEXIST, ::mkfifo("p", 0644));
}
CASE(device_nodes_keep_kind_and_number) {
    OKAY(::mknod("null", S_IFCHR | 0666, makedev(1, 3)));
    OKAY(::mknod("disk", S_IFBLK | 0600, makedev(259, 70000)));
    EQUAL(status_of("null").st_mode, S_IFCHR | 0666);
    EQUAL(status_of("null").st_rdev, makedev(1, 3));
    EQUAL(status_of("disk").st_mode, S_IFBLK | 0600);
    EQUAL(status_of("disk").st_rdev, makedev(259, 70000));
    EQUAL(status_of("null").st_nlink, 1);
}
CASE(device_nodes_need_root) {
    as(1000, 1000, [] {
        REFUSED(EPERM, ::mknod("c", S_IFCHR | 0666, makedev(1, 3)));
        OKAY(::mknod("p", S_IFIFO | 0644, 0));
        OKAY(::mknod("f", S_IFREG | 0644, 0));
    });
    EQUAL(status_of("f").st_mode, S_IFREG | 0644);
    EQUAL(status_of("f").st_uid, 1000);
    EXPECT(!exists("c"));
}
CASE(socket_works) {
    const int listener = static_cast<int>(OKAY(::socket(AF_UNIX, SOCK_STREAM, 0)));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strcpy(address.sun_path, "s");
    const auto* name = reinterpret_cast<const sockaddr*>(&address);
    OKAY(::bind(listener, name, sizeof address));
    EXPECT(S_ISSOCK(status_of("s").st_mode));
    OKAY(::listen(listener, 1));
    in_child([&] {
        const int client = static_cast<int>(OKAY(::socket(AF_UNIX, SOCK_STREAM, 0)));
        OKAY(::connect(client, name, sizeof address));
        EQUAL(::write(client, "hi", 2), 2);
    });
    const int peer = static_cast<int>(OKAY(::accept(listener, nullptr, nullptr)));
    char text[2];
    EQUAL(::read(peer, text, 2), 2);
    const int second = static_cast<int>(OKAY(::socket(AF_UNIX, SOCK_STREAM, 0)));
    REFUSED(EADDRINUSE, ::bind(second, name, sizeof address));
    REFUSED(ENXIO, ::open("s", O_RDWR));
    OKAY(::unlink("s"));
    REFUSED(ENOENT, ::connect(second, name, sizeof address));
}
CASE(socket_can_be_moved) {
    const int listener = static_cast<int>(OKAY(::socket(AF_UNIX, SOCK_DGRAM, 0)));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strcpy(address.sun_path, "s");
    OKAY(::bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address));
    OKAY(::rename("s", "t"));
    std::strcpy(address.sun_path, "t");
    const int client = static_cast<int>(OKAY(::socket(AF_UNIX, SOCK_DGRAM, 0)));
    EQUAL(::sendto(client, "hi", 2, 0, reinterpret_cast<const sockaddr*>(&address), sizeof address), 2);
}
