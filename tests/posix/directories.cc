// Listing directories.
#include <sys/syscall.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "posix/check.h"

using namespace posix;

namespace {
constexpr int kMany = 10000;
std::string numbered(int i) { return "entry-" + std::to_string(i); }
void fill(int count) {
    for (int i = 0; i < count; ++i) ::close(static_cast<int>(OKAY(::open(numbered(i).c_str(), O_CREAT | O_WRONLY, 0644))));
}
}  // namespace

CASE(list_empty) {
    OKAY(::mkdir("d", 0755));
    DIR* open = ::opendir("d");
    std::set<std::string> names;
    while (const struct dirent* entry = ::readdir(open)) names.insert(entry->d_name);
    EXPECT((names == std::set<std::string>{".", ".."}));
}
CASE(list_ten_thousand) {
    fill(kMany);
    const auto names = names_in(".");
    EQUAL(names.size(), kMany);
    EXPECT(std::adjacent_find(names.begin(), names.end()) == names.end());
    EXPECT(std::binary_search(names.begin(), names.end(), numbered(7777)));
    struct stat status {};
    for (const auto& name : names) OKAY(::lstat(name.c_str(), &status));
    EQUAL(names_in(".").size(), kMany);
}
CASE(list_places_are_kept) {
    fill(2000);
    DIR* open = ::opendir(".");
    std::vector<std::pair<long, std::string>> places;
    for (;;) {
        const long place = ::telldir(open);
        const struct dirent* entry = ::readdir(open);
        if (entry == nullptr) break;
        places.emplace_back(place, entry->d_name);
    }
    EQUAL(places.size(), 2002);
    for (std::size_t i = 0; i < places.size(); i += 37) {
        const auto& [place, name] = places[places.size() - 1 - i];
        ::seekdir(open, place);
        const struct dirent* entry = ::readdir(open);
        EXPECT(entry != nullptr && name == entry->d_name);
    }
    ::rewinddir(open);
    int count = 0;
    while (::readdir(open) != nullptr) ++count;
    EQUAL(count, 2002);
}
CASE(list_types_and_inodes) {
    put("f");
    OKAY(::mkdir("d", 0755));
    OKAY(::symlink("f", "l"));
    OKAY(::mkfifo("p", 0644));
    DIR* open = ::opendir(".");
    std::map<std::string, unsigned char> wanted = {{"f", DT_REG}, {"d", DT_DIR}, {"l", DT_LNK}, {"p", DT_FIFO}};
    int seen = 0;
    while (const struct dirent* entry = ::readdir(open)) {
        auto found = wanted.find(entry->d_name);
        if (found == wanted.end()) continue;
        ++seen;
        EXPECT(entry->d_type == found->second || entry->d_type == DT_UNKNOWN);
        EQUAL(entry->d_ino, status_of(entry->d_name).st_ino);
    }
    EQUAL(seen, 4);
}
CASE(list_while_removing) {
    fill(3000);
    DIR* open = ::opendir(".");
    int removed = 0;
    while (const struct dirent* entry = ::readdir(open)) {
        if (entry->d_name[0] == '.') continue;
        OKAY(::unlink(entry->d_name));
        ++removed;
    }
    EQUAL(removed, 3000);
    EXPECT(names_in(".").empty());
}
CASE(list_while_adding_shows_the_old_once) {
    fill(500);
    DIR* open = ::opendir(".");
    std::multiset<std::string> seen;
    int added = 0;
    while (const struct dirent* entry = ::readdir(open)) {
        seen.insert(entry->d_name);
        if (added < 200) put("added-" + std::to_string(added++));
    }
    for (int i = 0; i < 500; ++i) EQUAL(seen.count(numbered(i)), 1);
}
CASE(list_while_changing_shows_what_is) {
    fill(300);
    DIR* open = ::opendir(".");
    int listed = 0;
    while (const struct dirent* entry = ::readdir(open)) {
        if (entry->d_name[0] == '.') continue;
        EQUAL(status_of(entry->d_name).st_mode & 07777, listed < 100 ? 0644 : 0600);
        if (++listed == 100)
            for (int i = 0; i < 300; ++i) OKAY(::chmod(numbered(i).c_str(), 0600));
        if (listed == 200) put("grows", "more");
    }
    EXPECT(listed == 300 || listed == 301);
    EQUAL(names_in(".").size(), 301);
}
CASE(list_the_same_twice_at_once) {
    fill(400);
    DIR *one = ::opendir("."), *other = ::opendir(".");
    std::multiset<std::string> first, second;
    struct stat status {};
    for (int more = 2; more > 0;) {
        more = 0;
        const struct dirent* entry = ::readdir(one);
        if (entry != nullptr) ++more, first.insert(entry->d_name);
        entry = ::readdir(other);
        if (entry != nullptr) ++more, second.insert(entry->d_name), OKAY(::lstat(entry->d_name, &status));
    }
    EQUAL(first.size(), 402);
    EXPECT(first == second);
}
CASE(list_of_a_removed_directory) {
    OKAY(::mkdir("d", 0755));
    DIR* open = ::opendir("d");
    EXPECT(open != nullptr);
    OKAY(::rmdir("d"));
    int count = 0;
    while (::readdir(open) != nullptr) ++count;
    EXPECT(count <= 2);
}
CASE(list_sees_new_names_at_once) {
    EQUAL(names_in(".").size(), 0);
    put("a");
    EQUAL(names_in(".").size(), 1);
    in_child([] { put("b"); });
    EQUAL(names_in(".").size(), 2);
    OKAY(::unlink("a"));
    EQUAL(names_in(".").size(), 1);
}
CASE(list_small_buffer) {
    fill(100);
    const int directory = static_cast<int>(OKAY(::open(".", O_RDONLY | O_DIRECTORY)));
    char tiny[8];
    REFUSED(EINVAL, ::syscall(SYS_getdents64, directory, tiny, sizeof tiny));
    char small[64];
    int calls = 0;
    while (OKAY(::syscall(SYS_getdents64, directory, small, sizeof small)) > 0) ++calls;
    EXPECT(calls >= 51);
}
CASE(list_not_a_directory) {
    put("f");
    EXPECT(::opendir("f") == nullptr && errno == ENOTDIR);
    EXPECT(::opendir("x") == nullptr && errno == ENOENT);
    const int file = static_cast<int>(OKAY(::open("f", O_RDONLY)));
    char text[100];
    REFUSED(ENOTDIR, ::syscall(SYS_getdents64, file, text, sizeof text));
}
CASE(inodes_are_stable_and_unique) {
    put("a");
    put("b");
    OKAY(::mkdir("d", 0755));
    const auto inode = status_of("a").st_ino;
    EXPECT(inode != status_of("b").st_ino && inode != status_of("d").st_ino);
    EQUAL(status_of("a").st_dev, status_of("d").st_dev);
    OKAY(::rename("a", "d/c"));
    EQUAL(status_of("d/c").st_ino, inode);
    const int file = static_cast<int>(OKAY(::open("d/c", O_RDONLY)));
    struct stat status {};
    OKAY(::fstat(file, &status));
    EQUAL(status.st_ino, inode);
}
