// caisson volume import, export, cp, sync, clone: files that get into volumes and out of them. The host's end of a copy is
// a process that has the caller's rights (HostCopy), the volume's end one that has those of the home's owner; what goes
// from one to the other is a tar archive.
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <memory>

#include "base/text.h"
#include "caisson/copy.h"
#include "cli/command.h"
#include "cli/copy_place.h"
#include "cli/output_file.h"
#include "os/file.h"

namespace caisson::cli {

using base::failure;

namespace {

constexpr std::size_t kPieceBytes = 256 << 10;

void notify(bool quiet, const std::string& text) {
    if (!quiet) std::fprintf(stderr, "caisson: %s\n", base::printable(text).c_str());
}
std::function<void(const std::string&)> notifier(bool quiet) {
    return [quiet](const std::string& text) { notify(quiet, text); };
}

// What one end of a copy says is heard while bytes are on their way, since a copy that goes on says something again and
// again.
Result<bool> wait_for_bytes(int from, HostCopy* reader, HostCopy* writer) {
    for (;;) {
        struct pollfd waited[] = {{from, POLLIN, 0}, {reader != nullptr ? reader->report_fd() : -1, POLLIN, 0}, {writer != nullptr ? writer->report_fd() : -1, POLLIN, 0}};
        if (::poll(waited, 3, -1) < 0 && errno != EINTR) return base::failure_errno("cannot wait for the copy");
        if ((waited[1].revents & POLLIN) != 0) CAISSON_TRY(reader->take_reports());
        if ((waited[2].revents & POLLIN) != 0) CAISSON_TRY(writer->take_reports());
        // The end of its reports is the end of the process.
        if ((waited[2].revents & POLLHUP) != 0 && (waited[2].revents & POLLIN) == 0) return false;
        if (waited[0].revents != 0) return true;
    }
}

// All bytes of `from` to `to`, until one of them ends; their processes, if there are any, say why that was.
Result<> move_bytes(int from, int to, HostCopy* reader, HostCopy* writer) {
    std::unique_ptr<std::uint8_t[]> buffer(new std::uint8_t[kPieceBytes]);
    while (CAISSON_TRY(wait_for_bytes(from, reader, writer))) {
        ssize_t got = ::read(from, buffer.get(), kPieceBytes);
        if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (got < 0) return base::failure_errno("cannot read the archive");
        if (got == 0) return {};
        auto written = os::write_all(to, base::ByteView(buffer.get(), static_cast<std::size_t>(got)));
        if (!written && written.error().sys_errno == EPIPE && writer != nullptr) return {};
        CAISSON_TRY_CTX(std::move(written), "writing the archive");
    }
    return {};
}

// Ends both ends. The one that reads is asked first: without its word a stream that was cut off looks like the other's
// failure. Only if it had nothing to say, what was written may count as complete.
Result<> copy_between(HostCopy reader, HostCopy writer) {
    auto moved = move_bytes(reader.stream_fd(), writer.stream_fd(), &reader, &writer);
    auto packed = reader.finish();
    if (!packed) return packed;
    auto extracted = writer.finish();
    if (!extracted) return extracted;
    return moved;
}

Result<std::pair<std::uint32_t, std::uint32_t>> parse_owner(const std::string& text) {
    if (text.empty()) return std::pair<std::uint32_t, std::uint32_t>{0, 0};
    const auto words = base::split(text, ':');
    auto number = [](std::string_view word) -> Result<std::uint32_t> {
        const auto value = CAISSON_TRY(base::parse_u64(word));
        if (value < 0xffffffff) return static_cast<std::uint32_t>(value);
        return failure(Errc::kUsage, "it is too large");
    };
    const auto user = words.size() == 2 ? number(words[0]) : Result<std::uint32_t>(failure(Errc::kUsage, ""));
    const auto group = words.size() == 2 ? number(words[1]) : Result<std::uint32_t>(failure(Errc::kUsage, ""));
    if (user && group) return std::pair(*user, *group);
    return failure(Errc::kUsage, "--owner '" + base::printable(text, 100) + "' is no UID:GID", "write two numbers: --owner 1000:1000");
}

// ---- import, export

struct ImportArguments {
    std::string name, source, owner, size;
    bool archive = false, keep_owner = false, quiet = false;
};

Result<os::Fd> open_archive(const std::string& path) {
    if (path != "-") return os::open_file(path, O_RDONLY | O_NOCTTY);
    if (::isatty(STDIN_FILENO) == 1)
        return failure(Errc::kUsage, "standard input is a terminal, not an archive", "name a file or a directory, or pipe an archive in");
    int copy = ::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
    if (copy < 0) return base::failure_errno("cannot read standard input");
    return os::Fd(copy);
}

// Of a directory, what is in it.
Result<HostCopy> pack_source(const std::string& path, bool quiet) {
    HostCopyOptions options;
    options.follow_link = true;  // the caller named it
    options.on_notice = notifier(quiet);
    struct stat info {};
    const bool directory = ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
    return HostCopy::pack(directory ? path + "/." : path, options);
}

Result<int> import_volume(Context& context, const ImportArguments& arguments) {
    VolumeCopyOptions options;
    const auto owner = CAISSON_TRY(parse_owner(arguments.owner));
    options.owner_user = owner.first;
    options.owner_group = owner.second;
    options.keep_owner = arguments.keep_owner;
    options.on_notice = notifier(arguments.quiet);
    if (!arguments.size.empty()) options.size_bytes = CAISSON_TRY_CTX(base::parse_size(arguments.size), "--size");
    const bool from_archive = arguments.archive || arguments.source == "-";
    // With the caller's rights, which go next.
    os::Fd archive;
    std::optional<HostCopy> host;
    if (from_archive) archive = CAISSON_TRY(open_archive(arguments.source));
    else host.emplace(CAISSON_TRY(pack_source(arguments.source, arguments.quiet)));
    auto runtime = CAISSON_TRY(open_runtime(context));
    auto volume = CAISSON_TRY(runtime.write_volume(arguments.name, options));
    if (host) {
        CAISSON_TRY(copy_between(std::move(*host), std::move(volume)));
    } else {
        auto moved = move_bytes(archive.get(), volume.stream_fd(), nullptr, &volume);
        auto extracted = moved ? volume.finish() : Result<>();
        CAISSON_TRY(std::move(moved));
        CAISSON_TRY(std::move(extracted));
    }
    std::printf("%s\n", arguments.name.c_str());
    return 0;
}

struct ExportArguments {
    std::string name, output = "-", owner;
    bool quiet = false;
};

Result<int> export_volume(Context& context, const ExportArguments& arguments) {
    VolumeCopyOptions options;
    const auto owner = CAISSON_TRY(parse_owner(arguments.owner));
    options.owner_user = owner.first;
    options.owner_group = owner.second;
    options.on_notice = notifier(arguments.quiet);
    auto output = CAISSON_TRY(OutputFile::open(arguments.output));
    auto runtime = CAISSON_TRY(open_runtime(context));
    auto volume = CAISSON_TRY(runtime.read_volume(arguments.name, options));
    CAISSON_TRY(move_bytes(volume.stream_fd(), output.fd(), &volume, nullptr));
    CAISSON_TRY(volume.finish());
    CAISSON_TRY(output.finish());
    return 0;
}

// ---- cp

struct CopyArguments {
    std::string from, to;
    bool keep_owner = false, follow_link = false, quiet = false;
};

Result<int> copy_out(Context& context, const CopyArguments& arguments, const CopyPlace& from, const CopyPlace& to) {
    VolumeCopyOptions options;
    options.path = from.path;
    options.on_notice = notifier(arguments.quiet);
    std::optional<HostCopy> host;
    std::optional<OutputFile> output;
    HostCopyOptions host_options;
    host_options.keep_owner = arguments.keep_owner;
    host_options.umask = context.umask;
    host_options.top = copy_name("/" + from.path);
    host_options.on_notice = options.on_notice;
    if (to.stream()) output.emplace(CAISSON_TRY(OutputFile::open("-")));
    else host.emplace(CAISSON_TRY(HostCopy::extract(to.path, host_options)));  // while the caller's rights are there
    auto runtime = CAISSON_TRY(open_runtime(context));
    auto volume = CAISSON_TRY(runtime.read_volume(from.box, options));
    if (host) {
        CAISSON_TRY(copy_between(std::move(volume), std::move(*host)));
        return 0;
    }
    CAISSON_TRY(move_bytes(volume.stream_fd(), output->fd(), &volume, nullptr));
    CAISSON_TRY(volume.finish());
    return 0;
}

Result<int> copy_in(Context& context, const CopyArguments& arguments, const CopyPlace& from, const CopyPlace& to) {
    VolumeCopyOptions options;
    options.path = to.path;
    options.keep_owner = arguments.keep_owner;
    options.make = false;
    options.top = from.stream() ? "." : copy_name(from.path);
    options.on_notice = notifier(arguments.quiet);
    std::optional<HostCopy> host;
    os::Fd archive;
    HostCopyOptions host_options;
    host_options.follow_link = arguments.follow_link;
    host_options.on_notice = options.on_notice;
    if (from.stream()) archive = CAISSON_TRY(open_archive("-"));
    else host.emplace(CAISSON_TRY(HostCopy::pack(from.path, host_options)));
    auto runtime = CAISSON_TRY(open_runtime(context));
    auto volume = CAISSON_TRY(runtime.write_volume(to.box, options));
    if (host) {
        CAISSON_TRY(copy_between(std::move(*host), std::move(volume)));
        return 0;
    }
    CAISSON_TRY(move_bytes(archive.get(), volume.stream_fd(), nullptr, &volume));
    CAISSON_TRY(volume.finish());
    return 0;
}

// "NAME:" is all of the volume.
Result<CopyPlace> parse_place(const std::string& text) {
    auto place = parse_copy_place(text.size() > 1 && text.back() == ':' ? text + "/" : text);
    if (!place) return failure(Errc::kUsage, "'" + base::printable(text, 300) + "' names no volume or no path", "write NAME:PATH; a file of the host's with a colon as ./NAME");
    return place;
}

Result<int> copy_files(Context& context, const CopyArguments& arguments) {
    const auto from = CAISSON_TRY(parse_place(arguments.from));
    const auto to = CAISSON_TRY(parse_place(arguments.to));
    if (from.box.empty() == to.box.empty())
        return failure(Errc::kUsage, from.box.empty() ? "neither place is in a volume" : "both places are in volumes",
                       "write one as NAME:PATH, the other as a path of the host's (./a:b if it has a colon)");
    return from.box.empty() ? copy_in(context, arguments, from, to) : copy_out(context, arguments, from, to);
}

// ---- sync

struct SyncArguments {
    std::string name, directory;
    bool from_volume = false, remove = false, watch = false, quiet = false;
};

Result<> check_directory(const std::string& path) {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0) return base::failure_errno("cannot look at " + base::printable(path, 300));
    if (S_ISDIR(info.st_mode)) return {};
    return failure(Errc::kUsage, base::printable(path, 300) + " is no directory", "to bring in one file: caisson volume cp");
}

std::string counted(std::uint64_t changed, std::uint64_t removed) {
    return std::to_string(changed) + " changed, " + std::to_string(removed) + " removed";
}

Result<int> sync(Context& context, const SyncArguments& arguments) {
    CAISSON_TRY(check_directory(arguments.directory));
    const auto on_pass = [&arguments, first = true](std::uint64_t changed, std::uint64_t removed) mutable {
        if (first || changed > 0 || removed > 0) notify(arguments.quiet, "synced: " + counted(changed, removed));
        first = false;
    };
    HostCopyOptions host;
    VolumeCopyOptions volume;
    host.again = volume.again = arguments.watch;
    host.update = volume.update = true;
    host.remove_others = volume.remove_others = arguments.remove;
    host.on_notice = volume.on_notice = notifier(arguments.quiet);
    host.on_pass = volume.on_pass = on_pass;
    host.follow_link = true;
    host.umask = context.umask;
    const auto contents = arguments.directory + "/.";
    // The caller's end first, while the caller's rights are there.
    if (arguments.from_volume) {
        auto to = CAISSON_TRY(HostCopy::extract(contents, host));
        auto runtime = CAISSON_TRY(open_runtime(context));
        CAISSON_TRY(copy_between(CAISSON_TRY(runtime.read_volume(arguments.name, volume)), std::move(to)));
        return 0;
    }
    host.update = host.remove_others = false;
    auto from = CAISSON_TRY(HostCopy::pack(contents, host));
    auto runtime = CAISSON_TRY(open_runtime(context));
    CAISSON_TRY(copy_between(std::move(from), CAISSON_TRY(runtime.write_volume(arguments.name, volume))));
    return 0;
}

// ---- how they are written

void add_import(CLI::App& group, Action& action) {
    auto arguments = std::make_shared<ImportArguments>();
    auto* command = group.add_subcommand("import", "Copy files of the host into a volume, which is made if there is none");
    command->footer("Examples:\n  caisson volume import src ./src\n  caisson volume import conf app.conf\n"
                    "  caisson volume import --keep-owner db - < db.tar\n\n"
                    "Of a directory, what is in it. A volume that is made appears when all is in it.");
    command->add_option("NAME", arguments->name, "The volume")->required();
    command->add_option("PATH", arguments->source, "File or directory; - is a tar archive on standard input")->required();
    command->add_flag("--tar", arguments->archive, "PATH is a tar archive, not compressed: copy what is in it");
    command->add_flag("--keep-owner", arguments->keep_owner, "Owners and set-id bits as in the files; else all is the volume owner's");
    command->add_option("--owner", arguments->owner, "With --keep-owner: whose files are the volume owner's; 0:0 if not given")->type_name("UID:GID");
    command->add_option("--size", arguments->size, "Of a volume that is made: most that it may hold")->type_name("SIZE");
    command->add_flag("-q,--quiet", arguments->quiet, "Do not tell what was left out");
    command->callback([arguments, &action] { action = [arguments](Context& context) { return import_volume(context, *arguments); }; });
}

void add_export(CLI::App& group, Action& action) {
    auto arguments = std::make_shared<ExportArguments>();
    auto* command = group.add_subcommand("export", "Write a volume as a tar archive, as a box sees it");
    command->footer("Examples:\n  caisson volume export -o data.tar data\n  caisson volume export data | ssh host caisson volume import --keep-owner data -");
    command->add_option("NAME", arguments->name, "The volume")->required();
    command->add_option("-o,--output", arguments->output, "File to make; - is standard output")->type_name("FILE")->capture_default_str();
    command->add_option("--owner", arguments->owner, "Numbers of whoever owns the volume, in the archive; 0:0 if not given")->type_name("UID:GID");
    command->add_flag("-q,--quiet", arguments->quiet, "Do not tell what was left out");
    command->callback([arguments, &action] { action = [arguments](Context& context) { return export_volume(context, *arguments); }; });
}

void add_volume_copy(CLI::App& group, Action& action) {
    auto arguments = std::make_shared<CopyArguments>();
    auto* command = group.add_subcommand("cp", "Copy files between the host and a volume");
    command->footer("Examples:\n  caisson volume cp app.conf conf:/etc/app.conf\n  caisson volume cp data:/report .\n"
                    "  tar c . | caisson volume cp - data:/work");
    command->add_option("FROM", arguments->from, "NAME:PATH or a path of the host's; - is a tar archive on standard input")->required();
    command->add_option("TO", arguments->to, "A path of the host's or NAME:PATH; - is a tar archive on standard output")->required();
    command->add_flag("-a,--archive", arguments->keep_owner, "Keep owners, set-id bits and all mode bits");
    command->add_flag("-L,--follow-link", arguments->follow_link, "If the path of the host's is a link, copy what it leads to");
    command->add_flag("-q,--quiet", arguments->quiet, "Do not tell what was left out");
    command->callback([arguments, &action] { action = [arguments](Context& context) { return copy_files(context, *arguments); }; });
}

void add_sync(CLI::App& group, Action& action) {
    auto arguments = std::make_shared<SyncArguments>();
    auto* command = group.add_subcommand("sync", "Copy what changed in a directory of the host to a volume, or back");
    command->footer("Examples:\n  caisson volume sync --watch --delete src ./src\n  caisson volume sync --from-volume out ./out\n\n"
                    "A file counts as unchanged if its size and its time of last change are the same on both sides.");
    command->add_option("NAME", arguments->name, "The volume; made if there is none")->required();
    command->add_option("DIR", arguments->directory, "Directory of the host")->required();
    command->add_flag("--from-volume", arguments->from_volume, "From the volume to the directory");
    command->add_flag("--delete", arguments->remove, "Remove what the other side does not have");
    command->add_flag("--watch", arguments->watch, "Go on, and copy again whenever something changes");
    command->add_flag("-q,--quiet", arguments->quiet, "Say nothing");
    command->callback([arguments, &action] { action = [arguments](Context& context) { return sync(context, *arguments); }; });
}

void add_clone(CLI::App& group, Action& action) {
    auto names = std::make_shared<std::pair<std::string, std::string>>();
    auto* command = group.add_subcommand("clone", "Make a second volume with the files of a first one");
    command->footer("Example:\n  caisson volume clone data data-before-upgrade");
    command->add_option("SOURCE", names->first, "The volume that is there")->required();
    command->add_option("NAME", names->second, "What the second one is called")->required();
    command->callback([names, &action] {
        action = [names](Context& context) -> Result<int> {
            auto runtime = CAISSON_TRY(open_runtime(context));
            std::printf("%s\n", CAISSON_TRY(runtime.clone_volume(names->first, names->second)).name.c_str());
            return 0;
        };
    });
}

}  // namespace

void add_volume_file_commands(CLI::App& group, Action& action) {
    add_import(group, action);
    add_export(group, action);
    add_volume_copy(group, action);
    add_sync(group, action);
    add_clone(group, action);
}

}  // namespace caisson::cli
