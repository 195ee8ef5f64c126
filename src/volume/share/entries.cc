// Names: what leads from a directory to its files.
#include <dirent.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdio>

#include "base/text.h"
#include "volume/share/server.h"
#include "wire/listing.h"

namespace caisson::volume::share {

namespace {

// How long the guest's kernel believes what it was told: while somebody else has the volume as well, not at all. Programs
// that agree by locks must see what the others wrote, and which names they removed.
std::uint64_t valid_seconds(const Node& node) { return node.mount->presence && node.mount->presence->has_company() ? 0 : 1; }

constexpr mode_t kHostDirectory = 0700;
constexpr std::uint32_t kModeBits = 07777;

os::Fd open_entry(const Node& parent, const std::string& name) { return share::open_entry(parent.file.get(), name); }

fuse_attr root_attributes() {
    fuse_attr attributes{};
    attributes.ino = FUSE_ROOT_ID;
    attributes.mode = S_IFDIR | 0555;
    attributes.nlink = 2;
    attributes.blksize = 4096;
    return attributes;
}

// What the guest made of a regular file of the host, in one call, for a directory may have many. A link that somebody put in
// its place is not followed.
std::uint32_t kind_of(const Node& directory, const std::string& name) {
    char text[kMaxMetadataBytes];
    const ssize_t length = ::lgetxattr((directory.path() + "/" + name).c_str(), kMetadataAttribute, text, sizeof text);
    const auto kept = length > 0 ? decode({text, static_cast<std::size_t>(length)}) : std::nullopt;
    return kept && kept->special != 0 ? kept->special : S_IFREG;
}

}  // namespace

int Server::give_attributes(const Node* node, Reply& reply) {
    fuse_attr_out out{};
    out.attr_valid = node == nullptr ? 1 : valid_seconds(*node);
    if (node == nullptr) out.attr = root_attributes();
    else if (int error = tree_.attributes(*node, out.attr)) return error;
    reply.add(out);
    return 0;
}

int Server::give_entry(Node& node, Reply& reply) {
    fuse_entry_out out{};
    out.nodeid = node.number;
    out.entry_valid = out.attr_valid = valid_seconds(node);
    if (int error = tree_.attributes(node, out.attr)) {
        tree_.forget(node.number, 1);
        return error;
    }
    reply.add(out);
    return 0;
}

int Server::enter(Node& parent, const std::string& name, Reply& reply, Node** entered) {
    os::Fd file = open_entry(parent, name);
    if (!file) return errno;
    Node* node = nullptr;
    if (int error = tree_.enter(parent.mount, std::move(file), node, &parent, name)) return error;
    if (entered != nullptr) *entered = node;
    return give_entry(*node, reply);
}

int Server::enter_and_promise(Node& parent, const std::string& name, Reply& reply, Node** entered) {
    Node* node = nullptr;
    const int error = enter(parent, name, reply, &node);
    if (error == 0) promise_name(parent.number, name, *node, reply);
    if (entered != nullptr) *entered = node;
    return error;
}

int Server::lookup_in_root(std::string_view name, Reply& reply) {
    if (name.substr(0, 1) != "m") return ENOENT;
    auto number = base::parse_u64(name.substr(1));
    if (!number || *number > UINT32_MAX) return ENOENT;
    auto found = tree_.mounts().find(static_cast<std::uint32_t>(*number));
    if (found == tree_.mounts().end()) return ENOENT;
    os::Fd file(::fcntl(found->second->root.get(), F_DUPFD_CLOEXEC, 0));
    if (!file) return errno;
    Node* node = nullptr;
    if (int error = tree_.enter(found->second, std::move(file), node)) return error;
    const int error = give_entry(*node, reply);
    if (error == 0) promise_name(FUSE_ROOT_ID, std::string(name), *node, reply);
    return error;
}

int Server::lookup(Request& request) {
    const std::string name(request.arguments.name());
    if (!request.arguments.ok()) return EINVAL;
    if (request.node == nullptr) return lookup_in_root(name, request.reply);
    return enter_and_promise(*request.node, name, request.reply);
}

int Server::own(Node& parent, Node& node, const fuse_in_header& maker, std::uint32_t mode, std::uint32_t device) {
    Metadata metadata;
    if (int error = metadata_of_new(parent, maker, mode, device, metadata)) return error;
    return tree_.set_metadata(node, metadata);
}

int Server::metadata_of_new(Node& parent, const fuse_in_header& maker, std::uint32_t mode, std::uint32_t device, Metadata& metadata) {
    struct stat status {};
    Metadata above;
    if (::fstatat(parent.file.get(), "", &status, AT_EMPTY_PATH) != 0) return errno;
    if (int error = tree_.metadata(parent, status, above)) return error;
    metadata.user = tree_.stored_user(maker.uid);
    metadata.group = tree_.stored_group(maker.gid);
    metadata.mode = mode & kModeBits;
    if ((above.mode & S_ISGID) != 0) {
        metadata.group = above.group;
        if (S_ISDIR(mode)) metadata.mode |= S_ISGID;
    }
    if (!S_ISREG(mode) && !S_ISDIR(mode)) {
        metadata.special = mode & S_IFMT;
        metadata.device = device;
    }
    return 0;
}

// An empty file or directory with all that belongs to it; what cannot be finished is taken back.
int Server::make(Request& request, const std::string& name, std::uint32_t mode, std::uint32_t device) {
    Node* parent = request.node;
    const bool directory = S_ISDIR(mode);
    if (is_full(*parent)) return ENOSPC;
    const Counted counted(*parent);
    if (directory) {
        if (::mkdirat(parent->file.get(), name.c_str(), kHostDirectory) != 0) return errno;
    } else {
        os::Fd made(::openat(parent->file.get(), name.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, kHostFile));
        if (!made) return errno;
    }
    Node* node = nullptr;
    os::Fd file = open_entry(*parent, name);
    int error = file ? tree_.enter(parent->mount, std::move(file), node, parent, name) : errno;
    if (error == 0) {
        error = own(*parent, *node, request.header, mode, device);
        count(*node, 0);
        if (error == 0) {
            error = give_entry(*node, request.reply);
            if (directory && promises(*parent->mount)) node->plain_at = plain_;
            if (!directory && !S_ISREG(mode)) ++plain_;
            if (error == 0) promise_name(parent->number, name, *node, request.reply, directory);
            return error;
        }
    }
    ::unlinkat(parent->file.get(), name.c_str(), directory ? AT_REMOVEDIR : 0);
    if (node != nullptr) tree_.forget(node->number, 1);
    return error;
}

int Server::make_node(Request& request) {
    auto in = request.arguments.take<fuse_mknod_in>();
    const std::string name(request.arguments.name());
    if (!request.arguments.ok()) return EINVAL;
    const auto type = in.mode & S_IFMT;
    if (type != S_IFREG && type != S_IFCHR && type != S_IFBLK && type != S_IFIFO && type != S_IFSOCK) return EINVAL;
    return make(request, name, in.mode, in.rdev);
}

int Server::make_directory(Request& request) {
    auto in = request.arguments.take<fuse_mkdir_in>();
    const std::string name(request.arguments.name());
    if (!request.arguments.ok()) return EINVAL;
    return make(request, name, (in.mode & kModeBits) | S_IFDIR, 0);
}

int Server::make_link(Request& request) {
    const std::string name(request.arguments.name());
    const std::string text(request.arguments.text(PATH_MAX));
    if (!request.arguments.ok()) return EINVAL;
    Node* parent = request.node;
    if (is_full(*parent)) return ENOSPC;
    Metadata metadata;
    if (int error = metadata_of_new(*parent, request.header, S_IFLNK | 0777, 0, metadata)) return error;
    const Counted counted(*parent);
    if (int error = put_link(*parent, name, text, metadata)) return error;
    Node* node = nullptr;
    const int error = enter_and_promise(*parent, name, request.reply, &node);
    if (error == 0) count(*node, 0);
    return error;
}

// A link of the owner is one on the host, too; that of somebody else is a file with its text.
int Server::put_link(Node& parent, const std::string& name, const std::string& text, const Metadata& metadata) {
    if (text.empty()) return ENOENT;
    if (text.size() >= PATH_MAX) return ENAMETOOLONG;
    if (!metadata.user && !metadata.group) return ::symlinkat(text.c_str(), parent.file.get(), name.c_str()) == 0 ? 0 : errno;
    os::Fd file(::openat(parent.file.get(), name.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, kHostFile));
    if (!file) return errno;
    ++plain_;
    const auto kept = encode(metadata);
    if (::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
        ::fsetxattr(file.get(), kMetadataAttribute, kept.data(), kept.size(), 0) == 0)
        return 0;
    const int error = errno == 0 ? ENOSPC : errno;
    ::unlinkat(parent.file.get(), name.c_str(), 0);
    return error;
}

// A link becomes somebody else's: another file takes its place.
int Server::give_link_metadata(Node& node, const Metadata& metadata) {
    struct stat status {};
    if (::fstatat(node.file.get(), "", &status, AT_EMPTY_PATH) != 0) return errno;
    if (node.parent == nullptr || status.st_nlink != 1) return EOPNOTSUPP;
    if (int error = tree_.open(*node.parent)) return error;
    Identity here;
    const os::Fd named = open_entry(*node.parent, node.name);
    if (!named || identify(named.get(), here) != 0 || here != node.is) return ESTALE;
    char text[PATH_MAX];
    const ssize_t length = ::readlinkat(node.file.get(), "", text, sizeof text);
    if (length < 0) return errno;
    Metadata link = metadata;
    link.special = S_IFLNK;
    link.mode = 0777;
    const std::string beside = ".caisson.link." + std::to_string(node.number) + "." + std::to_string(status.st_ino);
    const int parent = node.parent->file.get();
    if (int error = put_link(*node.parent, beside, {text, static_cast<std::size_t>(length)}, link)) return error;
    os::Fd file = open_entry(*node.parent, beside);
    int error = file && ::renameat(parent, beside.c_str(), parent, node.name.c_str()) == 0 ? 0 : errno;
    if (error == 0) error = tree_.replace(node, std::move(file));
    else ::unlinkat(parent, beside.c_str(), 0);
    promise(*node.parent);
    return error;
}

int Server::link(Request& request) {
    auto in = request.arguments.take<fuse_link_in>();
    const std::string name(request.arguments.name());
    if (!request.arguments.ok()) return EINVAL;
    Node* parent = request.node;
    Node* target = nullptr;
    if (int error = tree_.open(in.oldnodeid, target)) return error;
    if (target->mount != parent->mount) return EXDEV;
    const Counted counted(*parent);
    // Through the descriptor: the name that the guest knows it by may be another file's by now.
    if (::linkat(AT_FDCWD, target->path().c_str(), parent->file.get(), name.c_str(), AT_SYMLINK_FOLLOW) != 0) return errno;
    ++plain_;
    const int error = enter_and_promise(*parent, name, request.reply);
    if (error != 0) {  // it is there all the same
        take_back_name(*parent, name);
        promise(*target);
    }
    return error;
}

int Server::read_link(Request& request) {
    if (request.node == nullptr) return EINVAL;
    char text[PATH_MAX];
    ssize_t length = -1;
    if (request.node->is_regular()) {
        os::Fd file(::open(request.node->path().c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
        if (!file) return errno;
        length = ::pread(file.get(), text, sizeof text - 1, 0);
    } else {
        length = ::readlinkat(request.node->file.get(), "", text, sizeof text);
    }
    if (length < 0) return errno;
    request.reply.data.assign(text, text + length);
    return 0;
}

// The file that is about to lose this name is opened if the guest knows of it, for it may have it open and want more of
// it; and if its space is to be counted when it goes.
std::uint64_t Server::hold_before_removal(Node& parent, const std::string& name) {
    os::Fd file = open_entry(parent, name);
    Identity is;
    if (!file || identify(file.get(), is) != 0) return 0;
    Node* node = nullptr;
    if (!parent.mount->space && !tree_.knows(*parent.mount, is)) return 0;
    return tree_.enter(parent.mount, std::move(file), node, &parent, name) == 0 ? node->number : 0;
}

int Server::remove(Request& request, int flags) {
    const std::string name(request.arguments.name());
    if (!request.arguments.ok()) return EINVAL;
    Node* parent = request.node;
    const auto goes = hold_before_removal(*parent, name);
    const Counted counted(*parent);
    const int error = ::unlinkat(parent->file.get(), name.c_str(), flags) == 0 ? 0 : errno;
    if (error == 0) promise_none(*parent, name);
    if (Node* node = tree_.find(goes)) promise(*node);  // it may have other names
    if (error == 0) tree_.unnamed(goes);
    tree_.forget(goes, 1);
    return error;
}

int Server::remove_file(Request& request) { return remove(request, 0); }
int Server::remove_directory(Request& request) { return remove(request, AT_REMOVEDIR); }

int Server::rename_old(Request& request) {
    auto in = request.arguments.take<fuse_rename_in>();
    return rename_to(request, in.newdir, 0);
}

int Server::rename(Request& request) {
    auto in = request.arguments.take<fuse_rename2_in>();
    return rename_to(request, in.newdir, in.flags);
}

int Server::rename_to(Request& request, std::uint64_t directory, unsigned flags) {
    const std::string from(request.arguments.name());
    const std::string to(request.arguments.name());
    if (!request.arguments.ok() || (flags & ~static_cast<unsigned>(RENAME_NOREPLACE | RENAME_EXCHANGE)) != 0) return EINVAL;
    Node* parent = request.node;
    if (directory == FUSE_ROOT_ID) return EROFS;
    Node* target = nullptr;
    if (int error = tree_.open(directory, target)) return error;
    if (target->mount != parent->mount) return EXDEV;
    const auto goes = hold_before_removal(*target, to);
    int error = 0;
    {
        const Counted counted(*target);
        error = ::renameat2(parent->file.get(), from.c_str(), target->file.get(), to.c_str(), flags) == 0 ? 0 : errno;
    }
    // Within a directory, too: who lists it now may meet neither name.
    if (error == 0 && ((flags & RENAME_EXCHANGE) != 0 || kind_of(*target, to) != S_IFREG)) ++plain_;
    if (error == 0) renamed(*parent, from, *target, to, (flags & RENAME_EXCHANGE) != 0);
    if (Node* node = tree_.find(goes)) promise(*node);
    if (error == 0) tree_.unnamed(goes);
    tree_.forget(goes, 1);
    return error;
}

void Server::renamed(Node& parent, const std::string& from, Node& target, const std::string& to, bool exchanged) {
    take_back_name(target, to);
    if (exchanged) take_back_name(parent, from);
    else promise_none(parent, from);
    if (Node* node = tree_.moved(target, to)) promise(*node);
    if (Node* other = exchanged ? tree_.moved(parent, from) : nullptr) promise(*other);
    promise(target);
}

// ---- directories

int Server::open_directory(Request& request) {
    static_cast<void>(request.arguments.take<fuse_open_in>());
    if (too_many_handles()) return ENFILE;
    Handle handle;
    handle.directory = true;
    handle.node = request.header.nodeid;
    if (request.node == nullptr) {
        for (const auto& [number, mount] : tree_.mounts()) handle.root_entries.push_back(number);
    } else {
        handle.file = os::Fd(::openat(request.node->file.get(), ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
        if (!handle.file) return errno;
        handle.mount = request.node->mount;
        ++request.node->handles;
    }
    fuse_open_out out{};
    out.fh = next_handle_++;
    auto& opened = handles_.emplace(out.fh, std::move(handle)).first->second;
    request.reply.add(out);
    if (request.node == nullptr || !promises(*opened.mount)) return 0;
    // Most directories are small, and whoever opens one lists it: the kernel begins with names and attributes.
    fuse_read_in beginning{};
    beginning.fh = out.fh;
    beginning.size = wire::kSharePieceBytes;
    tell_piece(*request.node, opened, beginning, true);
    return 0;
}

int Server::read_directory(Request& request) { return list(request, false); }
int Server::read_directory_plus(Request& request) { return list(request, true); }

namespace {

// struct linux_dirent64 of getdents64(2): inode (8 bytes), next (8), length (2), type (1), name.
constexpr std::size_t kEntryLength = 16, kEntryType = 18, kEntryName = 19;
constexpr std::size_t kListedBytes = 32 << 10;

// Appends one entry; false if it would take more than `limit` bytes together.
bool append(Reply& reply, const Listed& listed, const fuse_entry_out* entry, std::size_t limit) {
    if (reply.data.size() + wire::listing_entry_bytes(entry != nullptr, listed.name.size()) > limit) return false;
    fuse_dirent dirent{};
    dirent.ino = listed.inode;
    dirent.off = listed.next;
    dirent.type = listed.type;
    wire::put_listing_entry(reply.data, entry, dirent, listed.name);
    return true;
}

bool is_dot(const std::string& name) { return name == "." || name == ".."; }

template <typename T>
T read_at(const char* bytes) {
    T value{};
    std::memcpy(&value, bytes, sizeof value);
    return value;
}

constexpr unsigned kTypeShift = 12;  // from S_IFMT to DT_

}  // namespace

int Server::list_root(const Handle& handle, std::uint64_t offset, std::size_t limit, bool plus, Reply& reply) {
    for (auto at = offset; at < handle.root_entries.size(); ++at) {
        Listed listed{"m" + std::to_string(handle.root_entries[static_cast<std::size_t>(at)]), FUSE_ROOT_ID, 0, at + 1};
        // The guest's kernel looks each one up when somebody wants it.
        fuse_entry_out none{};
        if (!append(reply, listed, plus ? &none : nullptr, limit)) break;
    }
    return 0;
}

bool Server::list_entry(Node& parent, Listed& listed, bool is_plain, std::size_t limit, bool plus, Reply& reply) {
    fuse_entry_out entry{};
    Reply looked_up;
    Node* node = nullptr;
    listed.inode = tree_.inode_number(parent.is.device, listed.inode);
    if (plus && !is_dot(listed.name) && enter(parent, listed.name, looked_up, &node) == 0) {
        std::memcpy(&entry, looked_up.data.data(), sizeof entry);
        listed.inode = entry.attr.ino;
        listed.type = (entry.attr.mode & S_IFMT) >> kTypeShift;
        if (promises(*parent.mount)) promised(*node, entry.attr);
    } else {
        node = nullptr;
        if (listed.type == DT_REG && !is_plain) listed.type = kind_of(parent, listed.name) >> kTypeShift;
    }
    if (append(reply, listed, plus ? &entry : nullptr, limit)) return true;
    if (node != nullptr) tree_.forget(node->number, 1);
    return false;
}

int Server::list(Request& request, bool plus) {
    auto in = request.arguments.take<fuse_read_in>();
    if (!request.arguments.ok() || in.size > kMaxDataBytes) return EINVAL;
    Handle* handle = handle_of(in.fh, request.header.nodeid);
    if (handle == nullptr || !handle->directory) return EBADF;
    if (!handle->file) return list_root(*handle, in.offset, in.size, plus, request.reply);
    Piece piece;
    return list_piece(*request.node, *handle, in, plus, request.reply, piece);
}

int Server::list_piece(Node& directory, Handle& handle, const fuse_read_in& in, bool plus, Reply& reply, Piece& piece) {
    const bool plain = is_plain(directory);
    if (in.offset == 0) {
        handle.plain_at = promises(*handle.mount) ? plain_ : 0;
        handle.listed_to = 0;
    } else if (in.offset != handle.listed_to) {
        handle.plain_at = 0;
    }
    piece.next = in.offset;
    if (in.offset > INT64_MAX || ::lseek(handle.file.get(), static_cast<off_t>(in.offset), SEEK_SET) < 0) return EINVAL;
    // Not many more than fit: what does not is read again.
    char entries[kListedBytes];
    const std::size_t enough = std::clamp<std::size_t>(plus ? in.size / 4 : in.size, sizeof(dirent64), sizeof entries);
    for (;;) {
        const long got = ::syscall(SYS_getdents64, handle.file.get(), entries, enough);
        piece.end = got == 0;
        if (piece.end && handle.plain_at != 0) directory.plain_at = handle.plain_at;
        if (got <= 0) return got == 0 || !reply.data.empty() ? 0 : errno;
        for (long at = 0; at < got;) {
            const char* entry = entries + at;
            at += read_at<std::uint16_t>(entry + kEntryLength);
            Listed listed{entry + kEntryName, read_at<std::uint64_t>(entry), static_cast<std::uint8_t>(entry[kEntryType]),
                          read_at<std::uint64_t>(entry + sizeof(std::uint64_t))};
            const auto type = listed.type;
            if (!list_entry(directory, listed, plain, in.size, plus, reply)) return 0;
            handle.listed_to = piece.next = listed.next;
            if (type == DT_UNKNOWN || (type == DT_REG && listed.type != DT_REG)) handle.plain_at = 0;
        }
    }
}

// false: there is no use in a next one, which would begin at `in`.
bool Server::tell_piece(Node& directory, Handle& handle, fuse_read_in& in, bool plus) {
    Reply reply;
    Piece piece;
    // The kernel asks for it, and hears why.
    if (list_piece(directory, handle, in, plus, reply, piece) != 0 || (reply.data.empty() && !piece.end)) return false;
    const std::uint32_t flags = (plus ? wire::ShareListed::kPlus : 0) | (piece.end ? wire::ShareListed::kEnd : 0);
    base::Bytes data;
    base::append(data, base::bytes_of(wire::ShareListed{in.fh, in.offset, piece.next, flags, 0}));
    base::append(data, reply.data);
    tell(wire::ShareNews::kListed, data);
    in.offset = piece.next;
    return !piece.end;
}

int Server::list_ahead(Request& request) {
    const auto wanted = request.arguments.take<wire::ShareList>();
    Handle* handle = request.arguments.ok() ? handle_of(wanted.handle, request.header.nodeid) : nullptr;
    fuse_read_in in{};
    in.fh = wanted.handle;
    in.offset = wanted.offset;
    in.size = wire::kSharePieceBytes;
    bool goes_on = handle != nullptr && handle->directory && handle->file && promises(*handle->mount);
    for (std::uint32_t i = 0; goes_on && i < std::min(wanted.pieces, wire::kShareMostPieces); ++i) {
        goes_on = tell_piece(*request.node, *handle, in, wanted.plus != 0);
        flush();  // the guest works through it while the next one is made
    }
    return kNoAnswer;
}

// Also if nothing could be told: the guest's kernel may be waiting for it.
void Server::tell_done(const Message& message) {
    Arguments arguments(message.arguments);
    const auto asked = arguments.take<wire::ShareList>();
    tell(wire::ShareNews::kListed, base::bytes_of(wire::ShareListed{asked.handle, asked.offset, asked.offset, wire::ShareListed::kDone, 0}));
}

int Server::release_directory(Request& request) {
    auto in = request.arguments.take<fuse_release_in>();
    if (handle_of(in.fh, request.header.nodeid) == nullptr) return EBADF;
    close(in.fh);
    return 0;
}

int Server::sync_directory(Request& request) {
    if (request.node == nullptr) return 0;
    os::Fd directory(::openat(request.node->file.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!directory) return errno;
    return ::fsync(directory.get()) == 0 ? 0 : errno;
}

}  // namespace caisson::volume::share
