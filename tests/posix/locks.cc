// Locks, and being told of changes.
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/wait.h>

#include <cstring>

#include "posix/check.h"

using namespace posix;

namespace {
struct flock range(short type, off_t start, off_t length) {
    struct flock lock {};
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_start = start;
    lock.l_len = length;
    return lock;
}
int opened() { return static_cast<int>(OKAY(::open("f", O_CREAT | O_RDWR, 0644))); }
long set(int file, short type, off_t start, off_t length, int how = F_SETLK) {
    auto lock = range(type, start, length);
    return ::fcntl(file, how, &lock);
}
// A child that takes the lock, says so, and keeps it until it is told.
struct Holder {  // its end: a byte, since others that are made meanwhile have the pipe, too
    pid_t child = 0;
    int to[2] = {-1, -1}, from[2] = {-1, -1};
    explicit Holder(const std::function<void()>& take) {
        OKAY(::pipe2(to, O_CLOEXEC));
        OKAY(::pipe2(from, O_CLOEXEC));
        child = static_cast<pid_t>(OKAY(::fork()));
        char byte = 'x';
        if (child == 0) {
            take();
            static_cast<void>(!::write(from[1], &byte, 1));
            static_cast<void>(!::read(to[0], &byte, 1));
            ::_exit(0);
        }
        ::close(from[1]);
        if (::read(from[0], &byte, 1) != 1) ::_exit(1);  // it has said why
    }
    void end() {
        static_cast<void>(!::write(to[1], "x", 1));
        int status = 0;
        ::waitpid(child, &status, 0);
    }
};
std::vector<std::pair<std::uint32_t, std::string>> events(int watch) {
    std::vector<std::pair<std::uint32_t, std::string>> all;
    alignas(inotify_event) char text[8192];
    struct pollfd ready {watch, POLLIN, 0};
    while (::poll(&ready, 1, 300) > 0) {
        const long length = OKAY(::read(watch, text, sizeof text));
        for (long at = 0; at < length;) {
            const auto* event = reinterpret_cast<const inotify_event*>(text + at);
            all.emplace_back(event->mask, event->len > 0 ? event->name : "");
            at += static_cast<long>(sizeof *event + event->len);
        }
    }
    return all;
}
bool has(const std::vector<std::pair<std::uint32_t, std::string>>& all, std::uint32_t mask, const std::string& name) {
    for (const auto& [event, of] : all)
        if ((event & mask) != 0 && of == name) return true;
    return false;
}
}  // namespace

