// The caller's terminal and streams, joined to an execution in a box.
#pragma once

#include <string>

#include "caisson/runtime.h"
#include "cli/terminal.h"

namespace caisson::cli {

inline constexpr const char* kDetachKeys = "ctrl-p,ctrl-q";

// The size of the terminal that -t needs: standard input's with -i, else standard output's. kUsage if that is none.
Result<TerminalSize> caller_terminal(bool interactive);

struct CallerStreams {
    bool interactive = false;  // standard input goes to it
    bool terminal = false;     // it has one, which with `interactive` is the caller's
    std::string detach_keys;   // bytes, see parse_detach_keys()
};
// Until it ends, or the caller leaves it. The caller's terminal is as before then.
Result<Outcome> connect_caller(Execution& execution, const CallerStreams& streams);

// Why it ended, if there is more to say than its exit code.
void report_reason(const Outcome& outcome);
void say_left(const std::string& box);

}  // namespace caisson::cli
