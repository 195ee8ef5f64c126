// A hostile program in QEMU's place. It tries one thing after the other and writes a line "NAME RESULT" for each, RESULT
// being "ok" (the attempt succeeded), the name of an errno, or a value. vmm_jail_test.cc knows what must come out.
//
// Arguments of its own come through descriptor 3, as one line: "TCP_PORT ABSTRACT_SOCKET SHM_KEY HOST_FILE".
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/perf_event.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
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
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include <initializer_list>

extern char** environ;

namespace {

void tell(const char* name, const char* format, ...) {
    char line[1024];
    int used = snprintf(line, sizeof line, "%s ", name);
    va_list arguments;
    va_start(arguments, format);
    used += vsnprintf(line + used, sizeof line - static_cast<size_t>(used) - 1, format, arguments);
    va_end(arguments);
    line[used++] = '\n';
    if (write(1, line, static_cast<size_t>(used)) < 0) _exit(9);
}

// `result` is what a system call returned.
void attempt(const char* name, long result) {
    if (result >= 0) tell(name, "ok");
    else tell(name, "%s", strerrorname_np(errno));
}

void attempt_on(const char* name, const char* file, long result) {
    char full[128];
    snprintf(full, sizeof full, "%s:%s", name, file);
    attempt(full, result);
}

// By path: everything that would change a file that is for reading only.
void change_by_path(const char* path) {
    attempt_on("read", path, open(path, O_RDONLY));
    attempt_on("open_rdwr", path, open(path, O_RDWR));
    attempt_on("open_wronly", path, open(path, O_WRONLY));
    attempt_on("open_trunc", path, open(path, O_RDONLY | O_TRUNC));
    attempt_on("open_append", path, open(path, O_WRONLY | O_APPEND));
    attempt_on("truncate", path, truncate(path, 0));
    attempt_on("chmod", path, chmod(path, 0666));
    attempt_on("chmod_open", path, open(path, O_RDWR));
    attempt_on("chown", path, chown(path, getuid(), getgid()));
    attempt_on("unlink", path, unlink(path));
    attempt_on("rename", path, rename(path, "/box/stolen"));
    attempt_on("replace", path, rename("/box/disk.qcow2", path));
    attempt_on("link", path, link(path, "/box/link"));
    attempt_on("utimes", path, utimensat(AT_FDCWD, path, nullptr, 0));
    attempt_on("setxattr", path, setxattr(path, "user.x", "y", 1, 0));
    attempt_on("mount_over", path, mount("/box/disk.qcow2", path, nullptr, MS_BIND, nullptr));
}

// Through a descriptor that was opened for reading.
void change_by_descriptor(const char* path) {
    int fd = open(path, O_RDONLY);
    char byte = 'X';
    attempt_on("write_fd", path, write(fd, &byte, 1));
    attempt_on("pwrite_fd", path, pwrite(fd, &byte, 1, 0));
    attempt_on("ftruncate", path, ftruncate(fd, 0));
    attempt_on("fchmod", path, fchmod(fd, 0666));
    attempt_on("punch_hole", path, fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
    attempt_on("fallocate", path, fallocate(fd, 0, 0, 1 << 23));
    char link_name[64];
    snprintf(link_name, sizeof link_name, "/proc/self/fd/%d", fd);
    attempt_on("reopen_proc", path, open(link_name, O_RDWR));
    snprintf(link_name, sizeof link_name, "/dev/fd/%d", fd);
    attempt_on("reopen_dev", path, open(link_name, O_RDWR));
    attempt_on("setfl", path, (fcntl(fd, F_SETFL, O_RDWR), write(fd, &byte, 1)));
    int reference = open(path, O_PATH);
    attempt_on("reopen_empty", path, openat(reference, "", O_RDWR));
    attempt_on("link_empty", path, linkat(reference, "", AT_FDCWD, "/box/linked", AT_EMPTY_PATH));
    struct {
        file_handle handle;
        unsigned char bytes[128];
    } name{};
    name.handle.handle_bytes = sizeof name.bytes;
    int mount_id = 0;
    if (name_to_handle_at(AT_FDCWD, path, &name.handle, &mount_id, 0) == 0)
        attempt_on("reopen_handle", path, open_by_handle_at(fd, &name.handle, O_RDWR));
    else
        attempt_on("reopen_handle", path, -1);

    constexpr size_t kLength = 1 << 16;
    void* map = mmap(nullptr, kLength, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    attempt_on("mmap_shared_write", path, map == MAP_FAILED ? -1 : 0);
    map = mmap(nullptr, kLength, PROT_READ, MAP_SHARED, fd, 0);
    attempt_on("mmap_shared_read", path, map == MAP_FAILED ? -1 : 0);
    if (map != MAP_FAILED) {
        attempt_on("mprotect_shared", path, mprotect(map, kLength, PROT_READ | PROT_WRITE));
        attempt_on("madv_remove_shared", path, madvise(map, kLength, MADV_REMOVE));
    }
    // A private mapping may be written: it is what QEMU does. The file must not notice.
    map = mmap(nullptr, kLength, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    attempt_on("mmap_private_write", path, map == MAP_FAILED ? -1 : 0);
    if (map != MAP_FAILED) {
        memset(map, 'X', kLength);
        attempt_on("msync_private", path, msync(map, kLength, MS_SYNC));
        attempt_on("madv_remove_private", path, madvise(map, kLength, MADV_REMOVE));
        madvise(map, kLength, MADV_DONTNEED);
        attempt_on("private_came_back", path, static_cast<char*>(map)[0] == 'X' ? 0 : (errno = ENODATA, -1));
        iovec local{&byte, 1};
        iovec remote{map, 1};
        attempt_on("write_own_memory", path, process_vm_writev(getpid(), &local, 1, &remote, 1, 0));
    }
    close(fd);
}

void capabilities() {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2]{};
    syscall(SYS_capget, &header, data);
    tell("capabilities", "%08x%08x %08x%08x %08x%08x", data[1].effective, data[0].effective, data[1].permitted,
         data[0].permitted, data[1].inheritable, data[0].inheritable);
    int bounding = 0;
    for (int capability = 0; capability < 64; ++capability) bounding += prctl(PR_CAPBSET_READ, capability, 0, 0, 0) == 1;
    tell("bounding", "%d", bounding);
    tell("no_new_privs", "%d", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    tell("uid", "%d", static_cast<int>(getuid()));
    data[0].effective = data[0].permitted = 1u << CAP_SYS_ADMIN;
    attempt("capset", syscall(SYS_capset, &header, data));
    attempt("setuid", setresuid(0, 0, 0));
    attempt("setgid", setresgid(0, 0, 0));
    gid_t root = 0;
    attempt("setgroups", setgroups(1, &root));
    attempt("mount", mount("tmpfs", "/box", "tmpfs", 0, nullptr));
    attempt("remount_template", mount(nullptr, "/template", nullptr, MS_REMOUNT | MS_BIND, nullptr));
    attempt("umount_template", umount2("/template", MNT_DETACH));
    attempt("chroot", chroot("/box"));
    attempt("pivot_root", syscall(SYS_pivot_root, "/box", "/box"));
    attempt("sethostname", sethostname("x", 1));
    timespec now{1, 0};
    attempt("settime", clock_settime(CLOCK_REALTIME, &now));
    attempt("iopl", iopl(3));
    attempt("ioperm", ioperm(0x80, 1, 1));
    attempt("reboot", reboot(RB_AUTOBOOT));
    attempt("swapon", swapon("/box/disk.qcow2", 0));
    attempt("init_module", syscall(SYS_init_module, "", 0, ""));
    attempt("kexec", syscall(SYS_kexec_load, 0, 0, nullptr, 0));
    attempt("syslog", syscall(SYS_syslog, 2, nullptr, 0) < 0 ? -1 : 0);
    rlimit more{1 << 20, 1 << 20};
    attempt("raise_limits", setrlimit(RLIMIT_NOFILE, &more));
    rlimit limit{};
    getrlimit(RLIMIT_CORE, &limit);
    tell("core_limit", "%llu", static_cast<unsigned long long>(limit.rlim_max));
    perf_event_attr event{};
    event.size = sizeof event;
    event.type = PERF_TYPE_SOFTWARE;
    attempt("perf_of_all", syscall(SYS_perf_event_open, &event, -1, 0, -1, 0));
    bpf_attr program{};
    program.prog_type = BPF_PROG_TYPE_KPROBE;
    attempt("bpf_kprobe", syscall(SYS_bpf, BPF_PROG_LOAD, &program, sizeof program));
    attempt("mknod_null", mknod("/box/null", S_IFCHR | 0666, makedev(1, 3)));
    attempt("mknod_disk", mknod("/box/disk", S_IFBLK | 0666, makedev(8, 0)));
    attempt("setns_self", setns(open("/proc/self/ns/mnt", O_RDONLY), 0));
    attempt("setpriority", setpriority(PRIO_PROCESS, 0, -20));
}

// In a child, for it changes what the process is.
void user_namespace() {
    pid_t child = fork();
    if (child > 0) {
        waitpid(child, nullptr, 0);
        return;
    }
    attempt("unshare_user", unshare(CLONE_NEWUSER | CLONE_NEWNS));  // reported; what it may gain is what counts
    attempt("userns_remount_template", mount(nullptr, "/template", nullptr, MS_REMOUNT | MS_BIND, nullptr));
    attempt("userns_remount_root", mount(nullptr, "/", nullptr, MS_REMOUNT | MS_BIND, nullptr));
    attempt("userns_remount_disk", mount(nullptr, "/disk/base.ext4", nullptr, MS_REMOUNT | MS_BIND, nullptr));
    attempt("userns_umount_template", umount2("/template", MNT_DETACH));
    attempt("userns_umount_root", umount2("/", MNT_DETACH));
    attempt("userns_open_template", open("/template/mem", O_RDWR));
    // A copy of the mount in the new namespace, made writable?
    long tree = syscall(SYS_open_tree, AT_FDCWD, "/template", 1 /* OPEN_TREE_CLONE */);
    attempt("userns_clone_tree", tree);
    if (tree >= 0) attempt("userns_clone_write", openat(static_cast<int>(tree), "mem", O_RDWR));
    struct {
        unsigned long long set, clear, propagation, user;
    } attributes{0, 1 /* MOUNT_ATTR_RDONLY */, 0, 0};
    attempt("userns_setattr",
            syscall(442 /* mount_setattr */, static_cast<int>(tree), "", AT_EMPTY_PATH, &attributes, sizeof attributes));
    attempt("userns_mknod", mknod("/box/null2", S_IFCHR | 0666, makedev(1, 3)));

    _exit(0);
}

void host(const char* port, const char* abstract, const char* key, const char* file) {
    attempt("host_file", open(file, O_RDONLY));
    for (const char* path : {"/etc/passwd", "/home", "/root", "/var", "/proc", "/sys", "/dev", "/tmp", "/../etc/passwd",
                             "/dev/kvm", "/dev/null", "/dev/mem", "/var/lib/caisson"})
        attempt_on("see", path, access(path, F_OK));
    for (int i = 0; i < 20; ++i)
        if (chdir("..") != 0) break;
    attempt("climb", access("etc/passwd", F_OK));
    char listing[512] = "";
    if (DIR* directory = opendir("/")) {
        while (dirent* entry = readdir(directory)) {
            if (entry->d_name[0] == '.') continue;
            strncat(listing, entry->d_name, sizeof listing - strlen(listing) - 2);
            strcat(listing, ",");
        }
        closedir(directory);
    }
    tell("root_directory", "%s", listing);
    for (const char* path : {"/new", "/usr/bin/new", "/template/new", "/box/new", "/disk/new"})
        attempt_on("create", path, open(path, O_WRONLY | O_CREAT | O_EXCL, 0600));
    attempt("overwrite_program", open("/usr/bin/qemu-system-x86_64", O_WRONLY));

    int tcp = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(atoi(port)));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    attempt("connect_host_loopback", connect(tcp, reinterpret_cast<sockaddr*>(&address), sizeof address));
    inet_pton(AF_INET, "192.0.2.1", &address.sin_addr);
    int udp = socket(AF_INET, SOCK_DGRAM, 0);
    attempt("connect_outside", connect(udp, reinterpret_cast<sockaddr*>(&address), sizeof address));
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    strncpy(name.sun_path + 1, abstract, sizeof name.sun_path - 2);
    auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + strlen(abstract));
    attempt("connect_abstract", connect(socket(AF_UNIX, SOCK_STREAM, 0), reinterpret_cast<sockaddr*>(&name), length));
    attempt("packet_socket", socket(AF_PACKET, SOCK_RAW, 0));
    attempt("raw_socket", socket(AF_INET, SOCK_RAW, 1));
    char interfaces[256] = "";
    for (unsigned index = 1; index < 64; ++index) {
        char interface[IF_NAMESIZE];
        if (if_indextoname(index, interface) == nullptr) continue;
        strcat(interfaces, interface);
        strcat(interfaces, ",");
    }
    tell("interfaces", "%s", interfaces);
    attempt("host_shm", shmget(atoi(key), 4096, 0));
    char hostname[128] = "";
    gethostname(hostname, sizeof hostname - 1);
    tell("hostname", "%s", hostname);
}

void processes() {
    tell("pid", "%d", static_cast<int>(getpid()));
    tell("parent", "%d", static_cast<int>(getppid()));
    attempt("own_session", getsid(0) > 0 ? 0 : -1);
    attempt("kill_all", kill(-1, 0));  // whether it could: without the jail it would be every process of this user
    int others = 0;
    for (int pid = 2; pid < 40000; ++pid) others += pid != getpid() && (kill(pid, 0) == 0 || errno == EPERM);
    tell("other_processes", "%d", others);
    attempt("ptrace_parent", ptrace(PTRACE_ATTACH, getppid(), nullptr, nullptr));
    if (waitpid(getppid(), nullptr, __WALL) > 0) ptrace(PTRACE_DETACH, getppid(), nullptr, nullptr);
    char byte = 0;
    iovec local{&byte, 1};
    iovec remote{environ, 1};
    attempt("read_parent", process_vm_readv(getppid(), &local, 1, &remote, 1, 0));
}

void descriptors() {
    char open_ones[1024] = "";
    for (int fd = 0; fd < 1024; ++fd) {
        if (fcntl(fd, F_GETFD) < 0) continue;
        char number[16];
        snprintf(number, sizeof number, "%d,", fd);
        strcat(open_ones, number);
    }
    tell("descriptors", "%s", open_ones);
    char variables[512] = "";
    for (char** variable = environ; *variable != nullptr; ++variable) {
        strncat(variables, *variable, sizeof variables - strlen(variables) - 2);
        strcat(variables, ",");
    }
    tell("environment", "%s", variables);
}

}  // namespace

int main() {
    descriptors();
    char line[1024] = "";
    if (read(3, line, sizeof line - 1) <= 0) return 8;
    char* rest = line;
    const char* words[4];
    for (auto& word : words) word = strtok_r(rest, " \n", &rest);
    for (const char* path : {"/template/mem", "/template/state", "/disk/base.ext4"}) {
        change_by_path(path);
        change_by_descriptor(path);
    }
    attempt("overlay_write", pwrite(open("/box/disk.qcow2", O_RDWR), "mine", 4, 0));
    host(words[0], words[1], words[2], words[3]);
    capabilities();
    processes();
    user_namespace();
    tell("end", "reached");
    return 0;
}