CASE(lock_conflicts_between_processes) {
    const int file = opened();
    OKAY(set(file, F_WRLCK, 0, 100));
    in_child([] {
        const int other = opened();
        REFUSED(EAGAIN, set(other, F_WRLCK, 50, 10));
        REFUSED(EAGAIN, set(other, F_RDLCK, 99, 1));
        OKAY(set(other, F_WRLCK, 100, 10));
    });
    OKAY(set(file, F_UNLCK, 0, 100));
    in_child([] { OKAY(set(opened(), F_WRLCK, 0, 0)); });
}
CASE(lock_shared_by_readers) {
    const int file = opened();
    OKAY(set(file, F_RDLCK, 0, 0));
    in_child([] {
        const int other = opened();
        OKAY(set(other, F_RDLCK, 0, 0));
        REFUSED(EAGAIN, set(other, F_WRLCK, 5, 1));
    });
}
CASE(lock_tells_who_holds_it) {
    const int file = opened();
    OKAY(set(file, F_WRLCK, 10, 20));
    const pid_t owner = ::getpid();
    in_child([&] {
        auto lock = range(F_RDLCK, 0, 0);
        OKAY(::fcntl(opened(), F_GETLK, &lock));
        EQUAL(lock.l_type, F_WRLCK);
        EQUAL(lock.l_start, 10);
        EQUAL(lock.l_len, 20);
        EXPECT(lock.l_pid == owner || lock.l_pid == 0);
        lock = range(F_WRLCK, 30, 5);
        OKAY(::fcntl(opened(), F_GETLK, &lock));
        EQUAL(lock.l_type, F_UNLCK);
    });
}
CASE(lock_is_split_and_joined) {
    const int file = opened();
    OKAY(set(file, F_WRLCK, 0, 30));
    OKAY(set(file, F_UNLCK, 10, 10));
    in_child([] {
        const int other = opened();
        REFUSED(EAGAIN, set(other, F_WRLCK, 5, 1));
        OKAY(set(other, F_WRLCK, 10, 10));
        REFUSED(EAGAIN, set(other, F_WRLCK, 20, 1));
    });
    OKAY(set(file, F_RDLCK, 0, 5));
    in_child([] { OKAY(set(opened(), F_RDLCK, 0, 5)); });
}
CASE(lock_goes_with_any_close) {
    const int file = opened();
    OKAY(set(file, F_WRLCK, 0, 0));
    ::close(opened());
    in_child([] { OKAY(set(opened(), F_WRLCK, 0, 0)); });
}
CASE(lock_goes_with_its_process) {
    const int file = opened();
    Holder holder([] { OKAY(set(opened(), F_WRLCK, 0, 0)); });
    REFUSED(EAGAIN, set(file, F_WRLCK, 0, 1));
    ::kill(holder.child, SIGKILL);
    holder.end();
    OKAY(set(file, F_WRLCK, 0, 1));
}
CASE(lock_is_not_inherited) {
    const int file = opened();
    OKAY(set(file, F_WRLCK, 0, 0));
    in_child([&] { REFUSED(EAGAIN, set(file, F_WRLCK, 0, 0)); });
}
CASE(lock_waits) {
    const int file = opened();
    Holder holder([] { OKAY(set(opened(), F_WRLCK, 0, 10)); });
    const pid_t waiter = ::fork();
    if (waiter == 0) ::_exit(set(opened(), F_WRLCK, 5, 1, F_SETLKW) == 0 ? 0 : 1);
    pause_ms(100);
    int status = 0;
    EQUAL(::waitpid(waiter, &status, WNOHANG), 0);
    holder.end();
    OKAY(::waitpid(waiter, &status, 0));
    EQUAL(status, 0);
    OKAY(set(file, F_WRLCK, 0, 0));
}
CASE(lock_wait_is_interrupted) {
    Holder holder([] { OKAY(set(opened(), F_WRLCK, 0, 10)); });
    const int file = opened();
    struct sigaction action {};
    action.sa_handler = [](int) {};
    OKAY(::sigaction(SIGUSR1, &action, nullptr));
    const pid_t self = ::getpid();
    if (::fork() == 0) {
        pause_ms(200);
        ::kill(self, SIGUSR1);
        ::_exit(0);
    }
    REFUSED(EINTR, set(file, F_WRLCK, 0, 10, F_SETLKW));
    holder.end();
}
CASE(lock_needs_the_right_mode) {
    put("f");
    const int reader = static_cast<int>(OKAY(::open("f", O_RDONLY)));
    const int writer = static_cast<int>(OKAY(::open("f", O_WRONLY)));
    REFUSED(EBADF, set(reader, F_WRLCK, 0, 1));
    REFUSED(EBADF, set(writer, F_RDLCK, 0, 1));
    OKAY(set(reader, F_RDLCK, 0, 1));
    OKAY(set(writer, F_WRLCK, 5, 1));
    REFUSED(EINVAL, set(writer, F_WRLCK, -5, 1));
}
CASE(lock_behind_the_end_and_negative) {
    const int file = opened();
    OKAY(set(file, F_WRLCK, 1LL << 40, 10));
    OKAY(set(file, F_WRLCK, 100, -10));
    in_child([] {
        const int other = opened();
        REFUSED(EAGAIN, set(other, F_WRLCK, (1LL << 40) + 5, 0));
        REFUSED(EAGAIN, set(other, F_WRLCK, 90, 1));
        OKAY(set(other, F_WRLCK, 100, 1));
    });
}
CASE(lock_of_open_files_excludes_the_same_process) {
    const int one = opened(), two = opened();
    OKAY(set(one, F_WRLCK, 0, 10, F_OFD_SETLK));
    REFUSED(EAGAIN, set(two, F_WRLCK, 5, 1, F_OFD_SETLK));
    REFUSED(EAGAIN, set(two, F_WRLCK, 5, 1));
    OKAY(set(two, F_WRLCK, 10, 1, F_OFD_SETLK));
    auto lock = range(F_WRLCK, 0, 5);
    OKAY(::fcntl(two, F_OFD_GETLK, &lock));
    EQUAL(lock.l_type, F_WRLCK);
    ::close(opened());  // others' closing changes nothing
    REFUSED(EAGAIN, set(two, F_WRLCK, 5, 1, F_OFD_SETLK));
    OKAY(set(one, F_UNLCK, 0, 10, F_OFD_SETLK));
    OKAY(set(two, F_WRLCK, 5, 1, F_OFD_SETLK));
}
CASE(lock_of_an_open_file_goes_with_its_last_close) {
    const int one = opened(), two = opened();
    OKAY(set(one, F_WRLCK, 0, 10, F_OFD_SETLK));
    const int copy = static_cast<int>(OKAY(::dup(one)));
    OKAY(::close(one));
    REFUSED(EAGAIN, set(two, F_WRLCK, 5, 1, F_OFD_SETLK));
    OKAY(::close(copy));
    long got = -1;
    for (int i = 0; i < 100 && got != 0; ++i) {
        got = set(two, F_WRLCK, 5, 1, F_OFD_SETLK);
        if (got != 0) pause_ms(10);
    }
    OKAY(got);
}
CASE(lock_by_many_at_once) {
    const int file = opened();
    std::uint32_t zero = 0;
    EQUAL(::pwrite(file, &zero, sizeof zero, 0), sizeof zero);
    std::vector<pid_t> children;
    for (int i = 0; i < 4; ++i) {
        const pid_t child = ::fork();
        if (child != 0) {
            children.push_back(child);
            continue;
        }
        const int mine = opened();
        for (int turn = 0; turn < 50; ++turn) {
            OKAY(set(mine, F_WRLCK, 0, 4, F_SETLKW));
            std::uint32_t count = 0;
            EQUAL(::pread(mine, &count, sizeof count, 0), sizeof count);
            ++count;
            EQUAL(::pwrite(mine, &count, sizeof count, 0), sizeof count);
            OKAY(set(mine, F_UNLCK, 0, 4));
        }
        ::_exit(0);
    }
    for (pid_t child : children) {
        int status = 0;
        OKAY(::waitpid(child, &status, 0));
        EQUAL(status, 0);
    }
    std::uint32_t count = 0;
    EQUAL(::pread(file, &count, sizeof count, 0), sizeof count);
    EQUAL(count, 200);
}

