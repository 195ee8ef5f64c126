// Whether a directory behaves as a local file system does.
//
//   posix DIRECTORY [PART-OF-A-NAME]
//
// As root, in an existing directory. One line for each case: "ok NAME" or "differs NAME: what". Exit: 0 all ok, 1 some
// differ, 2 wrong use. A static program that needs nothing but the directory.
#include <ftw.h>
#include <grp.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "posix/check.h"

namespace posix {

namespace {

constexpr unsigned kLongestSeconds = 60;
int report = -1;  // what differs is written there

int remove_one(const char* path, const struct stat*, int, struct FTW* at) {
    if (at->level > 0) static_cast<void>(::remove(path));
    return 0;
}

void end_child(pid_t child) {
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return;
    if (WIFSIGNALED(status)) differs(0, "a child was ended by signal %d", WTERMSIG(status));
    ::_exit(1);  // it has said why
}

std::string run_case(const Case& one, const std::string& directory) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return "pipe";
    const pid_t child = ::fork();
    ::setpgid(child, child);
    if (child == 0) {
        ::close(ends[0]);
        report = ends[1];
        ::setpgid(0, 0);
        ::alarm(kLongestSeconds);
        ::umask(0);
        if (::chdir(directory.c_str()) != 0) differs(__LINE__, "cannot enter the directory");
        one.run();
        ::_exit(0);
    }
    ::close(ends[1]);
    // Its children go with it, and only then is the pipe at its end; one line fits into the pipe.
    int status = 0;
    ::waitpid(child, &status, 0);
    ::kill(-child, SIGKILL);
    std::string said;
    char text[512];
    ssize_t got = 0;
    while ((got = ::read(ends[0], text, sizeof text)) > 0) said.append(text, static_cast<std::size_t>(got));
    ::close(ends[0]);
    if (WIFSIGNALED(status)) said += " ended by signal " + std::to_string(WTERMSIG(status));
    else if (WEXITSTATUS(status) != 0 && said.empty()) said = "exit " + std::to_string(WEXITSTATUS(status));
    return said.substr(0, said.find('\n'));
}

}  // namespace

std::vector<Case>& cases() {
    static std::vector<Case> all;
    return all;
}

void differs(int line, const char* format, ...) {
    char text[400];
    const int error = errno;
    va_list arguments;
    va_start(arguments, format);
    ::vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    char whole[480];
    const int length = ::snprintf(whole, sizeof whole, "%s (line %d, errno %s)\n", text, line, strerrorname_np(error));
    static_cast<void>(!::write(report, whole, static_cast<std::size_t>(length)));
    ::_exit(1);
}

long okay(long result, const char* call, int line) {
    if (result == -1) differs(line, "failed: %s", call);
    return result;
}

void refused(long result, int wanted, const char* call, int line) {
    if (result != -1) differs(line, "not refused with %s: %s", strerrorname_np(wanted), call);
    if (errno != wanted) differs(line, "refused, but not with %s: %s", strerrorname_np(wanted), call);
}

void as(uid_t user, gid_t group, const std::function<void()>& run) {
    const pid_t child = ::fork();
    if (child == 0) {
        OKAY(::setgroups(0, nullptr));
        OKAY(::setresgid(group, group, group));
        OKAY(::setresuid(user, user, user));
        run();
        ::_exit(0);
    }
    end_child(child);
}

void in_child(const std::function<void()>& run) {
    const pid_t child = ::fork();
    if (child == 0) {
        run();
        ::_exit(0);
    }
    end_child(child);
}

void put(const std::string& name, const std::string& text, mode_t mode) {
    const int file = static_cast<int>(OKAY(::open(name.c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600)));
    std::size_t done = 0;
    while (done < text.size()) done += static_cast<std::size_t>(OKAY(::write(file, text.data() + done, text.size() - done)));
    OKAY(::fchmod(file, mode));
    OKAY(::close(file));
}

std::string text_of(const std::string& name) {
    const int file = static_cast<int>(OKAY(::open(name.c_str(), O_RDONLY)));
    std::string text;
    static char part[65536];
    long got = 0;
    while ((got = OKAY(::read(file, part, sizeof part))) > 0) text.append(part, static_cast<std::size_t>(got));
    ::close(file);
    return text;
}

struct stat status_of(const std::string& name) {
    struct stat status {};
    OKAY(::lstat(name.c_str(), &status));
    return status;
}

bool exists(const std::string& name) {
    struct stat status {};
    return ::lstat(name.c_str(), &status) == 0;
}

std::vector<std::string> names_in(const std::string& directory) {
    DIR* open = ::opendir(directory.c_str());
    if (open == nullptr) differs(__LINE__, "cannot list %s", directory.c_str());
    std::vector<std::string> names;
    while (const struct dirent* entry = ::readdir(open))
        if (std::strcmp(entry->d_name, ".") != 0 && std::strcmp(entry->d_name, "..") != 0) names.emplace_back(entry->d_name);
    ::closedir(open);
    std::sort(names.begin(), names.end());
    return names;
}

std::string pattern(std::size_t bytes, unsigned seed) {
    std::string text(bytes, '\0');
    std::uint32_t state = seed * 2654435761u + 1;
    for (auto& byte : text) {
        state = state * 1664525u + 1013904223u;
        byte = static_cast<char>(state >> 24);
    }
    return text;
}

std::int64_t nanoseconds(const struct timespec& time) { return std::int64_t{time.tv_sec} * 1000000000 + time.tv_nsec; }

void pause_ms(int milliseconds) {
    struct timespec time {milliseconds / 1000, (milliseconds % 1000) * 1000000L};
    ::nanosleep(&time, nullptr);
}

void remove_all(const char* path) { ::nftw(path, remove_one, 32, FTW_DEPTH | FTW_PHYS); }

}  // namespace posix

int main(int count, char** words) {
    using namespace posix;
    if (count < 2 || count > 3) {
        std::fprintf(stderr, "usage: %s DIRECTORY [PART-OF-A-NAME]\n", words[0]);
        return 2;
    }
    const std::string place = std::string(words[1]) + "/posix." + std::to_string(::getpid());
    if (::mkdir(place.c_str(), 0755) != 0) {
        std::perror(place.c_str());
        return 2;
    }
    ::signal(SIGXFSZ, SIG_IGN);
    std::setvbuf(stdout, nullptr, _IOLBF, 0);
    int different = 0, run = 0;
    for (const auto& one : cases()) {
        if (count == 3 && std::strstr(one.name, words[2]) == nullptr) continue;
        const std::string directory = place + "/" + one.name;
        ::umask(0);
        if (::mkdir(directory.c_str(), 0777) != 0) {
            std::perror(directory.c_str());
            return 2;
        }
        const auto said = run_case(one, directory);
        ++run;
        different += said.empty() ? 0 : 1;
        if (said.empty()) std::printf("ok %s\n", one.name);
        else std::printf("differs %s: %s\n", one.name, said.c_str());
        remove_all(directory.c_str());
        ::rmdir(directory.c_str());
    }
    ::rmdir(place.c_str());
    std::printf("%d cases, %d differ\n", run, different);
    return different == 0 ? 0 : 1;
}
