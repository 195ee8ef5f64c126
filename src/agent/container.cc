#include "agent/container.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <optional>

#include "agent/accounts.h"
#include "agent/command_path.h"
#include "agent/disks.h"
#include "agent/init.h"
#include "agent/mounts.h"
#include "agent/paths.h"
#include "agent/privileged.h"
#include "agent/uevents.h"
#include "base/text.h"
#include "os/file.h"
#include "wire/share.h"

namespace caisson::agent {

using base::failure;
using base::failure_errno;
using Clock = std::chrono::steady_clock;

namespace {

constexpr std::chrono::seconds kDiskDeadline{10};
constexpr std::size_t kMaxFileBytes = 1 << 20;
// From linux/ext4.h, which is not exported to user space.
constexpr unsigned long kExt4ResizeFs = _IOW('f', 16, std::uint64_t);

std::uint32_t microseconds_since(Clock::time_point start) {
    return static_cast<std::uint32_t>(
        std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - start).count());
}

Result<> wait_for_size(const wire::RootDisk& disk, const std::string& name) {
    return wait_for_device(
        [&] {
            std::uint64_t size = device_bytes(name);
            return disk.size_bytes() != 0 ? size == disk.size_bytes() : size != 0;
        },
        kDiskDeadline, "the root disk");
}

// In the container's mount namespace, by the agent: processes of the container's cgroup may not open disks.
Result<> mount_disk(const wire::RootDisk& disk, const std::string& name) {
    const std::string device = "/dev/" + name;
    // noatime: reading must not dirty the overlay. discard: deleted files give their space back to the host. No
    // background work: inode tables need no initialising, block bitmaps are read when they are needed. A damaged
    // file system stops being written to.
    const char* options = "noinit_itable,no_prefetch_block_bitmaps,discard,errors=remount-ro";
    if (::mount(device.c_str(), kDisk, "ext4", MS_NOATIME, options) == 0) return {};
    bool refused = errno == EROFS || errno == EACCES;  // the device itself is read-only
    if (refused && disk.read_only() &&
        ::mount(device.c_str(), kDisk, "ext4", MS_NOATIME | MS_RDONLY, "noload") == 0)
        return {};
    return failure_errno("cannot mount the root disk " + disk.device());
}

// The container's root directory is the caller's.
Result<> grow_disk(std::uint64_t device_size) {
    struct statfs info {};
    auto root = CAISSON_TRY(os::open_file("/", O_RDONLY | O_DIRECTORY));
    if (::fstatfs(root.get(), &info) != 0 || info.f_bsize <= 0) return failure_errno("cannot measure the root disk");
    std::uint64_t blocks = device_size / static_cast<std::uint64_t>(info.f_bsize);
    if (::ioctl(root.get(), kExt4ResizeFs, &blocks) != 0)
        return failure_errno("cannot grow the root disk's file system to its device");
    return {};
}

// A visit to another mount namespace, ended by the destructor.
class Visit {
  public:
    static Result<Visit> to(const Stage& stage) {
        if (::setns(stage.container_mounts.get(), CLONE_NEWNS) != 0)
            return failure_errno("cannot enter the container's mounts");
        return Visit(stage.guest_mounts);
    }
    Visit(Visit&& other) noexcept : home_(std::exchange(other.home_, nullptr)) {}
    Visit& operator=(Visit&&) = delete;
    ~Visit() {
        // It worked in the other direction; an agent in the wrong namespace must not go on.
        if (home_ != nullptr) CAISSON_CHECK(::setns(home_->get(), CLONE_NEWNS) == 0);
    }

