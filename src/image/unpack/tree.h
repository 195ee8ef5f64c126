// Tree: what the layers of an image add up to, without any content. Pure data; no archive, no disk, no system call.
//
// Layers are given from the top down, entries of a layer in their order: the first layer that says something about a
// path wins, within a layer the last entry does. A node remembers below which layer it is cut off (whiteout, opaque
// directory, a file where a deeper layer has a directory).
//
// Entries whose parent turns out to be a symbolic link in a deeper layer ("lib/x" above Debian's "lib -> usr/lib")
// are kept below that link and grafted onto its target by finish(), as an extraction from the bottom up would have
// resolved them; links never lead out of the tree.
//
// Memory per entry: 48 bytes node, 64 bytes inode, 8 bytes of index, its name. Not thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "image/limits.h"
#include "image/unpack/entry.h"

namespace caisson::image::unpack {

using NodeId = std::uint32_t;
using InodeId = std::uint32_t;
inline constexpr std::uint32_t kNone = ~std::uint32_t{0};

struct Inode {
    EntryType type = EntryType::kFile;
    bool filled = false;  // false: promised by a hard link, not seen yet
    std::uint16_t mode = 0;
    std::uint32_t uid = 0;
    std::uint32_t gid = 0;
    std::uint32_t mtime_nanoseconds = 0;
    std::int64_t mtime_seconds = 0;
    std::uint64_t size = 0;
    std::uint32_t content = kNone;   // files: the sink's number for their data
    std::uint32_t target = kNone;    // symlinks: Tree::target()
    std::uint32_t xattrs = kNone;    // Tree::xattrs()
    std::uint32_t device_major = 0;
    std::uint32_t device_minor = 0;
    InodeId same_as = kNone;         // a hard link resolved later: follow it
    std::uint32_t links = 0;         // names that finish() found
};

// Where in the stack of layers something was said: the layer (0 is the lowest) and the entry's number in it.
struct When {
    std::uint16_t layer = 0;
    std::uint32_t sequence = 0;
    friend bool operator<(const When& a, const When& b) {
        return a.layer != b.layer ? a.layer < b.layer : a.sequence < b.sequence;
    }
};

// A path split into names; "." and empty parts dropped. kCorrupt for "..", kLimit for lengths and depth.
Result<std::vector<std::string_view>> split_path(std::string_view path);

// What one image may take of the merge's memory.
struct TreeLimits {
    std::size_t nodes = std::size_t{2} * kMaxEntries;  // paths, those that are only implied included
    std::size_t text_bytes = kMaxTextBytes;
    std::size_t xattr_bytes = kMaxXattrBytes;
};

class Tree {
  public:
    // `layer_names` (lowest first) appear in messages only.
    explicit Tree(std::vector<std::string> layer_names = {}, TreeLimits limits = {});

    // What became of an entry: the inode that wants the entry's content, or nothing (hidden by an upper layer).
    struct Added {
        InodeId inode = kNone;
    };
    // Everything but hard links. The same `when.layer` or a lower one than before.
    Result<Added> add(const Entry& entry, When when);
    // A hard link; its target may be in this layer, in a lower one, or hidden by an upper one.
    Result<> add_hard_link(const Entry& entry, When when);
    // ".wh.NAME": `path` already without the prefix. Hides what lower layers have there.
    Result<> whiteout(std::string_view path, When when);
    // ".wh..wh..opq" inside `path`: hides everything that lower layers have below it.
    Result<> opaque(std::string_view path, When when);

    // Entries of the layer just read that are hidden but were wanted by a later hard link of the same layer:
    // sequence number → inode to fill. The caller reads the layer once more and calls fill() for each. Also forgets
    // what was remembered about that layer.
    std::unordered_map<std::uint32_t, InodeId> end_layer();
    // Takes metadata of `entry` for an inode that a hard link promised.
    Result<> fill(InodeId inode, const Entry& entry);

    // Grafts, resolves the remaining hard links, counts links. After it only the readers below may be called.
    Result<> finish();

    const Inode& inode(InodeId id) const { return inodes_[resolve(id)]; }
    InodeId resolve(InodeId id) const;
    void set_content(InodeId id, std::uint32_t content) { inodes_[resolve(id)].content = content; }
    std::size_t inode_count() const { return inodes_.size(); }
    std::string_view target(const Inode& inode) const { return texts_[inode.target]; }
    const Xattrs& xattrs(const Inode& inode) const { return xattrs_[inode.xattrs]; }

    struct Child {
        NodeId node;
        InodeId inode;  // resolved
        std::string_view name;
        bool directory;
    };
    static constexpr NodeId kRoot = 0;
    InodeId root_inode() const { return nodes_[kRoot].inode; }
    // The visible entries of a directory, sorted by name.
    std::vector<Child> children(NodeId directory) const;
    // Names that exist in the result, the root not counted.
    std::size_t visible_count() const { return visible_; }

