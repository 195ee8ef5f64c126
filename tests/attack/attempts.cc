// What a taken-over process may try; see attempts.h.
#include "attempts.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/keyctl.h>
#include <linux/netlink.h>
#include <linux/perf_event.h>
#include <linux/rtnetlink.h>
#include <linux/sched.h>
#include <linux/vm_sockets.h>
#include <mqueue.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include <initializer_list>
#include <string>
#include <string_view>

namespace caisson::attack {

namespace {

// What the host has prepared for the attempts. Paths are the host's unless said otherwise.
struct Target {
    const char* only = nullptr;
    const char* file = "/none";      // readable for everybody
    const char* home = "/none";      // a home of caisson; the database, another box and a secret are below it
    const char* socket = "/none";    // something listens there
    const char* abstract = "none";   // and under this abstract name
    const char* port = "1";          // and on this TCP port of 127.0.0.1
    const char* victim = "1";        // pid of a process of the same user
    const char* shm = "0";           // key of a shared memory segment
    const char* queue = "/none";     // name of a POSIX message queue
    const char* listed = "0,1,2,";   // the descriptors that the description lists
    const char* shared = "";         // inside the jail: a file that it shows read-only, and that others use
    const char* writable = "";       // inside the jail: a file or a directory that it may write to; @N: descriptor N
    // Descriptors of three detached mounts, if it has them: a volume for reading, one for writing, and a single file. The
    // first two hold a file f, a directory d, a program "program" and a link "link" to the home.
    const char* kept = "-1";
    const char* own = "-1";
    const char* single = "-1";
};
Target target;

int refused(int number) {
    errno = number;
    return -1;
}

// The one answer of several attempts: 0 if any succeeded. EXFULL: they were refused in different ways.
class Together {
  public:
    void add(long result) { note(result >= 0 ? 0 : errno); }
    // In a child of its own, for a filter may kill at it; the others are to be tried as well.
    template <typename Call>
    void apart(Call call) {
        if (target.only != nullptr) return add(call());
        pid_t child = fork();
        if (child == 0) _exit(call() >= 0 ? 0 : errno);
        int status = 0;
        if (child < 0 || waitpid(child, &status, 0) < 0) return note(errno);
        note(WIFSIGNALED(status) ? kSignal + WTERMSIG(status) : WEXITSTATUS(status));
    }
    long answer() const {
        if (succeeded_) return 0;
        if (!mixed_ && error_ > kSignal) raise(error_ - kSignal);
        return refused(mixed_ ? EXFULL : error_);
    }

