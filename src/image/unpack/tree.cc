#include "image/unpack/tree.h"

#include <algorithm>
#include <cstring>

#include "base/text.h"
#include "image/limits.h"
#include "os/random.h"

namespace caisson::image::unpack {

using base::failure;
using base::printable;

namespace {

constexpr std::size_t kMaxNodes = std::size_t{2} * kMaxEntries;
constexpr std::uint16_t kImpliedDirectoryMode = 0755;

std::string join_parts(const std::vector<std::string_view>& parts) {
    std::string path;
    for (auto part : parts) {
        if (!path.empty()) path += '/';
        path += part;
    }
    return path;
}

}  // namespace

Result<std::vector<std::string_view>> split_path(std::string_view path) {
    if (path.size() > kMaxPathBytes)
        return failure(Errc::kLimit, "entry " + printable(path, 200) + "... has a path of " +
                                         std::to_string(path.size()) + " bytes (the limit is " +
                                         std::to_string(kMaxPathBytes) + ")");
    if (path.find('\0') != std::string_view::npos)
        return failure(Errc::kCorrupt, "entry " + printable(path, 200) + " has a zero byte in its path");
    std::vector<std::string_view> parts;
    for (std::size_t i = 0; i <= path.size();) {
        auto slash = std::min(path.find('/', i), path.size());
        auto part = path.substr(i, slash - i);
        i = slash + 1;
        if (part.empty() || part == ".") continue;
        if (part == "..")
            return failure(Errc::kCorrupt, "entry " + printable(path, 200) + " tries to leave the image with \"..\"");
        if (part.size() > kMaxNameBytes)
            return failure(Errc::kLimit, "entry " + printable(path, 300) + " has a name of " +
                                             std::to_string(part.size()) + " bytes (the limit is " +
                                             std::to_string(kMaxNameBytes) + ")");
        parts.push_back(part);
    }
    if (parts.size() > kMaxPathDepth)
        return failure(Errc::kLimit, "entry " + printable(path, 200) + "... lies " + std::to_string(parts.size()) +
                                         " directories deep (the limit is " + std::to_string(kMaxPathDepth) + ")");
    return parts;
}

Tree::Tree(std::vector<std::string> layer_names) : layer_names_(std::move(layer_names)) {
    // The index is never iterated, so a random seed leaves the result deterministic and denies an image the choice of
    // names that collide. Without randomness the merge is still right, only slower in the worst case.
    std::uint8_t seed[8] = {};
    static_cast<void>(os::fill_random(seed));
    std::memcpy(&seed_, seed, sizeof seed_);
    index_.assign(1024, kNone);
    Node root;
    root.kind = Kind::kDirectory;
    nodes_.push_back(root);
}

// ---- nodes and their index -------------------------------------------------------------------------------------

std::uint64_t Tree::hash(NodeId parent, std::string_view name) const {
    std::uint64_t value = seed_ ^ (parent * 0x9e3779b97f4a7c15ULL);
    auto mix = [&](std::uint64_t word) {
        __extension__ using Wide = unsigned __int128;
        Wide product = static_cast<Wide>(value ^ word) * 0xd6e8feb86659fd93ULL;
        value = static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64) ^ seed_;
    };
    std::size_t i = 0;
    for (; i + 8 <= name.size(); i += 8) {
        std::uint64_t word;
        std::memcpy(&word, name.data() + i, 8);
        mix(word);
    }
    std::uint64_t tail = name.size();
    for (; i < name.size(); ++i) tail = tail << 8 | static_cast<std::uint8_t>(name[i]);
    mix(tail);
    mix(name.size());
    return value;
}

NodeId Tree::lookup(NodeId parent, std::string_view wanted) const {
    std::size_t mask = index_.size() - 1;
    for (std::size_t slot = hash(parent, wanted) & mask;; slot = (slot + 1) & mask) {
        NodeId id = index_[slot];
        if (id == kNone) return kNone;
        if (nodes_[id].parent == parent && name(nodes_[id]) == wanted) return id;
    }
}

void Tree::index(NodeId id) {
    if ((indexed_ + 1) * 2 > index_.size()) grow_index();
    std::size_t mask = index_.size() - 1;
    std::size_t slot = hash(nodes_[id].parent, name(nodes_[id])) & mask;
    while (index_[slot] != kNone) slot = (slot + 1) & mask;
    index_[slot] = id;
    ++indexed_;
}

