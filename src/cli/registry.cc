// Logging in to registries. The login is stored where docker keeps it: it is the caller's, so these commands are the
// ones that work on the caller's own file. Asking the registry is left to the runtime, as everything else.
#include <stdlib.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "base/text.h"
#include "cli/command.h"
#include "cli/terminal.h"
#include "os/process.h"

namespace caisson::cli {

using base::failure;

namespace {

constexpr std::size_t kMaxPasswordBytes = 64 << 10;

struct LoginArguments {
    std::string registry = "docker.io", user, authorities_file;
    bool password_stdin = false, plain_http = false, verify_only = false;
};

// A terminal's line without showing it. The terminal's keys for signals are read as letters meanwhile, so that Ctrl-C
// gives up instead of ending the program; whatever else ends it, RawTerminal puts the terminal back.
Result<Secret> ask_silently(const std::string& question) {
    constexpr char kInterrupt = 3, kEnd = 4, kBackspace = 8, kKill = 21, kDelete = 127;
    std::string text;
    text.reserve(kMaxPasswordBytes);  // never moved, so it can be zeroed
    bool cancelled = false;
    {
        auto raw = CAISSON_TRY(RawTerminal::enter(STDIN_FILENO));
        ::tcflush(STDIN_FILENO, TCIFLUSH);  // what was typed before the question is no answer to it
        std::fputs(question.c_str(), stderr);
        std::fflush(stderr);
        for (;;) {
            char c = 0;
            ssize_t got = ::read(STDIN_FILENO, &c, 1);
            if (got < 0 && errno == EINTR) continue;
            if (got <= 0 || c == kInterrupt || c == kEnd) {
                cancelled = true;
                break;
            }
            if (c == '\n' || c == '\r') break;
            if (c == kKill) {
                wipe(text);
            } else if (c == kDelete || c == kBackspace) {
                if (!text.empty()) text.pop_back();
            } else if (text.size() < kMaxPasswordBytes) {
                text += c;
            }
        }
    }
    std::fputs("\n", stderr);
    Secret secret(text);
    wipe(text);
    if (cancelled) return failure(Errc::kCancelled, "cancelled");
    return secret;
}

Result<Secret> read_password() {
    std::string text;
    text.reserve(kMaxPasswordBytes + 4096);
    for (;;) {
        char buffer[4096];
        ssize_t got = ::read(STDIN_FILENO, buffer, sizeof buffer);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return base::failure_errno("cannot read the password");
        if (got == 0) break;
        if (text.size() + static_cast<std::size_t>(got) > kMaxPasswordBytes) {
            wipe(text);
            return failure(Errc::kUsage, "the password on standard input is longer than " + base::format_size(kMaxPasswordBytes));
        }
        text.append(buffer, static_cast<std::size_t>(got));
        ::explicit_bzero(buffer, sizeof buffer);
    }
    if (text.ends_with('\n')) text.pop_back();
    if (text.ends_with('\r')) text.pop_back();
    Secret secret(text);
    wipe(text);
    return secret;
}

Result<RegistryLogin> ask_login(const LoginArguments& arguments) {
    RegistryLogin login;
    login.user = arguments.user;
    bool terminal = ::isatty(STDIN_FILENO) == 1;
    if (!arguments.password_stdin && !terminal)
        return failure(Errc::kUsage, "there is no terminal to ask for the password", "pipe it in, with --password-stdin");
    if (login.user.empty() && !terminal) return failure(Errc::kUsage, "no user is given", "name one with -u");
    if (login.user.empty()) {
        std::fprintf(stderr, "User for %s: ", base::printable(arguments.registry).c_str());
        char line[512] = {};
        if (std::fgets(line, sizeof line, stdin) == nullptr) return failure(Errc::kCancelled, "cancelled");
        login.user = std::string(base::trim(line));
    }
    if (login.user.empty() || login.user.find(':') != std::string::npos)
        return failure(Errc::kUsage, "\"" + base::printable(login.user, 100) + "\" is not a user name");
    login.password = arguments.password_stdin ? CAISSON_TRY(read_password())
                                              : CAISSON_TRY(ask_silently("Password of " + base::printable(login.user, 100) + ": "));
    if (login.password.empty()) return failure(Errc::kUsage, "the password is empty");
    return login;
}

// As root: the registry is asked by a second caisson, which gives up root; only the storing is left for this one.
Result<int> verify_as_service_user(const LoginArguments& arguments, const RegistryLogin& login) {
    os::Command command;
    command.arguments = {"/proc/self/exe", "registry", "login", "--verify-only", "--password-stdin", "--user", login.user};
    if (arguments.plain_http) command.arguments.push_back("--plain-http");
    if (!arguments.authorities_file.empty()) {
        char* path = ::realpath(arguments.authorities_file.c_str(), nullptr);
        command.arguments.insert(command.arguments.end(), {"--tls-ca", path == nullptr ? arguments.authorities_file : std::string(path)});
        ::free(path);
    }
    command.arguments.push_back(arguments.registry);
    for (char** variable = environ; *variable != nullptr; ++variable) command.environment.emplace_back(*variable);
    auto input = CAISSON_TRY(os::make_socketpair(SOCK_STREAM));
    command.descriptors = {{input.second.get(), STDIN_FILENO}, {STDERR_FILENO, STDERR_FILENO}};
    auto process = CAISSON_TRY(os::spawn(command));
    input.second.reset();
    auto text = login.password.reveal();
    if (::send(input.first.get(), text.data(), text.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(text.size()))
        return base::failure_errno("cannot hand the password on");
    input.first.reset();
    auto ended = CAISSON_TRY(process.wait());
    return ended.signalled ? 125 : ended.code;
}

Result<int> log_in(Context& context, const LoginArguments& arguments) {
    auto login = CAISSON_TRY(ask_login(arguments));
    const bool as_root = ::geteuid() == 0;
    if (as_root && !arguments.verify_only) {
        // It has said itself what is wrong.
        if (int code = CAISSON_TRY(verify_as_service_user(arguments, login)); code != 0) return code;
    } else {
        // Of what the caller has only the authorities count: the login is the new one.
        auto source = CAISSON_TRY(caller_access({.authorities_file = arguments.authorities_file, .docker_config = "/nonexistent", .image = arguments.registry + "/x"}));
        auto access = CAISSON_TRY(source(arguments.registry));
        access.login = login;
        auto runtime = CAISSON_TRY(open_runtime(context));
        CAISSON_TRY(runtime.check_registry_login(arguments.registry, access, arguments.plain_http));
    }
    if (arguments.verify_only) return 0;
    auto place = CAISSON_TRY(store_registry_login(arguments.registry, login));
    std::printf("logged in to %s; stored in %s\n", base::printable(arguments.registry).c_str(), base::printable(place).c_str());
    return 0;
}

Result<int> log_out(const std::string& registry) {
    if (!CAISSON_TRY(remove_registry_login(registry)))
        return failure(Errc::kNotFound, "there is no login for " + base::printable(registry));
    std::printf("logged out of %s\n", base::printable(registry).c_str());
    return 0;
}

}  // namespace

void add_registry_commands(CLI::App& app, Action& action) {
    auto* group = app.add_subcommand("registry", "Log in to registries");
    group->require_subcommand(1);

    auto arguments = std::make_shared<LoginArguments>();
    auto* login = group->add_subcommand("login", "Check a login and store it where docker keeps it");
    login->footer("Examples:\n  caisson registry login ghcr.io\n  caisson registry login -u robot --password-stdin registry.lan:5000 < password");
    login->add_option("REGISTRY", arguments->registry, "Registry, as it stands before an image's name")->capture_default_str();
    login->add_option("-u,--user", arguments->user, "User; asked for if not given")->type_name("USER");
    login->add_flag("--password-stdin", arguments->password_stdin, "Read the password from standard input");
    login->add_option("--tls-ca", arguments->authorities_file, "Trust these certificate authorities, too (PEM)")->type_name("FILE");
    login->add_flag("--plain-http", arguments->plain_http, "Without TLS: sends the password in the clear");
    login->add_flag("--verify-only", arguments->verify_only, "Check the login, store nothing");
    login->callback([arguments, &action] { action = [arguments](Context& context) { return log_in(context, *arguments); }; });

    auto registry = std::make_shared<std::string>("docker.io");
    auto* logout = group->add_subcommand("logout", "Remove a stored login");
    logout->footer("Example:\n  caisson registry logout ghcr.io");
    logout->add_option("REGISTRY", *registry, "Registry")->capture_default_str();
    logout->callback([registry, &action] { action = [registry](Context&) { return log_out(*registry); }; });
}

}  // namespace caisson::cli
