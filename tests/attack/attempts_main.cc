// A hostile program in place of any jailed process. It makes the attempts of attempt_table.h one after the other, each
// in a child of its own, and writes a line "ID RESULT" for each: "ok" (the attempt succeeded), the name of an errno, or
// the signal that ended it. attempt_table_test.cc knows what must come out.
//
// Arguments (after whatever the process kind itself has): see aim() in attempts.h. With only=ID one attempt is made, and
// not in a child: for jails in which no process may be made.
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "attempts.h"

namespace {

using namespace caisson::attack;

void tell(const char* id, const char* result) {
    char line[128];
    int length = snprintf(line, sizeof line, "%s %s\n", id, result);
    if (write(1, line, static_cast<size_t>(length)) < 0) _exit(9);
}

const char* name_of(int error) { return error == 0 ? "ok" : strerrorname_np(error); }

void try_in_child(const Attempt& attempt) {
    pid_t child = fork();
    if (child < 0) return tell(attempt.id, "nochild");
    if (child == 0) _exit(try_once(attempt));
    // Whatever waits for ever is an answer, too. Filters forbid alarm(2); who cannot be killed ends with the jail.
    constexpr timespec kPause{0, 200'000};
    constexpr int kPauses = 25'000;  // five seconds and more
    int status = 0;
    for (int paused = 0; waitpid(child, &status, WNOHANG) == 0; ++paused) {
        if (paused == kPauses) {
            kill(child, SIGKILL);
            return tell(attempt.id, "(no end)");
        }
        nanosleep(&kPause, nullptr);
    }
    if (!WIFSIGNALED(status)) return tell(attempt.id, name_of(WEXITSTATUS(status)));
    char signal_name[32];
    snprintf(signal_name, sizeof signal_name, "SIG%s", sigabbrev_np(WTERMSIG(status)));
    tell(attempt.id, signal_name);
}

}  // namespace

int main(int count, char** arguments) {
    for (int i = 1; i < count; ++i) aim(arguments[i]);
    for (const auto& attempt : attempts()) {
        if (!only(attempt.id)) continue;
        if (one_alone()) tell(attempt.id, name_of(try_once(attempt)));
        else try_in_child(attempt);
    }
    tell("end", "reached");
    return 0;
}