void Tree::grow_index() {
    // Slots of nodes that were moved are stale and go away here.
    index_.assign(index_.size() * 2, kNone);
    indexed_ = 0;
    for (NodeId id = 1; id < nodes_.size(); ++id)
        if (nodes_[id].parent != kNone) index(id);
}

Result<NodeId> Tree::new_node(NodeId parent, std::string_view node_name) {
    if (nodes_.size() >= kMaxNodes)
        return failure(Errc::kLimit, "the image has more than " + std::to_string(kMaxNodes) + " paths");
    if (names_.size() + node_name.size() > kMaxTextBytes)
        return failure(Errc::kLimit,
                       "the image's file names take more than " + base::format_size(kMaxTextBytes) + " together");
    Node node;
    node.name_offset = static_cast<std::uint32_t>(names_.size());
    node.name_size = static_cast<std::uint8_t>(node_name.size());
    names_ += node_name;
    auto id = static_cast<NodeId>(nodes_.size());
    node.parent = parent;
    if (parent != kNone) {
        std::size_t depth = std::size_t{nodes_[parent].depth} + 1;
        if (depth > kMaxPathDepth)
            return failure(Errc::kLimit, "the image has directories more than " + std::to_string(kMaxPathDepth) + " deep");
        node.depth = static_cast<std::uint16_t>(depth);
        node.next = nodes_[parent].first_child;
        nodes_.push_back(node);
        nodes_[parent].first_child = id;
        index(id);
    } else {
        nodes_.push_back(node);
    }
    return id;
}

Result<NodeId> Tree::child(NodeId parent, std::string_view wanted) {
    NodeId id = lookup(parent, wanted);
    if (id != kNone) return id;
    return new_node(parent, wanted);
}

// Puts a node that is in nobody's list of children below a new parent.
void Tree::adopt(NodeId id, NodeId parent) {
    nodes_[id].parent = parent;
    nodes_[id].next = nodes_[parent].first_child;
    nodes_[parent].first_child = id;
    nodes_[parent].lowest_below =
        std::min({nodes_[parent].lowest_below, nodes_[id].layer, nodes_[id].lowest_below});
    index(id);
}

bool Tree::is_symlink(const Node& node) const {
    if (node.kind != Kind::kOther) return false;
    const Inode& what = inode(node.inode);
    return what.filled && what.type == EntryType::kSymlink;
}

NodeId Tree::find_exact(const std::vector<std::string_view>& parts) const {
    NodeId current = kRoot;
    for (auto part : parts) {
        current = lookup(current, part);
        if (current == kNone) return kNone;
    }
    return current;
}

// ---- what an entry changes -------------------------------------------------------------------------------------

NodeId Tree::enter(NodeId id, When when, bool create) {
    if (auto detour = detours_.find(id); detour != detours_.end() && when.layer == nodes_[id].cut) id = detour->second;
    Node& node = nodes_[id];
    if (when.layer < node.cut) return kNone;
    if (node.kind == Kind::kOther && node.layer > when.layer) return kNone;
    // What lies below a link waits there until all layers have been read and the link can be followed.
    if (create && node.kind != Kind::kDirectory && !is_symlink(node)) place_directory(id, when, false);
    if (when.layer < node.children_cut) return kNone;
    node.lowest_below = std::min(node.lowest_below, when.layer);
    return id;
}

Result<NodeId> Tree::walk(const std::vector<std::string_view>& parts, When when, bool create) {
    NodeId current = kRoot;
    for (auto part : parts) {
        current = enter(current, when, create);
        if (current == kNone) return kNone;
        current = CAISSON_TRY(child(current, part));
    }
    return current;
}

bool Tree::place_directory(NodeId id, When when, bool is_explicit) {
    Node& node = nodes_[id];
    if (when.layer < node.cut) return false;
    bool taken = false;
    switch (node.kind) {
        case Kind::kAbsent: taken = true; break;
        case Kind::kDirectory:
            if (is_explicit) {
                node.lowest_explicit = std::min(node.lowest_explicit, when.layer);
                taken = node.inode == kNone || !(when < said(node));
            }
            break;
        case Kind::kOther:
            if (when < said(node)) return false;
            // The file or link hid what deeper layers have here, and goes on hiding it.
            node.cut = std::max(node.cut, node.layer);
            taken = true;
            break;
    }
    if (!taken) return false;
    if (node.kind != Kind::kDirectory) node.inode = kNone;
    node.kind = Kind::kDirectory;
    node.layer = when.layer;
    node.sequence = when.sequence;
    if (is_explicit) node.lowest_explicit = std::min(node.lowest_explicit, when.layer);
    return is_explicit;
}

