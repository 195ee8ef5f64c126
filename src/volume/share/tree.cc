#include "volume/share/tree.h"

#include <fcntl.h>
#include <sys/xattr.h>

#include <algorithm>
#include <cerrno>

namespace caisson::volume::share {

namespace {

constexpr std::size_t kMaxMetadataBytes = 128;
constexpr std::uint32_t kPermissionBits = 0777;
// Inode numbers of the host fill far less; what is above tells the host's file systems apart.
constexpr unsigned kDeviceShift = 48;
constexpr std::int64_t kBlockBytes = 512;  // of st_blocks

}  // namespace

void Tree::add(std::shared_ptr<Mount> mount) { mounts_[mount->number] = std::move(mount); }

bool Tree::remove(std::uint32_t number) {
    if (mounts_.erase(number) == 0) return false;
    for (auto& [id, node] : nodes_)
        if (node->mount->number == number) node->file.reset();
    // Its files may come back under the same number: then they are other nodes.
    numbers_.erase(numbers_.lower_bound({number, 0, 0}), numbers_.lower_bound({number + 1, 0, 0}));
    return true;
}

Node* Tree::find(std::uint64_t number) {
    auto found = nodes_.find(number);
    return found == nodes_.end() ? nullptr : found->second.get();
}

int Tree::enter(const std::shared_ptr<Mount>& mount, os::Fd file, Node*& node) {
    struct stat status {};
    if (::fstatat(file.get(), "", &status, AT_EMPTY_PATH) != 0) return errno;
    const Key key{mount->number, status.st_dev, status.st_ino};
    auto found = numbers_.find(key);
    if (found != numbers_.end()) {
        node = nodes_.at(found->second).get();
    } else {
        auto fresh = std::make_unique<Node>();
        fresh->number = next_++;
        fresh->mount = mount;
        fresh->file = std::move(file);
        fresh->first = status;
        numbers_[key] = fresh->number;
        node = fresh.get();
        nodes_[fresh->number] = std::move(fresh);
    }
    ++node->lookups;
    return 0;
}

void Tree::forget(std::uint64_t number, std::uint64_t lookups) {
    auto found = nodes_.find(number);
    if (found == nodes_.end()) return;
    found->second->lookups -= std::min(lookups, found->second->lookups);
    drop_unused(number);
}

void Tree::closed(std::uint64_t number) {
    auto found = nodes_.find(number);
    if (found == nodes_.end()) return;
    --found->second->handles;
    drop_unused(number);
}

void Tree::drop_unused(std::uint64_t number) {
    auto found = nodes_.find(number);
    const Node& node = *found->second;
    if (node.lookups > 0 || node.handles > 0) return;
    struct stat status {};
    const auto& space = node.mount->space;
    if (space && node.is_regular() && node.file && ::fstatat(node.file.get(), "", &status, AT_EMPTY_PATH) == 0 && status.st_nlink == 0)
        space->add(-status.st_blocks * kBlockBytes);
    auto named = numbers_.find({node.mount->number, node.first.st_dev, node.first.st_ino});
    if (named != numbers_.end() && named->second == number) numbers_.erase(named);
    nodes_.erase(found);
}

int Tree::metadata(const Node& node, const struct stat& status, Metadata& metadata) const {
    metadata = {};
    metadata.mode = status.st_mode & kPermissionBits;
    if (!node.is_regular() && !node.is_directory()) return 0;  // Linux keeps no such attributes for others
    char text[kMaxMetadataBytes];
    const ssize_t length = ::getxattr(node.path().c_str(), kMetadataAttribute, text, sizeof text);
    if (length < 0) return errno == ENODATA || errno == ENOTSUP ? 0 : errno;
    // Whoever wrote something else there did it from the host.
    if (auto kept = decode({text, static_cast<std::size_t>(length)})) metadata = *kept;
    return 0;
}

int Tree::set_metadata(const Node& node, const Metadata& metadata) const {
    if (!node.is_regular() && !node.is_directory()) return EOPNOTSUPP;
    const auto text = encode(metadata);
    return ::setxattr(node.path().c_str(), kMetadataAttribute, text.data(), text.size(), 0) == 0 ? 0 : errno;
}

std::optional<std::uint32_t> Tree::stored_user(std::uint32_t user) const {
    return user == identity_.user ? std::nullopt : std::optional(user);
}

std::optional<std::uint32_t> Tree::stored_group(std::uint32_t group) const {
    return group == identity_.group ? std::nullopt : std::optional(group);
}

std::uint64_t Tree::inode_number(const struct stat& status) const {
    auto [device, added] = devices_.try_emplace(status.st_dev, devices_.size());
    return status.st_ino ^ (device->second << kDeviceShift);
}

int Tree::attributes(const Node& node, fuse_attr& attributes) const {
    struct stat status {};
    if (::fstatat(node.file.get(), "", &status, AT_EMPTY_PATH) != 0) return errno;
    Metadata kept;
    if (int error = metadata(node, status, kept)) return error;
    // Nothing can be written there, so nothing has to be the box's: ids as the host has them.
    const bool raw = node.mount->read_only;
    attributes = {};
    attributes.ino = inode_number(status);
    attributes.size = kept.special != 0 ? 0 : static_cast<std::uint64_t>(status.st_size);
    attributes.blocks = static_cast<std::uint64_t>(status.st_blocks);
    attributes.atime = static_cast<std::uint64_t>(status.st_atim.tv_sec);
    attributes.mtime = static_cast<std::uint64_t>(status.st_mtim.tv_sec);
    attributes.ctime = static_cast<std::uint64_t>(status.st_ctim.tv_sec);
    attributes.atimensec = static_cast<std::uint32_t>(status.st_atim.tv_nsec);
    attributes.mtimensec = static_cast<std::uint32_t>(status.st_mtim.tv_nsec);
    attributes.ctimensec = static_cast<std::uint32_t>(status.st_ctim.tv_nsec);
    const std::uint32_t type = kept.special != 0 ? kept.special : status.st_mode & S_IFMT;
    attributes.mode = type | kept.mode;
    attributes.nlink = static_cast<std::uint32_t>(status.st_nlink);
    attributes.uid = kept.user.value_or(raw ? node.mount->owner : identity_.user);
    attributes.gid = kept.group.value_or(raw ? node.mount->group : identity_.group);
    attributes.rdev = kept.device;
    attributes.blksize = static_cast<std::uint32_t>(status.st_blksize);
    return 0;
}

}  // namespace caisson::volume::share