  private:
    static constexpr int kSignal = 1000;
    void note(int result) {
        if (result == 0) succeeded_ = true;
        else if (error_ != 0 && error_ != result) mixed_ = true;
        else error_ = result;
    }
    bool succeeded_ = false;
    bool mixed_ = false;
    int error_ = 0;
};

long number_of(const char* text) { return strtol(text, nullptr, 10); }

long open_below(const char* parent, const char* name) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", parent, name);
    return open(path, O_RDONLY);
}

// ---- files

long host_file() { return open(target.file, O_RDONLY); }
long host_write() { return open(target.file, O_WRONLY); }
long host_remove() { return unlinkat(AT_FDCWD, target.file, 0); }
long shadow() { return open("/etc/shadow", O_RDONLY); }
long passwd() { return open("/etc/passwd", O_RDONLY); }
long home() { return open(target.home, O_RDONLY | O_DIRECTORY); }
long database() { return open_below(target.home, "caisson.db"); }
long other_box() { return open_below(target.home, "boxes/other/disk.qcow2"); }
long other_socket() { return open_below(target.home, "boxes/other/socket"); }
long secret() { return open_below(target.home, "secret"); }
long climb() {
    std::string path;
    for (int i = 0; i < 40; ++i) path += "../";
    path += "etc/shadow";
    return open(path.c_str(), O_RDONLY);
}
long leave_root_directory() {
    // The classic way out of a chroot(2): a new root below, while a descriptor of the old one is held.
    int here = open("/", O_RDONLY | O_DIRECTORY);
    if (chroot("/") != 0) return -1;
    return fchdir(here);
}
long create_file() { return open("/new", O_WRONLY | O_CREAT | O_EXCL, 0600); }
long make_device() { return mknod("/device", S_IFBLK | 0600, makedev(8, 0)); }
long devices() {
    Together all;
    for (const char* path : {"/dev/mem", "/dev/kvm", "/dev/net/tun", "/dev/fuse", "/dev/vhost-net", "/dev/tty", "/dev/sda", "/dev/vda"})
        all.add(open(path, O_RDONLY));
    return all.answer();
}
long proc() {
    Together all;
    char path[64];
    snprintf(path, sizeof path, "/proc/%s/root", target.victim);
    all.add(open(path, O_RDONLY));
    for (const char* each : {"/proc/self/status", "/proc/1/root", "/proc/sys/kernel/core_pattern", "/proc/kcore", "/proc/sysrq-trigger"})
        all.add(open(each, O_RDONLY));
    return all.answer();
}
long sys() { return open("/sys/kernel", O_RDONLY); }

// ---- descriptors

long inherited_descriptor() {
    for (int fd = 0; fd < 1024; ++fd) {
        if (fcntl(fd, F_GETFD) < 0) continue;
        char number[16];
        snprintf(number, sizeof number, ",%d,", fd);
        char listed[256];
        snprintf(listed, sizeof listed, ",%s", target.listed);
        if (strstr(listed, number) == nullptr) return fd;
    }
    return refused(EBADF);
}
long reopen_descriptor() {
    Together all;
    for (int fd = 0; fd < 8; ++fd) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        all.add(open(path, O_RDWR));
        snprintf(path, sizeof path, "/dev/fd/%d", fd);
        all.add(open(path, O_RDWR));
    }
    return all.answer();
}
long directory_descriptor() {
    for (int fd = 0; fd < 8; ++fd) {
        struct stat here {}, above {};
        const int up = openat(fd, "..", O_RDONLY | O_DIRECTORY);
        // A root is above itself.
        if (up >= 0 && (fstat(fd, &here) != 0 || fstat(up, &above) != 0 || here.st_ino != above.st_ino || here.st_dev != above.st_dev)) return 0;
    }
    return refused(ENOTDIR);
}
long by_handle() {
    // A file system's root often has the number 2, and handles of many file systems begin with the number.
    constexpr unsigned kBytes = 8;
    alignas(file_handle) char room[sizeof(file_handle) + kBytes] = {};
    auto* handle = reinterpret_cast<file_handle*>(room);
    handle->handle_bytes = kBytes;
    handle->handle_type = 1;
    room[sizeof *handle] = 2;
    return open_by_handle_at(open("/", O_RDONLY | O_DIRECTORY), handle, O_RDONLY);
}

// ---- sockets

long loopback() {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(number_of(target.port)));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return fd < 0 ? -1 : connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address);
}
long outside() {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(9);
    inet_pton(AF_INET, "192.0.2.1", &address.sin_addr);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);  // connecting it sends nothing
    return fd < 0 ? -1 : connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address);
}
long connect_unix(const char* name, bool abstract) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    strncpy(address.sun_path + (abstract ? 1 : 0), name, sizeof address.sun_path - 2);
    auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + strlen(name) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    return fd < 0 ? -1 : connect(fd, reinterpret_cast<sockaddr*>(&address), length);
}
long abstract_socket() { return connect_unix(target.abstract, true); }
long path_socket() { return connect_unix(target.socket, false); }
long netlink_change() {
    struct {
        nlmsghdr header;
        ifinfomsg link;
    } request{};
    request.header.nlmsg_len = sizeof request;
    request.header.nlmsg_type = RTM_NEWLINK;
    request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    request.link.ifi_index = 1;
    request.link.ifi_change = IFF_UP;  // loopback goes down
    int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    if (fd < 0 || send(fd, &request, sizeof request, 0) < 0) return -1;
    struct {
        nlmsghdr header;
        nlmsgerr error;
        char rest[512];
    } answer{};
    if (recv(fd, &answer, sizeof answer, 0) < 0) return -1;
    return answer.error.error == 0 ? 0 : refused(-answer.error.error);
}
long raw_socket() { return socket(AF_INET, SOCK_RAW, IPPROTO_ICMP); }
long packet_socket() { return socket(AF_PACKET, SOCK_RAW, 0); }
long vsock() { return socket(AF_VSOCK, SOCK_STREAM, 0); }

// ---- other processes