bool Tree::has_present_child(NodeId id) const {
    // A present node has only present ancestors, so looking one level down is enough.
    for (NodeId c = nodes_[id].first_child; c != kNone; c = nodes_[c].next)
        if (nodes_[c].kind != Kind::kAbsent) return true;
    return false;
}

Tree::Placed Tree::place_other(NodeId id, When when, bool symlink) {
    if (when.layer < nodes_[id].cut) return Placed::kHidden;
    auto here = [&] {
        Node& node = nodes_[id];
        node.kind = Kind::kOther;
        node.layer = when.layer;
        node.sequence = when.sequence;
        node.inode = kNone;
        return Placed::kHere;
    };
    switch (nodes_[id].kind) {
        case Kind::kAbsent: return here();
        case Kind::kOther: return when < said(nodes_[id]) ? Placed::kHidden : here();
        case Kind::kDirectory: break;
    }
    Node& node = nodes_[id];
    auto after = static_cast<std::uint16_t>(when.layer + 1);
    if (node.inode != kNone && when < said(node)) {
        // An upper layer, or a later entry of this one, replaced this file by a directory.
        node.cut = std::max(node.cut, when.layer);
        if (node.layer == when.layer) return Placed::kHidden;
        drop_older(id, after, false);
        return symlink ? Placed::kDetached : Placed::kHidden;
    }
    drop_older(id, after, false);  // an earlier entry of this layer made a directory here
    if (symlink || !has_present_child(id)) return here();
    // An upper layer has entries below what is a plain file here: the directory that they imply wins.
    node.inode = kNone;
    node.cut = std::max(node.cut, after);
    return Placed::kHidden;
}

void Tree::cut_below(NodeId id, std::uint16_t layer, bool self) {
    auto& cut = self ? nodes_[id].cut : nodes_[id].children_cut;
    cut = std::max(cut, layer);
    if (grafting_) drop_older(id, layer, self);  // from the top down nothing older is there yet
}

void Tree::drop_older(NodeId id, std::uint16_t layer, bool self) {
    Node& node = nodes_[id];
    if (node.lowest_below < layer) {
        for (NodeId c = node.first_child; c != kNone; c = nodes_[c].next) drop_older(c, layer, true);
        node.lowest_below = layer;
    }
    if (!self || node.kind == Kind::kAbsent || node.layer >= layer) return;
    node.inode = kNone;
    if (node.kind == Kind::kOther || !has_present_child(id)) node.kind = Kind::kAbsent;
}

// ---- children that wait at a link ------------------------------------------------------------------------------

Result<NodeId> Tree::make_holder(NodeId id, InodeId link) {
    // Not in its parent's list of children and not in the index; the parent only gives relative targets a start.
    NodeId holder = CAISSON_TRY(new_node(kNone, name(nodes_[id])));
    nodes_[holder].kind = Kind::kOther;
    nodes_[holder].inode = link;
    nodes_[holder].depth = nodes_[id].depth;
    nodes_[holder].layer = nodes_[id].layer;
    holder_parents_[holder] = nodes_[id].parent;
    return holder;
}

void Tree::hold_children(NodeId id, NodeId holder) {
    NodeId c = nodes_[id].first_child;
    nodes_[id].first_child = kNone;
    while (c != kNone) {
        NodeId next = nodes_[c].next;
        adopt(c, holder);
        c = next;
    }
}

Result<> Tree::hold_waiting_children(NodeId id) {
    if (!is_symlink(nodes_[id]) || nodes_[id].first_child == kNone) return {};
    NodeId holder = CAISSON_TRY(make_holder(id, nodes_[id].inode));
    hold_children(id, holder);
    return {};
}

