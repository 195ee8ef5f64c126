// Names: links, removal, renaming.
#include <limits.h>
#include <stdio.h>

#include <cstring>

#include "posix/check.h"

using namespace posix;

namespace {
std::string link_text(const std::string& name) {
    char text[PATH_MAX];
    const long length = OKAY(::readlink(name.c_str(), text, sizeof text));
    return {text, static_cast<std::size_t>(length)};
}
ino_t inode(const std::string& name) { return status_of(name).st_ino; }
}  // namespace

CASE(link_shares_the_inode) {
    put("a", "abc");
    OKAY(::link("a", "b"));
    EQUAL(inode("a"), inode("b"));
    EQUAL(status_of("a").st_nlink, 2);
    EQUAL(status_of("b").st_nlink, 2);
    put("b", "changed");
    EXPECT(text_of("a") == "changed");
    OKAY(::unlink("a"));
    EQUAL(status_of("b").st_nlink, 1);
    EXPECT(text_of("b") == "changed");
}
CASE(link_changes_ctime) {
    put("a");
    const auto before = status_of("a");
    pause_ms(30);
    OKAY(::link("a", "b"));
    EXPECT(nanoseconds(status_of("a").st_ctim) > nanoseconds(before.st_ctim));
    EQUAL(nanoseconds(status_of("a").st_mtim), nanoseconds(before.st_mtim));
}
CASE(link_refusals) {
    put("a");
    put("b");
    OKAY(::mkdir("d", 0755));
    REFUSED(EEXIST, ::link("a", "b"));
    REFUSED(EEXIST, ::link("a", "d"));
    REFUSED(EPERM, ::link("d", "e"));
    REFUSED(ENOENT, ::link("missing", "e"));
    REFUSED(ENOENT, ::link("a", "missing/e"));
    REFUSED(ENOTDIR, ::link("a", "b/e"));
    REFUSED(EXDEV, ::link("/proc/self/status", "e"));
}
CASE(link_of_a_link) {
    put("f");
    OKAY(::symlink("f", "l"));
    OKAY(::link("l", "m"));
    EXPECT(S_ISLNK(status_of("m").st_mode));
    EQUAL(inode("l"), inode("m"));
    OKAY(::linkat(AT_FDCWD, "l", AT_FDCWD, "followed", AT_SYMLINK_FOLLOW));
    EQUAL(inode("followed"), inode("f"));
}
CASE(link_across_directories_and_many) {
    put("f", "abc");
    OKAY(::mkdir("d", 0755));
    for (int i = 0; i < 100; ++i) OKAY(::link("f", ("d/" + std::to_string(i)).c_str()));
    EQUAL(status_of("f").st_nlink, 101);
    EXPECT(text_of("d/77") == "abc");
}
CASE(link_needs_permission_to_write_the_directory) {
    OKAY(::mkdir("d", 0755));
    as(1000, 1000, [] {
        put("mine");
        REFUSED(EACCES, ::link("mine", "d/mine"));
    });
}
CASE(link_of_a_special_file) {
    OKAY(::mkfifo("p", 0600));
    OKAY(::link("p", "q"));
    EXPECT(S_ISFIFO(status_of("q").st_mode));
    EQUAL(inode("p"), inode("q"));
}

