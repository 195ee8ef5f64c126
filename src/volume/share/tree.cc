#include "volume/share/tree.h"

#include <fcntl.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

namespace caisson::volume::share {

namespace {

constexpr std::uint32_t kPermissionBits = 0777;
// Inode numbers of the host fill far less; what is above tells the host's file systems apart.
constexpr unsigned kDeviceShift = 48;
constexpr std::int64_t kBlockBytes = 512;  // of st_blocks
// Nodes that one request works with.
constexpr std::size_t kJustUsed = 16;

}  // namespace

int identify(int file, Identity& identity) {
    struct statx status {};
    if (::statx(file, "", AT_EMPTY_PATH, STATX_TYPE | STATX_INO | STATX_BTIME, &status) != 0) return errno;
    identity.device = makedev(status.stx_dev_major, status.stx_dev_minor);
    identity.inode = status.stx_ino;
    identity.type = status.stx_mode & S_IFMT;
    const bool born = (status.stx_mask & STATX_BTIME) != 0;
    identity.born_seconds = born ? status.stx_btime.tv_sec : 0;
    identity.born_nanoseconds = born ? status.stx_btime.tv_nsec : 0;
    return 0;
}

os::Fd open_entry(int directory, const std::string& name) {
    return os::Fd(::openat(directory, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
}

int read_metadata(int file, std::optional<Metadata>& kept) {
    char text[kMaxMetadataBytes];
    const ssize_t length = ::getxattr(path_of(file).c_str(), kMetadataAttribute, text, sizeof text);
    if (length < 0) return errno == ENODATA || errno == ENOTSUP ? 0 : errno;
    // Whoever wrote something else there did it from the host.
    kept = decode({text, static_cast<std::size_t>(length)});
    return 0;
}

void Tree::add(std::shared_ptr<Mount> mount) { mounts_[mount->number] = std::move(mount); }

bool Tree::remove(std::uint32_t number) {
    if (mounts_.erase(number) == 0) return false;
    for (auto& [id, node] : nodes_) {
        if (node->mount->number != number || node->gone) continue;
        // Its files may come back under the same number: then they are other nodes.
        lose(*node);
    }
    return true;
}

Node* Tree::find(std::uint64_t number) {
    auto found = nodes_.find(number);
    return found == nodes_.end() ? nullptr : found->second.get();
}

bool Tree::knows(const Mount& mount, const Identity& identity) const { return numbers_.count(key_of(mount, identity)) > 0; }

void Tree::hold(Node& node, os::Fd file) {
    node.file = std::move(file);
    node.place = open_.insert(open_.end(), &node);
}

void Tree::let_go(Node& node) {
    if (!node.file) return;
    open_.erase(node.place);
    node.file.reset();
}

int Tree::open(std::uint64_t number, Node*& node) {
    node = find(number);
    return node == nullptr ? ESTALE : open(*node);
}

int Tree::open(Node& node) {
    if (node.gone) return ESTALE;
    if (node.file) {
        open_.splice(open_.end(), open_, node.place);
        return 0;
    }
    os::Fd file;
    if (int error = find_again(node, file)) return error;
    hold(node, std::move(file));
    return make_room();
}

// By its name, from the nearest directory above that is open.
int Tree::find_again(const Node& node, os::Fd& file) const {
    std::vector<const Node*> way;
    const Node* above = &node;
    for (; !above->file; above = above->parent) {
        if (above->gone || above->parent == nullptr || way.size() == kDeepestReopened) return ESTALE;
        way.push_back(above);
    }
    int from = above->file.get();
    for (auto step = way.rbegin(); step != way.rend(); ++step) {
        os::Fd next = open_entry(from, (*step)->name);
        if (!next) return errno == ENOENT || errno == ENOTDIR ? ESTALE : errno;
        Identity found;
        if (int error = identify(next.get(), found)) return error;
        if (found != (*step)->is) return ESTALE;
        file = std::move(next);
        from = file.get();
    }
    return 0;
}

// Only if it is found again; what has no name any more is not.
bool Tree::can_be_closed(const Node& node) const {
    if (node.parent == nullptr || node.handles > 0) return false;
    os::Fd above;
    if (!node.parent->file && find_again(*node.parent, above) != 0) return false;
    const os::Fd file = open_entry(above ? above.get() : node.parent->file.get(), node.name);
    Identity found;
    return file && identify(file.get(), found) == 0 && found == node.is;
}

// Closes an eighth of what may be open once there is more. What was just used stays.
int Tree::make_room() {
    if (open_.size() <= most_open_) return 0;
    for (std::size_t looked_at = open_.size() - std::min(open_.size(), kJustUsed); looked_at > 0 && open_.size() > most_open_ - most_open_ / 8;
         --looked_at) {
        Node& oldest = *open_.front();
        if (can_be_closed(oldest)) let_go(oldest);
        else open_.splice(open_.end(), open_, oldest.place);
    }
    return open_.size() > most_open_ ? ENFILE : 0;
}

int Tree::enter(const std::shared_ptr<Mount>& mount, os::Fd file, Node*& node, Node* parent, const std::string& name) {
    Identity is;
    if (int error = identify(file.get(), is)) return error;
    auto found = numbers_.find(key_of(*mount, is));
    node = found == numbers_.end() ? nullptr : nodes_.at(found->second).get();
    if (node != nullptr && node->is != is) {
        // It was closed, removed by somebody else, and its inode given to a new file.
        lose(*node);
        node = nullptr;
    }
    if (node == nullptr) {
        if (nodes_.size() >= kMostNodes) return ENFILE;
        auto fresh = std::make_unique<Node>();
        fresh->number = next_++;
        fresh->mount = mount;
        fresh->is = is;
        numbers_[key_of(*mount, is)] = fresh->number;
        node = fresh.get();
        nodes_[fresh->number] = std::move(fresh);
    }
    ++node->lookups;
    if (!node->file) hold(*node, std::move(file));
    else open_.splice(open_.end(), open_, node->place);
    if (parent != nullptr) {
        if (parent->file) open_.splice(open_.end(), open_, parent->place);
        set_parent(*node, *parent, name);
    }
    if (int error = make_room()) {
        forget(node->number, 1);
        return error;
    }
    return 0;
}

void Tree::leave_parent(Node& node) {
    Node* parent = std::exchange(node.parent, nullptr);
    if (parent == nullptr) return;
    --parent->children;
    drop_unused(parent);
}

// Directories that others move about can look as if one were below itself.
bool Tree::would_be_above_itself(const Node& node, Node& parent) {
    std::size_t depth = 0;
    for (const Node* above = &parent; above != nullptr; above = above->parent)
        if (above == &node || ++depth > kDeepestReopened) return true;
    return false;
}

void Tree::set_parent(Node& node, Node& parent, const std::string& name) {
    if (node.parent != &parent) {
        const bool wrong = node.is_directory() && would_be_above_itself(node, parent);
        if (!wrong) ++parent.children;
        leave_parent(node);
        if (wrong) return;
        node.parent = &parent;
    }
    if (node.name != name) node.name = name;
}

Node* Tree::moved(Node& parent, const std::string& name) {
    os::Fd file = open_entry(parent.file.get(), name);
    Identity is;
    if (!file || identify(file.get(), is) != 0) return nullptr;
    auto found = numbers_.find(key_of(*parent.mount, is));
    Node* node = found == numbers_.end() ? nullptr : find(found->second);
    if (node == nullptr || node->is != is) return nullptr;
    if (!node->file) hold(*node, std::move(file));
    set_parent(*node, parent, name);
    return node;
}

int Tree::replace(Node& node, os::Fd file) {
    Identity is;
    if (int error = identify(file.get(), is)) return error;
    numbers_.erase(key_of(*node.mount, node.is));
    let_go(node);
    node.is = is;
    numbers_[key_of(*node.mount, is)] = node.number;
    hold(node, std::move(file));
    return 0;
}

void Tree::forget(std::uint64_t number, std::uint64_t lookups) {
    Node* node = find(number);
    if (node == nullptr) return;
    node->lookups -= std::min(lookups, node->lookups);
    drop_unused(node);
}

void Tree::closed(std::uint64_t number) {
    Node* node = find(number);
    if (node == nullptr) return;
    --node->handles;
    drop_unused(node);
}

// Where the space of a file without a name is given back; null: it is known through another mount of the volume, and is
// free when that one lets go of it, or there is none through which anything is counted.
Space* Tree::counted_in(const Node& node) const {
    if (!node.mount->space) return nullptr;
    Space* space = node.mount->read_only ? nullptr : node.mount->space.get();
    for (const auto& [number, mount] : mounts_) {
        if (mount == node.mount || !mount->space || !mount->space->is_of_same_volume(*node.mount->space)) continue;
        if (knows(*mount, node.is)) return nullptr;
        if (space == nullptr && !mount->read_only) space = mount->space.get();
    }
    return space;
}

// The guest knows of it, and gets ESTALE.
void Tree::lose(Node& node) {
    node.gone = true;
    let_go(node);
    numbers_.erase(key_of(*node.mount, node.is));
}

// Its space. false: it has a name, or its space is not counted.
bool Tree::give_back(const Node& node) {
    struct stat status {};
    Space* space = counted_in(node);
    if (space == nullptr || !node.file || ::fstatat(node.file.get(), "", &status, AT_EMPTY_PATH) != 0 || status.st_nlink > 0) return false;
    space->free(status.st_blocks * kBlockBytes);
    return true;
}

void Tree::unnamed(std::uint64_t number) {
    const Node* node = find(number);
    if (node == nullptr || !node->mount->space || !node->is_regular()) return;
    unnamed_.push_back(number);
    if (unnamed_.size() > kMostUnnamed) unnamed_.pop_front();
}

void Tree::let_go_of_unnamed() {
    for (const auto number : std::exchange(unnamed_, {})) {
        Node* node = find(number);
        if (node == nullptr) continue;
        if (node->handles > 0) unnamed_.push_back(number);  // when it is closed
        else if (give_back(*node)) lose(*node);
    }
}

void Tree::drop_unused(Node* node) {
    while (node != nullptr && node->lookups == 0 && node->handles == 0 && node->children == 0) {
        give_back(*node);
        let_go(*node);
        auto named = numbers_.find(key_of(*node->mount, node->is));
        if (named != numbers_.end() && named->second == node->number) numbers_.erase(named);
        Node* parent = node->parent;
        if (parent != nullptr) --parent->children;
        nodes_.erase(node->number);
        node = parent;
    }
}

int Tree::metadata(const Node& node, const struct stat& status, Metadata& metadata) const {
    metadata = {};
    metadata.mode = status.st_mode & kPermissionBits;
    if (!node.is_regular() && !node.is_directory()) return 0;  // Linux keeps no such attributes for others
    std::optional<Metadata> kept;
    const int error = read_metadata(node.file.get(), kept);
    if (kept) metadata = *kept;
    return error;
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

std::uint64_t Tree::inode_number(dev_t device, ino_t inode) const {
    auto [known, added] = devices_.try_emplace(device, devices_.size());
    return inode ^ (known->second << kDeviceShift);
}

int Tree::attributes(const Node& node, fuse_attr& attributes) const {
    struct stat status {};
    if (::fstatat(node.file.get(), "", &status, AT_EMPTY_PATH) != 0) return errno;
    Metadata kept;
    if (int error = metadata(node, status, kept)) return error;
    // Nothing can be written there, so nothing has to be the box's: ids as the host has them.
    const bool raw = node.mount->read_only;
    attributes = {};
    attributes.ino = inode_number(status.st_dev, status.st_ino);
    attributes.size = kept.special != 0 && kept.special != S_IFLNK ? 0 : static_cast<std::uint64_t>(status.st_size);
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