Result<> Tree::hold_children_between(NodeId from, NodeId holder, std::uint16_t above, std::uint16_t below) {
    NodeId c = nodes_[from].first_child;
    nodes_[from].first_child = kNone;
    while (c != kNone) {
        NodeId next = nodes_[c].next;
        const Node& node = nodes_[c];
        bool inside = node.kind == Kind::kAbsent ? node.cut > above && node.cut < below : node.layer < below;
        if (inside) {
            adopt(c, holder);
        } else {
            if (node.kind == Kind::kDirectory && node.lowest_below < below) {
                NodeId copy = CAISSON_TRY(new_node(kNone, name(nodes_[c])));
                nodes_[copy].depth = nodes_[c].depth;
                CAISSON_TRY(hold_children_between(c, copy, above, below));
                if (nodes_[copy].first_child != kNone) {
                    nodes_[copy].layer = nodes_[copy].lowest_below;
                    if (has_present_child(copy)) nodes_[copy].kind = Kind::kDirectory;
                    adopt(copy, holder);
                }
            }
            // Back to where it was; its index entry still holds.
            nodes_[c].next = nodes_[from].first_child;
            nodes_[from].first_child = c;
        }
        c = next;
    }
    return {};
}

// ---- inodes ----------------------------------------------------------------------------------------------------

InodeId Tree::resolve(InodeId id) const {
    while (inodes_[id].same_as != kNone) id = inodes_[id].same_as;
    return id;
}

Result<InodeId> Tree::new_inode() {
    if (inodes_.size() >= kMaxNodes)
        return failure(Errc::kLimit, "the image has more than " + std::to_string(kMaxNodes) + " files");
    inodes_.emplace_back();
    return static_cast<InodeId>(inodes_.size() - 1);
}

Result<std::uint32_t> Tree::add_text(std::string_view text) {
    text_bytes_ += text.size() + sizeof(std::string);
    if (text_bytes_ > kMaxTextBytes)
        return failure(Errc::kLimit,
                       "the image's link targets take more than " + base::format_size(kMaxTextBytes) + " together");
    texts_.emplace_back(text);
    return static_cast<std::uint32_t>(texts_.size() - 1);
}

Result<> Tree::describe(Inode& inode, const Entry& entry) {
    inode.type = entry.type;
    inode.filled = true;
    inode.mode = static_cast<std::uint16_t>(entry.mode & 07777);
    inode.uid = entry.uid;
    inode.gid = entry.gid;
    inode.mtime_seconds = entry.mtime_seconds;
    inode.mtime_nanoseconds = entry.mtime_nanoseconds;
    inode.size = entry.type == EntryType::kFile ? entry.size : 0;
    inode.device_major = entry.device_major;
    inode.device_minor = entry.device_minor;
    if (entry.type == EntryType::kSymlink) {
        if (entry.link_target.empty() || entry.link_target.find('\0') != std::string::npos)
            return failure(Errc::kCorrupt, "symbolic link " + printable(entry.path, 300) + " has no usable target");
        if (entry.link_target.size() > kMaxSymlinkBytes)
            return failure(Errc::kLimit, "symbolic link " + printable(entry.path, 300) + " has a target of " +
                                             std::to_string(entry.link_target.size()) + " bytes (the limit is " +
                                             std::to_string(kMaxSymlinkBytes) + ")");
        inode.target = CAISSON_TRY(add_text(entry.link_target));
    }
    if (!entry.xattrs.empty()) {
        std::size_t bytes = 0;
        for (const auto& [key, value] : entry.xattrs) bytes += key.size() + value.size() + 16;
        if (entry.xattrs.size() > kMaxXattrsPerEntry || bytes > kMaxXattrBytesPerEntry)
            return failure(Errc::kLimit, "entry " + printable(entry.path, 300) + " has more extended attributes (" +
                                             std::to_string(bytes) + " bytes) than an ext4 file can hold (" +
                                             std::to_string(kMaxXattrBytesPerEntry) + ")");
        xattr_bytes_ += bytes + entry.xattrs.size() * sizeof(Xattrs::value_type);
        if (xattr_bytes_ > kMaxXattrBytes)
            return failure(Errc::kLimit, "the image's extended attributes take more than " +
                                             base::format_size(kMaxXattrBytes) + " together");
        inode.xattrs = static_cast<std::uint32_t>(xattrs_.size());
        xattrs_.push_back(entry.xattrs);
    }
    return {};
}

// ---- entries ---------------------------------------------------------------------------------------------------

