// Extended attributes.
#include <sys/xattr.h>

#include <algorithm>
#include <cstring>

#include "posix/check.h"

using namespace posix;

namespace {
std::vector<std::string> listed(const char* name) {
    static char text[65536];
    const long length = OKAY(::listxattr(name, text, sizeof text));
    std::vector<std::string> names;
    for (long at = 0; at < length; at += static_cast<long>(names.back().size()) + 1) names.emplace_back(text + at);
    std::sort(names.begin(), names.end());
    return names;
}
std::string attribute(const char* name, const char* which) {
    static char text[65536];
    return {text, static_cast<std::size_t>(OKAY(::getxattr(name, which, text, sizeof text)))};
}
}  // namespace

CASE(attribute_set_and_read) {
    put("f");
    OKAY(::mkdir("d", 0755));
    for (const char* name : {"f", "d"}) {
        OKAY(::setxattr(name, "user.one", "1\0x", 3, 0));
        EXPECT(attribute(name, "user.one") == std::string("1\0x", 3));
        OKAY(::setxattr(name, "user.one", "longer value", 12, 0));
        EXPECT(attribute(name, "user.one") == "longer value");
        OKAY(::setxattr(name, "user.empty", "", 0, 0));
        EXPECT(attribute(name, "user.empty").empty());
    }
}
CASE(attribute_create_and_replace) {
    put("f");
    REFUSED(ENODATA, ::setxattr("f", "user.a", "x", 1, XATTR_REPLACE));
    OKAY(::setxattr("f", "user.a", "x", 1, XATTR_CREATE));
    REFUSED(EEXIST, ::setxattr("f", "user.a", "y", 1, XATTR_CREATE));
    OKAY(::setxattr("f", "user.a", "z", 1, XATTR_REPLACE));
    EXPECT(attribute("f", "user.a") == "z");
    REFUSED(EINVAL, ::setxattr("f", "user.a", "x", 1, 77));
}
CASE(attribute_sizes) {
    put("f");
    OKAY(::setxattr("f", "user.a", "12345", 5, 0));
    EQUAL(::getxattr("f", "user.a", nullptr, 0), 5);
    char part[4];
    REFUSED(ERANGE, ::getxattr("f", "user.a", part, sizeof part));
    EQUAL(::listxattr("f", nullptr, 0), 7);
    REFUSED(ERANGE, ::listxattr("f", part, sizeof part));
    REFUSED(ENODATA, ::getxattr("f", "user.b", part, sizeof part));
    const auto large = pattern(2000);
    OKAY(::setxattr("f", "user.large", large.data(), large.size(), 0));
    EXPECT(attribute("f", "user.large") == large);
    static char too_large[65537];
    REFUSED(E2BIG, ::setxattr("f", "user.huge", too_large, sizeof too_large, 0));
}
CASE(attribute_names) {
    put("f");
    const std::string longest = "user." + std::string(250, 'n');
    OKAY(::setxattr("f", longest.c_str(), "x", 1, 0));
    EXPECT(attribute("f", longest.c_str()) == "x");
    REFUSED(ERANGE, ::setxattr("f", (longest + "n").c_str(), "x", 1, 0));
    REFUSED(EOPNOTSUPP, ::setxattr("f", "nonsense", "x", 1, 0));
    REFUSED(EOPNOTSUPP, ::setxattr("f", "nonsense.x", "x", 1, 0));
    REFUSED(EINVAL, ::setxattr("f", "user.", "x", 1, 0));
}
CASE(attribute_listed_and_removed) {
    put("f");
    EXPECT(listed("f").empty());
    for (const char* name : {"user.b", "user.a", "user.\xff"}) OKAY(::setxattr("f", name, "x", 1, 0));
    EXPECT((listed("f") == std::vector<std::string>{"user.a", "user.b", "user.\xff"}));
    OKAY(::removexattr("f", "user.a"));
    EXPECT((listed("f") == std::vector<std::string>{"user.b", "user.\xff"}));
    REFUSED(ENODATA, ::removexattr("f", "user.a"));
}
CASE(attribute_nothing_is_there_that_nobody_set) {
    put("f");
    OKAY(::chown("f", 1000, 1000));
    OKAY(::chmod("f", 04711));
    OKAY(::mkfifo("p", 0644));
    OKAY(::mkdir("d", 01777));
    for (const char* name : {"f", "p", "d", "."}) EXPECT(listed(name).empty());
}
CASE(attribute_of_links_and_pipes) {
    OKAY(::symlink("x", "l"));
    OKAY(::mkfifo("p", 0644));
    REFUSED(EPERM, ::lsetxattr("l", "user.a", "x", 1, 0));
    REFUSED(EPERM, ::setxattr("p", "user.a", "x", 1, 0));
}
CASE(attribute_permissions) {
    put("f", "", 0644);
    OKAY(::setxattr("f", "user.a", "x", 1, 0));
    as(1000, 1000, [] {
        EXPECT(attribute("f", "user.a") == "x");
        REFUSED(EACCES, ::setxattr("f", "user.a", "y", 1, 0));
        REFUSED(EACCES, ::removexattr("f", "user.a"));
    });
}
CASE(attribute_stays_with_the_file) {
    put("f");
    OKAY(::setxattr("f", "user.a", "x", 1, 0));
    OKAY(::rename("f", "g"));
    OKAY(::link("g", "h"));
    EXPECT(attribute("h", "user.a") == "x");
    const int file = static_cast<int>(OKAY(::open("g", O_RDWR)));
    OKAY(::unlink("g"));
    OKAY(::unlink("h"));
    OKAY(::fsetxattr(file, "user.b", "y", 1, 0));
    char byte;
    EQUAL(::fgetxattr(file, "user.a", &byte, 1), 1);
}
CASE(attribute_changes_ctime) {
    put("f");
    const auto before = status_of("f");
    pause_ms(30);
    OKAY(::setxattr("f", "user.a", "x", 1, 0));
    EXPECT(nanoseconds(status_of("f").st_ctim) > nanoseconds(before.st_ctim));
    EQUAL(nanoseconds(status_of("f").st_mtim), nanoseconds(before.st_mtim));
}
CASE(attribute_of_capabilities) {
    // What setcap(8) writes.
    put("f", "", 0755);
    const unsigned char capability[20] = {1, 0, 0, 2, 0, 4};
    OKAY(::setxattr("f", "security.capability", capability, sizeof capability, 0));
    EQUAL(::getxattr("f", "security.capability", nullptr, 0), 20);
    EXPECT((listed("f") == std::vector<std::string>{"security.capability"}));
    const int file = static_cast<int>(OKAY(::open("f", O_WRONLY)));
    EQUAL(::write(file, "x", 1), 1);
    REFUSED(ENODATA, ::getxattr("f", "security.capability", nullptr, 0));
    OKAY(::setxattr("f", "security.capability", capability, sizeof capability, 0));
    OKAY(::chown("f", 1000, 1000));
    REFUSED(ENODATA, ::getxattr("f", "security.capability", nullptr, 0));
}
CASE(attribute_access_lists) {
    put("f", "", 0640);
    // user::rw-, user:1000:rw-, group::r--, mask::rw-, other::---
    const unsigned char list[44] = {2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 6, 0, 0xe8, 3, 0, 0,
                                    4, 0, 4, 0, 255, 255, 255, 255, 16, 0, 6, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255};
    OKAY(::setxattr("f", "system.posix_acl_access", list, sizeof list, 0));
    as(1000, 1000, [] { ::close(static_cast<int>(OKAY(::open("f", O_RDWR)))); });
}
