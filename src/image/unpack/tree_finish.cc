// The second half of Tree: once all layers are known, what waited at symbolic links goes to their targets, hard links
// without a target look for one in the result, and links are counted.
#include <algorithm>

#include "base/text.h"
#include "image/limits.h"
#include "image/unpack/tree.h"

namespace caisson::image::unpack {

using base::failure;
using base::printable;

namespace {
constexpr std::uint16_t kImpliedDirectoryMode = 0755;
}  // namespace

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
        bool any = false;
        for (NodeId id = 1; id < nodes_.size(); ++id) {
            if (nodes_[id].first_child == kNone || !is_symlink(nodes_[id])) continue;
            any = true;
            // What waits below another link is grafted with it, and looked at again at its new place.
            if (leads_to_root(graft_start(id))) waiting.push_back(id);
        }
        if (!any) return {};
        if (waiting.empty())
            return failure(Errc::kCorrupt, "entries of the image lie below symbolic links that lead into each other");
        if (round == kMaxGraftRounds)
            return failure(Errc::kLimit, "entries of the image lie below symbolic links nested more than " +
                                             std::to_string(kMaxGraftRounds) + " deep");
        for (NodeId link : waiting) {
            // A graft before this one may have replaced the link; its children wait elsewhere then.
            if (nodes_[link].first_child == kNone || !is_symlink(nodes_[link])) continue;
            NodeId start = graft_start(link);
            if (!leads_to_root(start)) continue;
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

// Where a relative target of a link counts from.
NodeId Tree::graft_start(NodeId link) const {
    auto holder = holder_parents_.find(link);
    return holder != holder_parents_.end() ? holder->second : nodes_[link].parent;
}

bool Tree::leads_to_root(NodeId id) const {
    for (; id != kRoot; id = nodes_[id].parent)
        if (id == kNone || nodes_[id].kind == Kind::kOther) return false;
    return true;
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
