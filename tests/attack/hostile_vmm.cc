// A program in QEMU's place that has been taken over and speaks for its guest as well. Unlike payload.cc, which tries
// what the jail must refuse, it does what caisson must bear: it plays a guest up to some point and then misbehaves.
// What it does is the first line of the file /behaviour of its root.
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <string_view>

#include "hostile_share.h"
#include "wire/control.h"
#include "wire/frame.h"

namespace {

using namespace caisson;

// As MachinePlan numbers them.
constexpr int kQmp = 3;
constexpr int kAgent = 4;
constexpr int kConsole = 5;
constexpr int kShare = 7;

void put(int fd, const void* data, size_t size) {
    for (auto* at = static_cast<const char*>(data); size > 0;) {
        ssize_t wrote = write(fd, at, size);
        if (wrote < 0) _exit(9);
        at += wrote;
        size -= static_cast<size_t>(wrote);
    }
}

void say(const std::string& text) { put(kConsole, (text + "\n").data(), text.size() + 1); }

// "NAME ok" or "NAME ERRNO", as in payload.cc.
void attempt(const std::string& name, long result) { say(name + " " + (result >= 0 ? "ok" : strerrorname_np(errno))); }

void send(const wire::FromAgent& message) {
    base::Bytes out;
    if (!wire::append_control(out, message)) _exit(9);
    put(kAgent, out.data(), out.size());
}

wire::FromAgent hello() {
    wire::FromAgent message;
    message.mutable_hello()->set_version_major(wire::kVersionMajor);
    return message;
}

// The session's preamble comes back as it came, then Hello.
void greet() {
    char preamble[wire::kPreambleBytes];
    for (size_t got = 0; got < sizeof preamble;) {
        ssize_t more = read(kAgent, preamble + got, sizeof preamble - got);
        if (more <= 0) _exit(9);
        got += static_cast<size_t>(more);
    }
    put(kAgent, preamble, sizeof preamble);
    send(hello());
}

// Hello, Configured, Started: the box runs.
void play_running_guest() {
    greet();
    wire::FromAgent configured;
    configured.mutable_configured();
    send(configured);
    wire::FromAgent started;
    started.mutable_started()->set_id(1);
    started.mutable_started()->set_pid(1);
    send(started);
}

// Until killed. Whatever is sent to the guest is swallowed.
[[noreturn]] void stay() {
    char buffer[4096];
    while (read(kAgent, buffer, sizeof buffer) > 0) {}
    for (;;) pause();
}

#ifdef __x86_64__
// Makes process `pid`, which is stopped in a system call, do another one first.
long make_it_call(pid_t pid, long number, long first) {
    user_regs_struct before{};
    user_regs_struct changed{};
    if (ptrace(PTRACE_GETREGS, pid, nullptr, &before) != 0) return -1;
    changed = before;
    changed.rip -= 2;  // the syscall instruction again
    changed.orig_rax = static_cast<unsigned long long>(-1);
    changed.rax = static_cast<unsigned long long>(number);
    changed.rdi = static_cast<unsigned long long>(first);
    changed.rsi = 0;
    ptrace(PTRACE_SETREGS, pid, nullptr, &changed);
    ptrace(PTRACE_SINGLESTEP, pid, nullptr, nullptr);
    waitpid(pid, nullptr, __WALL);
    ptrace(PTRACE_GETREGS, pid, nullptr, &changed);
    ptrace(PTRACE_SETREGS, pid, nullptr, &before);
    return static_cast<long>(changed.rax);
}
#endif

// Nothing in this jail dies with the supervisor any more: neither this program nor bubblewrap's process 1.
void outlive_the_supervisor() {
    attempt("keep_self", prctl(PR_SET_PDEATHSIG, 0));
    prctl(PR_SET_DUMPABLE, 0);
    for (int number : {SIGHUP, SIGTERM, SIGINT}) signal(number, SIG_IGN);
#ifdef __x86_64__
    // In a process of its own: the filter makes this its end.
    if (const pid_t child = fork(); child != 0) {
        waitpid(child, nullptr, 0);
        return;
    }
    long traced = ptrace(PTRACE_ATTACH, 1, nullptr, nullptr);
    attempt("trace_first_process", traced);
    if (traced != 0) _exit(0);
    waitpid(1, nullptr, __WALL);
    attempt("keep_first_process", make_it_call(1, SYS_prctl, PR_SET_PDEATHSIG));
    ptrace(PTRACE_DETACH, 1, nullptr, nullptr);
    _exit(0);
#endif
}

// Writes the same for ever, as fast as it can.
[[noreturn]] void flood(int fd, const std::string& piece) {
    std::string much;
    while (much.size() < 65536) much += piece;
    for (;;) put(fd, much.data(), much.size());
}

// What the host might find later in the directory of the template that is being made. An error shows the last 12 lines.
void fill_the_template() {
    attempt("beside_the_memory", open("/template/info3.json", O_WRONLY | O_CREAT, 0600));
    attempt("make_pipe", mkfifo("/template/info.json", 0600));
    attempt("remove_memory", unlink("/template/mem"));
    attempt("replace_memory", rename("/template/state", "/template/mem"));
    attempt("link_memory", link("/template/mem", "/template/mem2"));
    attempt("write_initramfs", open("/template/initramfs", O_WRONLY));
    attempt("beside_the_disk", open("/box/new", O_WRONLY | O_CREAT, 0600));
    attempt("signal_first_process", syscall(SYS_tgkill, 1, 1, 0));
    attempt("open_memory", open("/template/mem", O_RDWR));
    attempt("open_state", open("/template/state", O_RDWR));
    // Far beyond what the machine's memory and disk are.
    signal(SIGXFSZ, SIG_IGN);
    attempt("grow_memory", ftruncate(open("/template/mem", O_RDWR), 1L << 40));
    attempt("grow_disk", ftruncate(open("/box/disk.qcow2", O_RDWR), 1L << 40));
}

// The box's first disk is to be read only, its second one may be written to and is locked by descriptor kLock.
void attack_disks() {
    constexpr int kLock = 9;
    const char* fixed = "/box/volume0";
    attempt("open_to_write", open(fixed, O_RDWR));
    attempt("open_to_empty", open(fixed, O_WRONLY | O_TRUNC));
    attempt("resize", truncate(fixed, 0));
    attempt("resize_descriptor", ftruncate(open(fixed, O_RDONLY), 0));
    attempt("change_mode", chmod(fixed, 0777));
    attempt("change_times", utimensat(AT_FDCWD, fixed, nullptr, 0));
    attempt("remove", unlink(fixed));
    attempt("rename", rename(fixed, "/box/other"));
    attempt("link", link(fixed, "/box/other"));
    attempt("write_descriptor", write(open(fixed, O_RDONLY), "x", 1));
    attempt("a_third", open("/box/volume2", O_RDONLY));
    attempt("read", open(fixed, O_RDONLY));
    const int free = open("/box/volume1", O_RDWR);
    attempt("write_the_other", pwrite(free, "mine", 4, 4096));
    attempt("keeps_lock", fcntl(kLock, F_GETFD));
    attempt("unlock", flock(kLock, LOCK_UN));
    say("end reached");
}

// Memory beside the guest's, as a QEMU that was taken over can take it: far beyond any small box's limit, but not all
// that a host has, should nothing stop it.
[[noreturn]] void eat_memory() {
    for (int taken = 0; taken < 256; ++taken) {
        auto* more = static_cast<char*>(malloc(16 << 20));
        if (more == nullptr) stay();
        memset(more, 'A', 16 << 20);
    }
    say("took 4 GiB");
    stay();
}

void* wait_for_ever(void*) {
    for (;;) pause();
}

// Threads, which QEMU needs and no filter of system calls can forbid, until there can be no more.
[[noreturn]] void fill_with_threads() {
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 << 10);
    int made = 0;
    pthread_t thread{};
    while (made < 4000 && pthread_create(&thread, &small, wait_for_ever, nullptr) == 0) ++made;
    say("threads " + std::to_string(made));
    usleep(300000);
    _exit(3);
}

