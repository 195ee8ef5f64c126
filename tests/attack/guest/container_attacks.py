"""What root of a container tries against the agent, the guest's kernel and the raw devices. Runs in a box; prints JSON:
[[group, what, answer], ...]. An answer is an error's name, or what came of it. test_container_attacks.py judges them."""
import ctypes
import errno
import fcntl
import json
import os
import signal
import socket
import stat
import struct
import sys

libc = ctypes.CDLL(None, use_errno=True)
answers = []
group = ""

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
AT_FDCWD = -100


def answer_of(function, *arguments):
    try:
        value = function(*arguments)
        return "ok" if value is None else str(value)
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))


def attempt(what, function, *arguments):
    answers.append([group, what, answer_of(function, *arguments)])


def call(number, *arguments):
    """A system call by its number on x86-64."""
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    if result < 0:
        raise OSError(ctypes.get_errno(), "")


def opened(path, flags=os.O_RDONLY):
    os.close(os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY))


def read(path, size=1):
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return f"{len(os.read(fd, size))} bytes"
    finally:
        os.close(fd)


def write(path, text):
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def mount(source, target, kind, flags=0, options=None):
    def raw(text):
        return text.encode() if text is not None else None
    if libc.mount(raw(source), raw(target), raw(kind), ctypes.c_ulong(flags), raw(options)) < 0:
        raise OSError(ctypes.get_errno(), "")


def unmount(path):
    if libc.umount2(path.encode(), 2) < 0:
        raise OSError(ctypes.get_errno(), "")


def node(kind, major, minor):
    path = "/dev/attack"
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    os.mknod(path, kind | 0o666, os.makedev(major, minor))
    return path


def open_node(kind, major, minor, flags=os.O_RDWR):
    opened(node(kind, major, minor), flags)


def numbers(path):
    with open(path) as file:
        return [int(number) for number in file.read().split(":")]


def audit(kind):
    channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9)
    channel.settimeout(2)
    channel.sendto(struct.pack("IHHII", 16 + 40, kind, 5, 1, 0) + struct.pack("II", 1, 0) + bytes(32), (0, 0))
    said = channel.recv(4096)
    number = struct.unpack("i", said[16:20])[0]
    if number < 0:
        raise OSError(-number, "")


def detach_device_filter(group_directory):
    # The kernel asks for no capability here, only for a descriptor of the group that the filter belongs to.
    fd = os.open(group_directory, os.O_RDONLY)
    try:
        call(321, 9, struct.pack("III", fd, 0, 6) + bytes(116), 128)
    finally:
        os.close(fd)


def in_child(function, flags=0):
    """The answers of function() in a process of its own, after unshare(flags). With a new user namespace all ids are
    mapped to themselves, which root of the container can do."""
    said_read, said_write = os.pipe()
    go_read, go_write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if flags and libc.unshare(flags) < 0:
                answers[:] = [[group, "unshare", errno.errorcode[ctypes.get_errno()]]]
            else:
                os.write(said_write, b"\0")
                os.read(go_read, 1)
                answers.clear()
                if flags & CLONE_NEWPID:
                    inner = os.fork()
                    if inner:
                        os.waitpid(inner, 0)
                        os._exit(0)
                function()
            os.write(said_write, json.dumps(answers).encode())
        finally:
            os._exit(0)
    os.close(said_write)
    if flags & CLONE_NEWUSER and os.read(said_read, 1):
        for name in ("uid_map", "gid_map"):
            write(f"/proc/{child}/{name}", "0 0 4294967295")
    elif not flags & CLONE_NEWUSER:
        os.read(said_read, 1)
    os.write(go_write, b"\0")
    said = b""
    while part := os.read(said_read, 65536):
        said += part
    os.waitpid(child, 0)
    answers.extend(json.loads(said or b"[]"))


# ---- devices ----
group = "raw devices"


def every_device():
    """Which of all devices that the kernel could know open: kinds, then numbers."""
    known = [line.split()[0] for line in open("/proc/devices") if line.strip() and line[0] in " 0123456789"]
    found = set()
    for kind, letter in ((stat.S_IFCHR, "c"), (stat.S_IFBLK, "b")):
        wide = {1, 4, 5, 10, 136} | {int(major) for major in known}
        for major in range(0, 512):
            for minor in range(256 if major in wide else 2):
                result = answer_of(open_node, kind, major, minor)
                if result != "EPERM":
                    found.add(f"{letter}{major}:{'*' if major == 136 else minor}")
    return " ".join(sorted(found))


