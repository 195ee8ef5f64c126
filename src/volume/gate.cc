#include "volume/gate.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

#include "base/text.h"
#include "os/file.h"
#include "volume/names.h"

namespace caisson::volume {

using base::failure;

namespace {

base::Failure not_managed(const Roots& roots, const std::string& path) {
    return failure(Errc::kUsage, "Volume host path '" + base::printable(path, 400) + "' is not a caisson-managed volume",
                   "volumes are the directories directly below " + roots.named + " and " + roots.anonymous +
                       "; make one with: caisson volume create NAME, or copy files into one with: caisson volume import NAME PATH");
}

// What `path` is in the end, or empty.
std::string resolved(const std::string& path) {
    std::unique_ptr<char, void (*)(void*)> real(::realpath(path.c_str(), nullptr), &::free);
    return real ? std::string(real.get()) : std::string();
}

Result<os::Fd> open_volume(const std::string& root, const std::string& name) {
    auto directory = CAISSON_TRY(os::open_file(root, O_PATH | O_DIRECTORY | O_NOFOLLOW));
    return os::open_beneath(directory, name, O_PATH | O_DIRECTORY | O_NOFOLLOW);
}

}  // namespace

Result<Pinned> pin(const Roots& roots, Kind kind, const std::string& name, const std::string& subpath) {
    CAISSON_TRY(check_name(name));
    if (!subpath.empty()) CAISSON_TRY(check_subpath(subpath));
    auto volume = open_volume(roots.of(kind), name);
    if (!volume && (volume.error().sys_errno == ENOENT || volume.error().sys_errno == ENOTDIR || volume.error().sys_errno == ELOOP))
        return failure(Errc::kNotFound, "there is no volume '" + name + "'", "list them: caisson volume ls; make it: caisson volume create " + name);
    if (!volume) return failure(std::move(volume).error());
    if (subpath.empty()) return Pinned{std::move(*volume), true, kind, name};

    auto file = os::open_beneath(*volume, subpath, O_PATH | O_NOFOLLOW);
    const std::string where = "'" + base::printable(subpath, 400) + "' in volume '" + name + "'";
    if (!file && (file.error().sys_errno == ENOENT || file.error().sys_errno == ENOTDIR))
        return failure(Errc::kNotFound, "there is no " + where, "a part of a volume must exist before it is mounted: caisson volume cp FILE " +
                                                                    name + ":" + base::printable(subpath, 200));
    if (!file && file.error().sys_errno == ELOOP)
        return failure(Errc::kUsage, where + " is reached through a link", "name the file that the link leads to");
    if (!file) return failure(std::move(file).error());
    struct stat status {};
    if (::fstat(file->get(), &status) != 0) return base::failure_errno("cannot look at " + where);
    if (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode))
        return failure(Errc::kUsage, where + " is neither a file nor a directory", "mount the directory that holds it");
    return Pinned{std::move(*file), S_ISDIR(status.st_mode), kind, name};
}

Result<Pinned> pin_path(const Roots& roots, const std::string& path) {
    const auto real = resolved(path);
    for (Kind kind : {Kind::kNamed, Kind::kAnonymous}) {
        const auto root = resolved(roots.of(kind));
        if (root.empty() || !base::starts_with(real, root + "/")) continue;
        const auto name = real.substr(root.size() + 1);
        if (!check_name(name)) break;
        // Between here and there the directory may have become something else: what is opened counts.
        auto volume = open_volume(roots.of(kind), name);
        if (!volume) break;
        return Pinned{std::move(*volume), true, kind, name};
    }
    return not_managed(roots, path);
}

}  // namespace caisson::volume
