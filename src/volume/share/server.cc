#include "volume/share/server.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace caisson::volume::share {

using base::failure_errno;

namespace {

constexpr std::size_t kReadBytes = 256 << 10;
// A guest that does not take its answers is not listened to.
constexpr std::size_t kMaxUnsentBytes = 4 << 20;
constexpr std::uint32_t kMinor = 38;  // of the structures in the build's linux/fuse.h
constexpr std::uint32_t kOldestMinor = 31;  // Linux 5.4
constexpr std::uint32_t kBlockBytes = 4096;

// What has no number is waited for by nobody.
bool is_unanswered(const fuse_in_header& header) {
    return header.unique == 0 || header.opcode == FUSE_FORGET || header.opcode == FUSE_BATCH_FORGET || header.opcode == FUSE_INTERRUPT;
}

}  // namespace

Server::Server(os::Loop& loop, os::Fd port, std::span<std::uint8_t> window) : loop_(loop), port_(std::move(port)), window_(window), read_(std::make_unique_for_overwrite<std::uint8_t[]>(kReadBytes)) {
    struct rlimit limit {};
    budget_ = budget_of(::getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : 0);
    tree_.set_most_open(budget_.nodes);
}

Server::~Server() {
    while (!handles_.empty()) close(handles_.begin()->first);
    while (!locks_.empty()) drop_lock(locks_.begin());
    if (!ended_) loop_.unwatch(port_.get());
    if (company_) loop_.unwatch(company_.get());
    loop_.cancel(lock_timer_);
}

Result<> Server::start() {
    CAISSON_TRY(os::set_nonblocking(port_.get(), true));
    return loop_.watch(port_.get(), EPOLLIN, [this](std::uint32_t events) {
        if ((events & EPOLLOUT) != 0) flush();
        // Messages that were read already wait for no event.
        if (!ended_ && (events & EPOLLOUT) != 0 && !is_full()) take_messages();
        if (!ended_ && (events & ~EPOLLOUT) != 0) readable();
    });
}

void Server::end(const std::string& broken) {
    if (ended_) return;
    ended_ = true;
    loop_.unwatch(port_.get());
    if (on_end) on_end(broken);
}

void Server::readable() {
    const ssize_t got = ::read(port_.get(), read_.get(), kReadBytes);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) return end("");
    in_.insert(in_.end(), read_.get(), read_.get() + got);
    take_messages();
}

void Server::take_messages() {
    while (!ended_) {
        auto message = first_message(base::ByteView(in_).subspan(taken_));
        if (!message) return end(message.error().message);
        if (!*message) break;
        // Whoever waits need not wait for what comes behind.
        if (is_full() || (is_unanswered((*message)->header) && !out_.empty())) flush();
        if (ended_ || is_full()) break;
        handle(**message);
        taken_ += (*message)->header.len;
    }
    if (taken_ > 0) {
        in_.erase(in_.begin(), in_.begin() + static_cast<std::ptrdiff_t>(taken_));
        taken_ = 0;
    }
    if (!ended_) flush();
}

bool Server::is_full() const { return out_.size() - sent_ >= kMaxUnsentBytes; }

void Server::flush() {
    while (sent_ < out_.size()) {
        const ssize_t put = ::send(port_.get(), out_.data() + sent_, out_.size() - sent_, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0 && errno == EAGAIN) break;
        if (put < 0) return end("");
        sent_ += static_cast<std::size_t>(put);
    }
    // What was sent may not pile up while there is always something left.
    if (sent_ == out_.size() || sent_ > kMaxUnsentBytes / 4) {
        out_.erase(out_.begin(), out_.begin() + static_cast<std::ptrdiff_t>(sent_));
        sent_ = 0;
    }
    static_cast<void>(loop_.modify(port_.get(), (out_.empty() ? 0u : EPOLLOUT) | (is_full() ? 0u : EPOLLIN)));
}

void Server::answer(std::uint64_t unique, int error, base::ByteView data) {
    fuse_out_header header{};
    header.unique = unique;
    header.error = -error;
    header.len = static_cast<std::uint32_t>(sizeof header + (error == 0 ? data.size() : 0));
    base::append(out_, base::bytes_of(header));
    if (error == 0) base::append(out_, data);
}