attempt("open a node for every device number; those not refused", every_device)
attempt("read the root disk through a node", open_node, stat.S_IFBLK, *numbers("/sys/class/block/vda/dev"), os.O_RDONLY)
attempt("write to it", open_node, stat.S_IFBLK, *numbers("/sys/class/block/vda/dev"), os.O_WRONLY)
for port in sorted(os.listdir("/sys/class/virtio-ports")):
    attempt(f"open serial port {port.rpartition('p')[2]} of the machine (1 is the agent's)", open_node, stat.S_IFCHR, *numbers(f"/sys/class/virtio-ports/{port}/dev"))
attempt("find such a port in /dev", lambda: [name for name in os.listdir("/dev") if "vport" in name or "vd" in name])
for name, major, minor in (("mem", 1, 1), ("port", 1, 4), ("kmsg", 1, 11), ("ttyS0", 4, 64), ("console", 5, 1), ("hwrng", 10, 183)):
    attempt(f"open /dev/{name} by its numbers", open_node, stat.S_IFCHR, major, minor)
attempt("unbind the disk's driver through /sys", write, "/sys/bus/virtio/drivers/virtio_blk/unbind", "virtio0")
attempt("ask for all I/O ports (iopl)", call, 172, 3)
attempt("ask for the serial line's I/O ports (ioperm)", call, 173, 0x3f8, 8, 1)
attempt("mount the root disk a second time", lambda: mount(node(stat.S_IFBLK, *numbers("/sys/class/block/vda/dev")), "/mnt", "ext4"))
attempt("mount devtmpfs", mount, "devtmpfs", "/mnt", "devtmpfs")
attempt("freeze the root file system", lambda: fcntl.ioctl(os.open("/", os.O_RDONLY), 0xC0045877))
attempt("shut the root file system down", lambda: fcntl.ioctl(os.open("/", os.O_RDONLY), 0x8004587D, struct.pack("I", 1)))
attempt("swap to a file", call, 167, b"/etc/hostname", 0)

# ---- the container's first process and the agent ----
group = "first process and agent"
attempt("see any process but the container's", lambda: sorted(
    open(f"/proc/{name}/comm").read().strip() for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()))
for name in ("environ", "maps", "mem", "stack", "syscall", "auxv"):
    attempt(f"read /proc/1/{name}", read, f"/proc/1/{name}")
for name in ("root", "cwd", "exe"):
    attempt(f"follow /proc/1/{name}", os.readlink, f"/proc/1/{name}")
attempt("list /proc/1/fd", os.listdir, "/proc/1/fd")
attempt("enter /proc/1/root", os.listdir, "/proc/1/root/")
attempt("write to /proc/1/mem", opened, "/proc/1/mem", os.O_RDWR)
attempt("make it the first to be killed when memory is short (allowed: its own end)", write, "/proc/1/oom_score_adj", "1000")
attempt("make the kernel prefer it (-1000 for oneself)", write, "/proc/self/oom_score_adj", "-1000")
attempt("trace it (PTRACE_ATTACH)", call, 101, 16, 1, 0, 0)
attempt("trace it (PTRACE_SEIZE)", call, 101, 0x4206, 1, 0, 0)
buffer = ctypes.create_string_buffer(8)
vector = struct.pack("QQ", ctypes.addressof(buffer), 8)
attempt("read its memory (process_vm_readv)", call, 310, 1, vector, 1, struct.pack("QQ", 0x400000, 8), 1, 0)
attempt("take its descriptors (pidfd_getfd)", lambda: call(438, os.pidfd_open(1), 0, 0))
attempt("compare with it (kcmp)", call, 312, 1, os.getpid(), 0, 0, 0)
for name in ("mnt", "pid", "user", "cgroup", "net", "ipc", "uts"):
    attempt(f"open its namespace {name}", opened, f"/proc/1/ns/{name}")
for name, flag in (("mount", CLONE_NEWNS), ("pid", CLONE_NEWPID), ("cgroup", CLONE_NEWCGROUP), ("net", CLONE_NEWNET)):
    attempt(f"enter its {name} namespace by pidfd", lambda flag=flag: call(308, os.pidfd_open(1), flag))
attempt("enter the namespaces of the parent of its user namespace", lambda: fcntl.ioctl(os.open("/proc/self/ns/user", os.O_RDONLY), 0xb702))
attempt("find the parent of its pid namespace", lambda: fcntl.ioctl(os.open("/proc/self/ns/pid", os.O_RDONLY), 0xb702))
attempt("find a keyring of another's", call, 250, 10, -3, b"keyring", b"_ses", 0)
attempt("hear of devices as the agent does, and speak (uevents)", lambda: socket.socket(
    socket.AF_NETLINK, socket.SOCK_RAW, 15).sendto(b"add@/x\0ACTION=add\0", (0, 1)))