Result<Tree::Added> Tree::add(const Entry& entry, When when) {
    auto parts = CAISSON_TRY(split_path(entry.path));
    if (parts.empty()) {
        if (entry.type != EntryType::kDirectory)
            return failure(Errc::kCorrupt, "entry \"" + printable(entry.path, 200) + "\" would replace the root directory");
        if (nodes_[kRoot].inode == kNone || !(when < said(nodes_[kRoot]))) {
            InodeId id = CAISSON_TRY(new_inode());
            CAISSON_TRY(describe(inodes_[id], entry));
            nodes_[kRoot].inode = id;
            nodes_[kRoot].layer = when.layer;
            nodes_[kRoot].sequence = when.sequence;
        }
        return Added{};
    }
    NodeId node = CAISSON_TRY(walk(parts, when, true));

    if (entry.type == EntryType::kDirectory) {
        if (node == kNone) return Added{};
        if (nodes_[node].kind == Kind::kOther && !(when < said(nodes_[node])))
            CAISSON_TRY(hold_waiting_children(node));
        if (place_directory(node, when, true)) {
            detours_.erase(node);
            InodeId id = CAISSON_TRY(new_inode());
            CAISSON_TRY(describe(inodes_[id], entry));
            nodes_[node].inode = id;
        }
        return Added{};
    }

    bool symlink = entry.type == EntryType::kSymlink;
    InodeId id = promises_.empty() ? kNone : keep_promises(join_parts(parts), when.layer);
    bool promised = id != kNone;
    if (node != kNone && nodes_[node].kind == Kind::kOther && !(when < said(nodes_[node])))
        CAISSON_TRY(hold_waiting_children(node));
    Placed placed = node == kNone ? Placed::kHidden : place_other(node, when, symlink);
    if (placed == Placed::kHidden && !promised) {
        hidden_[hash(kNone, join_parts(parts))] = {when.sequence, {}, kNone};
        return Added{};
    }
    if (!promised) id = CAISSON_TRY(new_inode());
    CAISSON_TRY(describe(inodes_[id], entry));
    if (placed == Placed::kHidden) hidden_[hash(kNone, join_parts(parts))] = {when.sequence, {}, id};
    if (placed == Placed::kHere) nodes_[node].inode = id;
    if (placed == Placed::kDetached) {
        const Node& directory = nodes_[node];
        std::uint16_t below = directory.lowest_explicit > when.layer ? directory.lowest_explicit : directory.layer;
        NodeId holder = CAISSON_TRY(make_holder(node, id));
        nodes_[holder].layer = when.layer;
        CAISSON_TRY(hold_children_between(node, holder, when.layer, below));
        detours_[node] = holder;
    }
    return Added{id};
}

Result<InodeId> Tree::link_target(std::string target, const Entry& entry, When when) {
    // Within the layer a hidden hard link may name another one; a chain is at most as long as the layer, and every
    // step goes to an earlier entry.
    std::uint32_t before = when.sequence;
    for (;;) {
        auto parts = CAISSON_TRY(split_path(target));
        NodeId node = find_exact(parts);
        if (node != kNone && nodes_[node].layer == when.layer && nodes_[node].sequence < before) {
            if (nodes_[node].kind == Kind::kOther) return nodes_[node].inode;
            if (nodes_[node].kind == Kind::kDirectory && nodes_[node].inode != kNone)
                return failure(Errc::kCorrupt, "hard link " + printable(entry.path, 300) + " leads to the directory " +
                                                   printable(target, 300));
        }
        auto hidden = hidden_.find(hash(kNone, target));
        if (hidden == hidden_.end() || hidden->second.sequence >= before) break;
        if (hidden->second.inode != kNone) return hidden->second.inode;
        before = hidden->second.sequence;
        if (!hidden->second.link_target.empty()) {
            target = hidden->second.link_target;
            continue;
        }
        auto again = wanted_again_.find(hidden->second.sequence);
        if (again != wanted_again_.end()) return again->second;
        InodeId id = CAISSON_TRY(new_inode());
        wanted_again_.emplace(hidden->second.sequence, id);
        return id;
    }
    for (const auto& promise : promises_[target])
        if (promise.layer == when.layer) return promise.inode;
    InodeId id = CAISSON_TRY(new_inode());
    text_bytes_ += target.size() + entry.path.size() + sizeof(Promise);
    if (text_bytes_ > kMaxTextBytes)
        return failure(Errc::kLimit,
                       "the image's link targets take more than " + base::format_size(kMaxTextBytes) + " together");
    promises_[target].push_back({id, when.layer, entry.path});
    return id;
}

