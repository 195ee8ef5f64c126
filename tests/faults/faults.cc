// Runs a command and everything that it starts, and makes one of their system calls fail, or records what they do to
// files. It is a tracer, so that it reaches static programs, programs whose environment is built from empty, and calls
// that no library makes for them; a filter lets it see only the calls that it wants.
//
// faults [--fail KIND:N:ERRNO] [--report FILE] [--below DIRECTORY] [--record LOG --marks FILE] COMMAND...
//
//   --fail    the N-th call of a kind, over all processes and in their order, fails with ENOSPC, EIO, EMFILE or ENOMEM
//             without having been made. KIND is one of calls.h
//   --report  counts of all kinds when the command has ended: "count KIND N"; and "fired KIND CALL PROGRAM PATH"
//   --below   writes, syncs, truncations and allocations count only on files of the file system of DIRECTORY, and not
//             if a virtual machine makes them, whose disk is its guest's; with --record also what is recorded
//   --record  see recorder.h
//
// The exit code is the command's, 128+N on a signal. What the command leaves behind is traced until it ends, by a
// process of this one's process group; if that is killed, so is all that it traces.
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "recorder.h"

#ifndef __x86_64__
#error "the registers are those of x86-64"
#endif

namespace faults {
namespace {

struct Options {
    std::optional<Kind> kind;
    std::uint64_t which = 0;
    int error = 0;
    std::string report, below, record, marks;
    char** command = nullptr;
};

[[noreturn]] void refuse(const std::string& why) {
    std::fprintf(stderr, "faults: %s\n", why.c_str());
    std::_Exit(99);
}

int error_number(const std::string& name) {
    const std::pair<const char*, int> known[] = {
        {"ENOSPC", ENOSPC}, {"EIO", EIO}, {"EMFILE", EMFILE}, {"ENOMEM", ENOMEM}};
    for (const auto& [text, number] : known)
        if (name == text) return number;
    refuse("unknown error " + name);
}

void parse_fault(Options& options, const std::string& text) {
    const auto first = text.find(':'), second = text.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) refuse("--fail takes KIND:N:ERRNO");
    for (int kind = 0; kind < kKinds; ++kind)
        if (text.substr(0, first) == kKindNames[kind]) options.kind = static_cast<Kind>(kind);
    if (!options.kind) refuse("unknown kind of call in " + text);
    options.which = std::strtoull(text.c_str() + first + 1, nullptr, 10);
    options.error = error_number(text.substr(second + 1));
}

Options parse(int argc, char** argv) {
    Options options;
    int at = 1;
    for (; at + 1 < argc && argv[at][0] == '-'; at += 2) {
        const std::string name = argv[at], value = argv[at + 1];
        if (name == "--fail") parse_fault(options, value);
        else if (name == "--report") options.report = value;
        else if (name == "--below") options.below = value;
        else if (name == "--record") options.record = value;
        else if (name == "--marks") options.marks = value;
        else refuse("unknown option " + name);
    }
    if (at >= argc) refuse("no command is given");
    options.command = argv + at;
    return options;
}

// The tracer is told of the calls of the table, by their place in it.
void install_filter(bool recording) {
    std::vector<sock_filter> program;
    program.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)));
    for (std::size_t i = 0; i < std::size(kCalls); ++i) {
        if (kCalls[i].kind == Kind::kOther && !recording) continue;
        program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(kCalls[i].number), 0, 1));
        program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | static_cast<std::uint32_t>(i)));
    }
    program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
    if (::geteuid() != 0 && ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) refuse("cannot give up new privileges");
    if (::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
        refuse(std::string("cannot filter calls: ") + std::strerror(errno));
}

class Tracer {
  public:
    explicit Tracer(Options options) : options_(std::move(options)) {
        struct stat info {};
        if (!options_.below.empty() && ::stat(options_.below.c_str(), &info) == 0) device_ = info.st_dev;
        if (!options_.record.empty())
            recorder_ = std::make_unique<Recorder>(options_.record, options_.below, options_.marks);
    }

    // Traces until nothing is left; `told` gets the command's end.
    void run(pid_t command, int told);

  private:
    void stopped(pid_t task, int status);
    void called(pid_t task, std::uint64_t index);
    void returned(pid_t task);
    bool counts(const Invocation& invocation, std::uint64_t caller) const;
    bool fails(const Invocation& invocation, std::uint64_t caller);
    void write_report() const;
    static void go_on(pid_t task, int request, int signal = 0) {
        ::ptrace(static_cast<__ptrace_request>(request), task, 0, signal);
    }

