#include "box/mounts.h"

#include <algorithm>
#include <map>

#include "base/text.h"
#include "box/disks.h"
#include "box/limits.h"
#include "os/file.h"
#include "volume/gate.h"
#include "volume/names.h"
#include "volume/spec.h"

namespace caisson::box {

using base::failure;

namespace {

std::string shown(const std::string& text) { return "'" + base::printable(text, 300) + "'"; }

// Without "." and empty parts: two spellings are one place. ".." stays at the root, as it does for the kernel.
std::string plain_path(const std::string& path) {
    std::vector<std::string> parts;
    for (auto& part : base::split(path, '/')) {
        if (part.empty() || part == ".") continue;
        if (part != "..") parts.push_back(std::move(part));
        else if (!parts.empty()) parts.pop_back();
    }
    return "/" + base::join(parts, "/");
}

bool is_at_or_below(const std::string& path, const std::string& place) {
    return path == place || (base::starts_with(path, place) && path[place.size()] == '/');
}

std::string source_of(const MountOption& mount) {
    if (!mount.host_path.empty()) return "the volume at " + base::printable(mount.host_path, 200);
    if (!mount.volume.empty()) return "the volume " + shown(mount.volume);
    return "a volume of its own";
}

// By place in the box: what is mounted there.
using Places = std::map<std::string, std::string>;

Result<> take_place(Places& places, const std::string& target, const std::string& what) {
    auto [found, taken] = places.emplace(plain_path(target), what);
    if (taken) return {};
    return failure(Errc::kUsage, base::printable(target, 300) + " is mounted twice: " + found->second + " and " + what,
                   "leave one of them out, or give it another place");
}

Result<Places> places_of(const BoxOptions& options) {
    Places places;
    for (const auto& tmpfs : options.tmpfs) CAISSON_TRY(take_place(places, tmpfs.path, "a tmpfs"));
    for (const auto& mount : options.mounts) CAISSON_TRY(take_place(places, mount.target, source_of(mount)));
    return places;
}

Result<> validate_copy(const CopyOption& copy, const Places& places) {
    if (copy.source.empty() || copy.source.find('\0') != std::string::npos) return failure(Errc::kUsage, "--copy names no path of the host");
    const auto option = "--copy " + base::printable(copy.source, 200);
    CAISSON_TRY_CTX(volume::check_copy_target(copy.target), option);
    // Into a directory it goes under its own name.
    const auto target = plain_path(copy.target), inside = plain_path(copy.target + "/" + copy_name(copy.source));
    for (const auto& [place, what] : places)
        if (is_at_or_below(target, place) || is_at_or_below(inside, place))
            return failure(Errc::kUsage, option + ": " + what + " is mounted at " + base::printable(place, 200) + " and would hide the copy, which goes to the root disk",
                           "copy into a volume instead: caisson volume cp");
    return {};
}

Result<> check_number(std::size_t mounts) {
    if (mounts <= limits::kMostMounts) return {};
    return failure(Errc::kUsage, "more than " + std::to_string(limits::kMostMounts) + " volumes in one box");
}

}  // namespace

Result<> validate_mounts(const BoxOptions& options) {
    CAISSON_TRY(check_number(options.mounts.size()));
    if (options.tmpfs.size() > limits::kMostTmpfs)
        return failure(Errc::kUsage, "more than " + std::to_string(limits::kMostTmpfs) + " tmpfs in one box");
    if (options.copies.size() > limits::kMostCopies)
        return failure(Errc::kUsage, "more than " + std::to_string(limits::kMostCopies) + " --copy for one box", "copy directories instead of their files");
    for (const auto& mount : options.mounts) CAISSON_TRY(volume::check_mount(mount));
    const auto places = CAISSON_TRY(places_of(options));
    for (const auto& copy : options.copies) CAISSON_TRY(validate_copy(copy, places));
    return {};
}

Result<std::vector<MountOption>> plan_mounts(const BoxOptions& options, const image::Config& config) {
    auto places = CAISSON_TRY(places_of(options));
    auto mounts = options.mounts;
    for (const auto& declared : config.volumes) {
        MountOption mount;
        mount.target = plain_path(declared);
        if (!places.emplace(mount.target, "a volume that the image declares").second) continue;
        CAISSON_TRY_CTX(volume::check_target(mount.target), "the image declares a VOLUME at " + shown(declared));
        mounts.push_back(std::move(mount));
    }
    CAISSON_TRY(check_number(mounts.size()));
    for (const auto& copy : options.copies) CAISSON_TRY(validate_copy(copy, places));
    return mounts;
}

Result<> check_parts(const store::Home& home, const std::vector<MountOption>& mounts) {
    CAISSON_TRY(check_disks(home, mounts));
    const volume::Roots roots{home.volumes() + "/anonymous", home.volumes() + "/named"};
    for (const auto& mount : mounts) {
        if (!mount.host_path.empty()) CAISSON_TRY(volume::pin_path(roots, mount.host_path));
        if (mount.volume.empty() || mount.subpath.empty() || is_disk(home, mount.volume)) continue;
        CAISSON_TRY(volume::pin(roots, volume::Kind::kNamed, mount.volume, mount.subpath));
    }
    return {};
}

std::vector<volume::Request> requests_of(const std::vector<MountOption>& mounts) {
    std::vector<volume::Request> requests;
    for (const auto& mount : mounts)
        requests.push_back({.name = mount.volume,
                            .host_path = mount.host_path,
                            .subpath = mount.subpath,
                            .target = mount.target,
                            .read_only = mount.read_only,
                            .no_exec = mount.no_exec,
                            .no_suid = mount.no_suid,
                            .limit_bytes = mount.size_bytes});
    return requests;
}

MountInfo mount_info(const wire::BoxMount& mount) {
    MountInfo info;
    info.type = "volume";
    info.volume = mount.volume();
    info.anonymous = mount.anonymous();
    info.subpath = mount.subpath();
    info.target = mount.target();
    info.read_only = mount.read_only();
    info.no_exec = mount.no_exec();
    info.no_suid = mount.no_suid();
    info.attached = mount.attached();
    return info;
}

std::vector<MountInfo> mount_infos(const wire::BoxMounts& mounts, const wire::Configure& configure) {
    std::vector<MountInfo> infos;
    for (const auto& mount : mounts.mounts()) infos.push_back(mount_info(mount));
    for (const auto& tmpfs : configure.tmpfs()) {
        MountInfo info;
        info.type = "tmpfs";
        info.target = tmpfs.path();
        info.no_exec = !tmpfs.executable();
        info.no_suid = true;
        infos.push_back(std::move(info));
    }
    std::sort(infos.begin(), infos.end(), [](const auto& a, const auto& b) { return a.target < b.target; });
    return infos;
}

std::string describe_mount(const MountOption& mount) {
    std::string text = mount.target + ": " + source_of(mount);
    if (!mount.subpath.empty()) text += ", " + mount.subpath + " of it";
    if (mount.volume.empty() && mount.host_path.empty()) text += ", removed with the box";
    if (mount.size_bytes > 0) text += ", at most " + base::format_size(mount.size_bytes);
    if (mount.read_only) text += ", read-only";
    if (mount.no_exec) text += ", noexec";
    if (mount.no_suid) text += ", nosuid";
    return text;
}

}  // namespace caisson::box
