#include "recorder.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/openat2.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

namespace faults {

namespace {

std::string process(pid_t task) { return "/proc/" + std::to_string(task) + "/"; }
std::string fd_path(pid_t task, int fd) { return process(task) + "fd/" + std::to_string(fd); }

char type_of(const struct stat& info) {
    if (S_ISDIR(info.st_mode)) return 'd';
    if (S_ISREG(info.st_mode)) return 'f';
    return S_ISLNK(info.st_mode) ? 'l' : 'o';
}

int directory_argument(const Invocation& invocation, int argument) {
    return static_cast<int>(invocation.arguments[argument]);
}

std::uint64_t open_flags(const Invocation& invocation) {
    if (invocation.call->number == SYS_openat) return invocation.arguments[2];
#ifdef SYS_creat
    if (invocation.call->number == SYS_creat) return O_CREAT | O_TRUNC | O_WRONLY;
#endif
    if (invocation.call->number != SYS_openat2) return invocation.arguments[1];
    open_how how{};
    return read_memory(invocation.task, invocation.arguments[2], &how, sizeof how) ? how.flags : 0;
}

}  // namespace

bool read_memory(pid_t task, std::uint64_t address, void* target, std::size_t size) {
    iovec to{target, size};
    iovec from{reinterpret_cast<void*>(address), size};
    return ::process_vm_readv(task, &to, 1, &from, 1, 0) == static_cast<ssize_t>(size);
}

std::string read_string(pid_t task, std::uint64_t address) {
    std::string text;
    // By pieces that do not cross a page: what lies behind the string may not be mapped.
    while (text.size() < 4096) {
        char piece[256];
        const std::size_t size = std::min<std::size_t>(sizeof piece, 4096 - (address & 4095));
        if (!read_memory(task, address, piece, size)) return text;
        const auto length = ::strnlen(piece, size);
        text.append(piece, length);
        if (length < size) return text;
        address += size;
    }
    return text;
}

Recorder::Recorder(const std::string& log, const std::string& directory, const std::string& marks) {
    log_ = std::fopen(log.c_str(), "we");
    data_ = std::fopen((log + ".data").c_str(), "we");
    struct stat info {};
    if (log_ == nullptr || data_ == nullptr || ::lstat(directory.c_str(), &info) != 0) {
        std::fprintf(stderr, "faults: cannot record %s in %s: %s\n", directory.c_str(), log.c_str(),
                     std::strerror(errno));
        std::_Exit(99);
    }
    numbers_[{info.st_dev, info.st_ino}] = 1;
    walk(directory, 1);
    if (::stat(marks.c_str(), &info) == 0) marks_ = {info.st_dev, info.st_ino};
}

Recorder::~Recorder() {
    std::fclose(log_);
    std::fclose(data_);
}

void Recorder::note(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::vfprintf(log_, format, arguments);
    va_end(arguments);
    std::fputc('\n', log_);
}

std::optional<std::uint64_t> Recorder::known(const struct stat& info) const {
    const auto found = numbers_.find({info.st_dev, info.st_ino});
    return found == numbers_.end() ? std::nullopt : std::optional(found->second);
}

// The file that has the inode now is another than the one that had it before.
std::uint64_t Recorder::learn(const struct stat& info) { return numbers_[{info.st_dev, info.st_ino}] = ++last_number_; }

void Recorder::walk(const std::string& path, std::uint64_t number) {
    const std::unique_ptr<DIR, int (*)(DIR*)> listing(::opendir(path.c_str()), &::closedir);
    while (dirent* entry = listing ? ::readdir(listing.get()) : nullptr) {
        const std::string name = entry->d_name, below = path + "/" + name;
        struct stat info {};
        if (name == "." || name == ".." || ::lstat(below.c_str(), &info) != 0) continue;
        const auto before = known(info);  // a further link
        const auto child = before ? *before : learn(info);
        note("have\t%llu\t%s\t%llu\t%c", static_cast<unsigned long long>(number), name.c_str(),
             static_cast<unsigned long long>(child), type_of(info));
        if (S_ISDIR(info.st_mode)) walk(below, child);
    }
}

// As the process sees the path: below its root, its working directory or one of its descriptors.
std::optional<Place> Recorder::place(pid_t task, int directory, std::uint64_t path_address) const {
    auto path = read_string(task, path_address);
    while (path.size() > 1 && path.back() == '/') path.pop_back();
    if (path.empty()) return std::nullopt;
    std::string base = process(task) + "root";
    if (path[0] != '/') base = (directory == AT_FDCWD ? process(task) + "cwd" : fd_path(task, directory)) + "/";
    const auto slash = path.rfind('/');
    Place found;
    found.name = slash == std::string::npos ? path : path.substr(slash + 1);
    const auto parent = base + (slash == std::string::npos ? "" : path.substr(0, slash + 1));
    struct stat info {};
    if (::stat((parent + "/.").c_str(), &info) != 0) return std::nullopt;
    const auto number = known(info);
    if (!number) return std::nullopt;
    found.directory = *number;
    found.path = parent + "/" + found.name;
    if (::lstat(found.path.c_str(), &info) == 0) found.file = known(info);
    return found;
}

std::optional<std::uint64_t> Recorder::of_fd(pid_t task, int fd) const {
    struct stat info {};
    if (::stat(fd_path(task, fd).c_str(), &info) != 0) return std::nullopt;
    return known(info);
}

bool Recorder::before(const Invocation& invocation) {
    Pending pending;
    const auto task = invocation.task;
    const auto* arguments = invocation.arguments;
    switch (invocation.call->subject) {
        case Subject::kNothing: return false;
        case Subject::kFd: {
            struct stat info {};
            if (::stat(fd_path(task, static_cast<int>(arguments[0])).c_str(), &info) != 0) return false;
            return known(info) || Inode{info.st_dev, info.st_ino} == marks_;
        }
        case Subject::kPath: pending.first = place(task, AT_FDCWD, arguments[0]); break;
        case Subject::kPathAt: pending.first = place(task, directory_argument(invocation, 0), arguments[1]); break;
        case Subject::kTargetPath: pending.first = place(task, AT_FDCWD, arguments[1]); break;
        case Subject::kTargetPathAt:
            pending.first = place(task, directory_argument(invocation, 1), arguments[2]);
            break;
        case Subject::kTwoPaths:
            pending.first = place(task, AT_FDCWD, arguments[0]);
            pending.second = place(task, AT_FDCWD, arguments[1]);
            break;
        case Subject::kTwoPathsAt:
            pending.first = place(task, directory_argument(invocation, 0), arguments[1]);
            pending.second = place(task, directory_argument(invocation, 2), arguments[3]);
            // linkat() of a descriptor: the file has no name yet, or its name is of no interest.
            if (invocation.call->kind == Kind::kLink && !pending.first) {
                pending.first.emplace();
                auto path = read_string(task, arguments[1]);
                if (path.starts_with("/proc/self/")) path = process(task) + path.substr(11);
                pending.first->path = path.empty() ? fd_path(task, static_cast<int>(arguments[0])) : path;
            }
            break;
    }
    if (invocation.call->kind == Kind::kOpen) {
        pending.flags = open_flags(invocation);
        const bool unnamed = (pending.flags & O_TMPFILE) == O_TMPFILE;
        if ((pending.flags & (O_CREAT | O_TRUNC)) == 0 && !unnamed) return false;
    }
    if (!pending.first && !pending.second) return false;
    pending.existed = pending.first && pending.first->file;
    pending_[task] = std::move(pending);
    return true;
}

void Recorder::made(const Place& place, const std::string& path) {
    struct stat info {};
    if (::lstat(path.c_str(), &info) != 0 && ::lstat(place.path.c_str(), &info) != 0) return;
    char target[512] = {};
    if (S_ISLNK(info.st_mode) && ::readlink(place.path.c_str(), target, sizeof target - 1) < 0) target[0] = '\0';
    const auto number = learn(info);
    note("make\t%llu\t%s\t%llu\t%c\t%o\t%s", static_cast<unsigned long long>(place.directory), place.name.c_str(),
         static_cast<unsigned long long>(number), type_of(info), info.st_mode & 07777U, target);
}

void Recorder::sized(std::uint64_t file, const std::string& path) {
    struct stat info {};
    if (::stat(path.c_str(), &info) == 0)
        note("size\t%llu\t%lld", static_cast<unsigned long long>(file), static_cast<long long>(info.st_size));
}

// Where it was written follows from the call or from the position afterwards; what, from the file.
void Recorder::wrote(const Invocation& invocation, std::uint64_t file, std::int64_t result) {
    const int fd = static_cast<int>(invocation.arguments[0]);
    const auto task = invocation.task;
    int target = fd;
    std::int64_t offset = -1;
    if (invocation.call->number == SYS_pwrite64 || invocation.call->number == SYS_pwritev ||
        invocation.call->number == SYS_pwritev2)
        offset = static_cast<std::int64_t>(invocation.arguments[3]);
    if (invocation.call->number == SYS_copy_file_range) {
        target = static_cast<int>(invocation.arguments[2]);
        std::int64_t behind = 0;
        if (invocation.arguments[3] != 0 && read_memory(task, invocation.arguments[3], &behind, sizeof behind))
            offset = behind - result;
    }
    if (offset < 0) {
        auto* info = std::fopen((process(task) + "fdinfo/" + std::to_string(target)).c_str(), "re");
        long long position = 0;
        if (info == nullptr || std::fscanf(info, "pos: %lld", &position) != 1) position = result;
        if (info != nullptr) std::fclose(info);
        offset = position - result;
    }
    const int source = ::open(fd_path(task, target).c_str(), O_RDONLY | O_CLOEXEC);
    struct stat info {};
    if (source < 0 || ::fstat(source, &info) != 0) {
        if (source >= 0) ::close(source);
        return note("unseen\t%llu", static_cast<unsigned long long>(file));
    }
    const auto place = data_size_;
    std::vector<char> piece(1 << 20);
    for (std::int64_t at = 0; at < result;) {
        const auto got =
            ::pread(source, piece.data(), std::min<std::size_t>(piece.size(), static_cast<std::size_t>(result - at)),
                    offset + at);
        if (got <= 0) break;
        std::fwrite(piece.data(), 1, static_cast<std::size_t>(got), data_);
        at += got;
        data_size_ += static_cast<std::uint64_t>(got);
    }
    ::close(source);
    note("write\t%llu\t%lld\t%llu\t%llu\t%lld", static_cast<unsigned long long>(file), static_cast<long long>(offset),
         static_cast<unsigned long long>(data_size_ - place), static_cast<unsigned long long>(place),
         static_cast<long long>(info.st_size));
}

void Recorder::attribute(std::uint64_t file, const std::string& path, const std::string& name) {
    std::vector<char> value(65536);
    const auto size = ::getxattr(path.c_str(), name.c_str(), value.data(), value.size());
    if (size < 0) return note("noattribute\t%llu\t%s", static_cast<unsigned long long>(file), name.c_str());
    std::string hex;
    for (ssize_t i = 0; i < size; ++i) {
        char two[3];
        std::snprintf(two, sizeof two, "%02x", static_cast<unsigned char>(value[static_cast<std::size_t>(i)]));
        hex += two;
    }
    note("attribute\t%llu\t%s\t%s", static_cast<unsigned long long>(file), name.c_str(), hex.c_str());
}

void Recorder::on_fd(const Invocation& invocation, std::int64_t result) {
    const int fd = static_cast<int>(invocation.arguments[0]);
    struct stat info {};
    const auto path = fd_path(invocation.task, fd);
    if (::stat(path.c_str(), &info) != 0) return;
    if (Inode{info.st_dev, info.st_ino} == marks_) {
        auto text = std::string(static_cast<std::size_t>(std::min<std::int64_t>(result, 4096)), '\0');
        if (invocation.call->number != SYS_write ||
            !read_memory(invocation.task, invocation.arguments[1], text.data(), text.size()))
            return;
        while (!text.empty() && text.back() == '\n') text.pop_back();
        note("mark\t%s", text.c_str());
        std::fflush(log_);
        return;
    }
    auto file = known(info);
    if (invocation.call->number == SYS_copy_file_range)
        file = of_fd(invocation.task, static_cast<int>(invocation.arguments[2]));
    if (!file) return;
    const auto number = static_cast<unsigned long long>(*file);
    switch (invocation.call->number) {
        case SYS_fsync:
        case SYS_fdatasync: return note("sync\t%llu", number);
        case SYS_syncfs: return note("syncall");
        case SYS_ftruncate: return sized(*file, path);
        case SYS_fallocate:
            if ((invocation.arguments[1] & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0)
                note("hole\t%llu\t%llu\t%llu", number, static_cast<unsigned long long>(invocation.arguments[2]),
                     static_cast<unsigned long long>(invocation.arguments[3]));
            return sized(*file, path);
        case SYS_fchmod: return note("mode\t%llu\t%o", number, info.st_mode & 07777U);
        case SYS_fsetxattr:
        case SYS_fremovexattr: return attribute(*file, path, read_string(invocation.task, invocation.arguments[1]));
        default:
            if (result > 0) wrote(invocation, *file, result);
    }
}

void Recorder::on_paths(const Invocation& invocation, const Pending& pending, std::int64_t result) {
    const auto& first = pending.first;
    const auto& second = pending.second;
    const auto number = static_cast<unsigned long long>(first && first->file ? *first->file : 0);
    switch (invocation.call->kind) {
        case Kind::kOpen: {
            const auto opened = fd_path(invocation.task, static_cast<int>(result));
            struct stat info {};
            if (::stat(opened.c_str(), &info) != 0) return;
            if (info.st_nlink == 0) return void(learn(info));  // O_TMPFILE: a link may give it a name
            if (!pending.existed) return made(*first, first->path);
            if ((pending.flags & O_TRUNC) != 0) note("size\t%llu\t0", number);
            return;
        }
        case Kind::kMkdir: return made(*first, first->path);
        case Kind::kUnlink:
            return note("remove\t%llu\t%s\t%llu", static_cast<unsigned long long>(first->directory),
                        first->name.c_str(), number);
        case Kind::kTruncate: return first->file ? sized(*first->file, first->path) : void();
        case Kind::kRename:
            // From elsewhere it would be a new file; caisson moves within its home only.
            if (!first || !second || !first->file) return note("unseen\trename");
            return note("rename\t%llu\t%s\t%llu\t%s\t%llu", static_cast<unsigned long long>(first->directory),
                        first->name.c_str(), static_cast<unsigned long long>(second->directory), second->name.c_str(),
                        number);
        case Kind::kLink: {
            if (invocation.call->subject == Subject::kTargetPath || invocation.call->subject == Subject::kTargetPathAt)
                return made(*first, first->path);
            struct stat info {};
            if (!second || ::lstat(second->path.c_str(), &info) != 0) return;
            const auto file = known(info);
            if (!file) return note("unseen\tlink");
            return note("link\t%llu\t%s\t%llu", static_cast<unsigned long long>(second->directory),
                        second->name.c_str(), static_cast<unsigned long long>(*file));
        }
        default: break;
    }
    struct stat info {};
    if (!first->file || ::lstat(first->path.c_str(), &info) != 0) return;
    if (invocation.call->number == SYS_setxattr || invocation.call->number == SYS_removexattr)
        return attribute(*first->file, first->path, read_string(invocation.task, invocation.arguments[1]));
    note("mode\t%llu\t%o", number, info.st_mode & 07777U);
}

void Recorder::after(const Invocation& invocation, std::int64_t result) {
    const auto found = pending_.find(invocation.task);
    auto pending = found == pending_.end() ? Pending{} : std::move(found->second);
    if (found != pending_.end()) pending_.erase(found);
    if (result < 0) return;
    if (invocation.call->subject == Subject::kFd) return on_fd(invocation, result);
    on_paths(invocation, pending, result);
}

}  // namespace faults
