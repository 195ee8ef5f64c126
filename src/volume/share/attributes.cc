// Attributes of files: owner, mode, size, times, extended ones.
#include <fcntl.h>
#include <limits.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>

#include "base/text.h"
#include "volume/share/server.h"

namespace caisson::volume::share {

namespace {

constexpr std::string_view kUserAttributes = "user.";
constexpr std::uint32_t kModeBits = 07777;

// What a guest may name: what Linux lets everybody keep on a file. Others (security., trusted., system.) would mean
// something to the host's kernel.
bool is_allowed(std::string_view name) {
    return base::starts_with(name, kUserAttributes) && !base::starts_with(name, kOwnAttributes);
}

// But for what setcap(8) writes, see kKeptCapability.
constexpr std::string_view kCapability = "security.capability";

// What the host calls it; empty: a guest has no such attributes.
std::string kept_name(std::string_view name) {
    if (name == kCapability) return kKeptCapability;
    return is_allowed(name) ? std::string(name) : std::string();
}

// Set-group-id without group execution means something else.
void lose_set_id(Metadata& metadata) {
    metadata.mode &= ~static_cast<std::uint32_t>(S_ISUID);
    if ((metadata.mode & S_IXGRP) != 0) metadata.mode &= ~static_cast<std::uint32_t>(S_ISGID);
}

}  // namespace

int Server::get_attributes(Request& request) { return give_attributes(request.node, request.reply); }

int Server::set_attributes(Request& request) {
    auto wanted = request.arguments.take<fuse_setattr_in>();
    if (!request.arguments.ok()) return EINVAL;
    Node& node = *request.node;
    if ((wanted.valid & (FATTR_MODE | FATTR_UID | FATTR_GID)) != 0)
        if (int error = change_metadata(node, wanted)) return error;
    if ((wanted.valid & FATTR_SIZE) != 0)
        if (int error = change_size(request, wanted)) return error;
    if ((wanted.valid & (FATTR_ATIME | FATTR_MTIME)) != 0)
        if (int error = change_times(node, wanted)) return error;
    return give_attributes(&node, request.reply);
}

int Server::change_metadata(Node& node, const fuse_setattr_in& wanted) {
    struct stat status {};
    if (::fstatat(node.file.get(), "", &status, AT_EMPTY_PATH) != 0) return errno;
    Metadata metadata;
    if (int error = tree_.metadata(node, status, metadata)) return error;
    const Metadata before = metadata;
    if ((wanted.valid & FATTR_MODE) != 0) metadata.mode = wanted.mode & kModeBits;
    if ((wanted.valid & FATTR_UID) != 0) metadata.user = tree_.stored_user(wanted.uid);
    if ((wanted.valid & FATTR_GID) != 0) metadata.group = tree_.stored_group(wanted.gid);
    // FUSE_HANDLE_KILLPRIV_V2 leaves this to us; what the new mode is, if there is one, the guest's kernel decided.
    if ((wanted.valid & (FATTR_UID | FATTR_GID)) != 0 && (wanted.valid & FATTR_MODE) == 0 && !node.is_directory()) lose_set_id(metadata);
    if ((wanted.valid & (FATTR_UID | FATTR_GID)) != 0 && node.is_regular()) drop_capability(node);
    if (metadata == before) return 0;
    return S_ISLNK(node.is.type) ? give_link_metadata(node, metadata) : tree_.set_metadata(node, metadata);
}

// Whoever changes a program's contents or owner takes its capabilities away.
void Server::drop_capability(const Node& node) { static_cast<void>(::removexattr(node.path().c_str(), kKeptCapability)); }

// The set-id bits go when somebody without the right to keep them writes; the guest's kernel says when.
int Server::drop_set_id(Node& node) {
    struct stat status {};
    if (::fstatat(node.file.get(), "", &status, AT_EMPTY_PATH) != 0) return errno;
    Metadata metadata;
    if (int error = tree_.metadata(node, status, metadata)) return error;
    const auto before = metadata.mode;
    lose_set_id(metadata);
    return metadata.mode == before ? 0 : tree_.set_metadata(node, metadata);
}

int Server::change_size(Request& request, const fuse_setattr_in& wanted) {
    Node& node = *request.node;
    if (!node.is_regular()) return EINVAL;
    if (wanted.size > INT64_MAX) return EFBIG;
    if ((wanted.valid & FATTR_KILL_SUIDGID) != 0)
        if (int error = drop_set_id(node)) return error;
    drop_capability(node);
    const auto before = allocated(node);
    const int error = ::truncate(node.path().c_str(), static_cast<off_t>(wanted.size)) == 0 ? 0 : errno;
    count(node, before);
    return error;
}

int Server::change_times(Node& node, const fuse_setattr_in& wanted) {
    struct timespec times[2] = {{0, UTIME_OMIT}, {0, UTIME_OMIT}};
    auto set = [&](struct timespec& time, std::uint32_t given, std::uint32_t now, std::uint64_t seconds, std::uint32_t nanoseconds) {
        if ((wanted.valid & given) == 0) return;
        time.tv_sec = static_cast<time_t>(seconds);
        time.tv_nsec = (wanted.valid & now) != 0 ? UTIME_NOW : static_cast<long>(nanoseconds % 1000000000u);
    };
    set(times[0], FATTR_ATIME, FATTR_ATIME_NOW, wanted.atime, wanted.atimensec);
    set(times[1], FATTR_MTIME, FATTR_MTIME_NOW, wanted.mtime, wanted.mtimensec);
    // A link is not followed: the descriptor is of the link itself, and /proc leads to it.
    return ::utimensat(AT_FDCWD, node.path().c_str(), times, 0) == 0 ? 0 : errno;
}

int Server::get_attribute(Request& request) {
    auto in = request.arguments.take<fuse_getxattr_in>();
    const std::string name(request.arguments.text(XATTR_NAME_MAX));
    if (!request.arguments.ok()) return EINVAL;
    const auto kept = kept_name(name);
    if (request.node == nullptr || kept.empty()) return EOPNOTSUPP;
    base::Bytes value(std::min<std::size_t>(in.size, XATTR_SIZE_MAX));
    const ssize_t length = ::getxattr(request.node->path().c_str(), kept.c_str(), value.data(), value.size());
    if (length < 0) return errno == EPERM ? ENODATA : errno;  // links and devices have none
    value.resize(static_cast<std::size_t>(length));
    if (in.size == 0) request.reply.add(fuse_getxattr_out{static_cast<std::uint32_t>(length), 0});
    else request.reply.data = std::move(value);
    return 0;
}

int Server::set_attribute(Request& request) {
    // FUSE_SETXATTR_EXT is not agreed on: the short form.
    auto size = request.arguments.take<std::uint32_t>();
    auto flags = request.arguments.take<std::uint32_t>();
    const std::string name(request.arguments.text(XATTR_NAME_MAX));
    auto value = request.arguments.bytes(size);
    if (!request.arguments.ok()) return EINVAL;
    const auto kept = kept_name(name);
    if (kept.empty()) return EOPNOTSUPP;
    if (is_full(*request.node)) return ENOSPC;
    const Counted counted(*request.node);
    return ::setxattr(request.node->path().c_str(), kept.c_str(), value.data(), value.size(), static_cast<int>(flags)) == 0 ? 0 : errno;
}

int Server::list_attributes(Request& request) {
    auto in = request.arguments.take<fuse_getxattr_in>();
    if (!request.arguments.ok()) return EINVAL;
    if (request.node == nullptr) return EOPNOTSUPP;
    std::string names(XATTR_LIST_MAX, '\0');
    const ssize_t length = ::listxattr(request.node->path().c_str(), names.data(), names.size());
    if (length < 0) return errno;
    names.resize(static_cast<std::size_t>(length));
    auto& shown = request.reply.data;
    for (std::string_view name : base::split(names, '\0')) {
        if (name == kKeptCapability) name = kCapability;
        else if (!is_allowed(name)) continue;
        shown.insert(shown.end(), name.begin(), name.end());
        shown.push_back(0);
    }
    if (in.size == 0) {
        const auto total = static_cast<std::uint32_t>(shown.size());
        shown.clear();
        request.reply.add(fuse_getxattr_out{total, 0});
        return 0;
    }
    return shown.size() > in.size ? ERANGE : 0;
}

int Server::remove_attribute(Request& request) {
    const std::string name(request.arguments.text(XATTR_NAME_MAX));
    if (!request.arguments.ok()) return EINVAL;
    const auto kept = kept_name(name);
    if (kept.empty()) return EOPNOTSUPP;
    const Counted counted(*request.node);
    return ::removexattr(request.node->path().c_str(), kept.c_str()) == 0 ? 0 : errno;
}

}  // namespace caisson::volume::share