  private:
    explicit Visit(const os::Fd& home) : home_(&home) {}
    const os::Fd* home_;
};

Result<os::Fd> open_resolved(const std::string& path, std::uint64_t flags, unsigned mode, std::uint64_t resolve) {
    open_how how{};
    how.flags = flags | O_CLOEXEC;
    how.mode = mode;
    how.resolve = resolve;
    long fd = ::syscall(SYS_openat2, AT_FDCWD, path.c_str(), &how, sizeof how);
    if (fd < 0) return failure_errno("cannot open " + path);
    return os::Fd(static_cast<int>(fd));
}

// Directories of the image that the container's file systems go over: real ones, or the mounts would end up wherever
// the image's links point to.
Result<> require_directory(const char* name) {
    if (::mkdir(name, 0755) != 0 && errno != EEXIST && errno != EROFS)
        return failure_errno(std::string("cannot make /") + name);
    auto fd = open_resolved(name, O_PATH | O_DIRECTORY, 0, RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH);
    if (!fd) return failure_errno(std::string("the image's /") + name + " is not a usable directory", fd.error().sys_errno);
    return {};
}

// A file that will be bound into the container.
struct BoundFile {
    std::string path;
    const os::Fd* tree;
};

// What every box brings its own version of: bound when the container is made, so that only the content is missing.
constexpr const char* kUsualFiles[] = {"/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/etc/machine-id"};
static_assert(std::size(kUsualFiles) <= kReadySlots);

Result<> fill_slot(FileSlot& slot, const std::string& path, std::string_view content, unsigned mode) {
    if (content.size() > kMaxFileBytes) return failure(Errc::kLimit, "the content for " + path + " is too large");
    CAISSON_TRY_CTX(os::write_all(slot.file.get(), content), "writing " + path);
    if (mode != 0 && mode != 0644 && ::fchmod(slot.file.get(), mode & 07777) != 0)
        return failure_errno("cannot set the mode of " + path);
    slot.file.reset();
    return {};
}

std::string parent_of(const std::string& path) {
    auto slash = path.rfind('/');
    return slash == 0 || slash == std::string::npos ? "/" : path.substr(0, slash);
}

// An empty file at `path`, where the image may have nothing, or a link to something that does not exist. Runs with
// the image as root directory, so links stay inside it.
Result<os::Fd> make_target(std::string path) {
    for (int links = 0; links < 8; ++links) {
        CAISSON_TRY(os::make_directories(parent_of(path), 0755));
        auto made = open_resolved(path, O_WRONLY | O_CREAT, 0644, RESOLVE_NO_MAGICLINKS);
        if (made) return open_resolved(path, O_PATH, 0, RESOLVE_NO_MAGICLINKS);
        if (made.error().sys_errno != ENOENT) return made;
        // A dangling link whose directory is missing as well.
        char to[4096];
        ssize_t length = ::readlink(path.c_str(), to, sizeof to);
        if (length <= 0 || length == sizeof to) return made;
        std::string target(to, static_cast<std::size_t>(length));
        path = target[0] == '/' ? target : parent_of(path) + "/" + target;
    }
    return failure_errno("cannot make " + path, ELOOP);
}

}  // namespace

Result<os::Fd> open_file_target(const std::string& path) {
    auto target = open_resolved(path, O_PATH, 0, RESOLVE_NO_MAGICLINKS);
    if (target || target.error().sys_errno != ENOENT) return target;
    return make_target(path);
}

Result<os::Fd> open_directory_target(const std::string& path) {
    auto target = open_resolved(path, O_PATH, 0, RESOLVE_NO_MAGICLINKS);
    if (target || target.error().sys_errno != ENOENT) return target;
    CAISSON_TRY(os::make_directories(path, 0755));
    return open_resolved(path, O_PATH | O_DIRECTORY, 0, RESOLVE_NO_MAGICLINKS);
}

namespace {

Result<> bind_file(const BoundFile& file) {
    auto target = open_file_target(file.path);
    // A read-only disk that lacks the file goes without it.
    if (!target && target.error().sys_errno == EROFS) return {};
    if (!target) return failure(std::move(target).error());
    if (::syscall(SYS_move_mount, file.tree->get(), "", target->get(), "",
                  MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) != 0)
        return failure_errno("cannot put " + file.path + " in place");
    return {};
}

// Everything that the first process of the container does before it becomes its init.
Result<> set_up(const Stage& stage) {
    if (::unshare(CLONE_NEWCGROUP) != 0) return failure_errno("cannot make a cgroup namespace");
    if (::chdir(kDisk) != 0) return failure_errno("cannot enter the root disk");
    for (const char* name : {"proc", "sys", "dev"}) CAISSON_TRY(require_directory(name));
    if (::mount(kStagedDev, "dev", nullptr, MS_MOVE, nullptr) != 0) return failure_errno("cannot put /dev in place");
    if (::mount(kStagedSys, "sys", nullptr, MS_MOVE, nullptr) != 0) return failure_errno("cannot put /sys in place");
    // The initial file system can be covered but not be left by pivot_root(2); see switch_root(8). It is read-only,
    // holds nothing but the agent's program, and a ".." from anywhere in the container crosses back into this mount.
    if (::mount(".", "/", nullptr, MS_MOVE, nullptr) != 0 || ::chroot(".") != 0 || ::chdir("/") != 0)
        return failure_errno("cannot make the root disk the root directory");
    CAISSON_TRY(apply(stage.plan));
    for (std::size_t i = 0; i < std::size(kUsualFiles); ++i)
        CAISSON_TRY(bind_file({kUsualFiles[i], &stage.slots[i].tree}));
    return {};
}

// The set-up's failure as one line through the pipe; nothing means success.
[[noreturn]] void container_main(const os::Fd& report, const Stage& stage) {
    if (auto done = set_up(stage); !done) {
        std::string text = done.error().to_string();
        text.resize(std::min<std::size_t>(text.size(), 1024));
        static_cast<void>(os::write_all(report.get(), text));
        ::_exit(1);
    }
    static_cast<void>(os::write_all(report.get(), std::string_view("", 1)));
    run_container_init();
}

}  // namespace