InodeId Tree::keep_promises(const std::string& path, std::uint16_t layer) {
    auto found = promises_.find(path);
    if (found == promises_.end()) return kNone;
    InodeId kept = kNone;
    std::erase_if(found->second, [&](const Promise& promise) {
        if (promise.layer <= layer) return false;
        if (kept == kNone)
            kept = resolve(promise.inode);
        else if (resolve(promise.inode) != kept)
            inodes_[resolve(promise.inode)].same_as = kept;
        return true;
    });
    if (found->second.empty()) promises_.erase(found);
    return kept;
}

Result<> Tree::add_hard_link(const Entry& entry, When when) {
    auto parts = CAISSON_TRY(split_path(entry.path));
    auto target_parts = CAISSON_TRY_CTX(split_path(entry.link_target),
                                        "the target of hard link " + printable(entry.path, 300));
    if (parts.empty() || target_parts.empty())
        return failure(Errc::kCorrupt, "hard link " + printable(entry.path, 200) + " to " +
                                           printable(entry.link_target, 200) + " names the root directory");
    auto path = join_parts(parts);
    auto target = join_parts(target_parts);
    if (path == target) return {};
    NodeId node = CAISSON_TRY(walk(parts, when, true));
    InodeId promised_inode = promises_.empty() ? kNone : keep_promises(path, when.layer);
    bool promised = promised_inode != kNone;
    if (node != kNone && nodes_[node].kind == Kind::kOther && !(when < said(nodes_[node])))
        CAISSON_TRY(hold_waiting_children(node));
    Placed placed = node == kNone ? Placed::kHidden : place_other(node, when, false);
    if (placed == Placed::kHidden && !promised) {
        hidden_[hash(kNone, path)] = {when.sequence, target, kNone};
        return {};
    }
    InodeId id = CAISSON_TRY(link_target(target, entry, when));
    if (placed == Placed::kHere) nodes_[node].inode = id;
    if (placed == Placed::kHidden) hidden_[hash(kNone, path)] = {when.sequence, {}, id};
    if (promised && resolve(id) != resolve(promised_inode)) inodes_[resolve(promised_inode)].same_as = resolve(id);
    return {};
}

Result<> Tree::whiteout(std::string_view path, When when) {
    auto parts = CAISSON_TRY(split_path(path));
    if (parts.empty()) return failure(Errc::kCorrupt, "a whiteout names the root directory");
    NodeId node = CAISSON_TRY(walk(parts, when, false));
    if (node != kNone) cut_below(node, when.layer, true);
    return {};
}

Result<> Tree::opaque(std::string_view path, When when) {
    auto parts = CAISSON_TRY(split_path(path));
    NodeId node = CAISSON_TRY(walk(parts, when, false));
    if (node != kNone) cut_below(node, when.layer, false);
    return {};
}

std::unordered_map<std::uint32_t, InodeId> Tree::end_layer() {
    hidden_.clear();
    detours_.clear();
    return std::exchange(wanted_again_, {});
}

Result<> Tree::fill(InodeId id, const Entry& entry) { return describe(inodes_[resolve(id)], entry); }

// ---- the end ---------------------------------------------------------------------------------------------------

Result<> Tree::finish() {
    CAISSON_TRY(graft());
    CAISSON_TRY(resolve_promises());
    // Directories that no layer has an entry for, only entries below them.
    if (nodes_[kRoot].inode == kNone) nodes_[kRoot].kind = Kind::kDirectory;
    for (NodeId id = 0; id < nodes_.size(); ++id) {
        if (nodes_[id].kind != Kind::kDirectory || nodes_[id].inode != kNone) continue;
        InodeId inode_id = CAISSON_TRY(new_inode());
        inodes_[inode_id].type = EntryType::kDirectory;
        inodes_[inode_id].filled = true;
        inodes_[inode_id].mode = kImpliedDirectoryMode;
        nodes_[id].inode = inode_id;
    }
    count();
    for (const auto& inode : inodes_)
        if (inode.type != EntryType::kDirectory && inode.links > kMaxHardLinks)
            return failure(Errc::kLimit, "a file of the image has " + std::to_string(inode.links) +
                                             " hard links (the limit is " + std::to_string(kMaxHardLinks) + ")");
    return {};
}