    Options options_;
    std::optional<dev_t> device_;
    std::unique_ptr<Recorder> recorder_;
    std::map<pid_t, Invocation> waiting_;  // calls whose result is of interest
    std::array<std::uint64_t, kKinds> counts_{};
    std::string fired_;
};

bool is_machine(pid_t task) {
    char program[256] = {};
    const auto got = ::readlink(("/proc/" + std::to_string(task) + "/exe").c_str(), program, sizeof program - 1);
    return got > 0 && std::strstr(program, "qemu-system") != nullptr;
}

// Opening for reading alone makes and changes nothing.
bool opens_to_write(const Invocation& invocation) {
    std::uint64_t flags = invocation.arguments[1];
    if (invocation.call->number == SYS_openat) flags = invocation.arguments[2];
    if (invocation.call->number == SYS_openat2) {
        open_how how{};
        if (!read_memory(invocation.task, invocation.arguments[2], &how, sizeof how)) return false;
        flags = how.flags;
    }
#ifdef SYS_creat
    if (invocation.call->number == SYS_creat) return true;
#endif
    return (flags & (O_WRONLY | O_RDWR | O_CREAT)) != 0;
}

// Whether an address lies in the dynamic loader.
bool is_in_loader(pid_t task, std::uint64_t address) {
    auto* maps = std::fopen(("/proc/" + std::to_string(task) + "/maps").c_str(), "re");
    char line[1024];
    bool found = false;
    while (maps != nullptr && std::fgets(line, sizeof line, maps) != nullptr) {
        unsigned long long begin = 0, end = 0;
        if (std::sscanf(line, "%llx-%llx", &begin, &end) == 2 && address >= begin && address < end)
            found = std::strstr(line, "/ld-linux") != nullptr;
    }
    if (maps != nullptr) std::fclose(maps);
    return found;
}

bool Tracer::counts(const Invocation& invocation, std::uint64_t caller) const {
    switch (invocation.call->kind) {
        case Kind::kOther: return false;
        case Kind::kOpen: return opens_to_write(invocation);
        // What the dynamic loader does before the program's first line, and how it complains, is its own.
        case Kind::kMmap: return !is_in_loader(invocation.task, caller);
        default: break;
    }
    if (invocation.call->subject != Subject::kFd || !device_) return true;
    struct stat info {};
    const auto path =
        "/proc/" + std::to_string(invocation.task) + "/fd/" + std::to_string(static_cast<int>(invocation.arguments[0]));
    if (::stat(path.c_str(), &info) != 0 || (!S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode))) return false;
    return info.st_dev == *device_ && !is_machine(invocation.task);
}

std::string subject_of(const Invocation& invocation) {
    std::uint64_t address = 0;
    switch (invocation.call->subject) {
        case Subject::kNothing: return "-";
        case Subject::kFd: {
            char target[512] = {};
            const auto path = "/proc/" + std::to_string(invocation.task) + "/fd/" +
                              std::to_string(static_cast<int>(invocation.arguments[0]));
            return ::readlink(path.c_str(), target, sizeof target - 1) > 0 ? target : "?";
        }
        case Subject::kPath:
        case Subject::kTwoPaths: address = invocation.arguments[0]; break;
        default: address = invocation.arguments[1]; break;
    }
    return read_string(invocation.task, address);
}

bool Tracer::fails(const Invocation& invocation, std::uint64_t caller) {
    if (!counts(invocation, caller)) return false;
    const auto count = ++counts_[static_cast<std::size_t>(invocation.call->kind)];
    if (options_.kind != invocation.call->kind || count != options_.which) return false;
    char program[32] = {};
    if (auto* file = std::fopen(("/proc/" + std::to_string(invocation.task) + "/comm").c_str(), "r")) {
        if (std::fscanf(file, "%31s", program) != 1) program[0] = '?';
        std::fclose(file);
    }
    fired_ = std::string("fired ") + kKindNames[static_cast<int>(invocation.call->kind)] + " " + invocation.call->name +
             " " + program + " " + subject_of(invocation) + "\n";
    return true;
}

void Tracer::called(pid_t task, std::uint64_t index) {
    user_regs_struct registers{};
    if (index >= std::size(kCalls) || ::ptrace(PTRACE_GETREGS, task, 0, &registers) != 0)
        return go_on(task, PTRACE_CONT);
    const Invocation invocation{
        task, &kCalls[index], {registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9}};
    if (fails(invocation, registers.rip)) {
        registers.orig_rax = ~0ULL;  // no call at all
        registers.rax = static_cast<unsigned long long>(-static_cast<long long>(options_.error));
        ::ptrace(PTRACE_SETREGS, task, 0, &registers);
        return go_on(task, PTRACE_CONT);
    }
    if (!recorder_ || !recorder_->before(invocation)) return go_on(task, PTRACE_CONT);
    waiting_[task] = invocation;
    go_on(task, PTRACE_SYSCALL);
}