pid_t victim() { return static_cast<pid_t>(number_of(target.victim)); }
long kill_other() { return kill(victim(), SIGKILL); }
long pidfd_other() { return syscall(SYS_pidfd_open, victim(), 0); }
long ptrace_other() { return ptrace(PTRACE_ATTACH, victim(), nullptr, nullptr); }
long read_other() {
    char byte = 0;
    iovec local{&byte, 1};
    iovec remote{&byte, 1};
    return process_vm_readv(victim(), &local, 1, &remote, 1, 0);
}
long slow_other() { return setpriority(PRIO_PROCESS, static_cast<id_t>(victim()), 19); }
long shared_memory() { return shmget(static_cast<key_t>(number_of(target.shm)), 4096, 0); }
long message_queue() { return mq_open(target.queue, O_RDONLY); }
long push_input() {
    Together all;
    char byte = 'x';
    for (int fd = 0; fd < 3; ++fd)
        all.apart([&] { return ioctl(fd, TIOCSTI, &byte); });
    return all.answer();
}

// ---- namespaces and mounts

constexpr unsigned long kNamespaces[] = {CLONE_NEWNS,   CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWIPC,
                                         CLONE_NEWUTS, CLONE_NEWCGROUP, CLONE_NEWTIME};
long clone3_with(unsigned long flags) {
    clone_args arguments{};
    arguments.flags = flags;
    arguments.exit_signal = SIGCHLD;
    long pid = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (pid == 0) _exit(0);
    return pid;
}
long unshare_user() { return unshare(CLONE_NEWUSER); }
long unshare_others() {
    Together all;
    for (auto flag : kNamespaces) all.apart([flag] { return unshare(static_cast<int>(flag)); });
    return all.answer();
}
long clone3_user() { return clone3_with(CLONE_NEWUSER); }
long clone3_others() {
    Together all;
    for (auto flag : kNamespaces) all.add(clone3_with(flag));
    return all.answer();
}
long clone_user() {
    long pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, nullptr, nullptr, nullptr, nullptr);
    if (pid == 0) _exit(0);
    return pid;
}
long enter_namespace() {
    // pidfd_open(2) is an attempt of its own; clone(2) gives one as well. The child lives until its pipe ends.
    int ends[2];
    if (pipe(ends) != 0) return -1;
    int child = -1;
    long pid = syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, nullptr, &child, nullptr, nullptr);
    if (pid == 0) {
        close(ends[1]);
        char byte = 0;
        _exit(read(ends[0], &byte, 1) < 0 ? 1 : 0);
    }
    return pid < 0 ? -1 : setns(child, CLONE_NEWNET | CLONE_NEWNS);
}
long mount_tmpfs() { return mount("tmpfs", "/", "tmpfs", 0, nullptr); }
long mount_again() { return mount(nullptr, "/", nullptr, MS_REMOUNT | MS_BIND, nullptr); }
long unmount_root() { return umount2("/", MNT_DETACH); }
long pivot_root() { return syscall(SYS_pivot_root, "/", "/"); }
long new_mount_calls() {
    Together all;
    all.apart([] { return syscall(428 /* open_tree */, AT_FDCWD, "/", 1 /* OPEN_TREE_CLONE */); });
    all.apart([] { return syscall(430 /* fsopen */, "tmpfs", 0); });
    return all.answer();
}

// ---- the kernel

long load_bpf(unsigned type) {
    bpf_attr program{};
    bpf_insn instructions[2] = {{BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0}, {BPF_JMP | BPF_EXIT, 0, 0, 0, 0}};
    program.prog_type = type;
    program.insns = reinterpret_cast<unsigned long long>(instructions);
    program.insn_cnt = 2;
    program.license = reinterpret_cast<unsigned long long>("GPL");
    return syscall(SYS_bpf, BPF_PROG_LOAD, &program, sizeof program);
}
long bpf() {
    Together all;
    for (unsigned type : {BPF_PROG_TYPE_KPROBE, BPF_PROG_TYPE_CGROUP_DEVICE}) all.apart([type] { return load_bpf(type); });
    return all.answer();
}
long perf() {
    perf_event_attr event{};
    event.size = sizeof event;
    event.type = PERF_TYPE_SOFTWARE;
    return syscall(SYS_perf_event_open, &event, -1, 0, -1, 0);
}
long userfaultfd() { return syscall(SYS_userfaultfd, O_CLOEXEC); }
long io_uring() {
    io_uring_params parameters{};
    return syscall(SYS_io_uring_setup, 4, &parameters);
}
long keyring() { return syscall(SYS_add_key, "user", "caisson-attack", "x", 1, KEY_SPEC_PROCESS_KEYRING); }
long session_keys() { return syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_SESSION_KEYRING, "user", "caisson-attack-host", 0); }
long kexec() { return syscall(SYS_kexec_load, 0, 0, nullptr, 0); }
long modules() {
    Together all;
    all.apart([] { return syscall(SYS_init_module, "", 0, ""); });
    all.apart([] { return syscall(SYS_finit_module, 0, "", 0); });
    all.apart([] { return syscall(SYS_delete_module, "none", 0); });
    return all.answer();
}
long reboot_host() { return reboot(RB_AUTOBOOT); }
long swap() { return swapon("/none", 0); }
long set_clock() {
    timespec now{1, 0};
    return clock_settime(CLOCK_REALTIME, &now);
}
long set_host_name() { return sethostname("x", 1); }
long kernel_log() { return syscall(SYS_syslog, 5 /* clear */, nullptr, 0); }
#ifdef __x86_64__
long ports() { return iopl(3); }
#else
long ports() { return refused(EPERM); }
#endif

