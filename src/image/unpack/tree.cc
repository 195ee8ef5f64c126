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

Tree::Tree(std::vector<std::string> layer_names, TreeLimits limits)
    : limits_(limits), layer_names_(std::move(layer_names)) {
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
    if (nodes_.size() >= limits_.nodes)
        return failure(Errc::kLimit, "the image has more than " + std::to_string(limits_.nodes) + " paths");
    if (names_.size() + node_name.size() > limits_.text_bytes)
        return failure(Errc::kLimit,
                       "the image's file names take more than " + base::format_size(limits_.text_bytes) + " together");
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
    if (inodes_.size() >= limits_.nodes)
        return failure(Errc::kLimit, "the image has more than " + std::to_string(limits_.nodes) + " files");
    inodes_.emplace_back();
    return static_cast<InodeId>(inodes_.size() - 1);
}

Result<std::uint32_t> Tree::add_text(std::string_view text) {
    text_bytes_ += text.size() + sizeof(std::string);
    if (text_bytes_ > limits_.text_bytes)
        return failure(Errc::kLimit,
                       "the image's link targets take more than " + base::format_size(limits_.text_bytes) + " together");
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
        if (xattr_bytes_ > limits_.xattr_bytes)
            return failure(Errc::kLimit, "the image's extended attributes take more than " +
                                             base::format_size(limits_.xattr_bytes) + " together");
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
    if (text_bytes_ > limits_.text_bytes)
        return failure(Errc::kLimit,
                       "the image's link targets take more than " + base::format_size(limits_.text_bytes) + " together");
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

}  // namespace caisson::image::unpack