CASE(flock_excludes) {
    const int one = opened(), two = opened();
    OKAY(::flock(one, LOCK_EX));
    REFUSED(EAGAIN, ::flock(two, LOCK_EX | LOCK_NB));
    REFUSED(EAGAIN, ::flock(two, LOCK_SH | LOCK_NB));
    OKAY(::flock(one, LOCK_SH));
    OKAY(::flock(two, LOCK_SH | LOCK_NB));
    REFUSED(EAGAIN, ::flock(two, LOCK_EX | LOCK_NB));
    OKAY(::flock(one, LOCK_UN));
    OKAY(::flock(two, LOCK_EX | LOCK_NB));
}
CASE(flock_is_inherited_and_goes_with_the_last_close) {
    const int one = opened();
    OKAY(::flock(one, LOCK_EX));
    Holder holder([&] { EXPECT(one >= 0); });  // it has a copy of the descriptor
    OKAY(::close(one));
    const int two = opened();
    REFUSED(EAGAIN, ::flock(two, LOCK_EX | LOCK_NB));
    holder.end();
    long got = -1;
    for (int i = 0; i < 100 && got != 0; ++i) {
        got = ::flock(two, LOCK_EX | LOCK_NB);
        if (got != 0) pause_ms(10);
    }
    OKAY(got);
}
CASE(flock_waits) {
    Holder holder([] { OKAY(::flock(opened(), LOCK_EX)); });
    const pid_t waiter = ::fork();
    if (waiter == 0) ::_exit(::flock(opened(), LOCK_EX) == 0 ? 0 : 1);
    pause_ms(100);
    int status = 0;
    EQUAL(::waitpid(waiter, &status, WNOHANG), 0);
    ::kill(holder.child, SIGKILL);
    holder.end();
    OKAY(::waitpid(waiter, &status, 0));
    EQUAL(status, 0);
}
CASE(flock_and_record_locks_are_apart) {
    const int one = opened(), two = opened();
    OKAY(::flock(one, LOCK_EX));
    OKAY(set(two, F_WRLCK, 0, 0));
    in_child([] { REFUSED(EAGAIN, set(opened(), F_WRLCK, 0, 0)); });
}
CASE(flock_of_a_directory) {
    const int one = static_cast<int>(OKAY(::open(".", O_RDONLY | O_DIRECTORY)));
    const int two = static_cast<int>(OKAY(::open(".", O_RDONLY | O_DIRECTORY)));
    OKAY(::flock(one, LOCK_EX));
    REFUSED(EAGAIN, ::flock(two, LOCK_EX | LOCK_NB));
}
CASE(flock_of_a_read_only_descriptor) {
    put("f");
    const int file = static_cast<int>(OKAY(::open("f", O_RDONLY)));
    OKAY(::flock(file, LOCK_EX));
}