// ---- identity

long become_root() { return setresuid(0, 0, 0); }
long drop_groups() {
    gid_t root = 0;
    return syscall(SYS_setgroups, 1, &root);
}
long take_capability() {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2]{};
    data[0].effective = data[0].permitted = 1U << CAP_SYS_ADMIN;
    return syscall(SYS_capset, &header, data);
}
long more_files() {
    rlimit more{1 << 20, 1 << 20};
    rlimit now{};
    getrlimit(RLIMIT_NOFILE, &now);
    if (now.rlim_max >= more.rlim_max) more.rlim_cur = more.rlim_max = now.rlim_max + 1;
    return setrlimit(RLIMIT_NOFILE, &more);
}
long core_dumps() {
    rlimit core{1, 1};
    return setrlimit(RLIMIT_CORE, &core);
}
long first_in_line() { return setpriority(PRIO_PROCESS, 0, -20); }

// ---- a file that others use as well; only where the jail shows one

constexpr size_t kPages = 1 << 20;
long shared_write() { return open(target.shared, O_RDWR); }
long shared_truncate() { return truncate(target.shared, 0); }
long shared_mode() { return chmod(target.shared, 0666); }
long shared_reopen() {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", open(target.shared, O_RDONLY));
    return open(path, O_RDWR);
}
long shared_map() {
    void* map = mmap(nullptr, kPages, PROT_READ | PROT_WRITE, MAP_SHARED, open(target.shared, O_RDONLY), 0);
    return map == MAP_FAILED ? -1 : 0;
}
long shared_protect() {
    void* map = mmap(nullptr, kPages, PROT_READ, MAP_SHARED, open(target.shared, O_RDONLY), 0);
    return map == MAP_FAILED ? -1 : mprotect(map, kPages, PROT_READ | PROT_WRITE);
}
long shared_punch() { return fallocate(open(target.shared, O_RDONLY), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, kPages); }
long shared_remove() {
    void* map = mmap(nullptr, kPages, PROT_READ | PROT_WRITE, MAP_PRIVATE, open(target.shared, O_RDONLY), 0);
    return map == MAP_FAILED ? -1 : madvise(map, kPages, MADV_REMOVE);
}

// ---- volumes, for whoever serves them

int kept() { return static_cast<int>(number_of(target.kept)); }
int own() { return static_cast<int>(number_of(target.own)); }
int single() { return static_cast<int>(number_of(target.single)); }

std::string by_proc(int fd) { return "/proc/self/fd/" + std::to_string(fd); }

