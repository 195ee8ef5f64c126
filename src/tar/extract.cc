#include "tar/extract.h"

#include <dirent.h>
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

#include "base/bytes.h"
#include "base/text.h"
#include "os/file.h"
#include "os/random.h"
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
        : reader_(std::move(source)), destination_(destination), options_(options), note_(notice),
          note_link_(notice, "links that lead out of the copy") {}

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
        if (options_.remove_others) CAISSON_TRY(remove_others());
        CAISSON_TRY(finish_directories());
        return {};
    }

    // Also of a copy that failed: what was made before stays.
    void finish_notices() {
        note_.finish();
        note_link_.finish();
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
        if (options_.remove_others) saw(parts, name);
        if ((entry.kind == Kind::kCharacter || entry.kind == Kind::kBlock) && !options_.make_devices && !options_.describe) {
            note_("left out " + shown_ + ": it is a device");
            return {};
        }
        const int parent = CAISSON_TRY(enter(parts));
        switch (entry.kind) {
            case Kind::kFile: return file(parent, name, entry);
            case Kind::kDirectory: return directory(parent, parts, name, entry);
            case Kind::kHardLink: return hard_link(parent, parts.size(), name, entry);
            case Kind::kSymlink: {
                if (options_.link_as_file && options_.link_as_file(entry)) return file(parent, name, entry);
                if (options_.update && has_text(parent, name, entry.link)) return {};
                CAISSON_TRY(put(
                    parent, name, S_IFLNK, [&](const char* at) { return ::symlinkat(entry.link.c_str(), parent, at); },
                    [&](const std::string& at) { return settle_node(parent, at, entry); }));
                count_change();
                tell_of_link(parts.size(), entry.link);
                return {};
            }
            case Kind::kCharacter:
            case Kind::kBlock:
            case Kind::kFifo: {
                if (options_.describe) return file(parent, name, entry);
                const mode_t type = entry.kind == Kind::kFifo ? S_IFIFO : entry.kind == Kind::kBlock ? S_IFBLK : S_IFCHR;
                const mode_t mode = entry.mode & 01777 & ~options_.mask;
                return put(
                    parent, name, type,
                    [&](const char* at) { return ::mknodat(parent, at, type | mode, makedev(entry.major, entry.minor)); },
                    [&](const std::string& at) { return settle_node(parent, at, entry); });
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
            const bool made = ::mkdirat(from, part.c_str(), (0755 & ~options_.mask) | 0700) == 0;  // to be filled
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

    // Something with a name that goes away unless it is kept. One that nobody else knows, if it is not given.
    class Unfinished {
      public:
        explicit Unfinished(int parent, std::string name = "") : parent_(parent), name_(std::move(name)) {}
        Unfinished(const Unfinished&) = delete;
        Unfinished& operator=(const Unfinished&) = delete;
        ~Unfinished() {
            if (there_) ::unlinkat(parent_, name_.c_str(), 0);
        }
        // With errno where `make`, which is given the name, returns anything but 0.
        template <typename Make>
        Result<bool> make(const Make& make) {
            const bool chosen = name_.empty();
            for (int tries = 0; tries < 8; ++tries) {
                if (chosen) {
                    name_ = ".caisson-" + CAISSON_TRY(os::random_hex(8));
                }
                there_ = make(name_.c_str()) == 0;
                if (there_ || !chosen || errno != EEXIST) break;
            }
            return there_;
        }
        const std::string& name() const { return name_; }
        void keep() { there_ = false; }

      private:
        int parent_;
        std::string name_;
        bool there_ = false;
    };

    // Makes something of the file type `type`. `settle` gets the name that it has at first.
    template <typename Make, typename Settle>
    Result<> put(int parent, const std::string& name, mode_t type, const Make& make, const Settle& settle) {
        Unfinished made(parent, name);
        if (CAISSON_TRY(made.make(make))) {
            CAISSON_TRY(settle(made.name()));
            made.keep();
            return {};
        }
        if (errno != EEXIST) return failed("make");
        CAISSON_TRY(may_replace(parent, name, type));
        Unfinished replacing(parent);
        if (!CAISSON_TRY(replacing.make(make))) return failed("make");
        CAISSON_TRY(settle(replacing.name()));
        return rename(parent, replacing, name);
    }

    // Whether something of the file type `type` may take the place of what has the name.
    Result<> may_replace(int parent, const std::string& name, mode_t type) {
        struct stat info {};
        if (::fstatat(parent, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
            if (errno == ENOENT) return {};
            return failed("look at");
        }
        if (S_ISDIR(info.st_mode) && options_.remove_others) return discard(parent, name);
        if (S_ISDIR(info.st_mode)) return failure(Errc::kUsage, "cannot extract " + shown_ + ": a directory has this name");
        if (options_.replaces_all) return {};
        // Not even if this extraction made the file: it may have replaced one that was there before.
        if (S_ISREG(info.st_mode) && type != S_IFREG)
            return failure(Errc::kAlreadyExists,
                           "cannot extract " + shown_ + ": it is " + (type == S_IFLNK ? "a link" : "no file") +
                               ", and does not replace the file that has this name",
                           "remove that first, or copy to another place");
        if (S_ISCHR(info.st_mode) || S_ISBLK(info.st_mode))
            return failure(Errc::kAlreadyExists, "cannot extract " + shown_ + ": a device has this name, and is not replaced");
        if (S_ISLNK(info.st_mode) && type == S_IFREG && !made_.contains(identity(info)))
            note_(shown_ + " replaces a link; what that led to stays as it is");
        return {};
    }

    Result<> rename(int parent, Unfinished& from, const std::string& name) {
        struct stat info {};
        // Its number may soon be that of somebody else's file.
        const bool last_name = ::fstatat(parent, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0 && info.st_nlink == 1;
        if (last_name) made_.erase(identity(info));
        if (::renameat(parent, from.name().c_str(), parent, name.c_str()) != 0) return failed("put in place");
        from.keep();
        return last_name ? give_back(info) : Result<>();
    }

    // `depth`: how many directories are above the link in the destination.
    void tell_of_link(std::size_t depth, const std::string& text) {
        if (options_.follow_links || options_.describe) return;
        const bool in_one_place = names_.top.empty() && names_.instead.empty();
        if (leads_out(text, static_cast<std::ptrdiff_t>(depth) - (in_one_place ? 0 : 1)))
            note_link_("the link " + shown_ + " leads out of the copy: to " + printable(text, 300));
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
    Result<> settle(int fd, const Entry& entry, bool fresh = true) {
        if (options_.describe) return settle_described(fd, entry, fresh);
        bool kept = options_.keep_owner && CAISSON_TRY(owned(::fchown(fd, entry.user, entry.group)));
        if (::fchmod(fd, entry.mode & (kept ? 07777 : 01777) & ~options_.mask) != 0) return failed("set the mode of");
        timespec when[2];
        times(entry, when);
        if (::futimens(fd, when) != 0) return failed("set the time of");
        return {};
    }

    Result<> settle_described(int fd, const Entry& entry, bool fresh) {
        struct stat info {};
        if (::fstat(fd, &info) != 0) return failed("look at");
        if (::fchmod(fd, S_ISDIR(info.st_mode) ? 0700 : 0600) != 0) return failed("set the mode of");
        CAISSON_TRY(options_.describe(fd, entry, fresh));
        timespec when[2];
        times(entry, when);
        if (::futimens(fd, when) != 0) return failed("set the time of");
        return {};
    }

    // ---- what a file takes on the disk

    Result<> account(std::int64_t bytes) const {
        if (!options_.account || bytes == 0) return {};
        return options_.account(bytes);
    }
    static std::int64_t allocated(const struct stat& info) { return static_cast<std::int64_t>(info.st_blocks) * 512; }
    Result<> give_back(const struct stat& info) const { return account(-allocated(info)); }

    // ---- copies of what was copied before

    void count_change() const {
        if (options_.report != nullptr) ++options_.report->changed;
    }

    static bool has_text(int parent, const std::string& name, const std::string& text) {
        char present[PATH_MAX];
        ssize_t size = ::readlinkat(parent, name.c_str(), present, sizeof present);
        return size >= 0 && std::string_view(present, static_cast<std::size_t>(size)) == text;
    }

    // Whether the file is there already. Its content is not looked at, like that of any file that was changed without a
    // trace. What is opened is asked, and only its mode is set.
    Result<bool> is_up_to_date(int parent, const std::string& name, const Entry& entry) {
        os::Fd fd(::openat(parent, name.c_str(), O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
        struct stat info {};
        if (!fd || ::fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode)) return false;
        if (static_cast<std::uint64_t>(info.st_size) != entry.size || info.st_mtim.tv_sec != entry.seconds ||
            info.st_mtim.tv_nsec != static_cast<long>(entry.nanoseconds))
            return false;
        CAISSON_TRY(settle(fd.get(), entry, false));
        made_.insert(identity(info));
        return true;
    }

    // An archive need not name the directories that its names are in.
    void saw(Parts parts, const std::string& name) {
        parts.push_back(name);
        std::string path;
        for (const auto& part : parts) seen_.insert(path += path.empty() ? part : "/" + part);
    }

    // With all that is in it, as nothing of the archive has this name.
    Result<> discard(int parent, const std::string& name) const {
        const os::Fd directory = CAISSON_TRY(resolve(parent, ".", O_RDONLY));
        return os::remove_at(directory, name);
    }

    // A list of directories and not a recursion: whoever made the tree decides how deep it is.
    Result<> remove_others() {
        Parts waiting{""};
        while (!waiting.empty()) {
            const auto path = std::move(waiting.back());
            waiting.pop_back();
            auto directory = resolve(destination_.directory.get(), path.empty() ? "." : path, O_RDONLY);
            if (!directory) continue;  // it became something else meanwhile, or went away
            for (const auto& name : CAISSON_TRY(names_in(*directory))) {
                auto below = path.empty() ? name : path + "/" + name;
                struct stat info {};
                if (::fstatat(directory->get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) continue;
                if (seen_.contains(below)) {
                    if (S_ISDIR(info.st_mode)) waiting.push_back(std::move(below));
                    continue;
                }
                shown_ = printable(below, 300);
                CAISSON_TRY_CTX(os::remove_at(*directory, name), "removing " + shown_);
                if (!S_ISDIR(info.st_mode) && info.st_nlink == 1) CAISSON_TRY(give_back(info));
                if (options_.report != nullptr) ++options_.report->removed;
            }
        }
        return {};
    }

    static Result<Parts> names_in(const os::Fd& directory) {
        auto listing = CAISSON_TRY(os::open_listing(CAISSON_TRY(directory.duplicate()), "a directory"));
        Parts names;
        while (dirent* found = ::readdir(listing.get())) {
            std::string name = found->d_name;
            if (name != "." && name != "..") names.push_back(std::move(name));
        }
        return names;
    }

    // Of what cannot be opened; its mode is right from birth, or means nothing.
    Result<> settle_node(int parent, const std::string& name, const Entry& entry) {
        CAISSON_TRY(remember(parent, name));
        if (options_.keep_owner && !options_.describe)
            CAISSON_TRY(owned(::fchownat(parent, name.c_str(), entry.user, entry.group, AT_SYMLINK_NOFOLLOW)));
        timespec when[2];
        times(entry, when);
        if (::utimensat(parent, name.c_str(), when, AT_SYMLINK_NOFOLLOW) != 0) return failed("set the time of");
        return {};
    }

    Result<> file(int parent, const std::string& name, const Entry& entry) {
        if (options_.update && entry.kind == Kind::kFile && CAISSON_TRY(is_up_to_date(parent, name, entry))) return {};
        CAISSON_TRY(may_replace(parent, name, S_IFREG));
        count_change();
        // Half a file looks like a whole one.
        Unfinished half(parent);
        os::Fd fd;
        const bool made = CAISSON_TRY(half.make([&](const char* at) {
            fd.reset(::openat(parent, at, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
            return fd ? 0 : -1;
        }));
        if (!made) return failed("make");
        std::int64_t asked_for = 0;
        auto filled = fill(fd.get(), entry, asked_for);
        if (!filled) {
            static_cast<void>(account(-asked_for));
            return filled;
        }
        return rename(parent, half, name);
    }

    Result<> fill(int fd, const Entry& entry, std::int64_t& asked_for) {
        CAISSON_TRY(remember(fd, ""));
        CAISSON_TRY(write_data(fd, entry, asked_for));
        if (entry.sparse && ::ftruncate(fd, static_cast<off_t>(entry.size)) != 0) return failed("set the size of");
        CAISSON_TRY(settle(fd, entry));
        // Blocks are more than bytes, or less where there are holes.
        struct stat info {};
        if (!options_.account || ::fstat(fd, &info) != 0) return {};
        CAISSON_TRY(account(allocated(info) - asked_for));
        asked_for = allocated(info);
        return {};
    }

    Result<> write_data(int fd, const Entry& entry, std::int64_t& asked_for) {
        const auto write = [&](std::uint64_t offset, base::ByteView bytes) -> Result<> {
            CAISSON_TRY(account(static_cast<std::int64_t>(bytes.size())));
            asked_for += static_cast<std::int64_t>(bytes.size());
            while (!bytes.empty()) {
                ssize_t put = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
                if (put < 0 && errno == EINTR) continue;
                if (put < 0) return failed("write");
                offset += static_cast<std::uint64_t>(put);
                bytes = bytes.subspan(static_cast<std::size_t>(put));
            }
            return {};
        };
        if (entry.kind == Kind::kSymlink) return write(0, base::as_bytes(entry.link));
        return entry.kind == Kind::kFile ? reader_.read_data(entry, write) : Result<>();
    }

    Result<> directory(int parent, Parts parts, const std::string& name, const Entry& entry) {
        struct stat info {};
        if (options_.remove_others && ::fstatat(parent, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISDIR(info.st_mode))
            CAISSON_TRY(discard(parent, name));
        bool made = ::mkdirat(parent, name.c_str(), 0700) == 0;
        if (!made && errno != EEXIST) return failed("make");
        if (made) count_change();
        if (::fstatat(parent, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) return failed("look at");
        if (S_ISLNK(info.st_mode) && options_.follow_links && resolve(parent, name, O_PATH)) return {};
        if (!S_ISDIR(info.st_mode))
            return failure(Errc::kCorrupt, "cannot extract the directory " + shown_ + ": something else has this name");
        if (made) {
            made_.insert(identity(info));
            CAISSON_TRY(account(allocated(info)));
        }
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

    Result<> hard_link(int parent, std::size_t depth, const std::string& name, const Entry& entry) {
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
        CAISSON_TRY(put(
            parent, name, info.st_mode & S_IFMT,
            [&](const char* at) { return ::linkat(directory, target.c_str(), parent, at, 0); },
            // Whoever else may write to the directory could have put another file there between the two.
            [&](const std::string& at) -> Result<> {
                if (::fstatat(parent, at.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0 || !made_.contains(identity(info))) return wrong();
                return {};
            }));
        count_change();
        if (!S_ISLNK(info.st_mode)) return {};
        // What leads to a place in the copy from there may lead out of it from here.
        char text[PATH_MAX];
        ssize_t size = ::readlinkat(parent, name.c_str(), text, sizeof text);
        if (size < 0) return failed("read the link");
        tell_of_link(depth, std::string(text, static_cast<std::size_t>(size)));
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
    Notices note_link_;  // not to be drowned by others
    Names names_;
    std::string shown_;  // the entry's name, for messages
    std::string parent_path_;
    os::Fd parent_;  // of the entry before
    std::unordered_set<Identity, IdentityHash> made_;
    std::vector<Pending> directories_;
    std::unordered_set<std::string> seen_;  // if the others are to be removed
    bool told_of_owners_ = false;
};

}  // namespace

Result<Destination> open_destination(const std::string& path, bool follow) {
    if (path.empty() || path.find('\0') != std::string::npos) return failure(Errc::kUsage, "a path to copy to is empty");
    Destination destination;
    destination.shown = path;
    destination.slash = means_directory(path);
    std::string place = plain_path(path);
    auto existing = os::open_file(place, O_PATH | O_DIRECTORY | (follow ? 0 : O_NOFOLLOW));
    if (existing) {
        destination.present = Present::kDirectory;
        destination.directory = std::move(*existing);
        return destination;
    }
    if (follow) {
        std::unique_ptr<char, void (*)(void*)> real(::realpath(place.c_str(), nullptr), std::free);
        if (real) place = real.get();
    }
    destination.name = base_name(place);
    if (destination.name == ".") return failure_errno("cannot copy to " + printable(path, 300), existing.error().sys_errno);
    auto parent = os::open_file(parent_name(place), O_PATH | O_DIRECTORY);
    if (!parent) return failure_errno("cannot copy to " + printable(path, 300) + ": the directory above it", parent.error().sys_errno);
    destination.directory = std::move(*parent);
    const auto look = [&](int flags) {
        struct stat info {};
        if (::fstatat(destination.directory.get(), destination.name.c_str(), &info, flags) != 0) return mode_t{0};
        return info.st_mode;
    };
    const mode_t mode = look(AT_SYMLINK_NOFOLLOW);
    if (mode != 0) destination.present = Present::kOther;
    if (!follow && S_ISLNK(mode) && (destination.slash || S_ISDIR(look(0))))
        return failure(Errc::kUsage, printable(path, 300) + " is a link, and is not followed",
                       "name the directory that it leads to, or remove it first");
    return destination;
}

Result<> extract(Source source, const Destination& destination, const ExtractOptions& options, const Notice& notice) {
    if (options.must_exist && destination.present != Present::kDirectory)
        return failure(destination.present == Present::kNothing ? Errc::kNotFound : Errc::kUsage,
                       printable(destination.shown, 300) + " is no directory");
    Extractor extractor(std::move(source), destination, options, notice);
    auto done = extractor.run();
    extractor.finish_notices();
    return done;
}

}  // namespace caisson::tar
