#include "tar/extract.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <unordered_set>
#include <utility>

#include "base/text.h"
#include "os/file.h"
#include "tar/notices.h"
#include "tar/reader.h"

namespace caisson::tar {

using base::failure;
using base::failure_errno;
using base::printable;
using Parts = std::vector<std::string>;

namespace {

struct Identity {
    dev_t device;
    ino_t inode;
    bool operator==(const Identity&) const = default;
};
struct IdentityHash {
    std::size_t operator()(const Identity& id) const {
        return std::hash<std::uint64_t>()(id.inode ^ static_cast<std::uint64_t>(id.device) << 48);
    }
};
Identity identity(const struct stat& info) { return {info.st_dev, info.st_ino}; }

std::string joined(const Parts& parts) { return base::join(parts, "/"); }

class Extractor {
  public:
    Extractor(Source source, const Destination& destination, const ExtractOptions& options, const Notice& notice)
        : reader_(std::move(source)), destination_(destination), options_(options), note_(notice) {}

    Result<> run() {
        Entry entry;
        bool first = true;
        while (CAISSON_TRY(reader_.next(entry))) {
            if (first) CAISSON_TRY(choose_names(entry.kind == Kind::kDirectory));
            first = false;
            shown_ = printable(entry.path, 300);
            CAISSON_TRY(take(entry));
        }
        CAISSON_TRY(reader_.drain());
        CAISSON_TRY(finish_directories());
        note_.finish();
        return {};
    }

  private:
    struct Pending {
        std::string path;
        Identity id;
        Entry entry;  // of its fields, only those of the inode
    };

    Result<> choose_names(bool directory) {
        if (options_.top != ".") names_.top = options_.top;
        auto place = CAISSON_TRY(place_for(directory, destination_.present, destination_.slash, destination_.shown));
        if (place == Place::kInstead) names_.instead = destination_.name;
        return {};
    }

    Result<> take(const Entry& entry) {
        auto parts = CAISSON_TRY(names_.map(entry.path));
        if (parts.empty()) {
            if (entry.kind == Kind::kDirectory) return {};  // the destination itself
            return failure(Errc::kCorrupt, shown_ + " has the name of a directory and is none");
        }
        const auto name = std::move(parts.back());
        parts.pop_back();
        if ((entry.kind == Kind::kCharacter || entry.kind == Kind::kBlock) && !options_.make_devices) {
            note_("left out " + shown_ + ": it is a device");
            return {};
        }
        const int parent = CAISSON_TRY(enter(parts));
        switch (entry.kind) {
            case Kind::kFile: return file(parent, name, entry);
            case Kind::kDirectory: return directory(parent, parts, name, entry);
            case Kind::kHardLink: return hard_link(parent, name, entry);
            case Kind::kSymlink: {
                auto make = [&] { return ::symlinkat(entry.link.c_str(), parent, name.c_str()); };
                CAISSON_TRY(make_node(parent, name, make));
                return settle_node(parent, name, entry);
            }
            case Kind::kCharacter:
            case Kind::kBlock:
            case Kind::kFifo: {
                const mode_t type = entry.kind == Kind::kFifo ? S_IFIFO : entry.kind == Kind::kBlock ? S_IFBLK : S_IFCHR;
                auto make = [&] {
                    return ::mknodat(parent, name.c_str(), type | (entry.mode & 01777), makedev(entry.major, entry.minor));
                };
                CAISSON_TRY(make_node(parent, name, make));
                return settle_node(parent, name, entry);
            }
        }
        return {};
    }

    // ---- ways to a parent directory

    Result<os::Fd> resolve(int from, const std::string& path, int flags) const {
        open_how how{};
        how.flags = static_cast<std::uint64_t>(flags | O_DIRECTORY | O_CLOEXEC);
        how.resolve = options_.follow_links ? RESOLVE_NO_MAGICLINKS
                                            : RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
        long fd = ::syscall(SYS_openat2, from, path.c_str(), &how, sizeof how);
        if (fd < 0) return failure_errno("cannot enter " + printable(path, 300));
        return os::Fd(static_cast<int>(fd));
    }

    // The directory `parts`, made as far as it is missing. The descriptor is good until the next call. It stays right
    // meanwhile, since no directory is ever replaced.
    Result<int> enter(const Parts& parts) {
        if (parts.empty()) return destination_.directory.get();
        auto path = joined(parts);
        if (parent_ && path == parent_path_) return parent_.get();
        auto opened = open_parent(parts, path);
        if (!opened) return in_the_way(std::move(opened).error(), "the directory above it");
        parent_ = std::move(*opened);
        parent_path_ = std::move(path);
        return parent_.get();
    }

    Result<os::Fd> open_parent(const Parts& parts, const std::string& path) {
        auto opened = resolve(destination_.directory.get(), path, O_PATH);
        if (!opened && opened.error().sys_errno == ENOENT) return make_parents(parts);
        return opened;
    }

