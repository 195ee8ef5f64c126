// Whoever owns QEMU owns nothing more: payload.cc runs in QEMU's place, inside the very jail that vmm_jail() describes,
// with a template, an overlay and a base disk that belong to the same user as the payload.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <map>
#include <set>

#include "place.h"

#include "base/text.h"
#include "os/file.h"
#include "os/user.h"
#include "vmm/machine.h"

namespace caisson::vmm {
namespace {

using testing::AnyOf;
using testing::Eq;

constexpr std::size_t kFileBytes = 4 << 20;

using attack::Place;

// Of the host, and out of reach: a TCP listener, a listener with an abstract name, a shared memory segment.
class HostThings {
  public:
    HostThings() : abstract_("caisson-attack-" + std::to_string(::getpid())) {
        tcp_ = os::Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        EXPECT_EQ(::bind(tcp_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
        EXPECT_EQ(::listen(tcp_.get(), 8), 0);
        socklen_t length = sizeof address;
        EXPECT_EQ(::getsockname(tcp_.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
        port_ = ntohs(address.sin_port);
        unix_ = os::Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
        sockaddr_un name{};
        name.sun_family = AF_UNIX;
        abstract_.copy(name.sun_path + 1, sizeof name.sun_path - 1);
        length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + abstract_.size());
        EXPECT_EQ(::bind(unix_.get(), reinterpret_cast<sockaddr*>(&name), length), 0);
        EXPECT_EQ(::listen(unix_.get(), 8), 0);
        segment_ = ::shmget(key(), 4096, IPC_CREAT | 0666);
        EXPECT_GE(segment_, 0);
    }
    ~HostThings() { ::shmctl(segment_, IPC_RMID, nullptr); }
    static int key() { return 0x0ca15507 + static_cast<int>(::getpid()); }
    std::string arguments(const std::string& file) const {
        return std::to_string(port_) + " " + abstract_ + " " + std::to_string(key()) + " " + file + "\n";
    }

  private:
    std::string abstract_;
    os::Fd tcp_, unix_;
    int port_ = 0;
    int segment_ = -1;
};

class Attack : public testing::Test {
  protected:
    // One run serves all tests: the payload does everything in one go.
    static void SetUpTestSuite() {
        place_ = new Place;
        content_ = std::string(kFileBytes, 'o');
        auto program = os::read_file(CAISSON_ATTACK_PAYLOAD, 64 << 20).value();
        for (const char* name : {"root", "root/usr", "root/usr/bin", "root/template", "root/box", "root/disk", "root/run",
                                 "template", "boxes"})
            place_->directory(name);
        place_->file("root" + std::string(kQemuPath), program, 0755);
        place_->file("template/mem", content_, 0444);
        place_->file("template/state", content_, 0444);
        auto base = place_->file("base.ext4", content_, 0444);
        auto overlay = place_->file("boxes/disk.qcow2", content_, 0600);
        auto secret = place_->file("secret", "of the host", 0644);
        place_->file("outside", "", 0644);

        MachinePlan plan;
        plan.start = MachinePlan::Start::kRestore;
        plan.template_directory = place_->path() + "/template";
        plan.disk = Disk{overlay, base, kFileBytes};
        Assets assets;
        assets.vmm_root = place_->path() + "/root";
        auto description = vmm_jail(plan, assets);
        // What the namespaces refuse by themselves: no filter, and no Landlock, stands before them here.
        ASSERT_TRUE(description.filter.has_value());
        description.filter.reset();

        HostThings host;
        auto output = os::make_pipe().value();
        auto control = os::make_socketpair(SOCK_STREAM).value();
        description.descriptors = {{output.second.get(), 1}, {output.second.get(), 2}, {control.second.get(), 3},
                                   {control.second.get(), 4}, {control.second.get(), 5}};
        // What an embedding application may have left open, without close-on-exec.
        os::Fd leaked(::open((place_->path() + "/outside").c_str(), O_RDWR));
        ASSERT_EQ(::dup2(leaked.get(), 77), 77);
        ASSERT_EQ(::dup2(leaked.get(), 200), 200);
        ::setenv("CAISSON_ATTACK_SECRET", "secret", 1);
        auto process = os::spawn(jail::command(description).value());
        ASSERT_TRUE(process.has_value()) << process.error().to_string();
        ::close(77);
        ::close(200);
        status_ = os::read_file("/proc/" + std::to_string(process->pid()) + "/status", 1 << 16).value();
        ASSERT_TRUE(os::write_all(control.first.get(), host.arguments(secret)).has_value());
        output.second.reset();
        auto text = os::read_fd(output.first.get(), 1 << 20, "the payload's report").value();
        auto ended = process->wait(std::chrono::seconds(30));
        for (const auto& line : base::split(text, '\n')) {
            auto space = line.find(' ');
            if (space != std::string::npos) results_[line.substr(0, space)] = line.substr(space + 1);
        }
        ASSERT_EQ(results_["end"], "reached") << text << (ended ? "" : ended.error().to_string());
    }
    static void TearDownTestSuite() { delete place_; }

    static std::string result(const std::string& name) {
        auto found = results_.find(name);
        return found == results_.end() ? "(not tried)" : found->second;
    }
    template <typename Matcher>
    static void expect(const std::string& name, Matcher matcher) {
        EXPECT_THAT(result(name), matcher) << "attempt: " << name;
    }

    static inline Place* place_ = nullptr;
    static inline std::string content_;
    static inline std::string status_;  // of the jail's outermost process, as the host sees it
    static inline std::map<std::string, std::string> results_;
};

TEST_F(Attack, TheControlsShowThatTheAttemptsAreReal) {
    for (const std::string path : {"/template/mem", "/template/state", "/disk/base.ext4"}) {
        expect("read:" + path, Eq("ok"));
        expect("mmap_shared_read:" + path, Eq("ok"));
        expect("mmap_private_write:" + path, Eq("ok"));
    }
    expect("overlay_write", Eq("ok"));
    EXPECT_EQ(os::read_file(place_->path() + "/boxes/disk.qcow2", kFileBytes).value().substr(0, 5), "mineo");
}

class AttackOn : public Attack, public testing::WithParamInterface<const char*> {};

TEST_P(AttackOn, CannotBeChangedByPath) {
    const std::string path = GetParam();
    for (const char* name : {"open_rdwr", "open_wronly", "open_trunc", "open_append", "truncate", "chmod", "chmod_open",
                             "chown", "utimes", "setxattr"})
        expect(std::string(name) + ":" + path, AnyOf("EROFS", "EACCES", "EPERM"));
    for (const char* name : {"unlink", "rename", "replace"})
        expect(std::string(name) + ":" + path, AnyOf("EROFS", "EBUSY", "EXDEV", "EACCES"));
    expect("link:" + path, AnyOf("EROFS", "EXDEV", "EPERM"));
    expect("mount_over:" + path, Eq("EPERM"));
}

TEST_P(AttackOn, CannotBeChangedThroughADescriptor) {
    const std::string path = GetParam();
    for (const char* name : {"write_fd", "pwrite_fd", "punch_hole", "fallocate", "setfl"})
        expect(std::string(name) + ":" + path, Eq("EBADF"));
    expect("ftruncate:" + path, AnyOf("EINVAL", "EBADF"));
    expect("fchmod:" + path, AnyOf("EROFS", "EPERM"));
    expect("reopen_proc:" + path, Eq("ENOENT"));
    expect("reopen_dev:" + path, Eq("ENOENT"));
    expect("reopen_empty:" + path, Eq("ENOENT"));
    expect("link_empty:" + path, AnyOf("ENOENT", "EXDEV", "EPERM", "EROFS"));
    expect("reopen_handle:" + path, AnyOf("EPERM", "EROFS", "EOPNOTSUPP", "EACCES"));
}

TEST_P(AttackOn, CannotBeChangedThroughMemory) {
    const std::string path = GetParam();
    expect("mmap_shared_write:" + path, Eq("EACCES"));
    expect("mprotect_shared:" + path, Eq("EACCES"));
    expect("madv_remove_shared:" + path, AnyOf("EACCES", "EINVAL"));
    expect("madv_remove_private:" + path, AnyOf("EACCES", "EINVAL"));
    expect("private_came_back:" + path, Eq("ENODATA"));
}

INSTANTIATE_TEST_SUITE_P(ReadOnlyFiles, AttackOn, testing::Values("/template/mem", "/template/state", "/disk/base.ext4"));

TEST_F(Attack, TheFilesAreAsTheyWere) {
    for (const char* name : {"template/mem", "template/state", "base.ext4"}) {
        const std::string path = place_->path() + "/" + name;
        EXPECT_EQ(os::read_file(path, kFileBytes).value(), content_) << name;
        struct stat info {};
        ASSERT_EQ(::stat(path.c_str(), &info), 0);
        EXPECT_EQ(info.st_mode & 07777, 0444U) << name;
        EXPECT_EQ(info.st_nlink, 1U) << name;
        EXPECT_EQ(static_cast<std::uint64_t>(info.st_blocks) * 512, kFileBytes) << name << " has a hole";
    }
    EXPECT_EQ(os::list_directory(place_->path() + "/template").value().size(), 2U);
}

TEST_F(Attack, NothingOfTheHostsFilesExists) {
    expect("host_file", Eq("ENOENT"));
    expect("climb", Eq("ENOENT"));
    for (const char* path : {"/etc/passwd", "/home", "/root", "/var", "/proc", "/sys", "/dev", "/tmp", "/../etc/passwd",
                             "/dev/kvm", "/dev/null", "/dev/mem", "/var/lib/caisson"})
        expect(std::string("see:") + path, Eq("ENOENT"));
    std::set<std::string> names;
    for (const auto& name : base::split(result("root_directory"), ','))
        if (!name.empty()) names.insert(name);
    EXPECT_EQ(names, (std::set<std::string>{"usr", "template", "box", "disk", "run"}));
    for (const char* path : {"/new", "/usr/bin/new", "/template/new", "/box/new", "/disk/new"}) expect(std::string("create:") + path, Eq("EROFS"));
    expect("overwrite_program", AnyOf("EROFS", "ETXTBSY", "EACCES"));
}

TEST_F(Attack, NoNetworkButAnEmptyOne) {
    expect("connect_host_loopback", AnyOf("ECONNREFUSED", "ENETUNREACH"));
    expect("connect_outside", Eq("ENETUNREACH"));
    expect("connect_abstract", Eq("ECONNREFUSED"));
    expect("packet_socket", Eq("EPERM"));
    expect("raw_socket", Eq("EPERM"));
    expect("interfaces", Eq("lo,"));
    expect("host_shm", Eq("ENOENT"));
    expect("hostname", Eq("caisson-jail"));
}

TEST_F(Attack, NoPrivilegeAndNoWayToOne) {
    expect("capabilities", Eq("0000000000000000 0000000000000000 0000000000000000"));
    expect("bounding", Eq("0"));
    expect("no_new_privs", Eq("1"));
    EXPECT_NE(result("uid"), "0");
    for (const char* name : {"capset", "setuid", "setgid", "setgroups", "mount", "remount_template", "umount_template",
                             "chroot", "pivot_root", "sethostname", "settime", "iopl", "ioperm", "reboot", "swapon",
                             "init_module", "kexec", "raise_limits"})
        expect(name, AnyOf("EPERM", "EINVAL", "ENOSYS"));
    for (const char* name : {"mknod_null", "mknod_disk"}) expect(name, AnyOf("EPERM", "EROFS"));
    for (const char* name : {"perf_of_all", "bpf_kprobe", "setpriority", "syslog"})
        expect(name, AnyOf("EPERM", "EACCES", "EINVAL", "ENOSYS"));
    expect("setns_self", AnyOf("EBADF", "EPERM"));
    expect("core_limit", Eq("0"));
}

TEST_F(Attack, IsNeverRootOnTheHost) {
    // Whatever the jail's own id is: what escapes it has the id of its outermost process.
    for (const char* name : {"\nUid:\t0", "\nGid:\t0"}) EXPECT_EQ(status_.find(name), std::string::npos) << status_;
    if (::geteuid() == 0) {
        EXPECT_NE(status_.find("\nGroups:\t \n"), std::string::npos) << status_;
    }
}

TEST_F(Attack, NoOtherProcess) {
    // At most bwrap's reaper, process 1 of the jail. It may be traced: it lives in the same jail with as few privileges,
    // so that nothing is gained. The outer bwrap is out of sight.
    expect("parent", AnyOf("0", "1"));
    expect("kill_all", Eq("ESRCH"));
    expect("other_processes", Eq("0"));
    expect("ptrace_parent", AnyOf("EPERM", "ESRCH", "ok"));
    expect("read_parent", AnyOf("EPERM", "ESRCH", "EFAULT", "ok"));
}

TEST_F(Attack, NothingIsInherited) {
    expect("descriptors", Eq("0,1,2,3,4,5,"));
    expect("environment", AnyOf("", "PWD=/,"));
}

TEST_F(Attack, NoUserNamespaceAndItWouldGainNothing) {
    if (jail::can_forbid_user_namespaces(jail::find_bwrap().value())) {
        expect("unshare_user", AnyOf("ENOSPC", "EPERM"));
    } else {
        RecordProperty("unshare_user", result("unshare_user"));  // bubblewrap is too old to forbid it
    }
    for (const char* name : {"userns_remount_template", "userns_remount_root", "userns_remount_disk",
                             "userns_umount_template", "userns_umount_root"})
        expect(name, AnyOf("EPERM", "EINVAL", "EBUSY"));
    expect("userns_mknod", AnyOf("EPERM", "EROFS"));
    expect("userns_open_template", AnyOf("EROFS", "EACCES"));
    if (result("userns_clone_tree") == "ok") expect("userns_clone_write", AnyOf("EROFS", "EACCES"));
    expect("userns_setattr", AnyOf("EPERM", "EINVAL", "EBADF"));
}

}  // namespace
}  // namespace caisson::vmm
