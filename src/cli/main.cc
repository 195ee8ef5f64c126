#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>

#include "base/text.h"
#include "cli/command.h"
#include "cli/terminal.h"

namespace {

// The database's shared index is mapped memory: on a disk without a free block the kernel may have none for it, and says
// so by this signal. Only async-signal-safe calls.
void on_bus_error(int) {
    static constexpr char kText[] =
        "caisson: a file of the home could not grow: its disk is full\n"
        "  caisson reserve-release gives the reserve back at once, if it is there; then make room: caisson gc, caisson rm\n";
    static_cast<void>(!::write(STDERR_FILENO, kText, sizeof kText - 1));
    ::_exit(125);
}

int usage(const CLI::App& app, const CLI::ParseError& error) {
    const CLI::App* chosen = &app;
    while (!chosen->get_subcommands().empty()) chosen = chosen->get_subcommands().front();
    std::string name = chosen->get_parent() == nullptr ? "caisson" : "caisson " + chosen->get_name();
    for (auto* parent = chosen->get_parent(); parent != nullptr && parent->get_parent() != nullptr; parent = parent->get_parent())
        name = "caisson " + parent->get_name() + " " + chosen->get_name();
    // The library complains about the missing subcommand first; what the user wrote instead says more.
    if (dynamic_cast<const CLI::RequiredError*>(&error) != nullptr && !chosen->remaining().empty()) {
        std::fprintf(stderr, "caisson: there is no command '%s'\n  see: %s --help\n",
                     caisson::base::printable(chosen->remaining().front()).c_str(), name.c_str());
        return 2;
    }
    std::fprintf(stderr, "caisson: %s\n  see: %s --help\n", caisson::base::printable(error.what()).c_str(), name.c_str());
    return 2;
}

}  // namespace

int main(int argc, char** argv) {
    using namespace caisson;
    if (argc == 2 && std::string_view(argv[1]) == cli::kGuardArgument) return cli::run_terminal_guard();
    const auto umask = ::umask(0077);
    std::signal(SIGPIPE, SIG_IGN);
    std::signal(SIGBUS, on_bus_error);
    cli::Context context;
    context.umask = umask;
    context.terminal = ::isatty(STDERR_FILENO) == 1;

    CLI::App app{"", "caisson"};
    cli::Action action;
    cli::add_everything(app, action);
    try {
        app.parse(argc, argv);
    } catch (const CLI::Success& success) {
        return app.exit(success);  // --help, --version
    } catch (const CLI::ParseError& error) {
        return usage(app, error);
    }
    cli::remember_home();
    auto code = action(context);
    if (context.terminal) cli::clear_progress();
    if (std::fflush(stdout) != 0 && code) {
        std::fprintf(stderr, "caisson: cannot write the output\n");
        return 125;
    }
    if (code) return *code;
    cli::report(code.error());
    return base::errc_info(code.error().code).exit_code;
}
