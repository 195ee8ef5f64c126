// Contents of files.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "volume/share/server.h"

namespace caisson::volume::share {

namespace {

constexpr std::int64_t kBlockBytes = 512;      // of st_blocks
constexpr std::uint64_t kAllocationBytes = 4096;  // what the host gives files at a time
constexpr std::uint32_t kLargestRead = kMaxDataBytes;

bool fits(std::uint64_t offset, std::uint64_t length) { return offset <= INT64_MAX && length <= INT64_MAX - offset; }

}  // namespace

std::int64_t Server::allocated(const Node& node) {
    struct stat status {};
    if (!node.mount->space || ::fstatat(node.file.get(), "", &status, AT_EMPTY_PATH) != 0) return 0;
    return status.st_blocks * kBlockBytes;
}

void Server::count(const Node& node, std::int64_t before) {
    if (node.mount->space) node.mount->space->add(allocated(node) - before);
}

// What nobody can use any more is taken back if there is less than that.
std::uint64_t Server::free_bytes(Space& space, std::uint64_t wanted) {
    if (space.free_bytes() < wanted) tree_.let_go_of_unnamed();
    return space.free_bytes();
}

bool Server::is_full(const Node& node) { return node.mount->space && free_bytes(*node.mount->space, 1) == 0; }

// How much of a write the volume has room for. What lies in the file already takes no more; whether it has holes there is
// not looked at closely: then a little less than what would fit is written.
std::uint64_t Server::room(const Node& node, std::uint64_t offset, std::uint64_t length) {
    if (!node.mount->space) return length;
    const auto wanted = length + 2 * kAllocationBytes;
    const auto left = free_bytes(*node.mount->space, wanted);
    if (left >= wanted) return length;
    struct stat status {};
    if (::fstatat(node.file.get(), "", &status, AT_EMPTY_PATH) != 0) return 0;
    const auto size = static_cast<std::uint64_t>(status.st_size);
    const bool whole = static_cast<std::uint64_t>(status.st_blocks) * kBlockBytes >= size;
    const std::uint64_t old = whole && size > offset ? size - offset : 0;
    return std::min(length, old + left);
}

int Server::host_flags(std::uint32_t flags, bool read_only) {
    // Each write says whether it is to be appended: a program may change its mind, and what comes from a map never is.
    constexpr std::uint32_t kKept = O_ACCMODE | O_SYNC | O_DSYNC | O_TRUNC;
    auto host = static_cast<int>(flags & kKept) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    // Shared writable maps and locks need to read as well.
    if ((flags & O_ACCMODE) == O_WRONLY) host = (host & ~O_ACCMODE) | O_RDWR;
    if (read_only) host = (host & ~(O_ACCMODE | O_TRUNC)) | O_RDONLY;
    return host;
}

// What the guest's kernel may do with a file that it opens.
std::uint32_t Server::open_flags(Node& node, std::uint32_t flags, bool only) {
    std::uint32_t given = 0;
    // It need not tell of each close: that matters for locks of processes, which are asked for through files that are open
    // for both, or on which there is one already. Others go with the last close, see drop_locks_of_handle().
    if ((flags & O_ACCMODE) != O_RDWR && !has_locks(node.number)) given |= FOPEN_NOFLUSH;
    // Nothing can be mapped through it, and what it writes goes to the host at once in any case. Past the guest's memory that
    // takes one copy less, and no question for capabilities before each write: they are taken away here. Whoever has it open
    // may have mapped it, and a page that he writes there goes to the host as a whole.
    if ((flags & O_ACCMODE) == O_WRONLY && writes_past_memory_ && only) given |= FOPEN_DIRECT_IO;
    // What it has of the contents is right if nobody else could change it since it was opened last.
    if (!promises(*node.mount)) return given;
    if (node.opened_alone == times_alone_) given |= FOPEN_KEEP_CACHE;
    node.opened_alone = times_alone_;
    return given;
}

int Server::give_handle(Request& request, Node& node, os::Fd file, std::uint32_t flags) {
    const bool only = node.handles == (request.node == &node ? 1u : 0u);  // but for the request itself
    Handle handle;
    handle.file = std::move(file);
    handle.node = node.number;
    handle.mount = node.mount;
    ++node.handles;
    fuse_open_out out{};
    out.fh = next_handle_++;
    out.open_flags = open_flags(node, flags, only);
    handles_.emplace(out.fh, std::move(handle));
    request.reply.add(out);
    return 0;
}

int Server::open(Request& request) {
    auto in = request.arguments.take<fuse_open_in>();
    if (!request.arguments.ok()) return EINVAL;
    if (request.node == nullptr) return EISDIR;
    Node& node = *request.node;
    if (!node.is_regular()) return node.is_directory() ? EISDIR : ENXIO;
    if (too_many_handles()) return ENFILE;
    const bool writes = (in.flags & O_ACCMODE) != O_RDONLY || (in.flags & O_TRUNC) != 0;
    if (writes && node.mount->read_only) return EROFS;
    if ((in.open_flags & FUSE_OPEN_KILL_SUIDGID) != 0) {
        if (int error = drop_set_id(node)) return error;
        promise(node);
    }
    const auto before = (in.flags & O_TRUNC) != 0 ? allocated(node) : 0;
    os::Fd file(::open(node.path().c_str(), host_flags(in.flags, node.mount->read_only)));
    if (!file) return errno;
    if ((in.flags & O_TRUNC) != 0) {
        drop_capability(node);
        count(node, before);
    }
    if ((in.flags & O_TRUNC) != 0) promise(node);
    if (!writes) promise_contents(node, file);
    return give_handle(request, node, std::move(file), in.flags);
}

int Server::create(Request& request) {
    auto in = request.arguments.take<fuse_create_in>();
    const std::string name(request.arguments.name());
    if (!request.arguments.ok()) return EINVAL;
    if (too_many_handles()) return ENFILE;
    Request made = request;
    // Two things at once in the protocol, two here: a file that somebody else makes in between is opened as it is.
    int error = make(made, name, (in.mode & ~static_cast<std::uint32_t>(S_IFMT)) | S_IFREG, 0);
    const bool existed = error == EEXIST && (in.flags & O_EXCL) == 0 && request.node != nullptr;
    if (existed) error = enter_and_promise(*request.node, name, made.reply);
    if (error != 0) return error;
    fuse_entry_out entry{};
    std::memcpy(&entry, made.reply.data.data(), sizeof entry);
    Node* node = tree_.find(entry.nodeid);
    // Something else by now: the guest's kernel looks again.
    os::Fd file(S_ISREG(entry.attr.mode) ? ::open(node->path().c_str(), host_flags(in.flags, node->mount->read_only)) : -1);
    if (!file) {
        error = S_ISREG(entry.attr.mode) ? errno : ESTALE;
        take_back(*node);
        take_back_name(*request.node, name);
        tree_.forget(node->number, 1);
        return error;
    }
    if (existed && (in.flags & O_TRUNC) != 0) promise(*node);
    request.reply.add(entry);
    return give_handle(request, *node, std::move(file), in.flags);
}

int Server::make_temporary(Request& request) {
    auto in = request.arguments.take<fuse_create_in>();
    if (!request.arguments.ok()) return EINVAL;
    Node* parent = request.node;
    if (too_many_handles()) return ENFILE;
    if (is_full(*parent)) return ENOSPC;
    os::Fd file(::openat(parent->file.get(), ".", O_TMPFILE | O_RDWR | O_CLOEXEC, kHostFile));
    if (!file) return errno;
    os::Fd path(::open(path_of(file.get()).c_str(), O_PATH | O_CLOEXEC));
    if (!path) return errno;
    Node* node = nullptr;
    if (int error = tree_.enter(parent->mount, std::move(path), node)) return error;
    if (int error = own(*parent, *node, request.header, (in.mode & ~static_cast<std::uint32_t>(S_IFMT)) | S_IFREG, 0)) {
        tree_.forget(node->number, 1);
        return error;
    }
    count(*node, 0);
    if (int error = give_entry(*node, request.reply)) return error;
    return give_handle(request, *node, std::move(file), in.flags);
}

int Server::read(Request& request) {
    auto in = request.arguments.take<fuse_read_in>();
    if (!request.arguments.ok() || !fits(in.offset, in.size)) return EINVAL;
    Handle* handle = file_of(in.fh, request.header.nodeid);
    if (handle == nullptr) return EBADF;
    auto& answer = request.reply.data;
    if (request.slot.empty()) answer.resize(std::min(in.size, kLargestRead));
    const auto data = request.slot.empty() ? std::span<std::uint8_t>(answer) : request.slot.first(std::min<std::size_t>(in.size, request.slot.size()));
    std::size_t done = 0;
    while (done < data.size()) {
        const ssize_t got = ::pread(handle->file.get(), data.data() + done, data.size() - done, static_cast<off_t>(in.offset + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && done == 0) return errno;
        if (got <= 0) break;
        done += static_cast<std::size_t>(got);
    }
    if (request.slot.empty()) answer.resize(done);
    else request.reply.in_slot = done;
    return 0;
}

int Server::write(Request& request) {
    auto in = request.arguments.take<fuse_write_in>();
    if (!request.slot.empty() && in.size > request.slot.size()) return EINVAL;
    const auto data = request.slot.empty() ? request.arguments.bytes(in.size) : base::ByteView(request.slot.first(in.size));
    if (!request.arguments.ok() || !fits(in.offset, in.size)) return EINVAL;
    Handle* handle = file_of(in.fh, request.header.nodeid);
    if (handle == nullptr) return EBADF;
    Node& node = *request.node;
    if ((in.write_flags & FUSE_WRITE_KILL_SUIDGID) != 0)
        if (int error = drop_set_id(node)) return error;
    drop_capability(node);
    const auto wanted = static_cast<std::size_t>(room(node, in.offset, data.size()));
    if (wanted == 0 && !data.empty()) return ENOSPC;
    const auto before = allocated(node);
    // At the end as it is now, also if another box has written there.
    int how = 0;
    if ((in.write_flags & FUSE_WRITE_CACHE) == 0) {
        if ((in.flags & O_APPEND) != 0) how |= RWF_APPEND;
        // Of a file, or of this one write: past its memory the kernel leaves that to us.
        if ((in.flags & O_SYNC) == O_SYNC) how |= RWF_SYNC;
        else if ((in.flags & O_DSYNC) != 0) how |= RWF_DSYNC;
    }
    std::size_t done = 0;
    int error = 0;
    while (done < wanted && error == 0) {
        iovec part{const_cast<std::uint8_t*>(data.data()) + done, wanted - done};
        const ssize_t put = ::pwritev2(handle->file.get(), &part, 1, static_cast<off_t>(in.offset + done), how);
        if (put >= 0) done += static_cast<std::size_t>(put);
        else if (errno != EINTR) error = errno;
    }
    count(node, before);
    if (done == 0 && error != 0) return error;
    request.reply.add(fuse_write_out{static_cast<std::uint32_t>(done), 0});
    return 0;
}

int Server::flush_file(Request& request) {
    auto in = request.arguments.take<fuse_flush_in>();
    if (!request.arguments.ok()) return EINVAL;
    // Whoever closes any file of an inode loses all of its POSIX locks there.
    drop_locks(request.header.nodeid, in.lock_owner, false);
    return 0;
}

int Server::release(Request& request) {
    auto in = request.arguments.take<fuse_release_in>();
    if (!request.arguments.ok() || handle_of(in.fh, request.header.nodeid) == nullptr) return EBADF;
    if ((in.release_flags & FUSE_RELEASE_FLOCK_UNLOCK) != 0) drop_locks(request.header.nodeid, in.lock_owner, true);
    drop_locks_of_handle(request.header.nodeid, in.fh);
    close(in.fh);
    return 0;
}

int Server::sync(Request& request) {
    auto in = request.arguments.take<fuse_fsync_in>();
    Handle* handle = request.arguments.ok() ? file_of(in.fh, request.header.nodeid) : nullptr;
    if (handle == nullptr) return EBADF;
    const bool data_only = (in.fsync_flags & FUSE_FSYNC_FDATASYNC) != 0;
    return (data_only ? ::fdatasync(handle->file.get()) : ::fsync(handle->file.get())) == 0 ? 0 : errno;
}

int Server::allocate(Request& request) {
    auto in = request.arguments.take<fuse_fallocate_in>();
    Handle* handle = request.arguments.ok() ? file_of(in.fh, request.header.nodeid) : nullptr;
    if (handle == nullptr) return EBADF;
    if (!fits(in.offset, in.length)) return EFBIG;
    // What guests' kernels offer for such file systems; others move contents about.
    if ((in.mode & ~static_cast<std::uint32_t>(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0) return EOPNOTSUPP;
    const bool frees = (in.mode & FALLOC_FL_PUNCH_HOLE) != 0;
    if (!frees && room(*request.node, in.offset, in.length) < in.length) return ENOSPC;
    const auto before = allocated(*request.node);
    const int error =
        ::fallocate(handle->file.get(), static_cast<int>(in.mode), static_cast<off_t>(in.offset), static_cast<off_t>(in.length)) == 0 ? 0 : errno;
    count(*request.node, before);
    return error;
}

int Server::seek(Request& request) {
    auto in = request.arguments.take<fuse_lseek_in>();
    Handle* handle = request.arguments.ok() ? file_of(in.fh, request.header.nodeid) : nullptr;
    if (handle == nullptr) return EBADF;
    if (in.whence != SEEK_DATA && in.whence != SEEK_HOLE) return EINVAL;
    const off_t at = ::lseek(handle->file.get(), static_cast<off_t>(in.offset), static_cast<int>(in.whence));
    if (at < 0) return errno;
    request.reply.add(fuse_lseek_out{static_cast<std::uint64_t>(at)});
    return 0;
}

int Server::copy_range(Request& request) {
    auto in = request.arguments.take<fuse_copy_file_range_in>();
    Handle* from = request.arguments.ok() ? file_of(in.fh_in, request.header.nodeid) : nullptr;
    Handle* to = file_of(in.fh_out, in.nodeid_out);
    if (from == nullptr || to == nullptr) return EBADF;
    Node* target = nullptr;
    if (int error = tree_.open(in.nodeid_out, target)) return error;
    if (target->mount->read_only) return EROFS;
    if (in.flags != 0 || !fits(in.off_in, in.len) || !fits(in.off_out, in.len)) return EINVAL;
    const auto wanted = std::min<std::uint64_t>(room(*target, in.off_out, in.len), kLargestCopyBytes);
    if (wanted == 0 && in.len > 0) return ENOSPC;
    const auto before = allocated(*target);
    auto in_offset = static_cast<off_t>(in.off_in), out_offset = static_cast<off_t>(in.off_out);
    const ssize_t done = ::copy_file_range(from->file.get(), &in_offset, to->file.get(), &out_offset, wanted, 0);
    const int error = done < 0 ? errno : 0;
    count(*target, before);
    promise(*target);
    if (error != 0) return error;
    request.reply.add(fuse_write_out{static_cast<std::uint32_t>(done), 0});
    return 0;
}

}  // namespace caisson::volume::share
