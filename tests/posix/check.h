// Cases of the POSIX suite: each runs in a process of its own, in an empty directory of its own, and says in one line what
// it found different. Everything is relative to that directory.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace posix {

struct Case {
    const char* name;
    void (*run)();
};
std::vector<Case>& cases();
struct Registered {
    Registered(const char* name, void (*run)()) { cases().push_back({name, run}); }
};

// Ends the case; the text is its line.
[[noreturn]] __attribute__((format(printf, 2, 3))) void differs(int line, const char* format, ...);

// What a call gave, which must not be -1.
long okay(long result, const char* call, int line);
void refused(long result, int wanted, const char* call, int line);

// Runs in a child as that user and group, with no other group; what differs there differs here.
void as(uid_t user, gid_t group, const std::function<void()>& run);
// A child with the same ids.
void in_child(const std::function<void()>& run);

// A file with that text and mode, whatever the umask; and back.
void put(const std::string& name, const std::string& text = "", mode_t mode = 0644);
std::string text_of(const std::string& name);
struct stat status_of(const std::string& name);  // lstat
bool exists(const std::string& name);
// All names in a directory but "." and "..", sorted.
std::vector<std::string> names_in(const std::string& directory);
std::string pattern(std::size_t bytes, unsigned seed = 1);
// Nanoseconds of one of its times.
std::int64_t nanoseconds(const struct timespec& time);
void pause_ms(int milliseconds);
// Empties the working directory.
void remove_all(const char* path);

}  // namespace posix

#define CASE(name)                                                          \
    static void name();                                                     \
    static const ::posix::Registered registered_##name(#name, name);        \
    static void name()
#define OKAY(call) ::posix::okay((call), #call, __LINE__)
#define REFUSED(error, call) ::posix::refused((call), (error), #call, __LINE__)
#define EXPECT(condition) \
    do { \
        if (!(condition)) ::posix::differs(__LINE__, "not so: %s", #condition); \
    } while (0)
#define EQUAL(is, wanted)                                                                                                   \
    do {                                                                                                                    \
        const long long is_ = static_cast<long long>(is), wanted_ = static_cast<long long>(wanted);                         \
        if (is_ != wanted_) ::posix::differs(__LINE__, "%s is %lld (0%llo), not %lld (0%llo)", #is, is_, is_, wanted_, wanted_); \
    } while (0)