attempt("find a socket of the agent's", lambda: [line for line in open("/proc/net/unix").read().splitlines()[1:]])

# ---- the kernel ----
group = "kernel"
attempt("read /proc/kcore", read, "/proc/kcore", 4096)
attempt("read /proc/kallsyms' first address", lambda: open("/proc/kallsyms").read(16))
attempt("read the kernel's log", call, 103, 3, ctypes.create_string_buffer(4096), 4096)
attempt("load a module (init_module)", call, 175, b"\x7fELF", 4, b"")
attempt("load a module (finit_module)", lambda: call(313, os.open("/etc/hostname", os.O_RDONLY), b"", 0))
attempt("remove a module", call, 176, b"virtio_blk", 0)
attempt("load another kernel (kexec_load)", call, 246, 0, 0, 0, 0)
attempt("load another kernel (kexec_file_load)", call, 320, -1, -1, 0, b"", 0)
attempt("reboot", call, 169, 0xfee1dead, 0x28121969, 0x1234567, 0)
attempt("load a BPF program", call, 321, 5, struct.pack("II", 6, 1) + bytes(120), 128)
attempt("make a BPF map", call, 321, 0, struct.pack("IIII", 2, 4, 4, 1) + bytes(112), 128)
attempt("take the device filter off its control group (BPF_PROG_DETACH)", detach_device_filter, "/sys/fs/cgroup")
attempt("read the root disk after that", open_node, stat.S_IFBLK, *numbers("/sys/class/block/vda/dev"), os.O_RDONLY)
attempt("watch the kernel (perf_event_open)", call, 298, struct.pack("IIQ", 1, 120, 0) + bytes(104), -1, 0, -1, 0)
attempt("handle the kernel's page faults (userfaultfd)", call, 323, 0)
attempt("set up io_uring (allowed)", lambda: call(425, 4, bytes(120)))
attempt("open a file by its handle", lambda: call(304, os.open("/", os.O_RDONLY), struct.pack("IiII", 8, 1, 2, 0), 0))
attempt("watch all files (fanotify)", call, 300, 4, 0)
attempt("set the clock", call, 227, 0, struct.pack("QQ", 1, 0))
attempt("bend the clock (adjtimex)", call, 159, struct.pack("I", 1) + bytes(300))
attempt("set the host name", call, 170, b"mine", 4)
attempt("switch accounting on", call, 163, b"/etc/hostname")
attempt("audit: list rules", lambda: audit(1013))
attempt("audit: switch it off", lambda: audit(1001))
attempt("reach the host through AF_VSOCK", lambda: socket.socket(40, socket.SOCK_STREAM).connect((2, 1)))
attempt("a raw packet socket (CAP_NET_RAW; there is only lo)", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close())
attempt("change the network", lambda: fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh", b"lo", 0)))
attempt("raise a limit of its own", call, 302, 0, 7, struct.pack("QQ", 1 << 20, 1 << 20), 0)
attempt("run as a real-time process", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)))
attempt("lock a file against root (chattr +i)", lambda: fcntl.ioctl(os.open("/etc/hostname", os.O_RDONLY), 0x40086602, struct.pack("l", 16)))


SETTINGS = ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hotplug", "/proc/sys/vm/overcommit_memory",
            "/proc/sysrq-trigger", "/sys/kernel/uevent_helper", "/sys/module/kernel/parameters/panic", "/proc/irq/default_smp_affinity")


def settings():
    for path in SETTINGS:
        attempt(f"write to {path}", write, path, "|/x")


settings()

# ---- mounts ----
group = "mounts"
for kind in ("tmpfs", "proc", "sysfs", "cgroup2", "debugfs", "tracefs", "bpf", "securityfs", "overlay"):
    attempt(f"mount {kind}", mount, kind, "/mnt", kind)
attempt("bind a directory", mount, "/etc", "/mnt", None, 0x1000)
attempt("make /sys writable", mount, None, "/sys", None, 0x1020)
attempt("make /proc/sys writable", mount, None, "/proc/sys", None, 0x1020)
attempt("uncover /proc/kcore", unmount, "/proc/kcore")
attempt("uncover /sys/firmware", unmount, "/sys/firmware")
attempt("a mount namespace", lambda: call(272, CLONE_NEWNS))
attempt("the new mount calls: fsopen", call, 430, b"tmpfs", 0)
attempt("the new mount calls: open_tree", call, 428, AT_FDCWD, b"/proc", 1)
attempt("pivot_root", call, 155, b"/", b"/mnt")