  private:
    enum class Kind : std::uint8_t {
        kAbsent,     // nothing here, but something is remembered (a whiteout, or entries below)
        kDirectory,
        kOther,      // has an inode that is not a directory; children of a symlink wait for their graft
    };
    struct Node {
        NodeId parent = kNone;
        NodeId next = kNone;         // sibling
        NodeId first_child = kNone;
        std::uint32_t name_offset = 0;
        InodeId inode = kNone;       // directories: kNone while only implied by a path
        std::uint32_t sequence = 0;  // with `layer`: who said what the node is
        std::uint16_t layer = 0;
        std::uint16_t cut = 0;           // entries of layers below this one are hidden, here and further down
        std::uint16_t children_cut = 0;  // the same, but not for the node itself
        std::uint16_t lowest_explicit = kNoLayer;  // lowest layer with an entry for this directory itself
        std::uint16_t lowest_below = kNoLayer;     // nothing further down comes from a lower layer
        std::uint16_t depth = 0;
        std::uint8_t name_size = 0;
        Kind kind = Kind::kAbsent;
    };
    static constexpr std::uint16_t kNoLayer = 0xffff;

    When said(const Node& node) const { return {node.layer, node.sequence}; }
    std::string_view name(const Node& node) const { return {names_.data() + node.name_offset, node.name_size}; }
    bool is_symlink(const Node& node) const;
    NodeId lookup(NodeId parent, std::string_view name) const;
    Result<NodeId> child(NodeId parent, std::string_view name);  // looks up or makes it (kAbsent)
    void index(NodeId id);
    void grow_index();
    std::uint64_t hash(NodeId parent, std::string_view name) const;

    // The node of a path as seen by an entry of `when`; kNone if an upper layer hides a directory on the way.
    // `create`: makes implied directories on the way, otherwise only remembers the path.
    Result<NodeId> walk(const std::vector<std::string_view>& parts, When when, bool create);
    // Steps into a node on the way to something below it; kNone if that is hidden.
    NodeId enter(NodeId id, When when, bool create);
    // Whether a node takes what an entry says; the caller then sets the inode.
    enum class Placed : std::uint8_t {
        kHidden,
        kHere,
        kDetached,  // hidden, but entries of layers in between went through this link: hold_children_between()
    };
    Placed place_other(NodeId id, When when, bool symlink);
    bool place_directory(NodeId id, When when, bool is_explicit);
    void cut_below(NodeId id, std::uint16_t layer, bool self);
    // Forgets what layers below `layer` said below a node, and at it if `self`.
    void drop_older(NodeId id, std::uint16_t layer, bool self);
    bool has_present_child(NodeId id) const;
    // A symlink outside the tree that stands where `id` stood, with all or some of its children waiting for a graft.
    Result<NodeId> make_holder(NodeId id, InodeId link);
    void hold_children(NodeId id, NodeId holder);
    Result<> hold_children_between(NodeId from, NodeId holder, std::uint16_t above, std::uint16_t below);
    Result<> hold_waiting_children(NodeId id);  // before a symlink is replaced
    Result<NodeId> new_node(NodeId parent, std::string_view name);
    void adopt(NodeId id, NodeId parent);
    std::uint16_t effective_cut(NodeId id) const;
    std::uint16_t newest_below(NodeId id) const;
    NodeId graft_start(NodeId link) const;
    bool leads_to_root(NodeId id) const;

    Result<InodeId> new_inode();
    // The inode that a hard link to `target` shares; made and promised if its content is not known yet.
    Result<InodeId> link_target(std::string target, const Entry& entry, When when);
    NodeId find_exact(const std::vector<std::string_view>& parts) const;
    Result<void> describe(Inode& inode, const Entry& entry);
    Result<std::uint32_t> add_text(std::string_view text);

    Result<> graft();
    Result<> graft_node(NodeId from, NodeId into);
    void count();
    // Follows links inside the tree; missing directories are made if `create`. kNone if it leads to nothing.
    Result<NodeId> resolve_path(NodeId start, std::string_view path, bool create, bool follow_last);
    Result<> resolve_promises();

    TreeLimits limits_;
    std::vector<Node> nodes_;
    std::vector<Inode> inodes_;
    std::string names_;
    std::vector<std::string> texts_;
    std::size_t text_bytes_ = 0;
    std::vector<Xattrs> xattrs_;
    std::size_t xattr_bytes_ = 0;
    std::vector<NodeId> index_;
    std::size_t indexed_ = 0;
    std::uint64_t seed_ = 0;
    std::size_t visible_ = 0;
    // Symlinks outside the tree whose children wait for their graft → where a relative target starts.
    std::unordered_map<NodeId, NodeId> holder_parents_;

    // Hard links whose target lower layers must still supply: normalised path → inodes to fill. A link means what lies
    // below its own layer, so promises of different layers may be kept by different ones.
    struct Promise {
        InodeId inode;
        std::uint16_t layer;
        std::string link_name;
    };
    std::unordered_map<std::string, std::vector<Promise>> promises_;
    // The inode that waits for the entry of `path` in `layer`, or kNone. The promise counts as kept.
    InodeId keep_promises(const std::string& path, std::uint16_t layer);
    // Of the current layer: hidden entries by the hash of their normalised path.
    struct Hidden {
        std::uint32_t sequence;
        std::string link_target;  // not empty if it is a hard link itself
        InodeId inode = kNone;    // if something else wanted it already
    };
    std::unordered_map<std::uint64_t, Hidden> hidden_;
    std::unordered_map<std::uint32_t, InodeId> wanted_again_;
    std::unordered_map<NodeId, NodeId> detours_;  // node → holder that stands for it within the current layer
    bool grafting_ = false;
    std::vector<std::string> layer_names_;
};

}  // namespace caisson::image::unpack
