#include "agent/privileged.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/text.h"
#include "os/file.h"

namespace caisson::agent {

using Kind = MountStep::Kind;

namespace {

// Of directories below /dev, such as /dev/input and /dev/bus/usb/001.
constexpr int kMostLevels = 4;
constexpr const char* kPortPrefix = "vport";

Result<> add_nodes(MountPlan& plan, const std::string& from, const std::string& to, const std::set<std::string>& disks, int levels) {
    for (const auto& name : CAISSON_TRY(os::list_directory(from))) {
        struct stat info {};
        const std::string source = from + "/" + name;
        const std::string target = to + "/" + name;
        if (::lstat(source.c_str(), &info) != 0) continue;  // devices come and go
        if (S_ISDIR(info.st_mode) && levels > 1) {
            plan.push_back({.kind = Kind::kDirectory, .target = target, .mode = info.st_mode & 0777});
            CAISSON_TRY(add_nodes(plan, source, target, disks, levels - 1));
        }
        if (!S_ISCHR(info.st_mode) && !S_ISBLK(info.st_mode)) continue;
        if (base::starts_with(name, kPortPrefix) || disks.contains(name)) continue;
        plan.push_back({.kind = Kind::kNode, .target = target, .mode = info.st_mode & (S_IFMT | 0777),
                        .major = ::major(info.st_rdev), .minor = ::minor(info.st_rdev)});
    }
    return {};
}

}  // namespace

MountPlan uncovered_mounts() {
    MountPlan plan;
    auto uncover = [&plan](std::string path) { plan.push_back({.kind = Kind::kUncover, .target = std::move(path)}); };
    for (const auto& step : fixed_container_mounts())
        if (step.kind == Kind::kMask || step.kind == Kind::kReadOnly) uncover(step.target);
    for (const char* path : kHiddenInSys) uncover(std::string("/sys") + path);
    for (const char* path : {"/sys", "/sys/fs/cgroup"}) plan.push_back({.kind = Kind::kWritable, .target = path});
    return plan;
}

Result<MountPlan> device_nodes(const std::string& devices, const std::set<std::string>& disks) {
    MountPlan plan;
    CAISSON_TRY(add_nodes(plan, devices, "/dev", disks, kMostLevels));
    return plan;
}

}  // namespace caisson::agent