// Volumes lie in <home>/volumes/named/NAME.
long volume_climb() {
    Together all;
    for (const char* name : {"../other/f", "d/../../other/f", "../../../secret", "../../../caisson.db", "../../../boxes/other/disk.qcow2"})
        for (int fd : {kept(), own()}) {
            all.add(openat(fd, name, O_RDONLY));
            all.add(open((by_proc(fd) + "/" + name).c_str(), O_RDONLY));
        }
    return all.answer();
}
long volume_link() {
    Together all;
    all.add(openat(own(), "link/secret", O_RDONLY));
    if (symlinkat("../other", own(), "beside") != 0 && errno != EEXIST) return -1;
    all.add(openat(own(), "beside/f", O_RDONLY));
    return all.answer();
}
long volume_sibling() {
    Together all;
    for (const char* name : {"..", "../f", "f", "."}) {
        all.add(openat(single(), name, O_RDONLY));
        all.add(open((by_proc(single()) + "/" + name).c_str(), O_RDONLY));
    }
    return all.answer();
}
// Where on the host a volume lies, /proc may not tell.
long volume_place() {
    char text[4096];
    for (int fd : {kept(), own(), single()}) {
        const auto length = readlink(by_proc(fd).c_str(), text, sizeof text);
        if (length < 0) return -1;
        if (std::string_view(text, static_cast<size_t>(length)).find("volumes") != std::string_view::npos) return 0;
    }
    return refused(ENOENT);
}
// The right handle is that of a file beside the volume; its numbers can be guessed.
long volume_handle() {
    constexpr unsigned kBytes = 128;
    alignas(file_handle) char room[sizeof(file_handle) + kBytes] = {};
    auto* handle = reinterpret_cast<file_handle*>(room);
    handle->handle_bytes = kBytes;
    int mount = 0;
    if (name_to_handle_at(kept(), "f", handle, &mount, 0) != 0) return -1;
    return open_by_handle_at(openat(kept(), ".", O_RDONLY | O_DIRECTORY), handle, O_RDONLY);
}
long volume_mounted_again() {
    Together all;
    all.apart([] { return mount(nullptr, by_proc(kept()).c_str(), nullptr, MS_REMOUNT | MS_BIND, nullptr); });
    all.apart([] { return mount(by_proc(kept()).c_str(), "/", nullptr, MS_BIND, nullptr); });
    all.apart([] { return umount2(by_proc(kept()).c_str(), MNT_DETACH); });
    all.apart([] { return syscall(428 /* open_tree */, kept(), "", AT_EMPTY_PATH | 1 /* OPEN_TREE_CLONE */); });
    all.apart([] { return syscall(429 /* move_mount */, kept(), "", AT_FDCWD, "/", 4 /* MOVE_MOUNT_F_EMPTY_PATH */); });
    all.apart([] {
        const unsigned long attributes[4] = {0, 1 /* MOUNT_ATTR_RDONLY */, 0, 0};
        return syscall(442 /* mount_setattr */, kept(), "", AT_EMPTY_PATH, attributes, sizeof attributes);
    });
    return all.answer();
}
// Each way to change a file or a directory that does not need what the filter forbids anyway.
long volume_write() {
    Together all;
    const int reading = openat(kept(), "f", O_RDONLY);
    const auto file = by_proc(reading);
    const timespec times[2] = {{1, 0}, {1, 0}};
    all.add(openat(kept(), "f", O_WRONLY));
    all.add(openat(kept(), "f", O_RDONLY | O_TRUNC));
    all.add(open(file.c_str(), O_RDWR));
    all.add(openat(kept(), "new", O_WRONLY | O_CREAT | O_EXCL, 0600));
    all.add(openat(kept(), ".", O_TMPFILE | O_RDWR, 0600));
    all.add(truncate(file.c_str(), 0));
    all.add(mkdirat(kept(), "new", 0700));
    all.add(symlinkat("f", kept(), "new"));
    all.add(linkat(kept(), "f", kept(), "new", 0));
    all.add(unlinkat(kept(), "f", 0));
    all.add(unlinkat(kept(), "d", AT_REMOVEDIR));
    all.add(syscall(SYS_renameat2, kept(), "f", kept(), "new", 0));
    all.add(utimensat(kept(), "f", times, 0));
    all.add(futimens(reading, times));
    all.add(setxattr(file.c_str(), "user.caisson", "x", 1, 0));
    all.add(removexattr(file.c_str(), "user.caisson"));
    return all.answer();
}
long volume_write_contents() {
    Together all;
    const int reading = openat(kept(), "f", O_RDONLY);
    const int other = openat(own(), "f", O_RDONLY);
    all.add(write(reading, "x", 1));
    all.add(fallocate(reading, 0, 0, 4096));
    all.add(fallocate(reading, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
    all.add(copy_file_range(other, nullptr, reading, nullptr, 1, 0));
    return all.answer();
}
long volume_map() {
    void* map = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, openat(kept(), "f", O_RDONLY), 0);
    return map == MAP_FAILED ? -1 : 0;
}
// From one volume to the other: they are one file system on the host.
long volume_edge() {
    Together all;
    all.add(linkat(kept(), "f", own(), "linked", 0));
    all.add(linkat(AT_FDCWD, by_proc(single()).c_str(), own(), "linked", AT_SYMLINK_FOLLOW));
    all.add(syscall(SYS_renameat2, own(), "f", kept(), "moved", 0));
    return all.answer();
}
long volume_mode() {
    Together all;
    all.add(fchmodat(own(), "f", 0777, 0));
    all.add(fchmod(openat(own(), "f", O_RDONLY), 04755));
    return all.answer();
}
long volume_owner() { return fchownat(own(), "f", 12, 34, 0); }
long volume_new_set_user_id() {
    const int fd = openat(own(), "set-user-id", O_WRONLY | O_CREAT, 04755);
    struct stat status {};
    if (fd < 0 || fstat(fd, &status) != 0) return -1;
    return (status.st_mode & S_ISUID) != 0 ? 0 : refused(EPERM);
}
long volume_new_open_to_all() {
    Together all;
    all.add(openat(own(), "for-all", O_WRONLY | O_CREAT, 0666));
    all.add(openat(own(), ".", O_WRONLY | O_TMPFILE, 0666));
    all.add(mkdirat(own(), "all", 0777));
    return all.answer();
}
long volume_capability() {
    Together all;
    const auto file = by_proc(openat(own(), "f", O_RDONLY));
    // cap_setuid+ep, version 2 of the attribute.
    const unsigned char everything[20] = {1, 0, 0, 2, 0x80};
    all.add(setxattr(file.c_str(), "security.capability", everything, sizeof everything, 0));
    for (const char* name : {"trusted.overlay.opaque", "security.caisson"}) all.add(setxattr(file.c_str(), name, "y", 1, 0));
    return all.answer();
}
long volume_access_list() {
    // user::rw- group::rw- other::rw-: what it says of these three becomes the file's mode.
    const unsigned char open_to_all[] = {2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 4, 0, 6, 0, 255, 255, 255, 255, 32, 0, 6, 0, 255, 255, 255, 255};
    return setxattr(by_proc(openat(own(), "f", O_RDONLY)).c_str(), "system.posix_acl_access", open_to_all, sizeof open_to_all, 0);
}
long volume_device() { return mknodat(own(), "device", S_IFBLK | 0600, makedev(8, 0)); }
long volume_pipe() { return mknodat(own(), "pipe", S_IFIFO | 0600, 0); }
long volume_program() {
    Together all;
    for (int fd : {kept(), own()}) {
        const int program = openat(fd, "program", O_PATH);
        char name[] = "program";
        char nothing[] = "only=nothing";
        char* arguments[] = {name, nothing, nullptr};
        all.apart([&] { return execve(by_proc(program).c_str(), arguments, nullptr); });
    }
    return all.answer();
}
long volume_library() {
    void* map = mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, openat(own(), "program", O_RDONLY), 0);
    return map == MAP_FAILED ? -1 : 0;
}
// Its orders and its port; the test's own pipes are 1 and 2.
long volume_reopen() {
    Together all;
    for (int fd : {0, 3}) all.add(open(by_proc(fd).c_str(), O_RDWR));
    return all.answer();
}
// Its own /proc: what in there is the host's.
long volume_proc_of_others() {
    Together all;
    for (const char* part : {"root", "fd", "environ", "mem"}) all.add(open(("/proc/" + std::string(target.victim) + "/" + part).c_str(), O_RDONLY));
    return all.answer();
}
long volume_proc_settings() {
    for (const char* path : {"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger",
                             "/proc/kcore", "/proc/kmsg", "/proc/keys"})
        if (open(path, strncmp(path, "/proc/sys", 9) == 0 ? O_WRONLY : O_RDONLY) >= 0 && strcmp(path, "/proc/keys") != 0) return 0;
    return refused(EACCES);
}
long volume_proc_first() {
    Together all;
    for (const char* name : {"/proc/1/root/etc/passwd", "/proc/1/cwd/etc/passwd"}) all.add(open(name, O_RDONLY));
    return all.answer();
}

