// caisson cp: files between the host and a running box.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <optional>

#include "base/text.h"
#include "caisson/copy.h"
#include "cli/command.h"
#include "cli/copy_place.h"

namespace caisson::cli {

using base::failure;

namespace {

struct Arguments {
    std::string from, to;
    bool keep_owner = false, follow_link = false, quiet = false;
};

void notify(const Arguments& arguments, const std::string& text) {
    if (!arguments.quiet) std::fprintf(stderr, "caisson: %s\n", base::printable(text).c_str());
}

Result<int> copy_out(Context& context, const Arguments& arguments, const CopyPlace& from, const CopyPlace& to) {
    std::optional<HostCopy> host;
    if (to.stream()) {
        if (::isatty(STDOUT_FILENO) == 1)
            return failure(Errc::kUsage, "standard output is a terminal, and the copy would be a tar archive", "pipe it on, or name a file");
    } else {
        HostCopyOptions options;
        options.keep_owner = arguments.keep_owner;
        options.umask = context.umask;
        options.top = copy_name(from.path);
        options.on_notice = [&arguments](const std::string& text) { notify(arguments, text); };
        host.emplace(CAISSON_TRY(HostCopy::extract(to.path, options)));  // while the caller's rights are there
    }
    auto runtime = CAISSON_TRY(open_runtime(context));
    auto box = CAISSON_TRY(runtime.copy_out(from.box, {.path = from.path, .follow_link = arguments.follow_link, .host_path = to.path}));
    CopyWords words;
    auto outcome = CAISSON_TRY(box.wait({.stdout_fd = host ? host->stream_fd() : STDOUT_FILENO,
                                         .on_stderr = [&words](std::string_view text) { words.add(text); }}));
    auto copied = host ? host->finish() : Result<>();
    auto failed = words.failure(from.box, outcome, [&arguments](const std::string& text) { notify(arguments, text); });
    // A box that was ended by a signal had nobody who read on: the host knows why. Else the host has seen only that
    // the stream was cut off.
    if (failed && (copied || outcome.kind != Outcome::Kind::kSignalled)) return base::failure(std::move(*failed));
    CAISSON_TRY(std::move(copied));
    return 0;
}

Result<int> copy_in(Context& context, const Arguments& arguments, const CopyPlace& from, const CopyPlace& to) {
    std::optional<HostCopy> host;
    if (from.stream()) {
        if (::isatty(STDIN_FILENO) == 1)
            return failure(Errc::kUsage, "standard input is a terminal, not a tar archive", "pipe one in, or name a file");
    } else {
        HostCopyOptions options;
        options.follow_link = arguments.follow_link;
        options.on_notice = [&arguments](const std::string& text) { notify(arguments, text); };
        host.emplace(CAISSON_TRY(HostCopy::pack(from.path, options)));
    }
    auto runtime = CAISSON_TRY(open_runtime(context));
    auto box = CAISSON_TRY(runtime.copy_in(to.box, {.path = to.path,
                                                    .keep_owner = arguments.keep_owner,
                                                    .top = host ? copy_name(from.path) : ".",
                                                    .must_exist = !host,
                                                    .host_path = from.path}));
    CopyWords words;
    auto outcome = CAISSON_TRY(box.wait({.stdin_fd = host ? host->stream_fd() : STDIN_FILENO,
                                         .on_stderr = [&words](std::string_view text) { words.add(text); }}));
    auto copied = host ? host->finish() : Result<>();
    auto failed = words.failure(to.box, outcome, [&arguments](const std::string& text) { notify(arguments, text); });
    // If the host could not go on, the box has only seen that the stream was cut off.
    CAISSON_TRY(std::move(copied));
    if (failed) return base::failure(std::move(*failed));
    return 0;
}

Result<int> copy(Context& context, const Arguments& arguments) {
    context.quiet = arguments.quiet;
    auto from = CAISSON_TRY(parse_copy_place(arguments.from));
    auto to = CAISSON_TRY(parse_copy_place(arguments.to));
    if (from.box.empty() == to.box.empty())
        return failure(Errc::kUsage, from.box.empty() ? "neither side names a box" : "both sides name a box",
                       "write BOX:PATH on one side; a file of the host's with a colon as ./NAME");
    return from.box.empty() ? copy_in(context, arguments, from, to) : copy_out(context, arguments, from, to);
}

}  // namespace

void add_copy(CLI::App& app, Action& action) {
    auto* command = app.add_subcommand("cp", "Copy files between the host and a running box");
    auto arguments = std::make_shared<Arguments>();
    command->footer(
        "Examples:\n"
        "  caisson cp keen-otter-41:/var/log/app.log .\n"
        "  caisson cp config/. keen-otter-41:/etc/app\n"
        "  caisson cp keen-otter-41:/srv - | tar t\n"
        "  tar c . | caisson cp - keen-otter-41:/work\n"
        "\nAs with docker cp: into TO if that is a directory, else under its name; DIRECTORY/. copies what is in it; - is\n"
        "a tar archive. Links are copied as links. Copies belong to you, or to root in the box, unless -a is given.\n"
        "Directories that exist keep their mode and owner. Devices and sockets are left out on the host, and a path that\n"
        "is a link there is not followed.");
    command->add_option("FROM", arguments->from, "BOX:PATH, a path, or - for standard input")->required();
    command->add_option("TO", arguments->to, "BOX:PATH, a path, or - for standard output")->required();
    command->add_flag("-a,--archive", arguments->keep_owner, "Keep owners (on the host only as root), set-id bits, and modes beyond the umask");
    command->add_flag("-L,--follow-link", arguments->follow_link, "If FROM is a link, copy what it leads to");
    command->add_flag("-q,--quiet", arguments->quiet, "No progress, no notices");
    command->callback([arguments, &action] { action = [arguments](Context& context) { return copy(context, *arguments); }; });
}

}  // namespace caisson::cli