CASE(unlink_removes) {
    put("f");
    OKAY(::unlink("f"));
    REFUSED(ENOENT, ::open("f", O_RDONLY));
    REFUSED(ENOENT, ::unlink("f"));
}
CASE(unlink_refusals) {
    OKAY(::mkdir("d", 0755));
    put("f");
    REFUSED(EISDIR, ::unlink("d"));
    REFUSED(ENOENT, ::unlink("x"));
    REFUSED(ENOTDIR, ::unlink("f/x"));
    REFUSED(ENOTDIR, ::rmdir("f"));
    OKAY(::chmod("d", 0755));
    put("d/f");
    as(1000, 1000, [] { REFUSED(EACCES, ::unlink("d/f")); });
    EXPECT(exists("d/f"));
}
CASE(unlink_while_open) {
    put("f", "abc");
    const int file = static_cast<int>(OKAY(::open("f", O_RDWR)));
    OKAY(::unlink("f"));
    struct stat status {};
    OKAY(::fstat(file, &status));
    EQUAL(status.st_nlink, 0);
    EQUAL(::pwrite(file, "defg", 4, 3), 4);
    OKAY(::ftruncate(file, 5));
    char text[8];
    EQUAL(::pread(file, text, 8, 0), 5);
    EXPECT(std::memcmp(text, "abcde", 5) == 0);
    OKAY(::fchmod(file, 0600));
    OKAY(::fsync(file));
    put("f", "another");
    OKAY(::fstat(file, &status));
    EQUAL(status.st_size, 5);
    EQUAL(status.st_mode & 07777, 0600);
}
CASE(unlink_removes_links_not_targets) {
    put("f");
    OKAY(::symlink("f", "l"));
    OKAY(::unlink("l"));
    EXPECT(exists("f"));
    EXPECT(!exists("l"));
}
CASE(unlink_changes_the_directorys_times) {
    OKAY(::mkdir("d", 0755));
    put("d/f");
    const auto before = status_of("d");
    pause_ms(30);
    OKAY(::unlink("d/f"));
    EXPECT(nanoseconds(status_of("d").st_mtim) > nanoseconds(before.st_mtim));
    EXPECT(nanoseconds(status_of("d").st_ctim) > nanoseconds(before.st_ctim));
}

CASE(directory_made_and_removed) {
    OKAY(::mkdir("d", 0751));
    EQUAL(status_of("d").st_mode, S_IFDIR | 0751);
    REFUSED(EEXIST, ::mkdir("d", 0755));
    OKAY(::rmdir("d"));
    REFUSED(ENOENT, ::rmdir("d"));
    REFUSED(ENOENT, ::mkdir("x/y", 0755));
    put("f");
    REFUSED(EEXIST, ::mkdir("f", 0755));
    REFUSED(ENOTDIR, ::mkdir("f/d", 0755));
}
CASE(directory_with_contents_is_not_removed) {
    OKAY(::mkdir("d", 0755));
    put("d/f");
    REFUSED(ENOTEMPTY, ::rmdir("d"));
    REFUSED(EINVAL, ::rmdir("d/."));
    REFUSED(ENOTEMPTY, ::rmdir("d/.."));
    OKAY(::unlink("d/f"));
    OKAY(::rmdir("d"));
}
CASE(directory_link_counts) {
    OKAY(::mkdir("d", 0755));
    EQUAL(status_of("d").st_nlink, 2);
    OKAY(::mkdir("d/a", 0755));
    OKAY(::mkdir("d/b", 0755));
    EQUAL(status_of("d").st_nlink, 4);
    put("d/f");
    EQUAL(status_of("d").st_nlink, 4);
    OKAY(::rmdir("d/a"));
    EQUAL(status_of("d").st_nlink, 3);
    OKAY(::rename("d/b", "b"));
    EQUAL(status_of("d").st_nlink, 2);
}
CASE(directory_removed_while_open) {
    OKAY(::mkdir("d", 0755));
    const int directory = static_cast<int>(OKAY(::open("d", O_RDONLY | O_DIRECTORY)));
    OKAY(::rmdir("d"));
    struct stat status {};
    OKAY(::fstat(directory, &status));
    EQUAL(status.st_nlink, 0);
    REFUSED(ENOENT, ::openat(directory, "f", O_CREAT | O_RDWR, 0644));
    REFUSED(ENOENT, ::mkdirat(directory, "e", 0755));
    REFUSED(ENOENT, ::symlinkat("x", directory, "l"));
}
CASE(directory_removed_while_working_there) {
    OKAY(::mkdir("d", 0755));
    OKAY(::chdir("d"));
    OKAY(::rmdir("../d"));
    REFUSED(ENOENT, ::open("f", O_CREAT | O_RDWR, 0644));
    REFUSED(ENOENT, ::open("f", O_RDONLY));
}
CASE(directory_deep) {
    for (int i = 0; i < 200; ++i) {
        OKAY(::mkdir("deeper", 0755));
        OKAY(::chdir("deeper"));
    }
    put("f", "bottom");
    EXPECT(text_of("f") == "bottom");
    for (int i = 0; i < 200; ++i) OKAY(::chdir(".."));
    EXPECT(names_in(".").size() == 1);
}
CASE(working_directory_has_a_path) {
    OKAY(::mkdir("d", 0755));
    OKAY(::mkdir("d/e", 0755));
    OKAY(::chdir("d/e"));
    char path[PATH_MAX];
    EXPECT(::getcwd(path, sizeof path) != nullptr);
    EXPECT(std::string(path).find("/working_directory_has_a_path/d/e") != std::string::npos);
    OKAY(::rename("../../d", "../../moved"));
    EXPECT(::getcwd(path, sizeof path) != nullptr);
    EXPECT(std::string(path).find("/moved/e") != std::string::npos);
}

