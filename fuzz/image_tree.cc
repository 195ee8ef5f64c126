// The merge logic alone, driven by a compact program instead of archives: collisions, links and layers are reached
// far sooner this way. Each operation takes two bytes of kind and path and one of target; paths are made of few names.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "image/unpack/tree.h"

using namespace caisson;
using namespace caisson::image::unpack;

namespace {

void check(bool fine) {
    if (!fine) std::abort();
}

// Up to four of the names "a" to "c", or ".." now and then in link targets.
std::string path_of(unsigned code, bool target) {
    std::string path = target && (code & 0x80) != 0 ? "/" : "";
    for (unsigned depth = 1 + ((code >> 5) & 3); depth > 0; --depth) {
        unsigned part = code & 3;
        path += part == 3 && target ? std::string("..") : std::string(1, static_cast<char>('a' + part % 3));
        if (depth > 1) path += '/';
        code = code >> 2 | code << 6;
    }
    return path;
}

struct Operation {
    unsigned kind;
    Entry entry;
};

void count(const Tree& tree, NodeId directory, std::size_t& visible) {
    for (const auto& child : tree.children(directory)) {
        const Inode& inode = tree.inode(child.inode);
        check(inode.filled && child.directory == (inode.type == EntryType::kDirectory));
        check(++visible <= tree.visible_count());
        if (child.directory) count(tree, child.node, visible);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::vector<std::vector<Operation>> layers(1);
    for (; size >= 3 && layers.size() < 16; data += 3, size -= 3) {
        unsigned kind = data[0] & 7;
        if (kind == 7) {
            layers.emplace_back();
            continue;
        }
        Operation operation{kind, {}};
        operation.entry.path = path_of(data[1], false);
        operation.entry.link_target = path_of(data[2], kind == 2);
        operation.entry.type = kind == 0   ? EntryType::kFile
                               : kind == 1 ? EntryType::kDirectory
                               : kind == 2 ? EntryType::kSymlink
                               : kind == 3 ? EntryType::kHardLink
                                           : EntryType::kFifo;
        layers.back().push_back(std::move(operation));
    }
    Tree tree;
    for (std::size_t i = layers.size(); i-- > 0;) {
        When when{static_cast<std::uint16_t>(i), 0};
        for (const auto& operation : layers[i]) {
            ++when.sequence;
            if (operation.kind == 4) {
                if (!tree.whiteout(operation.entry.path, when)) return 0;
            } else if (operation.kind == 5) {
                if (!tree.opaque(operation.entry.path, when)) return 0;
            } else if (operation.kind == 3) {
                if (!tree.add_hard_link(operation.entry, when)) return 0;
            } else if (!tree.add(operation.entry, when)) {
                return 0;
            }
        }
        for (const auto& [sequence, inode] : tree.end_layer())
            check(tree.fill(inode, layers[i][sequence - 1].entry).has_value());
    }
    if (!tree.finish()) return 0;
    std::size_t visible = 0;
    count(tree, Tree::kRoot, visible);
    check(visible == tree.visible_count());
    return 0;
}