void Tree::count() {
    std::vector<NodeId> open{kRoot};
    inodes_[nodes_[kRoot].inode].links = 1;
    while (!open.empty()) {
        NodeId directory = open.back();
        open.pop_back();
        for (NodeId c = nodes_[directory].first_child; c != kNone; c = nodes_[c].next) {
            if (nodes_[c].kind == Kind::kAbsent) continue;
            ++visible_;
            ++inodes_[resolve(nodes_[c].inode)].links;
            if (nodes_[c].kind == Kind::kDirectory) open.push_back(c);
        }
    }
}

std::vector<Tree::Child> Tree::children(NodeId directory) const {
    std::vector<Child> found;
    for (NodeId c = nodes_[directory].first_child; c != kNone; c = nodes_[c].next) {
        const Node& node = nodes_[c];
        if (node.kind == Kind::kAbsent) continue;
        found.push_back({c, resolve(node.inode), name(node), node.kind == Kind::kDirectory});
    }
    std::sort(found.begin(), found.end(), [](const Child& a, const Child& b) { return a.name < b.name; });
    return found;
}

Result<NodeId> Tree::resolve_path(NodeId start, std::string_view path, bool create, bool follow_last) {
    // What is still to be walked, the next part last; a link's target is pushed on top.
    std::vector<std::string> rest;
    auto push = [&](std::string_view text) {
        auto parts = base::split(text, '/');
        rest.insert(rest.end(), parts.rbegin(), parts.rend());
    };
    push(path);
    NodeId current = path.starts_with('/') ? kRoot : start;
    std::size_t hops = 0;
    while (!rest.empty()) {
        std::string part = std::move(rest.back());
        rest.pop_back();
        if (part.empty() || part == ".") continue;
        if (part == "..") {
            if (current != kRoot) current = nodes_[current].parent;
            continue;
        }
        if (part.size() > kMaxNameBytes) return kNone;
        NodeId next = lookup(current, part);
        if (next == kNone || nodes_[next].kind == Kind::kAbsent) {
            if (!create) return kNone;
            next = CAISSON_TRY(child(current, part));
            nodes_[next].kind = Kind::kDirectory;
            nodes_[next].inode = kNone;
        }
        if (is_symlink(nodes_[next]) && (follow_last || !rest.empty())) {
            if (++hops > kMaxSymlinkHops)
                return failure(Errc::kCorrupt, "symbolic link " + printable(name(nodes_[next])) +
                                                   " leads through more than " + std::to_string(kMaxSymlinkHops) +
                                                   " links");
            auto link = target(inode(nodes_[next].inode));
            if (link.starts_with('/')) current = kRoot;
            push(link);
            continue;
        }
        if (nodes_[next].kind == Kind::kOther && !rest.empty()) return kNone;
        current = next;
    }
    return current;
}

std::uint16_t Tree::effective_cut(NodeId id) const {
    std::uint16_t cut = 0;
    for (; id != kNone; id = nodes_[id].parent) cut = std::max({cut, nodes_[id].cut, nodes_[id].children_cut});
    return cut;
}

Result<> Tree::graft() {
    grafting_ = true;
    detours_.clear();
    for (std::size_t round = 0;; ++round) {
        std::vector<NodeId> waiting;
        for (NodeId id = 1; id < nodes_.size(); ++id)
            if (nodes_[id].first_child != kNone && is_symlink(nodes_[id])) waiting.push_back(id);
        if (waiting.empty()) return {};
        if (round == kMaxGraftRounds)
            return failure(Errc::kLimit, "entries of the image lie below symbolic links nested more than " +
                                             std::to_string(kMaxGraftRounds) + " deep");
        for (NodeId link : waiting) {
            // A graft before this one may have replaced the link; its children wait elsewhere then.
            if (nodes_[link].first_child == kNone || !is_symlink(nodes_[link])) continue;
            auto holder = holder_parents_.find(link);
            NodeId start = holder != holder_parents_.end() ? holder->second : nodes_[link].parent;
            auto text = std::string(target(inode(nodes_[link].inode)));
            // Whiteouts alone make no directories, and are nothing to complain about where there is nothing to hide.
            bool present = has_present_child(link);
            auto into = resolve_path(start, text, present, true);
            if (!into && present) return base::failure(std::move(into).error());
            if (into && *into != kNone && nodes_[*into].kind == Kind::kOther) {
                // A file. If it is newer than the entries, it replaced the directory that they went to.
                if (newest_below(link) > nodes_[*into].layer) into = kNone;
                else present = false;
            }
            if (present && *into == kNone)
                return failure(Errc::kCorrupt, "entries of the image lie below the symbolic link " +
                                                   printable(name(nodes_[link])) + ", but its target " +
                                                   printable(text, 300) + " is not a directory");
            if (!into || *into == kNone || nodes_[*into].kind != Kind::kDirectory) {
                nodes_[link].first_child = kNone;
                continue;
            }
            NodeId c = std::exchange(nodes_[link].first_child, kNone);
            while (c != kNone) {
                NodeId next = nodes_[c].next;
                CAISSON_TRY(graft_node(c, *into));
                c = next;
            }
        }
    }
}

