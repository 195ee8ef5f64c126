// What a layer's entries do to a Tree: inodes, files and directories, hard links, whiteouts. Where they go is in tree.cc.
#include "base/text.h"
#include "image/limits.h"
#include "image/unpack/tree.h"

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
