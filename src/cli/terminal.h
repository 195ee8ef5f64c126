// The caller's terminal while a command in a box uses it: raw, so that every key reaches the command's own terminal,
// and as it was before once the box has ended, however this process ends.
#pragma once

#include <termios.h>

#include <cstdint>

#include "base/result.h"
#include "os/fd.h"
#include "os/process.h"

namespace caisson::cli {

struct TerminalSize {
    std::uint32_t rows = 0, columns = 0;  // 0: not known
};
TerminalSize terminal_size(int fd);

// Owner of a terminal's raw mode; the destructor ends it. Should this process be killed, a guard process of its own
// session ends it instead. One at a time, used by one thread.
class RawTerminal {
  public:
    // `fd` stays the caller's. kUsage if it is not a terminal.
    static Result<RawTerminal> enter(int fd);
    RawTerminal(RawTerminal&&) noexcept = default;
    RawTerminal& operator=(RawTerminal&&) = delete;
    ~RawTerminal();

  private:
    RawTerminal(int fd, const termios& saved, os::Process guard, os::Fd order)
        : fd_(fd), saved_(saved), guard_(std::move(guard)), order_(std::move(order)) {}
    int fd_;
    termios saved_;
    os::Process guard_;
    os::Fd order_;
};

// The guard's program: `caisson terminal-guard`, started by RawTerminal only. Descriptor 0 is the terminal, 3 a pipe
// with the settings. Returns the exit code.
inline constexpr const char* kGuardArgument = "terminal-guard";
int run_terminal_guard();

}  // namespace caisson::cli
