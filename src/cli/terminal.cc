#include "cli/terminal.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "os/file.h"

namespace caisson::cli {

using base::failure;

namespace {

constexpr int kOrderFd = 3;

// What the guard is told before the mode changes; one more byte behind it says that it is not needed any more.
struct Settings {
    termios saved;
    termios raw;
};

bool same(const termios& a, const termios& b) {
    return a.c_iflag == b.c_iflag && a.c_oflag == b.c_oflag && a.c_cflag == b.c_cflag && a.c_lflag == b.c_lflag &&
           std::memcmp(a.c_cc, b.c_cc, sizeof a.c_cc) == 0;
}

bool read_whole(int fd, void* into, std::size_t size) {
    auto* at = static_cast<char*>(into);
    while (size > 0) {
        ssize_t got = ::read(fd, at, size);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        at += got;
        size -= static_cast<std::size_t>(got);
    }
    return true;
}

}  // namespace

TerminalSize terminal_size(int fd) {
    winsize size{};
    if (::ioctl(fd, TIOCGWINSZ, &size) != 0) return {};
    return {size.ws_row, size.ws_col};
}

Result<RawTerminal> RawTerminal::enter(int fd) {
    Settings settings{};
    if (::tcgetattr(fd, &settings.saved) != 0) return base::failure_errno("cannot read the terminal's settings");
    settings.raw = settings.saved;
    ::cfmakeraw(&settings.raw);

    auto program = CAISSON_TRY(os::open_file("/proc/self/exe", O_RDONLY));
    auto order = CAISSON_TRY(os::make_pipe());
    os::Command command;
    command.arguments = {"caisson", kGuardArgument};
    command.program_fd = program.get();
    command.descriptors = {{fd, 0}, {order.first.get(), kOrderFd}};
    // Signals of the terminal are not for the guard; and a process whose terminal this is not may set it any time.
    command.new_session = true;
    auto guard = CAISSON_TRY_CTX(os::spawn(command), "guarding the terminal");
    CAISSON_TRY(os::write_all(order.second.get(), std::string_view(reinterpret_cast<const char*>(&settings), sizeof settings)));
    if (::tcsetattr(fd, TCSADRAIN, &settings.raw) != 0) return base::failure_errno("cannot change the terminal's settings");
    return RawTerminal(fd, settings.saved, std::move(guard), std::move(order.second));
}

RawTerminal::~RawTerminal() {
    if (!order_) return;  // moved from
    ::tcsetattr(fd_, TCSADRAIN, &saved_);
    static_cast<void>(os::write_all(order_.get(), "."));
    order_.reset();
    static_cast<void>(guard_.wait(std::chrono::seconds(1)));
}

int run_terminal_guard() {
    Settings settings{};
    char done = 0;
    if (!read_whole(kOrderFd, &settings, sizeof settings)) return 0;
    if (read_whole(kOrderFd, &done, 1)) return 0;
    // Whoever changed the mode since then, as a shell does for its own line editing, knows better.
    termios now{};
    if (::tcgetattr(STDIN_FILENO, &now) == 0 && same(now, settings.raw)) ::tcsetattr(STDIN_FILENO, TCSADRAIN, &settings.saved);
    return 0;
}

}  // namespace caisson::cli
