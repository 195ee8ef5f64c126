#include "store/check.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>

#include "base/text.h"
#include "os/file.h"
#include "os/random.h"

namespace caisson::store {

using base::failure;
using base::failure_errno;

// --- what is taken out of a home

Result<std::string> Aside::place_for(const std::string& name) {
    if (directory_.empty()) {
        char stamp[32];
        const auto now = ::time(nullptr);
        struct tm parts {};
        ::gmtime_r(&now, &parts);
        ::strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", &parts);
        const auto made = home_ + "/aside/" + stamp + "-" + CAISSON_TRY(os::new_ulid());
        CAISSON_TRY_CTX(os::make_directories(made, 0700), "making a place for what is taken out of the home");
        directory_ = made;
    }
    const auto place = directory_ + "/" + name;
    CAISSON_TRY(os::make_directories(place.substr(0, place.rfind('/')), 0700));
    for (int number = 1;; ++number) {
        const auto free = number == 1 ? place : place + "." + std::to_string(number);
        struct stat info {};
        if (::lstat(free.c_str(), &info) != 0) return free;
    }
}

Result<> Aside::take(const std::string& path) {
    struct stat info {};
    if (::lstat(path.c_str(), &info) != 0 && errno == ENOENT) return {};
    const auto place = CAISSON_TRY(place_for(object_of(home_, path)));
    if (::rename(path.c_str(), place.c_str()) != 0 && errno != ENOENT) return failure_errno("cannot move " + path + " to " + place);
    CAISSON_TRY(os::fsync_directory(place.substr(0, place.rfind('/'))));
    return os::fsync_directory(path.substr(0, path.rfind('/')));
}

Result<> Aside::note(const std::string& name, const std::string& text) {
    return os::write_file_atomic(CAISSON_TRY(place_for(name)), text);
}

Result<> Aside::keep_copy(const std::string& path) {
    constexpr std::size_t kMostBytes = 64 << 20;
    return note(object_of(home_, path), CAISSON_TRY(os::read_file(path, kMostBytes)));
}

// --- how troubles are told

std::string object_of(const std::string& home, const std::string& path) {
    return base::starts_with(path, home + "/") ? path.substr(home.size() + 1) : path;
}

namespace {

Trouble trouble(Finding::Severity severity, std::string code, std::string object, std::string what, std::string remedy) {
    Trouble made;
    made.finding.code = std::move(code);
    made.finding.severity = severity;
    made.finding.object = base::printable(object, 1000);
    made.finding.what = base::printable(what, 1000);
    made.finding.remedy = base::printable(remedy, 1000);
    return made;
}

}  // namespace

Trouble warning(std::string code, std::string object, std::string what, std::string remedy) {
    return trouble(Finding::Severity::kWarning, std::move(code), std::move(object), std::move(what), std::move(remedy));
}
Trouble error(std::string code, std::string object, std::string what, std::string remedy) {
    return trouble(Finding::Severity::kError, std::move(code), std::move(object), std::move(what), std::move(remedy));
}

bool is_held(const std::string& path) {
    auto file = os::open_file(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    return file && os::is_locked(*file);
}

void find_unfinished(const std::string& home, const std::string& directory, Troubles& found) {
    // ".tmp." and the six characters of mkostemp(3).
    constexpr std::string_view kMark = ".tmp.";
    for (const auto& name : os::list_directory(directory).value_or(std::vector<std::string>())) {
        const auto mark = name.rfind(kMark);
        if (mark == std::string::npos || mark == 0 || name.size() != mark + kMark.size() + 6) continue;
        const auto path = directory + "/" + name;
        struct stat info {};
        if (::lstat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) continue;
        auto left = warning("unfinished_file", object_of(home, path), "a file that somebody began to write and did not finish", "moves it aside");
        left.mend = [path](Aside& aside) -> Result<std::string> {
            CAISSON_TRY(aside.take(path));
            return "moved aside";
        };
        found.push_back(std::move(left));
    }
}

void check_mode(const std::string& home, const std::string& path, bool closed, const std::string& code, Troubles& found) {
    struct stat info {};
    if (::lstat(path.c_str(), &info) != 0) return;
    const mode_t refused = closed ? 077 : 022;
    if (S_ISLNK(info.st_mode) || (info.st_mode & refused) == 0) return;
    if (info.st_uid != ::geteuid()) return;  // told as that
    const mode_t mode = info.st_mode & 07777 & ~refused;
    char was[8];
    std::snprintf(was, sizeof was, "%04o", info.st_mode & 07777);
    auto open = error(code, path == home ? home : object_of(home, path),
                      std::string("has mode ") + was + ": others may " + ((info.st_mode & 022) != 0 ? "write to it" : "look into it"),
                      std::string("takes their rights away, as: chmod go-") + (closed ? "rwx " : "w ") + base::shell_quote(path));
    open.passing = false;
    open.mend = [path, mode](Aside&) -> Result<std::string> {
        if (::fchmodat(AT_FDCWD, path.c_str(), mode, 0) != 0) return failure_errno("cannot change the mode of " + path);
        return "mode changed";
    };
    found.push_back(std::move(open));
}

namespace {

// true: it may be looked into.
bool check_directory(const Home& home, const std::string& path, Troubles& found) {
    struct stat info {};
    const auto object = path == home.root ? path : object_of(home.root, path);
    if (::lstat(path.c_str(), &info) != 0) {
        if (errno != ENOENT) found.push_back(error("home_unreadable", object, failure_errno("cannot be looked at").value().to_string(), "nothing; look at its mode and its file system"));
        return false;
    }
    if (!S_ISDIR(info.st_mode)) {
        found.push_back(error("home_not_a_directory", object, "is not a directory, but the home needs one there", "nothing; put the directory back that was there"));
        return false;
    }
    if (info.st_uid != ::geteuid()) {
        found.push_back(error("home_owner", object,
                              "belongs to user " + std::to_string(info.st_uid) + ", but caisson runs as user " + std::to_string(::geteuid()),
                              "nothing; use another CAISSON_HOME, run caisson as that user, or as root: chown -R"));
        found.back().passing = false;
    }
    check_mode(home.root, path, false, "home_mode", found);
    if (::access(path.c_str(), R_OK | X_OK) != 0) {
        found.push_back(error("home_unreadable", object, "cannot be read by user " + std::to_string(::geteuid()), "nothing; look at its mode and its owner"));
        return false;
    }
    return true;
}

}  // namespace

Troubles check_home(const Home& home) {
    Troubles found;
    if (!check_directory(home, home.root, found)) return found;
    for (const auto& path : {home.images(), home.disks(), home.boxes(), home.templates(), home.volumes()}) check_directory(home, path, found);
    find_unfinished(home.root, home.root, found);
    // Volumes keep what boxes make of their files in attributes.
    if (::getxattr(home.root.c_str(), "user.caisson.check", nullptr, 0) < 0 && errno == ENOTSUP) {
        found.push_back(warning("home_attributes", home.root, "its file system keeps no attributes of users (user.*), so that there can be no volumes that are directories",
                                "nothing; use a home on ext4, XFS or Btrfs: CAISSON_HOME=/some/directory"));
        found.back().passing = false;
    }
    return found;
}

}  // namespace caisson::store