Result<std::string> disk_name(const std::string& device) {
    constexpr std::string_view kPrefix = "/dev/";
    std::string name = device.starts_with(kPrefix) ? device.substr(kPrefix.size()) : std::string();
    if (name.empty() || name.size() > 32 || name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789") != std::string::npos)
        return failure(Errc::kUsage, "'" + base::printable(device, 64) + "' is not a disk");
    return name;
}

Result<std::unique_ptr<Container>> Container::create(const wire::RootDisk& disk, Stage& stage) {
    auto name = CAISSON_TRY(disk_name(disk.device()));
    if (disk.type() != "ext4") return failure(Errc::kUnsupported, "a root disk of type '" + disk.type() + "'");
    auto report = CAISSON_TRY(os::make_pipe());
    std::optional<Visit> visit(CAISSON_TRY(Visit::to(stage)));
    if (auto mounted = mount_disk(disk, name); !mounted) {
        if (disk.size_bytes() == 0) return failure(std::move(mounted).error());
        // A restored guest learns the device's true size a little later, which may be what is wrong.
        visit.reset();
        CAISSON_TRY(wait_for_size(disk, name));
        visit.emplace(CAISSON_TRY(Visit::to(stage)));
        CAISSON_TRY(mount_disk(disk, name));
    }
    // Born in the container's mount, IPC and UTS namespaces, and the first in its pid namespace.
    auto init = CAISSON_TRY(fork_into(stage.cgroup.fd(), 0));
    if (init.pid == 0) container_main(report.second, stage);
    report.second.reset();
    auto answer = CAISSON_TRY(os::read_fd(report.first.get(), 4096, "the container's first process"));
    if (answer != std::string_view("", 1))
        return failure(Errc::kGuest, answer.empty() ? "the container's first process died" : answer);
    return std::unique_ptr<Container>(new Container(std::move(init), stage, std::move(name)));
}

Result<std::vector<ShareTree>> Container::take_shares(const wire::Shares& wanted) {
    std::vector<ShareTree> trees;
    if (wanted.mounts_size() == 0) return trees;
    if (placed_.size() + static_cast<std::size_t>(wanted.mounts_size()) > kMaxShares)
        return failure(Errc::kLimit, "more than " + std::to_string(kMaxShares) + " volumes in one box");
    if (!shares_.started()) {
        UserIdentity user;
        {
            auto visit = CAISSON_TRY(Visit::to(stage_));
            // Who is not in the image's files cannot run a command either, which is said when one is started.
            if (auto found = find_user(wanted.user(), read_accounts())) user = *found;
        }
        shares_ = CAISSON_TRY(Shares::start(user.uid, user.gid));
    }
    for (const auto& mount : wanted.mounts()) trees.push_back(CAISSON_TRY(shares_.take(mount)));
    return trees;
}

// In the container's mount namespace. What was put in place before an error is taken away again.
Result<> Container::place_shares(std::vector<ShareTree> shares) {
    // A mount below another one comes after it.
    std::stable_sort(shares.begin(), shares.end(), [](const auto& a, const auto& b) { return a.target.size() < b.target.size(); });
    std::vector<std::string> placed;
    for (const auto& share : shares) {
        auto put = put_in_place(share);
        if (!put) {
            for (const auto& entry : placed) {
                static_cast<void>(take_away(placed_[entry], true));
                placed_.erase(entry);
            }
            return failure(std::move(put).error());
        }
        placed_[share.entry] = *put;
        placed.push_back(share.entry);
    }
    return {};
}

Result<> Container::attach_shares(const wire::Shares& wanted) {
    auto shares = CAISSON_TRY(take_shares(wanted));
    auto visit = CAISSON_TRY(Visit::to(stage_));
    return place_shares(std::move(shares));
}

Result<> Container::detach_share(const std::string& entry, bool force) {
    auto found = placed_.find(entry);
    if (found == placed_.end()) return {};  // it never came to that
    auto visit = CAISSON_TRY(Visit::to(stage_));
    CAISSON_TRY(take_away(found->second, force));
    placed_.erase(found);
    return {};
}

Result<> Container::configure(const wire::Configure& configure, wire::Configured& timings) {
    auto wanted = CAISSON_TRY(wanted_mounts(configure));
    CAISSON_TRY(stage_.cgroup.limit(configure));

    auto start = Clock::now();
    std::uint64_t grown = 0;
    if (configure.root().grow()) {
        CAISSON_TRY(wait_for_size(configure.root(), disk_));
        grown = device_bytes(disk_);
        timings.set_wait_disk_microseconds(microseconds_since(start));
    }

    std::vector<BoundFile> more;
    std::vector<const char*> unwanted;
    bool usual_given[std::size(kUsualFiles)] = {};
    auto place = [&](const std::string& path, std::string_view content, unsigned mode) -> Result<> {
        CAISSON_TRY(check_mount_path(path));
        for (std::size_t i = 0; i < std::size(kUsualFiles); ++i) {
            if (path != kUsualFiles[i] || usual_given[i]) continue;
            usual_given[i] = true;
            return fill_slot(stage_.slots[i], path, content, mode);
        }
        std::size_t number = std::size(kUsualFiles) + more.size();
        if (number == stage_.slots.size()) stage_.slots.push_back(CAISSON_TRY(make_slot(static_cast<int>(number))));
        CAISSON_TRY(fill_slot(stage_.slots[number], path, content, mode));
        more.push_back({path, nullptr});
        return {};
    };
    for (const auto& file : configure.files()) CAISSON_TRY(place(file.path(), file.content(), file.mode()));
    if (!configure.machine_id().empty()) CAISSON_TRY(place("/etc/machine-id", configure.machine_id() + "\n", 0));
    for (std::size_t i = 0; i < std::size(kUsualFiles); ++i)
        if (!usual_given[i]) unwanted.push_back(kUsualFiles[i]);
    for (std::size_t i = 0; i < more.size(); ++i) more[i].tree = &stage_.slots[std::size(kUsualFiles) + i].tree;

    auto shares = CAISSON_TRY(take_disks(configure.disks(), volume_disks_));
    MountPlan opened;
    if (configure.privileged()) {
        CAISSON_TRY(stage_.cgroup.allow_every_device());
        auto hidden = volume_disks_;
        hidden.insert(disk_);
        hidden.insert(find_disk(wire::kShareWindowSerial));
        opened = CAISSON_TRY(device_nodes(kDevices, hidden));
        for (auto& step : uncovered_mounts()) opened.push_back(std::move(step));
    }

    for (auto& share : CAISSON_TRY(take_shares(configure.shares()))) shares.push_back(std::move(share));
    image_covered_ = !wanted.empty() || !more.empty() || !shares.empty();
    bool read_only = configure.root().read_only();
    if (grown == 0 && wanted.empty() && more.empty() && shares.empty() && unwanted.empty() && opened.empty() && !read_only) return {};
    // Nothing of the image's has been executed yet, so nobody can change a path under the agent's hands.
    auto visit = CAISSON_TRY(Visit::to(stage_));
    if (grown != 0) CAISSON_TRY(grow_disk(grown));
    // A read-only disk may have lacked the file, so that nothing is mounted there.
    for (const char* path : unwanted)
        if (::umount2(path, MNT_DETACH) != 0 && errno != EINVAL && errno != ENOENT)
            return failure_errno(std::string("cannot uncover ") + path);
    CAISSON_TRY(apply(opened));
    CAISSON_TRY(apply(wanted));
    CAISSON_TRY(place_shares(std::move(shares)));
    for (const auto& file : more) CAISSON_TRY(bind_file(file));
    if (read_only && ::mount(nullptr, "/", nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOATIME, nullptr) != 0)
        return failure_errno("cannot make the root directory read-only");
    return {};
}

void Container::warm(const google::protobuf::RepeatedPtrField<std::string>& paths) const {
    auto visit = Visit::to(stage_);
    if (!visit) return;
    std::size_t left = kMaxWarmBytes;
    std::vector<std::uint8_t> buffer(128 * 1024);
    for (const auto& path : paths) {
        // A command's name is looked for along PATH: the directories on the way, and that it is not in them.
        for (const auto& candidate : program_candidates(path, nullptr)) {
            auto file = os::open_file(candidate, O_RDONLY | O_NONBLOCK | O_NOCTTY);
            struct stat info {};
            if (!file || ::fstat(file->get(), &info) != 0 || !S_ISREG(info.st_mode)) continue;
            ssize_t got = 0;
            while (left > 0 && (got = ::read(file->get(), buffer.data(), std::min(left, buffer.size()))) > 0)
                left -= static_cast<std::size_t>(got);
            break;
        }
    }
}

Result<> Container::sync() const {
    auto visit = CAISSON_TRY(Visit::to(stage_));
    auto root = CAISSON_TRY(os::open_file("/", O_RDONLY | O_DIRECTORY));
    if (::syncfs(root.get()) != 0) return failure_errno("cannot write to the root disk");
    return {};
}

Container::~Container() { kill(); }

Result<> Container::enter() const {
    if (::setns(init_.pidfd.get(), CLONE_NEWNS | CLONE_NEWCGROUP) != 0)
        return failure_errno("cannot enter the container");
    return {};
}

Result<Container::Terminal> Container::open_terminal() const {
    Terminal terminal;
    terminal.master = CAISSON_TRY(os::open_at(stage_.terminals, "ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK));
    int unlocked = 0;
    if (::ioctl(terminal.master.get(), TIOCSPTLCK, &unlocked) != 0) return failure_errno("cannot unlock a terminal");
    int slave = ::ioctl(terminal.master.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0) return failure_errno("cannot open a terminal");
    terminal.slave = os::Fd(slave);
    return terminal;
}

Result<> Container::signal_all(int signal) const {
    siginfo_t info{};
    info.si_signo = SIGUSR1;
    info.si_code = SI_QUEUE;
    info.si_value.sival_int = signal;
    if (::syscall(SYS_pidfd_send_signal, init_.pidfd.get(), SIGUSR1, &info, 0) != 0)
        return failure_errno("cannot signal the container");
    return {};
}

void Container::kill() {
    if (killed_) return;
    killed_ = true;
    // The kernel kills the whole pid namespace with its first process.
    ::syscall(SYS_pidfd_send_signal, init_.pidfd.get(), SIGKILL, nullptr, 0);
}

Result<> Container::unmount(std::chrono::milliseconds deadline) {
    kill();
    // The init's exit waits for every other process of the namespace, the agent's unreaped children included.
    pollfd entry{init_.pidfd.get(), POLLIN, 0};
    auto end = Clock::now() + deadline;
    for (;;) {
        while (::waitpid(-1, nullptr, WNOHANG) > 0) {
        }
        if (::poll(&entry, 1, 10) > 0) break;
        if (Clock::now() >= end) return failure(Errc::kTimeout, "the container's processes do not end");
    }
    ::waitpid(-1, nullptr, WNOHANG);
    // With its last process and these the container's mount namespace ends, and with that the last use of the disk.
    stage_.terminals.reset();
    stage_.null.reset();
    stage_.container_mounts.reset();
    shares_.stop();
    Result<> first = check_let_go(disk_);
    for (const auto& device : volume_disks_)
        if (auto let_go = check_let_go(device); !let_go && first) first = std::move(let_go);
    if (!first) ::sync();
    return first;
}

// Nothing has it mounted any more, so that all is written.
Result<> Container::check_let_go(const std::string& device) const {
    if (os::open_file(std::string(kDevices) + "/" + device, O_RDONLY | O_EXCL)) return {};
    return failure_errno(device == disk_ ? std::string("the root disk is still in use") : "the disk " + device + " of a volume is still in use", EBUSY);
}

}  // namespace caisson::agent