CASE(inotify_of_a_directory) {
    OKAY(::mkdir("d", 0755));
    const int watch = static_cast<int>(OKAY(::inotify_init1(IN_CLOEXEC)));
    OKAY(::inotify_add_watch(watch, "d", IN_ALL_EVENTS));
    put("d/f", "abc");
    OKAY(::rename("d/f", "d/g"));
    OKAY(::chmod("d/g", 0600));
    OKAY(::mkdir("d/e", 0755));
    OKAY(::unlink("d/g"));
    const auto all = events(watch);
    EXPECT(has(all, IN_CREATE, "f"));
    EXPECT(has(all, IN_OPEN, "f"));
    EXPECT(has(all, IN_MODIFY, "f"));
    EXPECT(has(all, IN_CLOSE_WRITE, "f"));
    EXPECT(has(all, IN_MOVED_FROM, "f"));
    EXPECT(has(all, IN_MOVED_TO, "g"));
    EXPECT(has(all, IN_ATTRIB, "g"));
    EXPECT(has(all, IN_CREATE, "e"));
    EXPECT(has(all, IN_DELETE, "g"));
}
CASE(inotify_of_a_file) {
    put("f", "abc");
    const int watch = static_cast<int>(OKAY(::inotify_init1(IN_CLOEXEC)));
    OKAY(::inotify_add_watch(watch, "f", IN_ALL_EVENTS));
    put("f", "def");
    OKAY(::unlink("f"));
    const auto all = events(watch);
    EXPECT(has(all, IN_MODIFY, ""));
    EXPECT(has(all, IN_CLOSE_WRITE, ""));
    EXPECT(has(all, IN_DELETE_SELF, ""));
}
CASE(leases_are_taken_or_refused) {
    put("f");
    const int file = static_cast<int>(OKAY(::open("f", O_RDONLY)));
    OKAY(::fcntl(file, F_SETLEASE, F_RDLCK));
    EQUAL(::fcntl(file, F_GETLEASE), F_RDLCK);
}