CASE(symlink_holds_its_text) {
    for (const char* text : {"f", "../up", "/abs", "with space\n and \xff bytes", "."}) {
        OKAY(::symlink(text, "l"));
        EXPECT(link_text("l") == text);
        EQUAL(status_of("l").st_size, std::strlen(text));
        EXPECT(S_ISLNK(status_of("l").st_mode));
        OKAY(::unlink("l"));
    }
}
CASE(symlink_lengths) {
    REFUSED(ENOENT, ::symlink("", "l"));
    const std::string longest(PATH_MAX - 1, 'x');
    OKAY(::symlink(longest.c_str(), "l"));
    EXPECT(link_text("l") == longest);
    REFUSED(ENAMETOOLONG, ::symlink((longest + "x").c_str(), "m"));
    REFUSED(EEXIST, ::symlink("f", "l"));
    char part[5];
    EQUAL(::readlink("l", part, sizeof part), 5);
}
CASE(symlink_is_followed) {
    OKAY(::mkdir("d", 0755));
    put("d/f", "abc");
    OKAY(::symlink("d", "l"));
    OKAY(::symlink("l/f", "m"));
    EXPECT(text_of("l/f") == "abc");
    EXPECT(text_of("m") == "abc");
    OKAY(::symlink("../m", "d/up"));
    EXPECT(text_of("d/up") == "abc");
    char text[8];
    REFUSED(EINVAL, ::readlink("d", text, sizeof text));
}
CASE(symlink_loops) {
    OKAY(::symlink("b", "a"));
    OKAY(::symlink("a", "b"));
    OKAY(::symlink("self", "self"));
    REFUSED(ELOOP, ::open("a", O_RDONLY));
    REFUSED(ELOOP, ::open("self", O_RDONLY));
    struct stat status {};
    REFUSED(ELOOP, ::stat("a", &status));
    REFUSED(ELOOP, ::chmod("self", 0644));
    OKAY(::lstat("a", &status));
}
CASE(symlink_chain_limit) {
    put("0");
    for (int i = 0; i < 41; ++i) OKAY(::symlink(std::to_string(i).c_str(), std::to_string(i + 1).c_str()));
    ::close(static_cast<int>(OKAY(::open("40", O_RDONLY))));
    REFUSED(ELOOP, ::open("41", O_RDONLY));
}
CASE(symlink_owner) {
    as(1000, 1001, [] { OKAY(::symlink("x", "l")); });
    EQUAL(status_of("l").st_uid, 1000);
    EQUAL(status_of("l").st_gid, 1001);
    OKAY(::lchown("l", 5, 6));
    EQUAL(status_of("l").st_uid, 5);
    EQUAL(status_of("l").st_gid, 6);
}
CASE(symlink_mode_and_times) {
    OKAY(::symlink("x", "l"));
    EQUAL(status_of("l").st_mode & 0777, 0777);
    struct timespec times[2] = {{1000, 5}, {2000, 6}};
    OKAY(::utimensat(AT_FDCWD, "l", times, AT_SYMLINK_NOFOLLOW));
    EQUAL(status_of("l").st_mtim.tv_sec, 2000);
    EQUAL(status_of("l").st_mtim.tv_nsec, 6);
}

