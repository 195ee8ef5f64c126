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
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

namespace {

std::string said;

void attempt(const char* name, long result) {
    said += std::string(name) + " " + (result >= 0 ? "ok" : strerrorname_np(errno)) + "; ";
}

}  // namespace

int main() {
    attempt("unshare_user", unshare(CLONE_NEWUSER));
    attempt("mount", mount("tmpfs", "/", "tmpfs", 0, nullptr));
    attempt("host_file", open("/etc/passwd", O_RDONLY));
    attempt("create", open("/new", O_WRONLY | O_CREAT, 0600));
    attempt("packet_socket", socket(AF_PACKET, SOCK_RAW, 0));
    attempt("kill_all", kill(-1, 0));  // whether it could: without the jail it would be every process of this user
    rlimit cpu{};
    getrlimit(RLIMIT_CPU, &cpu);
    attempt("cpu_limit", cpu.rlim_max == RLIM_INFINITY ? (errno = ERANGE, -1) : 0);
    // And it does not mean to leave.
    prctl(PR_SET_PDEATHSIG, 0);
    if (fork() == 0)
        for (;;) pause();
    dprintf(1, "{\"error\":{\"code\":\"corrupt\",\"message\":\"%s\"}}\n", said.c_str());
    return 0;
}