// As a guest does whose image cannot be made a container.
[[noreturn]] void refuse() {
    wire::FromAgent failed;
    failed.mutable_configure_failed()->set_message("the image's /proc is a link");
    send(failed);
    stay();
}

// Says that the guest is prepared and the machine is frozen, and leaves.
[[noreturn]] void pretend_to_be_frozen() {
    wire::FromAgent prepared;
    prepared.mutable_prepared();
    send(prepared);
    char buffer[4096];
    std::string heard;
    while (heard.find("quit") == std::string::npos) {
        ssize_t got = read(kQmp, buffer, sizeof buffer);
        if (got <= 0) _exit(9);
        heard.append(buffer, static_cast<size_t>(got));
        constexpr std::string_view kCompleted = "{\"return\":{\"status\":\"completed\"}}\r\n";
        put(kQmp, kCompleted.data(), kCompleted.size());
    }
    _exit(0);
}

}  // namespace

int main(int, char** argv) {
    signal(SIGPIPE, SIG_IGN);
    char line[64] = "";
    int file = open("/behaviour", O_RDONLY);
    if (read(file, line, sizeof line - 1) <= 0) return 8;
    std::string_view behaviour(line, strcspn(line, "\n"));
    memset(argv[0], 'x', strlen(argv[0]));  // whoever looks for it by its name finds nothing

    if (behaviour == "outlive") {
        play_running_guest();
        outlive_the_supervisor();
        stay();
    }
    if (behaviour == "eat_memory") {
        play_running_guest();
        eat_memory();
    }
    if (behaviour == "fill_with_threads") {
        play_running_guest();
        fill_with_threads();
    }
    if (behaviour == "flood_console") {
        play_running_guest();
        flood(kConsole, "A");
    }
    if (behaviour == "flood_qmp_lines") {
        play_running_guest();
        flood(kQmp, "\n");
    }
    if (behaviour == "flood_qmp_events") {
        play_running_guest();
        flood(kQmp, "{\"event\":\"BLOCK_IO_ERROR\",\"data\":{\"nospace\":true}}\r\n");
    }
    if (behaviour == "disks") {
        play_running_guest();
        attack_disks();
        stay();
    }
    if (behaviour.starts_with("share_")) {
        play_running_guest();
        if (behaviour == "share_read_only") attack::attack_read_only_volume(kShare, say);
        if (behaviour == "share_writable") attack::change_writable_volume(kShare, say);
        if (behaviour == "share_keep") attack::read_until_refused(kShare, say);
        if (behaviour == "share_garbage") attack::send_garbage(kShare);
        if (behaviour == "share_never_read") attack::ask_and_never_read(kShare);
        if (behaviour == "share_open") attack::open_for_ever(kShare);
        if (behaviour == "share_hang_up") close(kShare);
        stay();
    }
    if (behaviour == "fill_template") {
        greet();
        fill_the_template();
        pretend_to_be_frozen();
    }
    if (behaviour == "fill_template_and_stay") {
        greet();
        fill_the_template();
        stay();
    }
    if (behaviour == "greet_twice") {
        greet();
        for (;;) send(hello());
    }
    if (behaviour == "refuse") {
        greet();
        refuse();
    }
    if (behaviour == "forbidden_call") ptrace(PTRACE_ATTACH, getppid(), nullptr, nullptr);
    if (behaviour == "unknown_call") say(syscall(9999) < 0 && errno == ENOSYS ? "ENOSYS" : "unknown calls are made");
    if (behaviour == "silent") stay();
    if (behaviour == "leave") return 0;
    say("unknown behaviour");
    return 7;
}