CASE(name_lengths) {
    const std::string longest(NAME_MAX, 'n');
    put(longest, "abc");
    EXPECT(text_of(longest) == "abc");
    OKAY(::rename(longest.c_str(), (longest.substr(1) + "m").c_str()));
    OKAY(::mkdir(longest.c_str(), 0755));
    OKAY(::rmdir(longest.c_str()));
    const std::string over = longest + "n";
    REFUSED(ENAMETOOLONG, ::open(over.c_str(), O_CREAT | O_RDWR, 0644));
    REFUSED(ENAMETOOLONG, ::open(over.c_str(), O_RDONLY));
    REFUSED(ENAMETOOLONG, ::mkdir(over.c_str(), 0755));
    REFUSED(ENAMETOOLONG, ::symlink("x", over.c_str()));
    REFUSED(ENAMETOOLONG, ::mkfifo(over.c_str(), 0644));
    REFUSED(ENAMETOOLONG, ::unlink(over.c_str()));
    put("f");
    REFUSED(ENAMETOOLONG, ::rename("f", over.c_str()));
    REFUSED(ENAMETOOLONG, ::link("f", over.c_str()));
    REFUSED(ENAMETOOLONG, ::open(std::string(PATH_MAX, '/').c_str(), O_RDONLY));
}
CASE(name_any_bytes) {
    std::vector<std::string> wanted;
    for (int byte = 1; byte < 256; ++byte) {
        if (byte == '/') continue;
        const std::string name = std::string("n") + static_cast<char>(byte);
        put(name, name);
        wanted.push_back(name);
    }
    EXPECT(names_in(".") == wanted);
    EXPECT(text_of("n\n") == "n\n");
    EXPECT(text_of("n\xff") == "n\xff");
    for (const auto& name : wanted) OKAY(::unlink(name.c_str()));
    for (const char* odd : {"...", " ", "-rf", "\\", ".hidden", "m0", "a.", "con", "\xc3\xa4", "a\xcc\x88"}) {
        put(odd, odd);
        EXPECT(text_of(odd) == odd);
    }
}
CASE(name_case_counts) {
    put("name", "small");
    put("NAME", "large");
    EXPECT(text_of("name") == "small");
    EQUAL(names_in(".").size(), 2);
}

