// Locks: the host's own, so that two boxes, and a program of the host, see each other. One descriptor for each file and
// owner: locks of Linux belong to open files ("open file description locks", fcntl(2)).
#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>
#include <cerrno>

#include "volume/share/server.h"

namespace caisson::volume::share {

namespace {

// How soon somebody who waits notices that another process let go; what this guest lets go of, it notices at once.
constexpr std::chrono::milliseconds kRetry{10};

struct flock range_of(const fuse_file_lock& lock) {
    struct flock range {};
    range.l_type = static_cast<short>(lock.type);
    range.l_whence = SEEK_SET;
    range.l_start = static_cast<off_t>(lock.start);
    // "to the end of whatever the file becomes" is 0 here
    range.l_len = lock.end >= INT64_MAX ? 0 : static_cast<off_t>(lock.end - lock.start + 1);
    return range;
}

bool is_sound(const fuse_file_lock& lock) {
    return lock.start <= lock.end && lock.start <= INT64_MAX && (lock.type == F_RDLCK || lock.type == F_WRLCK || lock.type == F_UNLCK);
}

}  // namespace

// What a lock is taken on.
int Server::open_for_locks(Node& node, os::Fd& file) {
    if (!node.is_regular() && !node.is_directory()) return EINVAL;
    const int mode = node.is_directory() || node.mount->read_only ? O_RDONLY : O_RDWR;
    file = os::Fd(::open(node.path().c_str(), mode | O_CLOEXEC | O_NONBLOCK));
    return file ? 0 : errno;
}

int Server::lock_file(Node& node, const LockKey& key, std::uint64_t handle, int& file) {
    auto found = locks_.find(key);
    if (found == locks_.end()) {
        if (locks_.size() >= budget_.locks) return ENOLCK;
        os::Fd opened;
        if (int error = open_for_locks(node, opened)) return error;
        found = locks_.emplace(key, Lock{std::move(opened), handle}).first;
        ++node.handles;  // what is removed takes its space as long as this is open
    }
    found->second.handle = handle;
    file = found->second.file.get();
    return 0;
}

int Server::try_lock(Node& node, const fuse_lk_in& wanted) {
    const bool whole = (wanted.lk_flags & FUSE_LK_FLOCK) != 0;
    const LockKey key{node.number, wanted.owner, whole};
    if (wanted.lk.type == F_UNLCK && locks_.find(key) == locks_.end()) return 0;
    int file = -1;
    if (int error = lock_file(node, key, wanted.fh, file)) return error;
    int error = 0;
    if (whole) {
        const int operation = wanted.lk.type == F_UNLCK ? LOCK_UN : wanted.lk.type == F_RDLCK ? LOCK_SH : LOCK_EX;
        if (::flock(file, operation | LOCK_NB) != 0) error = errno;
    } else {
        auto range = range_of(wanted.lk);
        if (::fcntl(file, F_OFD_SETLK, &range) != 0) error = errno;
        // Nobody can write where nothing can be written: shared ones are all that is left.
        if (error == EBADF) error = EROFS;
    }
    if (error == EACCES) error = EAGAIN;
    return error;
}

int Server::get_lock(Request& request) {
    auto in = request.arguments.take<fuse_lk_in>();
    if (!request.arguments.ok() || request.node == nullptr || !is_sound(in.lk)) return EINVAL;
    // Whoever only asks leaves nothing behind.
    os::Fd opened;
    auto own = locks_.find({request.node->number, in.owner, false});
    if (own == locks_.end())
        if (int error = open_for_locks(*request.node, opened)) return error;
    auto range = range_of(in.lk);
    if (::fcntl(opened ? opened.get() : own->second.file.get(), F_OFD_GETLK, &range) != 0) return errno;
    fuse_lk_out out{};
    out.lk.type = static_cast<std::uint32_t>(range.l_type);
    if (range.l_type != F_UNLCK) {
        out.lk.start = static_cast<std::uint64_t>(range.l_start);
        out.lk.end = range.l_len == 0 ? INT64_MAX : static_cast<std::uint64_t>(range.l_start + range.l_len - 1);
    }
    request.reply.add(out);
    return 0;
}

int Server::set_lock(Request& request) {
    auto in = request.arguments.take<fuse_lk_in>();
    if (!request.arguments.ok() || request.node == nullptr || !is_sound(in.lk)) return EINVAL;
    const int error = try_lock(*request.node, in);
    if (error == 0 && !waiting_.empty()) retry_locks();
    return error;
}

int Server::wait_for_lock(Request& request) {
    auto in = request.arguments.take<fuse_lk_in>();
    if (!request.arguments.ok() || request.node == nullptr || !is_sound(in.lk)) return EINVAL;
    const int error = try_lock(*request.node, in);
    if (error == 0 && !waiting_.empty()) retry_locks();  // it may have given up a part of what it had
    if (error != EAGAIN) return error;
    if (waiting_.size() >= kMostWaiting) return ENOLCK;
    waiting_.push_back({request.header.unique, request.node->number, in});
    if (waiting_.size() == 1) lock_timer_ = loop_.after(kRetry, [this] { retry_locks(); });
    return kNoAnswer;
}

void Server::retry_locks() {
    loop_.cancel(lock_timer_);
    // In the order in which they came.
    for (auto waiting = waiting_.begin(); waiting != waiting_.end();) {
        Node* node = nullptr;
        int error = tree_.open(waiting->node, node);
        if (error == 0) error = try_lock(*node, waiting->wanted);
        if (error == EAGAIN) {
            ++waiting;
            continue;
        }
        answer(waiting->unique, error, {});
        waiting = waiting_.erase(waiting);
    }
    if (!waiting_.empty()) lock_timer_ = loop_.after(kRetry, [this] { retry_locks(); });
    if (!ended_ && !out_.empty()) flush();
}

void Server::drop_locks(std::uint64_t node, std::uint64_t owner, bool flock) {
    const auto lock = locks_.find({node, owner, flock});
    if (lock == locks_.end()) return;
    drop_lock(lock);
    if (!waiting_.empty()) retry_locks();
}

Server::Locks::iterator Server::drop_lock(Locks::iterator lock) {
    const auto node = lock->first.node;
    const auto next = locks_.erase(lock);
    tree_.closed(node);
    return next;
}

bool Server::has_locks(std::uint64_t node) const {
    const auto first = locks_.lower_bound({node, 0, false});
    return first != locks_.end() && first->first.node == node;
}

// What belongs to an open file, not to a process, goes with it: the guest's kernel says nothing about those locks
// (F_OFD_SETLK) then. Those of processes that asked through it are gone by now.
void Server::drop_locks_of_handle(std::uint64_t node, std::uint64_t handle) {
    bool dropped = false;
    for (auto lock = locks_.lower_bound({node, 0, false}); lock != locks_.end() && lock->first.node == node;) {
        const bool goes = lock->second.handle == handle && !lock->first.flock;
        dropped = dropped || goes;
        lock = goes ? drop_lock(lock) : std::next(lock);
    }
    if (dropped && !waiting_.empty()) retry_locks();
}

}  // namespace caisson::volume::share