std::uint16_t Tree::newest_below(NodeId id) const {
    std::uint16_t newest = 0;
    for (NodeId c = nodes_[id].first_child; c != kNone; c = nodes_[c].next) {
        if (nodes_[c].kind != Kind::kAbsent) newest = std::max(newest, nodes_[c].layer);
        newest = std::max(newest, newest_below(c));
    }
    return newest;
}

// Says again, at another place, what is known about `from` and everything below it.
Result<> Tree::graft_node(NodeId from, NodeId into) {
    const Node source = nodes_[from];
    nodes_[from].kind = Kind::kAbsent;
    nodes_[from].first_child = kNone;
    std::uint16_t hidden_below = effective_cut(into);
    NodeId to = CAISSON_TRY(child(into, name(source)));
    if (to == from) return failure(Errc::kCorrupt, "symbolic link " + printable(name(source)) + " leads into itself");
    if (source.cut > 0) cut_below(to, source.cut, true);
    if (source.children_cut > 0) cut_below(to, source.children_cut, false);

    When when = said(source);
    if (source.kind != Kind::kAbsent && source.layer >= hidden_below) {
        for (NodeId up = into; up != kNone; up = nodes_[up].parent)
            nodes_[up].lowest_below = std::min(nodes_[up].lowest_below, when.layer);
        if (nodes_[to].kind == Kind::kOther && !(when < said(nodes_[to]))) CAISSON_TRY(hold_waiting_children(to));
        if (source.kind == Kind::kDirectory) {
            if (source.inode != kNone) {
                if (place_directory(to, when, true)) nodes_[to].inode = source.inode;
            } else {
                static_cast<void>(enter(to, when, true));
            }
        } else {
            bool symlink = inode(source.inode).filled && inode(source.inode).type == EntryType::kSymlink;
            if (place_other(to, when, symlink) == Placed::kHere) nodes_[to].inode = source.inode;
        }
    }
    NodeId c = source.first_child;
    while (c != kNone) {
        NodeId next = nodes_[c].next;
        // Below a file that won there is no place for children; below a link they wait for the next round.
        if (nodes_[to].kind != Kind::kOther || is_symlink(nodes_[to])) CAISSON_TRY(graft_node(c, to));
        c = next;
    }
    return {};
}

Result<> Tree::resolve_promises() {
    // Sorted, so that a refusal always names the same link.
    std::vector<std::pair<std::string, Promise>> left;
    for (auto& [path, promises] : promises_)
        for (auto& promise : promises) left.emplace_back(path, std::move(promise));
    std::sort(left.begin(), left.end(), [](const auto& a, const auto& b) {
        return a.first != b.first ? a.first < b.first : a.second.inode < b.second.inode;
    });
    for (const auto& [path, promise] : left) {
        NodeId node = CAISSON_TRY(resolve_path(kRoot, path, false, false));
        bool found = node != kNone && nodes_[node].kind == Kind::kOther &&
                     resolve(nodes_[node].inode) != resolve(promise.inode);
        if (found) inodes_[resolve(promise.inode)].same_as = resolve(nodes_[node].inode);
    }
    for (const auto& [path, promise] : left) {
        if (inode(promise.inode).filled) continue;
        auto layer = promise.layer < layer_names_.size() ? "layer " + layer_names_[promise.layer] + ": " : std::string();
        return failure(Errc::kCorrupt, layer + "hard link " + printable(promise.link_name, 300) + " leads to " +
                                           printable(path, 300) + ", which does not exist");
    }
    promises_.clear();
    return {};
}

}  // namespace caisson::image::unpack