CASE(rename_moves) {
    put("a", "abc");
    const auto before = status_of("a");
    pause_ms(30);
    OKAY(::rename("a", "b"));
    EXPECT(!exists("a"));
    EXPECT(text_of("b") == "abc");
    EQUAL(inode("b"), before.st_ino);
    EQUAL(nanoseconds(status_of("b").st_mtim), nanoseconds(before.st_mtim));
}
CASE(rename_replaces_a_file) {
    put("a", "new");
    put("b", "old");
    const int old = static_cast<int>(OKAY(::open("b", O_RDONLY)));
    OKAY(::rename("a", "b"));
    EXPECT(text_of("b") == "new");
    char text[4];
    EQUAL(::read(old, text, 4), 3);
    EXPECT(std::memcmp(text, "old", 3) == 0);
    struct stat status {};
    OKAY(::fstat(old, &status));
    EQUAL(status.st_nlink, 0);
}
CASE(rename_onto_itself) {
    put("a", "abc");
    OKAY(::rename("a", "a"));
    OKAY(::link("a", "b"));
    OKAY(::rename("a", "b"));
    EXPECT(exists("a"));
    EXPECT(exists("b"));
    EQUAL(status_of("a").st_nlink, 2);
}
CASE(rename_directories) {
    OKAY(::mkdir("d", 0755));
    put("d/f", "abc");
    OKAY(::rename("d", "e"));
    EXPECT(text_of("e/f") == "abc");
    OKAY(::mkdir("empty", 0755));
    OKAY(::rename("e", "empty"));
    EXPECT(text_of("empty/f") == "abc");
    EXPECT(!exists("e"));
}
CASE(rename_onto_a_full_directory) {
    OKAY(::mkdir("d", 0755));
    OKAY(::mkdir("e", 0755));
    put("e/f");
    EXPECT(::rename("d", "e") == -1);
    EXPECT(errno == ENOTEMPTY || errno == EEXIST);
    EXPECT(exists("d"));
}
CASE(rename_kinds_must_match) {
    OKAY(::mkdir("d", 0755));
    put("f");
    REFUSED(EISDIR, ::rename("f", "d"));
    REFUSED(ENOTDIR, ::rename("d", "f"));
    REFUSED(ENOENT, ::rename("missing", "x"));
    REFUSED(ENOENT, ::rename("f", "missing/x"));
    REFUSED(ENOTDIR, ::rename("f", "f/x"));
    REFUSED(EXDEV, ::rename("f", "/proc/never-there"));
}
CASE(rename_into_itself) {
    OKAY(::mkdir("d", 0755));
    OKAY(::mkdir("d/e", 0755));
    REFUSED(EINVAL, ::rename("d", "d/e/x"));
    REFUSED(EINVAL, ::rename("d", "d/x"));
    REFUSED(ENOTEMPTY, ::rename("d/e", "d"));
    EXPECT(::rename(".", "x") == -1 && (errno == EBUSY || errno == EINVAL));
    EXPECT(::rename("d", "d/..") == -1);
}
CASE(rename_noreplace) {
    put("a", "a");
    put("b", "b");
    REFUSED(EEXIST, ::renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_NOREPLACE));
    EXPECT(text_of("b") == "b");
    OKAY(::renameat2(AT_FDCWD, "a", AT_FDCWD, "c", RENAME_NOREPLACE));
    EXPECT(text_of("c") == "a");
}
CASE(rename_exchange) {
    put("a", "a");
    OKAY(::mkdir("d", 0755));
    put("d/f", "f");
    OKAY(::renameat2(AT_FDCWD, "a", AT_FDCWD, "d", RENAME_EXCHANGE));
    EXPECT(text_of("d") == "a");
    EXPECT(text_of("a/f") == "f");
    REFUSED(ENOENT, ::renameat2(AT_FDCWD, "a", AT_FDCWD, "x", RENAME_EXCHANGE));
    REFUSED(EINVAL, ::renameat2(AT_FDCWD, "a", AT_FDCWD, "d", RENAME_EXCHANGE | RENAME_NOREPLACE));
}
CASE(rename_directory_to_another_parent) {
    OKAY(::mkdir("a", 0755));
    OKAY(::mkdir("b", 0755));
    OKAY(::mkdir("a/d", 0755));
    put("a/d/f", "abc");
    const int inside = static_cast<int>(OKAY(::open("a/d", O_RDONLY | O_DIRECTORY)));
    OKAY(::rename("a/d", "b/d"));
    EQUAL(status_of("a").st_nlink, 2);
    EQUAL(status_of("b").st_nlink, 3);
    EQUAL(inode("b/d/.."), inode("b"));
    const int file = static_cast<int>(OKAY(::openat(inside, "f", O_RDONLY)));
    char text[3];
    EQUAL(::read(file, text, 3), 3);
    struct stat above {};
    OKAY(::fstatat(inside, "..", &above, 0));
    EQUAL(above.st_ino, inode("b"));
}
CASE(rename_open_file_stays_open) {
    put("a", "abc");
    OKAY(::mkdir("d", 0755));
    const int file = static_cast<int>(OKAY(::open("a", O_RDWR)));
    OKAY(::rename("a", "d/b"));
    EQUAL(::pwrite(file, "x", 1, 0), 1);
    EXPECT(text_of("d/b") == "xbc");
}
CASE(rename_needs_permissions) {
    OKAY(::mkdir("d", 0755));
    put("d/f");
    as(1000, 1000, [] {
        REFUSED(EACCES, ::rename("d/f", "g"));
        put("mine");
        REFUSED(EACCES, ::rename("mine", "d/g"));
    });
}
CASE(rename_links_and_specials) {
    OKAY(::symlink("nowhere", "l"));
    OKAY(::rename("l", "m"));
    EXPECT(link_text("m") == "nowhere");
    OKAY(::mkfifo("p", 0600));
    OKAY(::rename("p", "m"));
    EXPECT(S_ISFIFO(status_of("m").st_mode));
    put("f");
    OKAY(::rename("f", "m"));
    EXPECT(S_ISREG(status_of("m").st_mode));
}
CASE(rename_changes_the_directories_times) {
    OKAY(::mkdir("a", 0755));
    OKAY(::mkdir("b", 0755));
    put("a/f");
    const auto a = status_of("a"), b = status_of("b");
    pause_ms(30);
    OKAY(::rename("a/f", "b/f"));
    EXPECT(nanoseconds(status_of("a").st_mtim) > nanoseconds(a.st_mtim));
    EXPECT(nanoseconds(status_of("b").st_mtim) > nanoseconds(b.st_mtim));
}
CASE(rename_over_and_over) {
    put("f", "0");
    for (int i = 0; i < 500; ++i) {
        put("f.new", std::to_string(i));
        OKAY(::rename("f.new", "f"));
        EXPECT(text_of("f") == std::to_string(i));
    }
    EQUAL(names_in(".").size(), 1);
}
