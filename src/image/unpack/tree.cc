#include "image/unpack/tree.h"

#include <algorithm>
#include <cstring>

#include "base/text.h"
#include "image/limits.h"
#include "os/random.h"

namespace caisson::image::unpack {

using base::failure;
using base::printable;

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

}  // namespace caisson::image::unpack