    Result<os::Fd> make_parents(const Parts& parts) {
        os::Fd at;
        for (const auto& part : parts) {
            const int from = at ? at.get() : destination_.directory.get();
            auto next = resolve(from, part, O_PATH);
            if (next) {
                at = std::move(*next);
                continue;
            }
            if (next.error().sys_errno != ENOENT) return next;
            const bool made = ::mkdirat(from, part.c_str(), 0755) == 0;
            if (!made && errno != EEXIST) return failure_errno("cannot make the directory " + printable(part, 300));
            at = CAISSON_TRY(resolve(from, part, O_PATH));
            if (made) CAISSON_TRY(remember(at.get(), ""));
        }
        return at;
    }

    base::Failure in_the_way(Error error, const char* what) const {
        if (error.sys_errno == ELOOP || error.sys_errno == ENOTDIR || error.sys_errno == EXDEV)
            return failure(Errc::kCorrupt, "cannot extract " + shown_ + ": " + what + " is a link or no directory");
        return base::failure(std::move(error).with_context("extracting " + shown_));
    }

    base::Failure failed(const char* what) const { return failure_errno(std::string("cannot ") + what + " " + shown_); }

    // ---- the entries

    Result<Identity> remember(int parent, const std::string& name) {
        struct stat info {};
        if (::fstatat(parent, name.c_str(), &info, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0) return failed("look at");
        made_.insert(identity(info));
        return identity(info);
    }

    // What `make` makes takes the place of anything but a directory.
    template <typename Make>
    Result<> make_node(int parent, const std::string& name, const Make& make) {
        if (make() == 0) return {};
        if (errno != EEXIST) return failed("make");
        CAISSON_TRY(remove(parent, name));
        if (make() != 0) return failed("make");
        return {};
    }

    Result<> remove(int parent, const std::string& name) {
        struct stat info {};
        if (::fstatat(parent, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0) {
            if (S_ISDIR(info.st_mode)) return failure(Errc::kUsage, "cannot extract " + shown_ + ": a directory has this name");
            // Its number may soon be that of somebody else's file.
            if (info.st_nlink == 1) made_.erase(identity(info));
        }
        if (::unlinkat(parent, name.c_str(), 0) != 0 && errno != ENOENT) return failed("replace");
        return {};
    }

    static void times(const Entry& entry, timespec (&into)[2]) {
        into[0] = {0, UTIME_NOW};
        into[1] = {static_cast<time_t>(entry.seconds), static_cast<long>(entry.nanoseconds)};
    }

    // A change of owner that is not permitted is told once, not an error: the caller is no root.
    Result<bool> owned(int result) {
        if (result == 0) return true;
        if (errno != EPERM) return failed("set the owner of");
        if (!std::exchange(told_of_owners_, true)) note_("owners are not kept, and set-id bits neither: only root may");
        return false;
    }

    // Of an open file or directory.
    Result<> settle(int fd, const Entry& entry) {
        bool kept = options_.keep_owner && CAISSON_TRY(owned(::fchown(fd, entry.user, entry.group)));
        if (::fchmod(fd, entry.mode & (kept ? 07777 : 01777)) != 0) return failed("set the mode of");
        timespec when[2];
        times(entry, when);
        if (::futimens(fd, when) != 0) return failed("set the time of");
        return {};
    }

    // Of what cannot be opened; its mode is right from birth, or means nothing.
    Result<> settle_node(int parent, const std::string& name, const Entry& entry) {
        CAISSON_TRY(remember(parent, name));
        if (options_.keep_owner)
            CAISSON_TRY(owned(::fchownat(parent, name.c_str(), entry.user, entry.group, AT_SYMLINK_NOFOLLOW)));
        timespec when[2];
        times(entry, when);
        if (::utimensat(parent, name.c_str(), when, AT_SYMLINK_NOFOLLOW) != 0) return failed("set the time of");
        return {};
    }

    Result<> file(int parent, const std::string& name, const Entry& entry) {
        os::Fd fd;
        CAISSON_TRY(make_node(parent, name, [&] {
            fd.reset(::openat(parent, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
            return fd ? 0 : -1;
        }));
        auto filled = fill(fd.get(), entry);
        // Half a file looks like a whole one.
        if (!filled) ::unlinkat(parent, name.c_str(), 0);
        return filled;
    }

    Result<> fill(int fd, const Entry& entry) {
        CAISSON_TRY(remember(fd, ""));
        CAISSON_TRY(reader_.read_data(entry, [&](std::uint64_t offset, base::ByteView bytes) -> Result<> {
            while (!bytes.empty()) {
                ssize_t put = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
                if (put < 0 && errno == EINTR) continue;
                if (put < 0) return failed("write");
                offset += static_cast<std::uint64_t>(put);
                bytes = bytes.subspan(static_cast<std::size_t>(put));
            }
            return {};
        }));
        if (entry.sparse && ::ftruncate(fd, static_cast<off_t>(entry.size)) != 0) return failed("set the size of");
        return settle(fd, entry);
    }

    Result<> directory(int parent, Parts parts, const std::string& name, const Entry& entry) {
        bool made = ::mkdirat(parent, name.c_str(), 0700) == 0;
        if (!made && errno != EEXIST) return failed("make");
        struct stat info {};
        if (::fstatat(parent, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) return failed("look at");
        if (S_ISLNK(info.st_mode) && options_.follow_links && resolve(parent, name, O_PATH)) return {};
        if (!S_ISDIR(info.st_mode))
            return failure(Errc::kCorrupt, "cannot extract the directory " + shown_ + ": something else has this name");
        if (made) made_.insert(identity(info));
        if (!made_.contains(identity(info))) return {};
        parts.push_back(name);
        Pending pending{joined(parts), identity(info), {}};
        pending.entry.mode = entry.mode;
        pending.entry.user = entry.user;
        pending.entry.group = entry.group;
        pending.entry.seconds = entry.seconds;
        pending.entry.nanoseconds = entry.nanoseconds;
        directories_.push_back(std::move(pending));
        return {};
    }

    Result<> hard_link(int parent, const std::string& name, const Entry& entry) {
        auto parts = CAISSON_TRY(names_.map(entry.link));
        auto wrong = [&] {
            return failure(Errc::kCorrupt, "cannot extract the link " + shown_ + ": " + printable(entry.link, 300) +
                                               " is no file that the archive had before it");
        };
        if (parts.empty()) return wrong();
        const auto target = std::move(parts.back());
        parts.pop_back();
        os::Fd resolved;
        int directory = destination_.directory.get();
        if (!parts.empty()) {
            auto opened = resolve(directory, joined(parts), O_PATH);
            if (!opened) return wrong();
            resolved = std::move(*opened);
            directory = resolved.get();
        }
        struct stat info {};
        if (::fstatat(directory, target.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0 || S_ISDIR(info.st_mode) ||
            !made_.contains(identity(info)))
            return wrong();
        struct stat present {};
        if (::fstatat(parent, name.c_str(), &present, AT_SYMLINK_NOFOLLOW) == 0 && identity(present) == identity(info))
            return {};  // it is this file already
        CAISSON_TRY(make_node(parent, name, [&] { return ::linkat(directory, target.c_str(), parent, name.c_str(), 0); }));
        // Whoever else may write to the directory could have put another file there between the two.
        if (::fstatat(parent, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0 || !made_.contains(identity(info))) {
            ::unlinkat(parent, name.c_str(), 0);
            return wrong();
        }
        return {};
    }

    Result<> finish_directories() {
        // What is deeper has a longer path. The last entry of a directory counts.
        std::stable_sort(directories_.begin(), directories_.end(),
                         [](const Pending& a, const Pending& b) { return a.path.size() > b.path.size(); });
        for (const auto& pending : directories_) {
            shown_ = printable(pending.path, 300);
            auto opened = resolve(destination_.directory.get(), pending.path, O_RDONLY);
            if (!opened) return in_the_way(std::move(opened).error(), "something above it");
            struct stat info {};
            if (::fstat(opened->get(), &info) != 0 || !(identity(info) == pending.id))
                return failure(Errc::kCorrupt, shown_ + " was replaced during the extraction");
            CAISSON_TRY(settle(opened->get(), pending.entry));
        }
        return {};
    }

    Reader reader_;
    const Destination& destination_;
    const ExtractOptions& options_;
    Notices note_;
    Names names_;
    std::string shown_;  // the entry's name, for messages
    std::string parent_path_;
    os::Fd parent_;  // of the entry before
    std::unordered_set<Identity, IdentityHash> made_;
    std::vector<Pending> directories_;
    bool told_of_owners_ = false;
};

}  // namespace

Result<Destination> open_destination(const std::string& path) {
    if (path.empty() || path.find('\0') != std::string::npos) return failure(Errc::kUsage, "a path to copy to is empty");
    Destination destination;
    destination.shown = path;
    destination.slash = means_directory(path);
    struct stat info {};
    if (::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) {
        destination.present = Present::kDirectory;
        destination.directory = CAISSON_TRY(os::open_file(path, O_PATH | O_DIRECTORY));
        return destination;
    }
    std::unique_ptr<char, void (*)(void*)> real(::realpath(path.c_str(), nullptr), std::free);
    if (real) destination.present = Present::kOther;
    const std::string place = real ? real.get() : path;
    destination.name = base_name(place);
    if (destination.name == ".") return failure_errno("cannot copy to " + printable(path, 300), ENOENT);
    auto parent = os::open_file(parent_name(place), O_PATH | O_DIRECTORY);
    if (!parent) return failure_errno("cannot copy to " + printable(path, 300) + ": the directory above it", parent.error().sys_errno);
    destination.directory = std::move(*parent);
    return destination;
}

Result<> extract(Source source, const Destination& destination, const ExtractOptions& options, const Notice& notice) {
    if (options.must_exist && destination.present != Present::kDirectory)
        return failure(destination.present == Present::kNothing ? Errc::kNotFound : Errc::kUsage,
                       printable(destination.shown, 300) + " is no directory");
    return Extractor(std::move(source), destination, options, notice).run();
}

}  // namespace caisson::tar
