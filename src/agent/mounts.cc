#include "agent/mounts.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "agent/paths.h"
#include "base/text.h"
#include "os/file.h"

namespace caisson::agent {

using base::failure;
using base::failure_errno;
using Kind = MountStep::Kind;

namespace {

constexpr unsigned long kInert = MS_NOSUID | MS_NODEV | MS_NOEXEC;

MountStep directory(std::string path, unsigned mode = 0755) {
    return {.kind = Kind::kDirectory, .target = std::move(path), .mode = mode};
}
MountStep mount_of(std::string type, std::string target, unsigned long flags, std::string options = {}) {
    std::string source = type;
    return {.kind = Kind::kMount, .target = std::move(target), .source = std::move(source), .type = std::move(type),
            .flags = flags, .options = std::move(options)};
}
MountStep read_only(std::string path) { return {.kind = Kind::kReadOnly, .target = std::move(path)}; }
MountStep mask(std::string path, std::string null) {
    return {.kind = Kind::kMask, .target = std::move(path), .source = std::move(null)};
}
MountStep node(std::string path, unsigned major, unsigned minor) {
    return {.kind = Kind::kNode, .target = std::move(path), .mode = S_IFCHR | 0666, .major = major, .minor = minor};
}
MountStep link_to(std::string path, std::string to) {
    return {.kind = Kind::kLink, .target = std::move(path), .source = std::move(to)};
}

}  // namespace

MountPlan guest_mounts() {
    return {
        directory(kGuest, 0700),
        mount_of("tmpfs", kGuest, kInert & ~MS_NODEV, "mode=0700,size=64k"),
        directory(kDevices),
        directory(kProc),
        directory(kSys),
        directory(kCgroup),
        mount_of("devtmpfs", kDevices, MS_NOSUID | MS_NOEXEC),
        mount_of("proc", kProc, kInert),
        mount_of("sysfs", kSys, kInert),
        mount_of("cgroup2", kCgroup, kInert),
        directory(kDisk),
        directory("/stage", 0700),
    };
}

MountPlan staged_mounts() {
    const std::string dev = kStagedDev;
    const std::string sys = kStagedSys;
    const std::string null = dev + "/null";
    MountPlan plan = {
        directory(dev),
        mount_of("tmpfs", dev, MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"),
        node(null, 1, 3),
        node(dev + "/zero", 1, 5),
        node(dev + "/full", 1, 7),
        node(dev + "/random", 1, 8),
        node(dev + "/urandom", 1, 9),
        node(dev + "/tty", 5, 0),
        link_to(dev + "/fd", "/proc/self/fd"),
        link_to(dev + "/stdin", "/proc/self/fd/0"),
        link_to(dev + "/stdout", "/proc/self/fd/1"),
        link_to(dev + "/stderr", "/proc/self/fd/2"),
        link_to(dev + "/core", "/proc/kcore"),
        link_to(dev + "/ptmx", "pts/ptmx"),
        directory(dev + "/pts"),
        directory(dev + "/shm"),
        directory(dev + "/mqueue"),
        mount_of("devpts", dev + "/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"),
        mount_of("tmpfs", dev + "/shm", kInert, "mode=1777,size=65536k"),
        directory(sys),
        mount_of("sysfs", sys, kInert | MS_RDONLY),
    };
    for (const char* path : kHiddenInSys) plan.push_back(mask(sys + path, null));
    plan.push_back(directory(kStagedFiles));
    plan.push_back(mount_of("tmpfs", kStagedFiles, kInert, "mode=755,size=8m"));
    return plan;
}

Result<> check_mount_path(const std::string& path) {
    bool bad = path.size() < 2 || path.size() > 4096 || path[0] != '/' || path.find('\0') != std::string::npos;
    if (!bad)
        for (const auto& part : base::split(path.substr(1), '/')) bad = bad || part.empty() || part == "." || part == "..";
    if (bad)
        return failure(Errc::kUsage, "'" + base::printable(path, 256) + "' is not a plain absolute path to mount at");
    return {};
}

MountPlan fixed_container_mounts() {
    const std::string null = "/dev/null";
    MountPlan plan = {mount_of("proc", "/proc", kInert)};
    for (const char* path : {"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
                             "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
                             "/proc/timer_stats"})
        plan.push_back(mask(path, null));
    for (const char* path : {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"})
        plan.push_back(read_only(path));
    plan.push_back(mount_of("mqueue", "/dev/mqueue", kInert));
    plan.push_back(mount_of("cgroup2", "/sys/fs/cgroup", kInert | MS_RDONLY));
    return plan;
}

Result<MountPlan> wanted_mounts(const wire::Configure& configure) {
    if (configure.tmpfs_size() + configure.files_size() > kMaxMounts)
        return failure(Errc::kLimit, "more than " + std::to_string(kMaxMounts) + " mounts and files in one container");
    MountPlan memory;
    for (const auto& tmpfs : configure.tmpfs()) {
        CAISSON_TRY(check_mount_path(tmpfs.path()));
        char mode[16];
        std::snprintf(mode, sizeof mode, "mode=%04o", tmpfs.mode() == 0 ? 01777U : tmpfs.mode() & 07777U);
        std::string options = mode;
        if (tmpfs.size_bytes() != 0) options += ",size=" + std::to_string(tmpfs.size_bytes());
        unsigned long flags = MS_NOSUID | MS_NODEV | (tmpfs.executable() ? 0 : MS_NOEXEC);
        memory.push_back(mount_of("tmpfs", tmpfs.path(), flags, options));
    }
    // A mount below another one comes after it.
    std::stable_sort(memory.begin(), memory.end(),
                     [](const auto& a, const auto& b) { return a.target.size() < b.target.size(); });
    MountPlan plan;
    for (auto& step : memory) {
        plan.push_back(directory(step.target));
        plan.push_back(std::move(step));
    }
    return plan;
}

std::string describe(const MountPlan& plan) {
    std::string text;
    for (const auto& step : plan) {
        switch (step.kind) {
            case Kind::kDirectory: text += "directory " + step.target; break;
            case Kind::kMount:
                text += "mount " + step.type + " " + step.target;
                if (step.flags & MS_RDONLY) text += " ro";
                if (step.flags & MS_NOSUID) text += " nosuid";
                if (step.flags & MS_NODEV) text += " nodev";
                if (step.flags & MS_NOEXEC) text += " noexec";
                if (!step.options.empty()) text += " " + step.options;
                break;
            case Kind::kReadOnly: text += "read-only " + step.target; break;
            case Kind::kMask: text += "mask " + step.target; break;
            case Kind::kNode:
                text += "node " + step.target + " " + std::to_string(step.major) + ":" + std::to_string(step.minor);
                break;
            case Kind::kLink: text += "link " + step.target + " -> " + step.source; break;
            case Kind::kUncover: text += "uncover " + step.target; break;
            case Kind::kWritable: text += "writable " + step.target; break;
        }
        text += "\n";
    }
    return text;
}

namespace {

Result<> hide(const MountStep& step) {
    const char* target = step.target.c_str();
    if (::mount(step.source.c_str(), target, nullptr, MS_BIND, nullptr) == 0) return {};
    if (errno == ENOENT) return {};
    // A directory: an empty, read-only one takes its place.
    if (errno == ENOTDIR && ::mount("tmpfs", target, "tmpfs", kInert | MS_RDONLY, "size=4k") == 0) return {};
    return failure_errno("cannot hide " + step.target);
}

Result<> make_read_only(const MountStep& step) {
    const char* target = step.target.c_str();
    if (::mount(target, target, nullptr, MS_BIND | MS_REC, nullptr) != 0)
        return errno == ENOENT ? Result<>() : failure_errno("cannot bind " + step.target);
    if (::mount(nullptr, target, nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY | kInert, nullptr) != 0)
        return failure_errno("cannot make " + step.target + " read-only");
    return {};
}

Result<> make_node(const MountStep& step) {
    const char* target = step.target.c_str();
    if (::mknod(target, step.mode, ::makedev(step.major, step.minor)) != 0)
        return errno == EEXIST ? Result<>() : failure_errno("cannot make device " + step.target);
    if (::chmod(target, step.mode & 0777) != 0) return failure_errno("cannot set the mode of device " + step.target);
    return {};
}

}  // namespace

Result<> apply(const MountPlan& plan) {
    for (const auto& step : plan) {
        const char* target = step.target.c_str();
        switch (step.kind) {
            case Kind::kDirectory:
                if (::mkdir(target, step.mode) == 0 || errno == EEXIST) break;
                CAISSON_TRY(os::make_directories(step.target, step.mode));
                break;
            case Kind::kMount:
                if (::mount(step.source.c_str(), target, step.type.c_str(), step.flags,
                            step.options.empty() ? nullptr : step.options.c_str()) != 0)
                    return failure_errno("cannot mount " + step.type + " at " + step.target);
                break;
            case Kind::kReadOnly: CAISSON_TRY(make_read_only(step)); break;
            case Kind::kMask: CAISSON_TRY(hide(step)); break;
            case Kind::kNode: CAISSON_TRY(make_node(step)); break;
            case Kind::kLink:
                if (::symlink(step.source.c_str(), target) != 0) return failure_errno("cannot link " + step.target);
                break;
            case Kind::kUncover:
                if (::umount2(target, MNT_DETACH | UMOUNT_NOFOLLOW) != 0 && errno != EINVAL && errno != ENOENT)
                    return failure_errno("cannot uncover " + step.target);
                break;
            case Kind::kWritable:
                if (::mount(nullptr, target, nullptr, MS_REMOUNT | MS_BIND | kInert, nullptr) != 0)
                    return failure_errno("cannot make " + step.target + " writable");
                break;
        }
    }
    return {};
}

}  // namespace caisson::agent