void Tracer::returned(pid_t task) {
    const auto found = waiting_.find(task);
    user_regs_struct registers{};
    if (found != waiting_.end() && ::ptrace(PTRACE_GETREGS, task, 0, &registers) == 0)
        recorder_->after(found->second, static_cast<std::int64_t>(registers.rax));
    if (found != waiting_.end()) waiting_.erase(found);
    go_on(task, PTRACE_CONT);
}

void Tracer::stopped(pid_t task, int status) {
    const int signal = WSTOPSIG(status), event = status >> 16;
    if (signal == (SIGTRAP | 0x80)) return returned(task);
    if (event == PTRACE_EVENT_SECCOMP) {
        unsigned long index = 0;
        ::ptrace(PTRACE_GETEVENTMSG, task, 0, &index);
        return called(task, index);
    }
    if (event == PTRACE_EVENT_STOP) {
        // A new task, or one that somebody stopped and that is to stay so.
        const bool group_stop = signal == SIGSTOP || signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU;
        return go_on(task, group_stop ? PTRACE_LISTEN : PTRACE_CONT);
    }
    go_on(task, PTRACE_CONT, event == 0 ? signal : 0);
}

void Tracer::run(pid_t command, int told) {
    int status = 0;
    for (;;) {
        const pid_t task = ::waitpid(-1, &status, __WALL);
        if (task < 0 && errno == EINTR) continue;
        if (task < 0) break;
        if (WIFSTOPPED(status)) {
            stopped(task, status);
            continue;
        }
        waiting_.erase(task);
        if (task != command) continue;
        write_report();
        const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        if (::write(told, &code, sizeof code) != sizeof code) std::_Exit(99);
        ::close(told);
    }
    write_report();
}

void Tracer::write_report() const {
    if (options_.report.empty()) return;
    auto* file = std::fopen((options_.report + ".new").c_str(), "we");
    if (file == nullptr) return;
    for (int kind = 0; kind < kKinds; ++kind)
        std::fprintf(file, "count %s %llu\n", kKindNames[kind],
                     static_cast<unsigned long long>(counts_[static_cast<std::size_t>(kind)]));
    std::fputs(fired_.c_str(), file);
    std::fclose(file);
    ::rename((options_.report + ".new").c_str(), options_.report.c_str());
}

[[noreturn]] void execute(const Options& options, int ready) {
    char byte = 0;
    if (::read(ready, &byte, 1) != 1) std::_Exit(99);
    ::close(ready);
    install_filter(!options.record.empty());
    ::execvp(options.command[0], options.command);
    refuse(std::string("cannot run ") + options.command[0] + ": " + std::strerror(errno));
}

[[noreturn]] void trace(Options options, int told) {
    int ready[2];
    if (::pipe2(ready, O_CLOEXEC) != 0) refuse("cannot make a pipe");
    const pid_t command = ::fork();
    if (command < 0) refuse("cannot fork");
    if (command == 0) {
        ::close(ready[1]);
        execute(options, ready[0]);
    }
    constexpr int kFollow = PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC |
                            PTRACE_O_TRACESECCOMP | PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL;
    if (::ptrace(PTRACE_SEIZE, command, 0, kFollow) != 0) {
        ::kill(command, SIGKILL);
        refuse(std::string("cannot trace: ") + std::strerror(errno));
    }
    Tracer tracer(std::move(options));
    if (::write(ready[1], "", 1) != 1) refuse("cannot start the command");
    ::close(ready[1]);
    // Whoever reads the command's output waits for its end, not for this one's.
    const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd <= 2; ++fd) ::dup2(null, fd);
    tracer.run(command, told);
    std::exit(0);
}

}  // namespace
}  // namespace faults

int main(int argc, char** argv) {
    auto options = faults::parse(argc, argv);
    int told[2];
    if (::pipe2(told, O_CLOEXEC) != 0) faults::refuse("cannot make a pipe");
    const pid_t tracer = ::fork();
    if (tracer < 0) faults::refuse("cannot fork");
    if (tracer == 0) {
        ::close(told[0]);
        // Not the command's: it takes what is meant for that.
        for (int signal : {SIGINT, SIGTERM, SIGHUP}) ::signal(signal, SIG_DFL);
        faults::trace(std::move(options), told[1]);
    }
    ::close(told[1]);
    int code = 99;
    if (::read(told[0], &code, sizeof code) != sizeof code) code = 99;
    return code;
}
