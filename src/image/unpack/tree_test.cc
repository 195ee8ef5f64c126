#include "image/unpack/tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <map>
#include <memory>

#include "image/limits.h"

namespace caisson::image::unpack {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// What a layer says. `id` stands for the entry's content and metadata.
struct Op {
    enum Kind { kFile, kDirectory, kSymlink, kHardLink, kWhiteout, kOpaque } kind;
    std::string path;
    std::string target;
    std::uint32_t id = 0;
};
using Layer = std::vector<Op>;  // in the order of the archive

Op file(std::string path, std::uint32_t id) { return {Op::kFile, std::move(path), {}, id}; }
Op directory(std::string path, std::uint32_t id = 0) { return {Op::kDirectory, std::move(path), {}, id}; }
Op symlink(std::string path, std::string target) { return {Op::kSymlink, std::move(path), std::move(target), 0}; }
Op hard_link(std::string path, std::string target) { return {Op::kHardLink, std::move(path), std::move(target), 0}; }
Op whiteout(std::string path) { return {Op::kWhiteout, std::move(path), {}, 0}; }
Op opaque(std::string path) { return {Op::kOpaque, std::move(path), {}, 0}; }

Entry entry_of(const Op& op) {
    Entry entry;
    entry.path = op.path;
    entry.link_target = op.target;
    entry.uid = op.id;
    entry.type = op.kind == Op::kDirectory  ? EntryType::kDirectory
                 : op.kind == Op::kSymlink  ? EntryType::kSymlink
                 : op.kind == Op::kHardLink ? EntryType::kHardLink
                                            : EntryType::kFile;
    return entry;
}

Result<> apply(Tree& tree, const Op& op, When when) {
    switch (op.kind) {
        case Op::kWhiteout: return tree.whiteout(op.path, when);
        case Op::kOpaque: return tree.opaque(op.path, when);
        case Op::kHardLink: return tree.add_hard_link(entry_of(op), when);
        default: break;
    }
    auto added = tree.add(entry_of(op), when);
    if (!added) return base::failure(added.error());
    return {};
}

// The layers, lowest first, through a Tree as merge() would do it.
Result<std::unique_ptr<Tree>> build(const std::vector<Layer>& layers) {
    auto tree = std::make_unique<Tree>();
    for (std::size_t i = layers.size(); i-- > 0;) {
        When when{static_cast<std::uint16_t>(i), 0};
        for (const auto& op : layers[i]) {
            ++when.sequence;
            CAISSON_TRY(apply(*tree, op, when));
        }
        for (const auto& [sequence, inode] : tree->end_layer())
            CAISSON_TRY(tree->fill(inode, entry_of(layers[i][sequence - 1])));
    }
    CAISSON_TRY(tree->finish());
    return tree;
}

// "path" → "f<id>", "d<id>", "l<target>"; with "=<first path of the same file>" for hard links.
using Listing = std::map<std::string, std::string>;

void list_below(const Tree& tree, NodeId node, const std::string& path, Listing& out, std::map<InodeId, std::string>& seen) {
    for (const auto& child : tree.children(node)) {
        std::string name = path + std::string(child.name);
        const Inode& inode = tree.inode(child.inode);
        std::string text;
        if (child.directory) {
            text = "d" + std::to_string(inode.uid);
        } else {
            text = inode.type == EntryType::kSymlink ? "l" + std::string(tree.target(inode)) : "f" + std::to_string(inode.uid);
            auto [first, added] = seen.emplace(child.inode, name);
            if (!added) text += "=" + first->second;
        }
        out[name] = text;
        if (child.directory) list_below(tree, child.node, name + "/", out, seen);
    }
}

Listing list(const Tree& tree) {
    Listing out;
    std::map<InodeId, std::string> seen;
    list_below(tree, Tree::kRoot, "", out, seen);
    return out;
}

Listing listing_of(const std::vector<Layer>& layers) {
    auto tree = build(layers);
    if (!tree) return {{"error", tree.error().to_string()}};
    return list(**tree);
}

std::string error_of(const std::vector<Layer>& layers) {
    auto tree = build(layers);
    return tree ? std::string("no error") : tree.error().to_string();
}

TEST(Tree, UpperLayerWins) {
    EXPECT_EQ(listing_of({{file("a", 1), file("b", 2)}, {file("a", 3)}}), (Listing{{"a", "f3"}, {"b", "f2"}}));
}

TEST(Tree, LastEntryOfALayerWins) {
    EXPECT_EQ(listing_of({{file("a", 1), file("a", 2)}}), (Listing{{"a", "f2"}}));
}

TEST(Tree, WhiteoutHidesLowerLayersOnly) {
    EXPECT_EQ(listing_of({{file("a", 1)}, {whiteout("a")}}), (Listing{}));
    EXPECT_EQ(listing_of({{file("a", 1)}, {file("a", 2), whiteout("a")}}), (Listing{{"a", "f2"}}));
    EXPECT_EQ(listing_of({{file("a", 1)}, {whiteout("a")}, {file("a", 3)}}), (Listing{{"a", "f3"}}));
}

TEST(Tree, WhiteoutOfADirectoryHidesWhatIsBelow) {
    EXPECT_EQ(listing_of({{directory("d", 1), file("d/a", 1)}, {whiteout("d")}, {directory("d", 3), file("d/b", 3)}}),
              (Listing{{"d", "d3"}, {"d/b", "f3"}}));
}

TEST(Tree, OpaqueDirectoryHidesLowerEntriesButNotItsOwn) {
    EXPECT_EQ(listing_of({{directory("d", 1), file("d/a", 1)}, {directory("d", 2), file("d/b", 2), opaque("d")}}),
              (Listing{{"d", "d2"}, {"d/b", "f2"}}));
}

TEST(Tree, OpaqueDirectoryKeepsUpperEntries) {
    EXPECT_EQ(listing_of({{directory("d", 1), file("d/a", 1)}, {directory("d", 2), opaque("d")}, {file("d/c", 3)}}),
              (Listing{{"d", "d2"}, {"d/c", "f3"}}));
}

TEST(Tree, DirectoryTakesMetadataOfItsHighestEntry) {
    EXPECT_EQ(listing_of({{directory("d", 1)}, {directory("d", 2)}, {file("d/a", 3)}}),
              (Listing{{"d", "d2"}, {"d/a", "f3"}}));
}

TEST(Tree, FileReplacedByDirectory) {
    EXPECT_EQ(listing_of({{directory("x", 1), file("x/old", 1)}, {file("x", 2)}, {directory("x", 3), file("x/new", 3)}}),
              (Listing{{"x", "d3"}, {"x/new", "f3"}}));
}

TEST(Tree, DirectoryReplacedByFile) {
    EXPECT_EQ(listing_of({{directory("x", 1), file("x/old", 1)}, {file("x", 2)}}), (Listing{{"x", "f2"}}));
}

TEST(Tree, DirectoryReplacedByFileWithinALayer) {
    EXPECT_EQ(listing_of({{directory("x", 1), file("x/old", 1), file("x", 2)}}), (Listing{{"x", "f2"}}));
}

TEST(Tree, HardLinksShareOneFile) {
    EXPECT_EQ(listing_of({{file("a", 1), hard_link("b", "a"), hard_link("c", "./b")}}),
              (Listing{{"a", "f1"}, {"b", "f1=a"}, {"c", "f1=a"}}));
}

TEST(Tree, HardLinkAcrossLayers) {
    EXPECT_EQ(listing_of({{file("a", 1)}, {hard_link("b", "a")}}), (Listing{{"a", "f1"}, {"b", "f1=a"}}));
}

TEST(Tree, HardLinkSurvivesItsTarget) {
    // Hidden by a layer above, by a whiteout above, and by the linking layer's own later whiteout above both.
    EXPECT_EQ(listing_of({{file("a", 1), hard_link("b", "a")}, {whiteout("a")}}), (Listing{{"b", "f1"}}));
    EXPECT_EQ(listing_of({{file("a", 1), hard_link("b", "a")}, {file("a", 2)}}), (Listing{{"a", "f2"}, {"b", "f1"}}));
    EXPECT_EQ(listing_of({{file("a", 1)}, {hard_link("b", "a")}, {whiteout("a")}}), (Listing{{"b", "f1"}}));
}

TEST(Tree, HardLinkThroughHiddenHardLinks) {
    EXPECT_EQ(listing_of({{file("a", 1), hard_link("b", "a"), hard_link("c", "b")}, {whiteout("a"), whiteout("b")}}),
              (Listing{{"c", "f1"}}));
}

TEST(Tree, HardLinksOfTwoLayersToOneHiddenFile) {
    EXPECT_EQ(listing_of({{file("a", 1), hard_link("b", "a")}, {hard_link("c", "a")}, {file("a", 2)}}),
              (Listing{{"a", "f2"}, {"b", "f1"}, {"c", "f1=b"}}));
}

TEST(Tree, HardLinkMeansWhatLiesBelowItsLayer) {
    EXPECT_EQ(listing_of({{file("a", 1)}, {hard_link("b", "a"), file("a", 2)}, {hard_link("c", "a")}}),
              (Listing{{"a", "f2"}, {"b", "f1"}, {"c", "f2=a"}}));
}

TEST(Tree, HardLinkCycleIsRefused) {
    EXPECT_THAT(error_of({{hard_link("a", "b"), hard_link("b", "a")}}), HasSubstr("does not exist"));
}

TEST(Tree, DanglingHardLinkIsRefusedByName) {
    EXPECT_THAT(error_of({{hard_link("link", "nowhere")}}), HasSubstr("hard link link leads to nowhere"));
}

TEST(Tree, HardLinkToADirectoryIsRefused) {
    EXPECT_THAT(error_of({{directory("d"), hard_link("link", "d")}}), HasSubstr("directory d"));
}

TEST(Tree, EscapingNamesAreRefused) {
    EXPECT_THAT(error_of({{file("../a", 1)}}), HasSubstr("../a"));
    EXPECT_THAT(error_of({{file("a/../../b", 1)}}), HasSubstr(".."));
    EXPECT_THAT(error_of({{file("a", 1), hard_link("b", "../../etc/passwd")}}), HasSubstr("hard link b"));
    EXPECT_THAT(error_of({{whiteout("../a")}}), HasSubstr(".."));
}

TEST(Tree, AbsoluteNamesCountFromTheRoot) {
    EXPECT_EQ(listing_of({{directory("/d", 1), file("//d/./a", 2), hard_link("b", "/d/a")}}),
              (Listing{{"b", "f2"}, {"d", "d1"}, {"d/a", "f2=b"}}));
}

TEST(Tree, SymlinksAreKeptVerbatim) {
    EXPECT_EQ(listing_of({{symlink("out", "../../../etc/passwd"), symlink("abs", "/x//y/")}}),
              (Listing{{"abs", "l/x//y/"}, {"out", "l../../../etc/passwd"}}));
}

TEST(Tree, EntryBelowALinkOfALowerLayerLandsInItsTarget) {
    EXPECT_EQ(listing_of({{directory("usr", 1), directory("usr/lib", 1), symlink("lib", "usr/lib"), file("usr/lib/a", 1)},
                          {file("lib/b", 2), file("lib/a", 2)}}),
              (Listing{{"lib", "lusr/lib"}, {"usr", "d1"}, {"usr/lib", "d1"}, {"usr/lib/a", "f2"}, {"usr/lib/b", "f2"}}));
}

TEST(Tree, EntryBelowALinkOfItsOwnLayerLandsInItsTarget) {
    EXPECT_EQ(listing_of({{directory("usr", 1), symlink("lib", "/usr"), file("lib/a", 2)}}),
              (Listing{{"lib", "l/usr"}, {"usr", "d1"}, {"usr/a", "f2"}}));
}

TEST(Tree, WhiteoutBelowALinkHidesInItsTarget) {
    EXPECT_EQ(listing_of({{directory("usr", 1), symlink("lib", "usr"), file("usr/a", 1), file("usr/b", 1)},
                          {whiteout("lib/a")}}),
              (Listing{{"lib", "lusr"}, {"usr", "d1"}, {"usr/b", "f1"}}));
}

TEST(Tree, UpperLayersOverruleWhatCameThroughALink) {
    EXPECT_EQ(listing_of({{directory("usr", 1), symlink("lib", "usr")}, {file("lib/a", 2)}, {file("usr/a", 3)}}),
              (Listing{{"lib", "lusr"}, {"usr", "d1"}, {"usr/a", "f3"}}));
    EXPECT_EQ(listing_of({{directory("usr", 1), symlink("lib", "usr")}, {file("lib/a", 2)}, {whiteout("usr/a")}}),
              (Listing{{"lib", "lusr"}, {"usr", "d1"}}));
}

TEST(Tree, DirectoryEntryReplacesALink) {
    EXPECT_EQ(listing_of({{directory("usr", 1), symlink("lib", "usr")}, {directory("lib", 2), file("lib/a", 2)}}),
              (Listing{{"lib", "d2"}, {"lib/a", "f2"}, {"usr", "d1"}}));
    // What went through the link before it was replaced stays in its target.
    EXPECT_EQ(listing_of({{directory("usr", 1), symlink("lib", "usr")}, {file("lib/a", 2)}, {directory("lib", 3)}}),
              (Listing{{"lib", "d3"}, {"usr", "d1"}, {"usr/a", "f2"}}));
}

TEST(Tree, LinksNeverLeadOutOfTheTree) {
    EXPECT_EQ(listing_of({{directory("etc", 1), symlink("up", "../../../../etc")}, {file("up/a", 2)}}),
              (Listing{{"etc", "d1"}, {"etc/a", "f2"}, {"up", "l../../../../etc"}}));
}

TEST(Tree, LinkLoopsAreRefused) {
    EXPECT_THAT(error_of({{symlink("a", "b"), symlink("b", "a")}, {file("a/x", 1)}}), HasSubstr("leads through more than"));
    EXPECT_THAT(error_of({{symlink("a", "a"), file("a/x", 1)}}), HasSubstr("leads through more than"));
}

TEST(Tree, LinkGrowingIntoItselfIsRefused) {
    // Every graft puts the entry below the link again.
    EXPECT_NE(error_of({{symlink("a", "d/a"), directory("d"), symlink("d/a", "../a/a"), file("a/a/a/a", 1)}}), "no error");
}

TEST(Tree, EntriesBelowALinkToAFileAreRefused) {
    EXPECT_THAT(error_of({{file("f", 1), symlink("l", "f")}, {file("l/x", 2)}}), HasSubstr("not a directory"));
}

TEST(Tree, PathsAreLimited) {
    std::string component(kMaxNameBytes, 'n');
    EXPECT_EQ(error_of({{file(component, 1)}}), "no error");
    EXPECT_THAT(error_of({{file(component + "n", 1)}}), HasSubstr("name of 256 bytes"));
    std::string path;
    while (path.size() + 2 <= kMaxPathBytes) path += "a/";
    EXPECT_EQ(error_of({{file(path, 1)}}), "no error");  // kMaxPathDepth names in kMaxPathBytes bytes
    EXPECT_THAT(error_of({{file(path + "b", 1)}}), HasSubstr("path of"));
    EXPECT_THAT(error_of({{file("a" + std::string("\0b", 2), 1)}}), HasSubstr("zero byte"));
}

TEST(Tree, DepthIsLimitedThroughLinksToo) {
    std::string deep;
    for (std::size_t i = 0; i < kMaxPathDepth - 1; ++i) deep += "a/";
    EXPECT_THAT(error_of({{directory(deep), symlink("l", deep.substr(0, 2046))}, {file("l/" + deep.substr(0, 3000) + "x", 1)}}),
                HasSubstr("deep"));
}

TEST(Tree, SymlinkTargetsAreLimited) {
    EXPECT_EQ(error_of({{symlink("l", std::string(kMaxSymlinkBytes, 't'))}}), "no error");
    EXPECT_THAT(error_of({{symlink("l", std::string(kMaxSymlinkBytes + 1, 't'))}}), HasSubstr("target of 4096 bytes"));
    EXPECT_THAT(error_of({{symlink("l", "")}}), HasSubstr("no usable target"));
}

TEST(Tree, GraftsThroughManyLinksAreLimited) {
    auto through = [](std::size_t links) {
        Layer base;
        std::string path = "d0";
        for (std::size_t i = 0; i < links; ++i) {
            base.push_back(directory("d" + std::to_string(i + 1), 1));
            base.push_back(symlink("d" + std::to_string(i) + "/s", "../d" + std::to_string(i + 1)));
            path += "/s";
        }
        return error_of({base, {file(path + "/f", 2)}});
    };
    EXPECT_EQ(through(kMaxGraftRounds), "no error");
    EXPECT_THAT(through(kMaxGraftRounds + 1), HasSubstr("nested more than 40"));
}

TEST(Tree, MemoryIsLimited) {
    auto add = [](TreeLimits limits, const std::vector<Entry>& entries) {
        Tree tree({}, limits);
        When when{0, 0};
        for (const auto& entry : entries) {
            ++when.sequence;
            auto added = tree.add(entry, when);
            if (!added) return added.error().to_string();
        }
        return std::string();
    };
    std::vector<Entry> two{entry_of(file("aa", 1)), entry_of(file("bb", 1))};
    EXPECT_EQ(add({.nodes = 3}, two), "");  // with the root
    EXPECT_THAT(add({.nodes = 2}, two), HasSubstr("more than 2 paths"));
    EXPECT_THAT(add({.nodes = 2}, {entry_of(file("implied/f", 1))}), HasSubstr("more than 2 paths"));
    EXPECT_EQ(add({.text_bytes = 4}, two), "");
    EXPECT_THAT(add({.text_bytes = 3}, two), HasSubstr("file names"));
    std::vector<Entry> link{entry_of(symlink("l", "target"))};
    EXPECT_EQ(add({.text_bytes = 6 + sizeof(std::string)}, link), "");
    EXPECT_THAT(add({.text_bytes = 5 + sizeof(std::string)}, link), HasSubstr("link targets"));
    Entry marked = entry_of(file("m", 1));
    marked.xattrs = {{"user.x", "v"}};
    EXPECT_EQ(add({.xattr_bytes = 200}, {marked}), "");
    EXPECT_THAT(add({.xattr_bytes = 20}, {marked}), HasSubstr("extended attributes"));
}

TEST(Tree, HardLinkCountIsLimited) {
    Layer layer{file("f", 1)};
    for (std::uint32_t i = 1; i < kMaxHardLinks; ++i) layer.push_back(hard_link("l" + std::to_string(i), "f"));
    EXPECT_EQ(error_of({layer}), "no error");
    layer.push_back(hard_link("one-more", "f"));
    EXPECT_THAT(error_of({layer}), HasSubstr("65001 hard links"));
}

TEST(Tree, XattrsAreLimited) {
    auto add = [](std::size_t bytes, std::size_t count) {
        Tree tree;
        Entry entry = entry_of(file("f", 1));
        for (std::size_t i = 0; i < count; ++i) entry.xattrs.emplace_back("user.x", std::string(bytes, 'v'));
        auto added = tree.add(entry, {0, 1});
        return added ? std::string() : added.error().to_string();
    };
    EXPECT_EQ(add(kMaxXattrBytesPerEntry - 22, 1), "");
    EXPECT_THAT(add(kMaxXattrBytesPerEntry - 21, 1), HasSubstr("extended attributes"));
    EXPECT_THAT(add(0, kMaxXattrsPerEntry + 1), HasSubstr("extended attributes"));
}

TEST(Tree, RootCannotBeReplaced) {
    EXPECT_THAT(error_of({{file("./", 1)}}), HasSubstr("root directory"));
    EXPECT_EQ(error_of({{directory("./", 5)}}), "no error");
}

TEST(Tree, ManyFlipsOfOnePathStayCheap) {
    // Each flip throws away what came before it; doing so must not look at the upper layer's many entries again.
    Layer upper;
    for (int i = 0; i < 20'000; ++i) upper.push_back(file("x/" + std::to_string(i), 1));
    Layer lower;
    for (int i = 0; i < 20'000; ++i) {
        lower.push_back(file("x", 2));
        lower.push_back(directory("x", 3));
        lower.push_back(file("x/y", 4));
    }
    auto listing = listing_of({lower, upper});
    EXPECT_EQ(listing.size(), 20'001U);
}

// ---- against an extraction from the bottom up -------------------------------------------------------------------

// A file system in memory, into which layers are extracted one after the other, the way every other tool does it.
class Extraction {
  public:
    bool failed = false;

    void layer(const Layer& ops) {
        // Whiteouts hide lower layers only, wherever they stand in the archive.
        for (const auto& op : ops) {
            if (op.kind != Op::kWhiteout && op.kind != Op::kOpaque) continue;
            auto [parent, name] = locate(op.path, false);
            if (!parent) continue;
            auto found = parent->children.find(name);
            if (found == parent->children.end()) continue;
            if (op.kind == Op::kWhiteout)
                parent->children.erase(found);
            else if (auto target = follow(parent, found->second); target && target->kind == 'd')
                target->children.clear();
        }
        for (const auto& op : ops) {
            if (op.kind == Op::kWhiteout || op.kind == Op::kOpaque) continue;
            auto [parent, name] = locate(op.path, true);
            if (!parent) {
                failed = true;
                return;
            }
            if (op.kind == Op::kDirectory) {
                auto found = parent->children.find(name);
                if (found != parent->children.end() && found->second->kind == 'd') {
                    found->second->id = op.id;
                    continue;
                }
                parent->children[name] = make('d', op.id, parent);
            } else if (op.kind == Op::kHardLink) {
                auto [directory, base] = locate(op.target, false);
                if (!directory || !directory->children.contains(base) || directory->children[base]->kind == 'd') {
                    failed = true;
                    return;
                }
                auto target = directory->children[base];
                parent->children[name] = target;
            } else {
                auto node = make(op.kind == Op::kFile ? 'f' : 'l', op.id, parent);
                node->target = op.target;
                parent->children[name] = node;
            }
        }
    }

    Listing listing() {
        Listing out;
        std::map<Node*, std::string> seen;
        list(root_.get(), "", out, seen);
        return out;
    }

  private:
    struct Node {
        char kind;
        std::uint32_t id;
        Node* parent;
        std::string target;
        std::map<std::string, std::shared_ptr<Node>> children;
    };
    using Pointer = std::shared_ptr<Node>;
    Pointer make(char kind, std::uint32_t id, const Pointer& parent) {
        auto node = std::make_shared<Node>(Node{kind, id, parent.get(), {}, {}});
        all_.push_back(node);
        return node;
    }
    Pointer shared(Node* node) {
        if (node == root_.get()) return root_;
        for (const auto& other : all_)
            if (other.get() == node) return other;
        return nullptr;
    }
    // The directory that `path` lies in, every link on the way followed inside the root.
    std::pair<Pointer, std::string> locate(const std::string& path, bool create) {
        auto slash = path.rfind('/');
        std::string parent = slash == std::string::npos ? "" : path.substr(0, slash);
        std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
        int hops = 0;
        return {walk(root_, parent, create, hops), name};
    }
    Pointer follow(const Pointer& directory, const Pointer& node) {
        int hops = 0;
        if (node->kind != 'l') return node;
        return walk(node->target.starts_with('/') ? root_ : directory, node->target, false, hops);
    }
    Pointer walk(Pointer current, const std::string& path, bool create, int& hops) {
        std::size_t i = 0;
        while (i <= path.size()) {
            auto end = std::min(path.find('/', i), path.size());
            std::string part = path.substr(i, end - i);
            i = end + 1;
            if (part.empty() || part == ".") continue;
            if (part == "..") {
                if (current->parent) current = shared(current->parent);
                continue;
            }
            auto found = current->children.find(part);
            if (found == current->children.end()) {
                if (!create) return nullptr;
                current->children[part] = make('d', 0, current);
                current = current->children[part];
                continue;
            }
            auto next = found->second;
            if (next->kind == 'f') return nullptr;
            if (next->kind == 'l') {
                if (++hops > 20) return nullptr;
                next = walk(next->target.starts_with('/') ? root_ : current, next->target, create, hops);
                if (!next) return nullptr;
            }
            current = next;
        }
        return current;
    }
    void list(Node* node, const std::string& path, Listing& out, std::map<Node*, std::string>& seen) {
        for (const auto& [name, child] : node->children) {
            std::string text = child->kind == 'l' ? "l" + child->target : child->kind + std::to_string(child->id);
            if (child->kind != 'd') {
                auto [first, added] = seen.emplace(child.get(), path + name);
                if (!added) text += "=" + first->second;
            }
            out[path + name] = text;
            if (child->kind == 'd') list(child.get(), path + name + "/", out, seen);
        }
    }
    std::vector<Pointer> all_;
    Pointer root_ = std::make_shared<Node>(Node{'d', 0, nullptr, {}, {}});
};

std::string describe(const std::vector<Layer>& layers) {
    std::string text;
    for (std::size_t i = 0; i < layers.size(); ++i) {
        text += "layer " + std::to_string(i) + "\n";
        for (const auto& op : layers[i])
            text += std::string("  ") + "fdlhwo"[op.kind] + " " + op.path + (op.target.empty() ? "" : " -> " + op.target) +
                    " " + std::to_string(op.id) + "\n";
    }
    return text;
}

// Layers over few names, so that they collide often.
rc::Gen<std::string> some_path(const std::string& letters) {
    return rc::gen::map(rc::gen::container<std::vector<char>>(rc::gen::elementOf(letters)), [](std::vector<char> parts) {
        if (parts.size() > 4) parts.resize(4);
        std::string path;
        for (char part : parts) path += (path.empty() ? "" : "/") + std::string(1, part);
        return path.empty() ? std::string("a") : path;
    });
}

std::vector<Layer> some_layers(const std::string& letters) {
    auto op = rc::gen::construct<Op>(
        rc::gen::element(Op::kFile, Op::kFile, Op::kDirectory, Op::kHardLink, Op::kWhiteout, Op::kOpaque),
        some_path(letters), some_path(letters), rc::gen::inRange<std::uint32_t>(1, 1000));
    auto layers = *rc::gen::resize(12, rc::gen::container<std::vector<Layer>>(rc::gen::container<Layer>(op)));
    for (auto& layer : layers) {
        // A layer that names one path twice, or a path below its own file, is nothing that a build makes.
        Layer sound;
        for (auto& candidate : layer) {
            if (candidate.kind != Op::kHardLink) candidate.target.clear();
            auto holds = [](const Op& outer, const Op& inner) {
                return inner.path.starts_with(outer.path + "/") && outer.kind != Op::kDirectory && outer.kind != Op::kOpaque;
            };
            bool clash = false;
            for (const auto& other : sound) {
                bool same = candidate.path == other.path && !(candidate.kind == Op::kOpaque && other.kind == Op::kDirectory);
                clash = clash || same || holds(other, candidate) || holds(candidate, other);
            }
            if (!clash) sound.push_back(candidate);
        }
        layer = sound;
    }
    return layers;
}

void compare_with_extraction(const std::vector<Layer>& layers) {
    Extraction extraction;
    for (const auto& layer : layers) {
        extraction.layer(layer);
        if (extraction.failed) RC_DISCARD("the layers cannot be extracted");
    }
    auto tree = build(layers);
    RC_LOG() << describe(layers);
    if (!tree) RC_FAIL(tree.error().to_string());
    RC_ASSERT(list(**tree) == extraction.listing());
}

TEST(Tree, HardLinkTargetBelowALink) {
    EXPECT_EQ(listing_of({{directory("usr", 1), symlink("lib", "usr"), file("usr/a", 1)}, {hard_link("b", "lib/a")}}),
              (Listing{{"b", "f1"}, {"lib", "lusr"}, {"usr", "d1"}, {"usr/a", "f1=b"}}));
}

TEST(Tree, EqualsAnExtractionFromTheBottomUp) {
    EXPECT_TRUE(rc::check("layers without symbolic links", [] { compare_with_extraction(some_layers("abc")); }));
}

TEST(Tree, EqualsAnExtractionThroughTheLinksOfTheBase) {
    EXPECT_TRUE(rc::check("layers above a base with symbolic links", [] {
        const Layer base{directory("t", 1), directory("t/u", 1), directory("a", 1), file("t/u/b", 1),
                         symlink("s", "t"), symlink("a/s", "../t/u"), symlink("r", "/s/u/../u")};
        auto layers = some_layers("abstru");
        int below = 0;
        for (auto& layer : layers) {
            // A layer spells the places that the links lead to in one way only.
            std::string spelling;
            std::erase_if(layer, [&](const Op& op) {
                // The links and what they lead to stay as they are; a build that changes them names the new places.
                bool link = op.path == "s" || op.path == "r" || op.path == "a/s" || op.path == "t/s" || op.path == "s/s";
                bool target = op.path == "t" || op.path == "a" || op.path == "t/u" || op.path == "s/u";
                if (link || (target && op.kind != Op::kDirectory)) return true;
                // Hard links are named by where their targets really lie, and those stay.
                if (op.kind == Op::kHardLink && op.target.find_first_of("srt") != std::string::npos) return true;
                for (const char* root : {"s/", "r/", "a/s/", "t/"}) {
                    if (!op.path.starts_with(root)) continue;
                    if (spelling.empty()) spelling = root;
                    if (spelling != root) return true;
                    if (spelling != "t/") ++below;
                }
                return false;
            });
        }
        layers.insert(layers.begin(), base);
        RC_CLASSIFY(below > 0, "below a link");
        compare_with_extraction(layers);
    }));
}

}  // namespace
}  // namespace caisson::image::unpack