void Server::handle(const Message& message) {
    const auto& header = message.header;
    if (header.opcode == wire::kShareIdentity) {
        Arguments arguments(message.arguments);
        auto identity = arguments.take<wire::ShareIdentity>();
        if (!arguments.ok() || initialised_) return end("the guest said late, or wrongly, who it is");
        tree_.set_identity(identity);
        return;
    }
    if (header.opcode == wire::kShareKeeps) {
        Arguments arguments(message.arguments);
        keeps_ = true;
        writes_past_memory_ = (arguments.take<wire::ShareKeeps>().flags & wire::ShareKeeps::kWritesPast) != 0;
        if (!window_.empty()) tell(wire::ShareNews::kWindow, {});
        return;
    }
    Request request;
    request.header = header;
    request.arguments = Arguments(message.arguments);
    int error = find_slot(request) ? dispatch(request) : EINVAL;
    if (header.opcode == wire::kShareList) return tell_done(message);
    if (!request.arguments.ok()) error = request.arguments.error();
    if (error == EMFILE) error = ENFILE;  // it is not the guest's process that has too many
    if (error == kNoAnswer || is_unanswered(header) || ended_) return;
    if (error == 0 && request.reply.in_slot > 0)
        tell(wire::ShareNews::kInSlot, base::bytes_of(wire::ShareInSlot{header.unique, wire::share_slot(header) - 1u, static_cast<std::uint32_t>(request.reply.in_slot)}));
    else answer(header.unique, error, request.reply.data);
}

// false: there is no such slot.
bool Server::find_slot(Request& request) const {
    const auto slot = wire::share_slot(request.header);
    if (slot == 0) return true;
    if (slot > window_.size() / wire::kShareSlotBytes) return false;
    request.slot = window_.subspan((slot - 1u) * wire::kShareSlotBytes, wire::kShareSlotBytes);
    return true;
}

int Server::dispatch(Request& request) {
    const auto operation = request.header.opcode;
    if (!initialised_ && operation != FUSE_INIT) return EIO;
    const auto* row = row_of(operation);
    if (row == nullptr) return ENOSYS;
    const bool any_node = operation == FUSE_INIT || operation == FUSE_FORGET || operation == FUSE_BATCH_FORGET ||
                          operation == FUSE_INTERRUPT || operation == FUSE_DESTROY;
    if (request.header.nodeid != FUSE_ROOT_ID && !any_node) {
        if (int error = tree_.open(request.header.nodeid, request.node)) return error;
        ++request.node->handles;  // stays as long as the request takes
    }
    // The root directory is nobody's. What may or may not write, open() and copy_range(), sees for itself.
    const bool refused = row->writes && (request.node == nullptr || request.node->mount->read_only);
    const int error = refused ? EROFS : (this->*row->handler)(request);
    if (request.node != nullptr && !refused) promise_again(row->writes, *request.node);
    if (request.node != nullptr) tree_.closed(request.header.nodeid);
    return error;
}

const Server::Row* Server::row_of(std::uint32_t operation) {
    static constexpr Row kRows[] = {
        {FUSE_INIT, &Server::initialise},
        {FUSE_DESTROY, &Server::sync_all},
        {FUSE_FORGET, &Server::forget},
        {FUSE_BATCH_FORGET, &Server::forget_many},
        {FUSE_INTERRUPT, &Server::interrupt},
        {FUSE_STATFS, &Server::statfs},
        {FUSE_SYNCFS, &Server::sync_all},
        {FUSE_LOOKUP, &Server::lookup},
        {FUSE_MKNOD, &Server::make_node, true},
        {FUSE_MKDIR, &Server::make_directory, true},
        {FUSE_SYMLINK, &Server::make_link, true},
        {FUSE_LINK, &Server::link, true},
        {FUSE_READLINK, &Server::read_link},
        {FUSE_UNLINK, &Server::remove_file, true},
        {FUSE_RMDIR, &Server::remove_directory, true},
        {FUSE_RENAME, &Server::rename_old, true},
        {FUSE_RENAME2, &Server::rename, true},
        {FUSE_OPENDIR, &Server::open_directory},
        {FUSE_READDIR, &Server::read_directory},
        {FUSE_READDIRPLUS, &Server::read_directory_plus},
        {wire::kShareList, &Server::list_ahead},
        {FUSE_RELEASEDIR, &Server::release_directory},
        {FUSE_FSYNCDIR, &Server::sync_directory},
        {FUSE_GETATTR, &Server::get_attributes},
        {FUSE_SETATTR, &Server::set_attributes, true},
        {FUSE_GETXATTR, &Server::get_attribute},
        {FUSE_SETXATTR, &Server::set_attribute, true},
        {FUSE_LISTXATTR, &Server::list_attributes},
        {FUSE_REMOVEXATTR, &Server::remove_attribute, true},
        {FUSE_OPEN, &Server::open},
        {FUSE_CREATE, &Server::create, true},
        {FUSE_TMPFILE, &Server::make_temporary, true},
        {FUSE_READ, &Server::read},
        {FUSE_WRITE, &Server::write, true},
        {FUSE_FLUSH, &Server::flush_file},
        {FUSE_RELEASE, &Server::release},
        {FUSE_FSYNC, &Server::sync},
        {FUSE_FALLOCATE, &Server::allocate, true},
        {FUSE_LSEEK, &Server::seek},
        {FUSE_COPY_FILE_RANGE, &Server::copy_range},
        {FUSE_GETLK, &Server::get_lock},
        {FUSE_SETLK, &Server::set_lock},
        {FUSE_SETLKW, &Server::wait_for_lock},
    };
    for (const auto& row : kRows)
        if (row.operation == operation) return &row;
    return nullptr;
}

