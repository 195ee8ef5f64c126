// A program in QEMU's place that has been taken over and speaks for its guest as well. Unlike payload.cc, which tries
// what the jail must refuse, it does what caisson must bear: it plays a guest up to some point and then misbehaves.
// What it does is the first line of the file /behaviour of its root.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <string_view>

#include "wire/control.h"
#include "wire/frame.h"

namespace {

using namespace caisson;

// As MachinePlan numbers them.
constexpr int kQmp = 3;
constexpr int kAgent = 4;
constexpr int kConsole = 5;

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
    long traced = ptrace(PTRACE_ATTACH, 1, nullptr, nullptr);
    attempt("trace_first_process", traced);
    if (traced != 0) return;
    waitpid(1, nullptr, __WALL);
    attempt("keep_first_process", make_it_call(1, SYS_prctl, PR_SET_PDEATHSIG));
    ptrace(PTRACE_DETACH, 1, nullptr, nullptr);
#endif
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
    say("unknown behaviour");
    return 7;
}