// ---- the network, for whoever is it

sockaddr_in any_port() {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}
long network_service() {
    const auto address = any_port();
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return -1;
    return listen(fd, 1);
}
long network_port() {
    const auto address = any_port();
    const int fd = socket(AF_INET, SOCK_DGRAM, 0);
    return fd < 0 ? -1 : bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
}
long network_protocols() {
    Together all;
    constexpr int kUdpLite = 136;
    constexpr int kMultipath = 262;
    for (int protocol : {static_cast<int>(IPPROTO_SCTP), kMultipath}) all.add(socket(AF_INET, SOCK_STREAM, protocol));
    all.add(socket(AF_INET, 6 /* SOCK_DCCP */, IPPROTO_DCCP));
    for (int protocol : {kUdpLite, static_cast<int>(IPPROTO_ICMP)}) all.add(socket(AF_INET, SOCK_DGRAM, protocol));
    all.add(socket(AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6));
    return all.answer();
}
// AF_INET6's, AF_INET's and AF_UNIX's neighbours, and netlink of other kinds than routes.
long network_families() {
    Together all;
    for (int kind : {NETLINK_ROUTE, NETLINK_NETFILTER, NETLINK_SOCK_DIAG, NETLINK_GENERIC}) all.add(socket(AF_NETLINK, SOCK_RAW, kind));
    for (int family : {AF_BLUETOOTH, AF_CAN, AF_TIPC, AF_ALG, AF_XDP, AF_SMC, AF_RDS, AF_PHONET})
        for (int type : {SOCK_STREAM, SOCK_SEQPACKET, SOCK_RAW}) all.add(socket(family, type, 0));
    int pair[2];
    all.add(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
    return all.answer();
}
long network_mark() {
    Together all;
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    const int value = 1;
    if (fd < 0) return 0;
    all.add(setsockopt(fd, SOL_SOCKET, SO_MARK, &value, sizeof value));
    all.add(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 2));
    all.add(setsockopt(fd, SOL_IP, IP_TRANSPARENT, &value, sizeof value));
    all.add(setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &value, sizeof value));
    return all.answer();
}
long network_program() {
    sock_filter instruction{BPF_RET | BPF_K, 0, 0, 0};
    const sock_fprog program{1, &instruction};
    const int fd = socket(AF_INET, SOCK_DGRAM, 0);
    return fd < 0 ? 0 : setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}