# ---- control groups ----
group = "control groups"
attempt("raise its limit of memory", write, "/sys/fs/cgroup/memory.max", "max")
attempt("leave its group", write, "/sys/fs/cgroup/cgroup.procs", "1")
attempt("mount control groups v1 for release_agent", mount, "cgroup", "/mnt", "cgroup", 0, "memory")
attempt("see a group above its own", lambda: sorted(open("/proc/self/cgroup").read().split()))


# ---- the same as root of a user namespace of its own ----
def inside():
    os.makedirs("/mnt/x", exist_ok=True)
    for kind in ("proc", "sysfs", "debugfs", "devtmpfs"):
        attempt(f"mount {kind}", mount, kind, "/mnt/x", kind)
    attempt("mount a tmpfs (allowed)", mount, "tmpfs", "/mnt/x", "tmpfs")
    attempt("mount the root disk", lambda: mount(node(stat.S_IFBLK, *numbers("/sys/class/block/vda/dev")), "/mnt/x", "ext4"))
    attempt("open the root disk through a node made before", opened, "/dev/attack-disk")
    attempt("open the agent's port through a node made before", opened, "/dev/attack-port", os.O_RDWR)
    attempt("uncover /proc/kcore", unmount, "/proc/kcore")
    attempt("uncover /proc/sys", unmount, "/proc/sys")
    attempt("make /proc/sys writable", mount, None, "/proc/sys", None, 0x1020)
    attempt("make /sys writable", mount, None, "/sys", None, 0x1020)
    attempt("see /proc through a bind without its masks", mount, "/proc", "/mnt/x", None, 0x1000)
    attempt("cover /proc/acpi once more (allowed, and hides no less)", mount, "tmpfs", "/proc/acpi", "tmpfs")
    settings()
    attempt("load a module", call, 175, b"\x7fELF", 4, b"")
    attempt("load a BPF program", call, 321, 5, struct.pack("II", 6, 1) + bytes(120), 128)
    attempt("set the clock", call, 227, 0, struct.pack("QQ", 1, 0))
    attempt("open a file by its handle", lambda: call(304, os.open("/", os.O_RDONLY), struct.pack("IiII", 8, 1, 2, 0), 0))


def inside_groups():
    os.makedirs("/mnt/g", exist_ok=True)
    attempt("mount control groups v2 (allowed)", mount, "cgroup2", "/mnt/g", "cgroup2")
    attempt("mount control groups v1", mount, "cgroup", "/mnt/x", "cgroup", 0, "memory")
    attempt("find a group above its own there", lambda: os.path.exists("/mnt/g/box") or os.path.exists("/mnt/g/container"))
    attempt("take the device filter off there (BPF_PROG_DETACH)", detach_device_filter, "/mnt/g")
    attempt("open the root disk after that", opened, "/dev/attack-disk")
    attempt("trace the container's first process", call, 101, 16, 1, 0, 0)
    attempt("reboot", call, 169, 0xfee1dead, 0x28121969, 0x1234567, 0)
    # Its own group's numbers may change; what counts is one above.
    answer_of(write, "/mnt/g/memory.max", "max")
    answer_of(write, "/mnt/g/pids.max", "max")


for name, path in (("disk", "/sys/class/block/vda/dev"), ("port", f"/sys/class/virtio-ports/{sorted(os.listdir('/sys/class/virtio-ports'))[0]}/dev")):
    kind = stat.S_IFBLK if name == "disk" else stat.S_IFCHR
    os.mknod(f"/dev/attack-{name}", kind | 0o666, os.makedev(*numbers(path)))
group = "in a user namespace"
in_child(inside, CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)
in_child(inside_groups, CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWCGROUP)
group = "control groups"


def forks(most=120):
    """How many processes there can be at once."""
    children = []
    try:
        while len(children) < most:
            child = os.fork()
            if child == 0:
                signal.pause()
                os._exit(0)
            children.append(child)
    except OSError:
        pass
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return "more than 60" if len(children) > 60 else "within its limit"


attempt("start more processes than it may, after writing pids.max above", forks)

group = "first process and agent"
# Last: whoever gets through here ends the box.
for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGSTOP):
    answer_of(os.kill, 1, number)
attempt("end the first process by signals", lambda: open("/proc/1/stat").read().split()[1])

json.dump(answers, sys.stdout)