int Server::initialise(Request& request) {
    auto asked = request.arguments.take<fuse_init_in>();
    if (!request.arguments.ok() || initialised_) return EINVAL;
    if (asked.major != FUSE_KERNEL_VERSION || asked.minor < kOldestMinor) return EPROTO;
    initialised_ = true;
    fuse_init_out init{};
    init.major = FUSE_KERNEL_VERSION;
    init.minor = std::min(asked.minor, kMinor);
    init.max_readahead = kMaxDataBytes;  // the guest's kernel has its own limit
    // No writeback cache: with it a write becomes many small ones, and another box's writes would be lost.
    constexpr std::uint32_t kWanted = FUSE_ASYNC_READ | FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES |
                                      FUSE_AUTO_INVAL_DATA | FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_PARALLEL_DIROPS |
                                      FUSE_HANDLE_KILLPRIV_V2 | FUSE_MAX_PAGES;
    init.flags = asked.flags & kWanted;
    init.max_background = 16;
    init.congestion_threshold = 12;
    init.max_write = kMaxDataBytes;
    init.time_gran = 1;
    init.max_pages = kMaxDataBytes / kBlockBytes;
    request.reply.add(init);
    return 0;
}

int Server::forget(Request& request) {
    tree_.forget(request.header.nodeid, request.arguments.take<fuse_forget_in>().nlookup);
    return kNoAnswer;
}

int Server::forget_many(Request& request) {
    auto batch = request.arguments.take<fuse_batch_forget_in>();
    for (std::uint32_t i = 0; i < batch.count && request.arguments.ok(); ++i) {
        auto one = request.arguments.take<fuse_forget_one>();
        if (request.arguments.ok()) tree_.forget(one.nodeid, one.nlookup);
    }
    return kNoAnswer;
}

int Server::interrupt(Request& request) {
    const auto unique = request.arguments.take<fuse_interrupt_in>().unique;
    auto found = std::find_if(waiting_.begin(), waiting_.end(), [&](const Waiting& waiting) { return waiting.unique == unique; });
    if (found != waiting_.end()) {
        waiting_.erase(found);
        answer(unique, EINTR, {});
    }
    return kNoAnswer;
}

int Server::statfs(Request& request) {
    fuse_statfs_out out{};
    auto& status = out.st;
    status.bsize = status.frsize = kBlockBytes;
    status.namelen = kMaxNameBytes;
    if (request.node != nullptr) {
        struct statvfs host {};
        if (::fstatvfs(request.node->file.get(), &host) != 0) return errno;
        status.bsize = static_cast<std::uint32_t>(host.f_bsize);
        status.frsize = static_cast<std::uint32_t>(host.f_frsize);
        status.blocks = host.f_blocks;
        status.bfree = host.f_bfree;
        status.bavail = host.f_bavail;
        status.files = host.f_files;
        status.ffree = host.f_ffree;
        if (const auto& space = request.node->mount->space; space && status.frsize > 0) {
            status.blocks = space->limit_bytes() / status.frsize;
            status.bfree = std::min(status.bfree, space->free_bytes() / status.frsize);
            status.bavail = std::min(status.bavail, status.bfree);
        }
    }
    request.reply.add(out);
    return 0;
}

int Server::sync_all(Request&) {
    write_back();
    return 0;
}

void Server::write_back() {
    // What was written lies in the host's page cache: the host's crash alone could lose it.
    for (const auto& [number, mount] : tree_.mounts()) {
        if (mount->read_only) continue;
        os::Fd root(::open(path_of(mount->root.get()).c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
        if (root) ::syncfs(root.get());
    }
}

Server::Handle* Server::handle_of(std::uint64_t number, std::uint64_t node) {
    auto found = handles_.find(number);
    return found == handles_.end() || found->second.node != node ? nullptr : &found->second;
}

Server::Handle* Server::file_of(std::uint64_t number, std::uint64_t node) {
    Handle* handle = handle_of(number, node);
    return handle == nullptr || handle->directory || !handle->file ? nullptr : handle;
}

void Server::close(std::uint64_t number) {
    auto found = handles_.find(number);
    if (found == handles_.end()) return;
    const auto node = found->second.node;
    handles_.erase(found);
    if (node != FUSE_ROOT_ID) tree_.closed(node);
}

bool Server::remove_mount(std::uint32_t number) {
    leave_alone();
    std::vector<std::uint64_t> open;
    for (const auto& [handle, entry] : handles_)
        if (entry.mount && entry.mount->number == number) open.push_back(handle);
    for (auto handle : open) close(handle);
    for (auto lock = locks_.begin(); lock != locks_.end();) {
        const Node* node = tree_.find(lock->first.node);
        lock = node != nullptr && node->mount->number == number ? drop_lock(lock) : std::next(lock);
    }
    return tree_.remove(number);
}

}  // namespace caisson::volume::share
