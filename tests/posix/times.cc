// Times.
#include <time.h>

#include "posix/check.h"

using namespace posix;

CASE(times_are_kept_to_the_nanosecond) {
    put("f");
    OKAY(::mkdir("d", 0755));
    for (const char* name : {"f", "d"}) {
        struct timespec times[2] = {{1234567890, 123456789}, {1876543210, 987654321}};
        OKAY(::utimensat(AT_FDCWD, name, times, 0));
        EQUAL(status_of(name).st_atim.tv_sec, 1234567890);
        EQUAL(status_of(name).st_atim.tv_nsec, 123456789);
        EQUAL(status_of(name).st_mtim.tv_sec, 1876543210);
        EQUAL(status_of(name).st_mtim.tv_nsec, 987654321);
    }
}
CASE(times_before_1970) {
    put("f");
    struct timespec times[2] = {{-1000, 5}, {-100000000, 7}};
    OKAY(::utimensat(AT_FDCWD, "f", times, 0));
    EQUAL(status_of("f").st_atim.tv_sec, -1000);
    EQUAL(status_of("f").st_mtim.tv_sec, -100000000);
    EQUAL(status_of("f").st_mtim.tv_nsec, 7);
}
CASE(times_after_2038) {
    put("f");
    struct timespec times[2] = {{5000000000, 1}, {6000000000, 2}};
    OKAY(::utimensat(AT_FDCWD, "f", times, 0));
    EQUAL(status_of("f").st_mtim.tv_sec, 6000000000);
}
CASE(times_omit_and_now) {
    put("f");
    struct timespec old[2] = {{1000, 1}, {2000, 2}};
    OKAY(::utimensat(AT_FDCWD, "f", old, 0));
    struct timespec first[2] = {{0, UTIME_OMIT}, {3000, 3}};
    OKAY(::utimensat(AT_FDCWD, "f", first, 0));
    EQUAL(status_of("f").st_atim.tv_sec, 1000);
    EQUAL(status_of("f").st_mtim.tv_sec, 3000);
    struct timespec second[2] = {{0, UTIME_NOW}, {0, UTIME_OMIT}};
    OKAY(::utimensat(AT_FDCWD, "f", second, 0));
    struct timespec now {};
    ::clock_gettime(CLOCK_REALTIME, &now);
    EXPECT(status_of("f").st_atim.tv_sec > now.tv_sec - 100);
    EQUAL(status_of("f").st_mtim.tv_sec, 3000);
    const auto before = status_of("f");
    struct timespec neither[2] = {{0, UTIME_OMIT}, {0, UTIME_OMIT}};
    OKAY(::utimensat(AT_FDCWD, "f", neither, 0));
    EQUAL(nanoseconds(status_of("f").st_ctim), nanoseconds(before.st_ctim));
    struct timespec wrong[2] = {{0, 1000000000}, {0, 0}};
    REFUSED(EINVAL, ::utimensat(AT_FDCWD, "f", wrong, 0));
}
CASE(times_of_an_open_file) {
    put("f");
    const int file = static_cast<int>(OKAY(::open("f", O_RDONLY)));
    struct timespec times[2] = {{10, 0}, {20, 0}};
    OKAY(::futimens(file, times));
    EQUAL(status_of("f").st_mtim.tv_sec, 20);
    OKAY(::unlink("f"));
    times[1].tv_sec = 30;
    OKAY(::futimens(file, times));
    struct stat status {};
    OKAY(::fstat(file, &status));
    EQUAL(status.st_mtim.tv_sec, 30);
}
CASE(times_may_be_set_by_whom) {
    put("f", "", 0666);
    OKAY(::chown("f", 1000, 1000));
    as(1001, 1001, [] {
        struct timespec times[2] = {{10, 0}, {20, 0}};
        REFUSED(EPERM, ::utimensat(AT_FDCWD, "f", times, 0));
        OKAY(::utimensat(AT_FDCWD, "f", nullptr, 0));  // now: whoever may write
    });
    as(1000, 1000, [] {
        struct timespec times[2] = {{10, 0}, {20, 0}};
        OKAY(::utimensat(AT_FDCWD, "f", times, 0));
    });
    OKAY(::chmod("f", 0644));
    as(1001, 1001, [] { REFUSED(EACCES, ::utimensat(AT_FDCWD, "f", nullptr, 0)); });
}
CASE(times_of_writing) {
    put("f", "abc");
    const auto before = status_of("f");
    pause_ms(30);
    const int file = static_cast<int>(OKAY(::open("f", O_WRONLY)));
    EQUAL(::write(file, "x", 1), 1);
    const auto after = status_of("f");
    EXPECT(nanoseconds(after.st_mtim) > nanoseconds(before.st_mtim));
    EXPECT(nanoseconds(after.st_ctim) > nanoseconds(before.st_ctim));
    EXPECT(nanoseconds(after.st_atim) == nanoseconds(before.st_atim));
}
CASE(times_of_a_directory_with_a_new_entry) {
    OKAY(::mkdir("d", 0755));
    const auto change = [](const char* what, void (*run)()) {
        const auto before = status_of("d");
        pause_ms(30);
        run();
        if (nanoseconds(status_of("d").st_mtim) <= nanoseconds(before.st_mtim)) differs(__LINE__, "mtime stays after %s", what);
    };
    change("a new file", [] { put("d/f"); });
    change("a new directory", [] { OKAY(::mkdir("d/e", 0755)); });
    change("a new link", [] { OKAY(::link("d/f", "d/g")); });
    change("a new symbolic link", [] { OKAY(::symlink("f", "d/l")); });
    change("a new pipe", [] { OKAY(::mkfifo("d/p", 0644)); });
    change("a removed directory", [] { OKAY(::rmdir("d/e")); });
}
CASE(times_of_new_files_are_now) {
    struct timespec now {};
    ::clock_gettime(CLOCK_REALTIME, &now);
    put("f");
    for (const auto& time : {status_of("f").st_mtim, status_of("f").st_ctim, status_of("f").st_atim})
        EXPECT(time.tv_sec >= now.tv_sec - 10 && time.tv_sec <= now.tv_sec + 10);
}
