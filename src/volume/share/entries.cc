// Names: what leads from a directory to its files.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>

#include "base/text.h"
#include "volume/share/server.h"

namespace caisson::volume::share {

namespace {

constexpr std::uint64_t kValidSeconds = 1;  // how long the guest's kernel believes what it was told
// On the host everything is the volume owner's alone. Metadata says what the guest made of it.
constexpr mode_t kHostFile = 0600;
constexpr mode_t kHostDirectory = 0700;
constexpr std::uint32_t kModeBits = 07777;

// A new name in a directory, or nothing: never through a link, never out of the directory.
os::Fd open_entry(const Node& parent, const std::string& name) {
    return os::Fd(::openat(parent.file.get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
}

fuse_attr root_attributes() {
    fuse_attr attributes{};
    attributes.ino = FUSE_ROOT_ID;
    attributes.mode = S_IFDIR | 0555;
    attributes.nlink = 2;
    attributes.blksize = 4096;
    return attributes;
}

}  // namespace

int Server::give_attributes(const Node* node, Reply& reply) {
    fuse_attr_out out{};
    out.attr_valid = kValidSeconds;
    if (node == nullptr) out.attr = root_attributes();
    else if (int error = tree_.attributes(*node, out.attr)) return error;
    reply.add(out);
    return 0;
}

int Server::give_entry(Node& node, Reply& reply) {
    fuse_entry_out out{};
    out.nodeid = node.number;
    out.entry_valid = out.attr_valid = kValidSeconds;
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
    if (int error = tree_.enter(parent.mount, std::move(file), node)) return error;
    if (entered != nullptr) *entered = node;
    return give_entry(*node, reply);
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
    return give_entry(*node, reply);
}

int Server::lookup(Request& request) {
    const std::string name(request.arguments.name());
    if (!request.arguments.ok()) return EINVAL;
    if (request.node == nullptr) return lookup_in_root(name, request.reply);
    return enter(*request.node, name, request.reply);
}

int Server::own(Node& parent, Node& node, const fuse_in_header& maker, std::uint32_t mode, std::uint32_t device) {
    struct stat status {};
    Metadata above;
    if (::fstatat(parent.file.get(), "", &status, AT_EMPTY_PATH) != 0) return errno;
    if (int error = tree_.metadata(parent, status, above)) return error;
    Metadata metadata;
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
    return tree_.set_metadata(node, metadata);
}

// An empty file or directory with all that belongs to it; what cannot be finished is taken back.
int Server::make(Request& request, const std::string& name, std::uint32_t mode, std::uint32_t device) {
    Node* parent = request.node;
    if (parent == nullptr || parent->mount->read_only) return EROFS;
    const bool directory = S_ISDIR(mode);
    if (const auto& space = parent->mount->space; space && space->free_bytes() == 0) return ENOSPC;
    if (directory) {
        if (::mkdirat(parent->file.get(), name.c_str(), kHostDirectory) != 0) return errno;
        if (parent->mount->space) parent->mount->space->add(4096);
    } else {
        os::Fd made(::openat(parent->file.get(), name.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, kHostFile));
        if (!made) return errno;
    }
    Node* node = nullptr;
    os::Fd file = open_entry(*parent, name);
    int error = file ? tree_.enter(parent->mount, std::move(file), node) : errno;
    if (error == 0) {
        error = own(*parent, *node, request.header, mode, device);
        if (error == 0) return give_entry(*node, request.reply);
        tree_.forget(node->number, 1);
    }
    ::unlinkat(parent->file.get(), name.c_str(), directory ? AT_REMOVEDIR : 0);
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
    if (parent == nullptr || parent->mount->read_only) return EROFS;
    if (::symlinkat(text.c_str(), parent->file.get(), name.c_str()) != 0) return errno;
    return enter(*parent, name, request.reply);
}

int Server::link(Request& request) {
    auto in = request.arguments.take<fuse_link_in>();
    const std::string name(request.arguments.name());
    if (!request.arguments.ok()) return EINVAL;
    Node* parent = request.node;
    Node* target = tree_.find(in.oldnodeid);
    if (parent == nullptr || parent->mount->read_only) return EROFS;
    if (target == nullptr || !target->file) return ESTALE;
    if (target->mount != parent->mount) return EXDEV;
    // Through the descriptor: the name that the guest knows it by may be another file's by now.
    if (::linkat(AT_FDCWD, target->path().c_str(), parent->file.get(), name.c_str(), AT_SYMLINK_FOLLOW) != 0) return errno;
    return enter(*parent, name, request.reply);
}

int Server::read_link(Request& request) {
    if (request.node == nullptr) return EINVAL;
    char text[PATH_MAX];
    const ssize_t length = ::readlinkat(request.node->file.get(), "", text, sizeof text);
    if (length < 0) return errno;
    request.reply.data.assign(text, text + length);
    return 0;
}

// The file that is about to lose this name becomes a node, if it is not one, so that its space is counted when it goes.
std::uint64_t Server::hold_for_space(Node& parent, const std::string& name) {
    os::Fd file;
    if (parent.mount->space) file = open_entry(parent, name);
    Node* node = nullptr;
    if (!file || tree_.enter(parent.mount, std::move(file), node) != 0) return 0;
    return node->number;
}

int Server::remove_file(Request& request) {
    const std::string name(request.arguments.name());
    if (!request.arguments.ok()) return EINVAL;
    Node* parent = request.node;
    if (parent == nullptr || parent->mount->read_only) return EROFS;
    const auto goes = hold_for_space(*parent, name);
    const int error = ::unlinkat(parent->file.get(), name.c_str(), 0) == 0 ? 0 : errno;
    tree_.forget(goes, 1);
    return error;
}

int Server::remove_directory(Request& request) {
    const std::string name(request.arguments.name());
    if (!request.arguments.ok()) return EINVAL;
    Node* parent = request.node;
    if (parent == nullptr || parent->mount->read_only) return EROFS;
    if (::unlinkat(parent->file.get(), name.c_str(), AT_REMOVEDIR) != 0) return errno;
    if (parent->mount->space) parent->mount->space->add(-4096);
    return 0;
}

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
    Node* target = tree_.find(directory);
    if (parent == nullptr || directory == FUSE_ROOT_ID) return EROFS;
    if (target == nullptr || !target->file) return ESTALE;
    if (target->mount != parent->mount) return EXDEV;
    if (parent->mount->read_only) return EROFS;
    const auto goes = hold_for_space(*target, to);
    const int error = ::renameat2(parent->file.get(), from.c_str(), target->file.get(), to.c_str(), flags) == 0 ? 0 : errno;
    tree_.forget(goes, 1);
    return error;
}

// ---- directories

int Server::open_directory(Request& request) {
    auto in = request.arguments.take<fuse_open_in>();
    static_cast<void>(in);
    Handle handle;
    handle.node = request.header.nodeid;
    if (request.node == nullptr) {
        for (const auto& [number, mount] : tree_.mounts()) handle.root_entries.push_back(number);
    } else {
        os::Fd directory(::openat(request.node->file.get(), ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
        if (!directory) return errno;
        handle.directory = ::fdopendir(directory.get());
        if (handle.directory == nullptr) return errno;
        directory.release();  // closedir() closes it
        handle.mount = request.node->mount;
        ++request.node->handles;
    }
    fuse_open_out out{};
    out.fh = next_handle_++;
    handles_.emplace(out.fh, std::move(handle));
    request.reply.add(out);
    return 0;
}

int Server::read_directory(Request& request) { return list(request, false); }
int Server::read_directory_plus(Request& request) { return list(request, true); }

namespace {

struct Listed {
    std::string name;
    std::uint64_t inode = 0;
    std::uint32_t type = 0;
    std::uint64_t next = 0;  // where the listing goes on behind it
};

// Appends one entry; false if it would take more than `limit` bytes together.
bool append(Reply& reply, const Listed& listed, const fuse_entry_out* entry, std::size_t limit) {
    const std::size_t head = (entry != nullptr ? sizeof *entry : 0) + sizeof(fuse_dirent);
    const std::size_t size = FUSE_DIRENT_ALIGN(head + listed.name.size());
    if (reply.data.size() + size > limit) return false;
    const std::size_t begin = reply.data.size();
    if (entry != nullptr) reply.add(*entry);
    fuse_dirent dirent{};
    dirent.ino = listed.inode;
    dirent.off = listed.next;
    dirent.namelen = static_cast<std::uint32_t>(listed.name.size());
    dirent.type = listed.type;
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(&dirent);
    reply.data.insert(reply.data.end(), bytes, bytes + offsetof(fuse_dirent, name));
    reply.data.insert(reply.data.end(), listed.name.begin(), listed.name.end());
    reply.data.resize(begin + size);
    return true;
}

bool is_dot(const std::string& name) { return name == "." || name == ".."; }

}  // namespace

int Server::list(Request& request, bool plus) {
    auto in = request.arguments.take<fuse_read_in>();
    if (!request.arguments.ok() || in.size > kMaxDataBytes) return EINVAL;
    Handle* handle = handle_of(in.fh, request.header.nodeid);
    if (handle == nullptr) return EBADF;
    auto& reply = request.reply;
    if (handle->directory == nullptr) {
        for (std::size_t at = static_cast<std::size_t>(in.offset); at < handle->root_entries.size(); ++at) {
            Listed listed{"m" + std::to_string(handle->root_entries[at]), FUSE_ROOT_ID, 0, at + 1};
            // The guest's kernel looks each one up when somebody wants it.
            fuse_entry_out none{};
            if (!append(reply, listed, plus ? &none : nullptr, in.size)) break;
        }
        return 0;
    }
    if (::telldir(handle->directory) != static_cast<long>(in.offset)) ::seekdir(handle->directory, static_cast<long>(in.offset));
    for (;;) {
        const long before = ::telldir(handle->directory);
        errno = 0;
        const struct dirent* found = ::readdir(handle->directory);
        if (found == nullptr) return errno == 0 || !reply.data.empty() ? 0 : errno;
        Listed listed{found->d_name, found->d_ino, found->d_type, static_cast<std::uint64_t>(::telldir(handle->directory))};
        fuse_entry_out entry{};
        Reply looked_up;
        Node* node = nullptr;
        if (plus && !is_dot(listed.name) && enter(*request.node, listed.name, looked_up, &node) == 0) {
            std::memcpy(&entry, looked_up.data.data(), sizeof entry);
            listed.inode = entry.attr.ino;
            listed.type = (entry.attr.mode & S_IFMT) >> 12;
        } else {
            node = nullptr;
        }
        if (append(reply, listed, plus ? &entry : nullptr, in.size)) continue;
        if (node != nullptr) tree_.forget(node->number, 1);
        ::seekdir(handle->directory, before);
        return 0;
    }
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
