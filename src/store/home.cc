#include "store/home.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/file.h"
#include "os/lasting.h"

namespace caisson::store {

using base::failure;
using base::failure_errno;

Result<std::string> default_home(const char* caisson_home, const char* user_home, bool as_root) {
    if (caisson_home != nullptr && *caisson_home != '\0') {
        std::string path = caisson_home;
        while (path.size() > 1 && path.back() == '/') path.pop_back();
        if (path[0] != '/')
            return failure(Errc::kUsage, "CAISSON_HOME is '" + path + "', but it must be an absolute path");
        return path;
    }
    if (as_root) return std::string("/var/lib/caisson");
    if (user_home == nullptr || user_home[0] != '/')
        return failure(Errc::kUsage, "neither CAISSON_HOME nor HOME names a directory", "set CAISSON_HOME=/some/directory");
    return std::string(user_home) + "/.caisson";
}

Result<Home> open_home(const std::string& path) {
    Home home{path};
    for (const auto& directory : {home.root, home.images(), home.disks(), home.boxes(), home.templates()}) {
        struct stat info {};
        if (::lstat(directory.c_str(), &info) != 0) {
            if (errno != ENOENT) return failure_errno("cannot use the home " + path);
            CAISSON_TRY_CTX(os::make_lasting_directories(directory, 0700), "making the home");
            continue;
        }
        if (!S_ISDIR(info.st_mode))
            return failure(Errc::kPermission, directory + " is not a directory, but the home needs one there");
        if (info.st_uid != ::geteuid())
            return failure(Errc::kPermission,
                           directory + " belongs to user " + std::to_string(info.st_uid) + ", but caisson runs as user " +
                               std::to_string(::geteuid()),
                           "use another CAISSON_HOME, or run as that user");
        if ((info.st_mode & 022) != 0)
            return failure(Errc::kPermission, directory + " can be written by others", "run: chmod go-w " + directory);
    }
    if (::access(path.c_str(), W_OK) != 0) return failure_errno("cannot write to the home " + path);
    return home;
}

Result<> prepare_home_as_root(const std::string& path, unsigned user, unsigned group) {
    struct stat info {};
    if (::lstat(path.c_str(), &info) != 0) {
        if (errno != ENOENT) return failure_errno("cannot use the home " + path);
        CAISSON_TRY_CTX(os::make_lasting_directories(path, 0711), "making the home");
        if (::lstat(path.c_str(), &info) != 0) return failure_errno("cannot use the home " + path);
    }
    if (!S_ISDIR(info.st_mode)) return failure(Errc::kPermission, path + " is not a directory");
    if (info.st_uid == user) return {};
    if (info.st_uid != 0)
        return failure(Errc::kPermission, "the home " + path + " belongs to user " + std::to_string(info.st_uid),
                       "run caisson as that user, or use another CAISSON_HOME");
    // Root's own directory is taken over only while it is empty: giving away files that root put there is not ours.
    auto names = CAISSON_TRY(os::list_directory(path));
    if (!names.empty())
        return failure(Errc::kPermission, "the home " + path + " belongs to root and is not empty",
                       "use an empty or new directory as CAISSON_HOME");
    auto fd = CAISSON_TRY(os::open_file(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
    if (::fchown(fd.get(), user, group) != 0 || ::fchmod(fd.get(), 0711) != 0)
        return failure_errno("cannot give the home " + path + " to the service user");
    return {};
}

}  // namespace caisson::store