long network_held() {
    Together all;
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    strncpy(address.sun_path + 1, target.abstract, sizeof address.sun_path - 2);
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + strlen(target.abstract) + 1);
    for (int fd = 0; fd < 8; ++fd) {
        sockaddr_un own{};
        socklen_t own_length = sizeof own;
        if (getsockname(fd, reinterpret_cast<sockaddr*>(&own), &own_length) == 0 && own.sun_family == AF_UNIX)
            all.add(connect(fd, reinterpret_cast<const sockaddr*>(&address), length));
    }
    return all.answer();
}

// ---- using things up. "ok" says that nothing stopped it before it had what would hurt a small host.

long many_descriptors() {
    for (int i = 0; i < 100000; ++i)
        if (dup(1) < 0) return -1;
    return 0;
}
long much_address_space() {
    void* map = mmap(nullptr, 64UL << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return map == MAP_FAILED ? -1 : 0;
}
long large_file() {
    signal(SIGXFSZ, SIG_IGN);
    int fd = target.writable[0] == '@' ? static_cast<int>(number_of(target.writable + 1)) : open(target.writable, O_RDWR);
    if (fd < 0) {
        char path[256];
        snprintf(path, sizeof path, "%s/large", target.writable);
        fd = open(path, O_RDWR | O_CREAT, 0600);
    }
    return fd < 0 ? -1 : ftruncate(fd, 1L << 40);
}
long many_processes() {
    constexpr int kMany = 600;
    // A filter may forbid kill(2), so they wait for the end of a pipe whose only writer is this process.
    // Without a pipe they end at once, and are counted all the same.
    int ends[2] = {-1, -1};
    static_cast<void>(!pipe(ends));
    pid_t children[kMany];
    int made = 0;
    int why = 0;
    for (; made < kMany; ++made) {
        pid_t pid = fork();
        if (pid == 0) {
            close(ends[1]);
            char byte = 0;
            _exit(read(ends[0], &byte, 1) < 0 ? 1 : 0);
        }
        if (pid < 0) {
            why = errno;
            break;
        }
        children[made] = pid;
    }
    close(ends[1]);
    for (int i = 0; i < made; ++i) waitpid(children[i], nullptr, 0);
    return made == kMany ? 0 : refused(why);
}

constexpr Attempt kAttempts[] = {
#define ATTEMPT(name) {#name, name}
    ATTEMPT(host_file), ATTEMPT(host_write), ATTEMPT(host_remove), ATTEMPT(shadow), ATTEMPT(passwd), ATTEMPT(home), ATTEMPT(database), ATTEMPT(other_box),
    ATTEMPT(other_socket), ATTEMPT(secret), ATTEMPT(climb), ATTEMPT(leave_root_directory), ATTEMPT(create_file),
    ATTEMPT(make_device), ATTEMPT(devices), ATTEMPT(proc), ATTEMPT(sys),
    ATTEMPT(inherited_descriptor), ATTEMPT(reopen_descriptor), ATTEMPT(directory_descriptor), ATTEMPT(by_handle),
    ATTEMPT(loopback), ATTEMPT(outside), ATTEMPT(abstract_socket), ATTEMPT(path_socket), ATTEMPT(netlink_change),
    ATTEMPT(raw_socket), ATTEMPT(packet_socket), ATTEMPT(vsock),
    ATTEMPT(kill_other), ATTEMPT(pidfd_other), ATTEMPT(ptrace_other), ATTEMPT(read_other), ATTEMPT(slow_other),
    ATTEMPT(shared_memory), ATTEMPT(message_queue), ATTEMPT(push_input),
    ATTEMPT(unshare_user), ATTEMPT(unshare_others), ATTEMPT(clone_user), ATTEMPT(clone3_user), ATTEMPT(clone3_others),
    ATTEMPT(enter_namespace), ATTEMPT(mount_tmpfs), ATTEMPT(mount_again), ATTEMPT(unmount_root), ATTEMPT(pivot_root),
    ATTEMPT(new_mount_calls),
    ATTEMPT(bpf), ATTEMPT(perf), ATTEMPT(userfaultfd), ATTEMPT(io_uring), ATTEMPT(keyring), ATTEMPT(session_keys),
    ATTEMPT(kexec), ATTEMPT(modules), ATTEMPT(reboot_host), ATTEMPT(swap), ATTEMPT(set_clock), ATTEMPT(set_host_name),
    ATTEMPT(kernel_log), ATTEMPT(ports),
    ATTEMPT(become_root), ATTEMPT(drop_groups), ATTEMPT(take_capability), ATTEMPT(more_files), ATTEMPT(core_dumps),
    ATTEMPT(first_in_line),
    ATTEMPT(shared_write), ATTEMPT(shared_truncate), ATTEMPT(shared_mode), ATTEMPT(shared_reopen), ATTEMPT(shared_map),
    ATTEMPT(shared_protect), ATTEMPT(shared_punch), ATTEMPT(shared_remove),
    ATTEMPT(volume_climb), ATTEMPT(volume_link), ATTEMPT(volume_sibling), ATTEMPT(volume_place), ATTEMPT(volume_handle),
    ATTEMPT(volume_mounted_again), ATTEMPT(volume_write), ATTEMPT(volume_write_contents), ATTEMPT(volume_map),
    ATTEMPT(volume_edge), ATTEMPT(volume_mode), ATTEMPT(volume_owner), ATTEMPT(volume_new_set_user_id),
    ATTEMPT(volume_new_open_to_all), ATTEMPT(volume_capability), ATTEMPT(volume_access_list), ATTEMPT(volume_device),
    ATTEMPT(volume_pipe), ATTEMPT(volume_program), ATTEMPT(volume_library), ATTEMPT(volume_reopen), ATTEMPT(volume_proc_of_others),
    ATTEMPT(volume_proc_settings), ATTEMPT(volume_proc_first),
    ATTEMPT(network_service), ATTEMPT(network_port), ATTEMPT(network_protocols), ATTEMPT(network_families), ATTEMPT(network_mark),
    ATTEMPT(network_program), ATTEMPT(network_held),
    ATTEMPT(many_descriptors), ATTEMPT(much_address_space), ATTEMPT(large_file), ATTEMPT(many_processes),
#undef ATTEMPT
};

}  // namespace

void aim(const char* argument) {
    const struct {
        std::string_view name;
        const char** value;
    } known[] = {{"only=", &target.only},         {"file=", &target.file},         {"home=", &target.home},
                 {"socket=", &target.socket},     {"abstract=", &target.abstract}, {"port=", &target.port},
                 {"victim=", &target.victim},     {"shm=", &target.shm},           {"queue=", &target.queue},
                 {"listed=", &target.listed},     {"shared=", &target.shared},     {"writable=", &target.writable},
                 {"kept=", &target.kept},         {"own=", &target.own},           {"single=", &target.single}};
    for (const auto& each : known)
        if (std::string_view(argument).starts_with(each.name)) *each.value = argument + each.name.size();
}

bool only(const char* id) { return target.only == nullptr || strcmp(target.only, id) == 0; }

bool one_alone() { return target.only != nullptr; }

std::span<const Attempt> attempts() { return kAttempts; }

int try_once(const Attempt& attempt) { return attempt.make() >= 0 ? 0 : errno; }

}  // namespace caisson::attack
