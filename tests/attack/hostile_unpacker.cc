// A program in caisson-unpack's place that has been taken over by a layer. It tries what its jail must refuse and says
// what came of it as its error, which reaches whoever asked for the image.
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

namespace {

std::string said;

// In a process of its own, for some attempts are its end.
template <typename Attempt>
void attempt(const char* name, const Attempt& what) {
    const pid_t child = fork();
    if (child == 0) _exit(what() < 0 ? errno : 0);
    int status = 0;
    waitpid(child, &status, 0);
    const char* result = WIFSIGNALED(status)          ? sigabbrev_np(WTERMSIG(status))
                         : WEXITSTATUS(status) == 0 ? "ok"
                                                    : strerrorname_np(WEXITSTATUS(status));
    said += std::string(name) + " " + result + "; ";
}

}  // namespace

int main() {
    // What it reads says what it does.
    char what[4] = "";
    for (int input = 3; input < 8; ++input)
        if (pread(input, what, 3, 0) == 3 && strcmp(what, "die") == 0) ptrace(PTRACE_ATTACH, getppid(), nullptr, nullptr);
    attempt("unshare_user", [] { return unshare(CLONE_NEWUSER); });
    attempt("mount", [] { return mount("tmpfs", "/", "tmpfs", 0, nullptr); });
    attempt("ptrace", [] { return ptrace(PTRACE_ATTACH, getppid(), nullptr, nullptr); });
    attempt("host_file", [] { return open("/etc/passwd", O_RDONLY); });
    attempt("create", [] { return open("/new", O_WRONLY | O_CREAT, 0600); });
    attempt("packet_socket", [] { return socket(AF_PACKET, SOCK_RAW, 0); });
    attempt("signal_first_process", [] { return syscall(SYS_tgkill, 1, 1, 0); });
    attempt("kill_all", [] { return kill(-1, 0); });  // whether it could: without the jail it would be every process of this user
    attempt("cpu_limit", [] {
        rlimit cpu{};
        getrlimit(RLIMIT_CPU, &cpu);
        return cpu.rlim_max == RLIM_INFINITY ? (errno = ERANGE, -1) : 0;
    });
    // And it does not mean to leave.
    prctl(PR_SET_PDEATHSIG, 0);
    if (fork() == 0)
        for (;;) pause();
    dprintf(1, "{\"error\":{\"code\":\"corrupt\",\"message\":\"%s\"}}\n", said.c_str());
    return 0;
}
