// The whole merge of hostile layers, without a disk. Input: layers one after the other, lowest first, each behind its
// length in 512-byte blocks (one byte).
//
// Header checksums are put right first: libarchive refuses everything else, and the fuzzer would learn only that.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "image/unpack/merge.h"

namespace {

using namespace caisson;
using namespace caisson::image::unpack;

constexpr std::size_t kBlock = 512;

void fix_checksums(std::string& tar) {
    for (std::size_t at = 0; at + kBlock <= tar.size(); at += kBlock) {
        if (std::memcmp(tar.data() + at + 257, "ustar", 5) != 0) continue;
        std::memset(tar.data() + at + 148, ' ', 8);
        unsigned sum = 0;
        for (std::size_t i = 0; i < kBlock; ++i) sum += static_cast<unsigned char>(tar[at + i]);
        std::snprintf(tar.data() + at + 148, 8, "%06o", sum & 0777777);
    }
}

void check(bool fine) {
    if (!fine) std::abort();
}

class CheckingSink final : public ContentSink {
  public:
    Result<std::uint32_t> begin(std::uint64_t size, bool sparse) override {
        check(!open_);
        open_ = true;
        size_ = size;
        sparse_ = sparse;
        next_ = 0;
        return count_++;
    }
    Result<> write(std::uint64_t offset, base::ByteView data) override {
        check(open_ && offset >= next_ && data.size() <= size_ && offset <= size_ - data.size());
        check(sparse_ || offset == next_);
        next_ = offset + data.size();
        return {};
    }
    Result<> end() override {
        check(open_ && (sparse_ || next_ == size_));
        open_ = false;
        return {};
    }
    std::uint32_t count() const { return count_; }

  private:
    bool open_ = false;
    bool sparse_ = false;
    std::uint64_t size_ = 0;
    std::uint64_t next_ = 0;
    std::uint32_t count_ = 0;
};

// What ext4 relies on: every inode is described, names are sound and sorted, links add up.
void check_tree(const Tree& tree, std::uint32_t contents) {
    std::vector<std::uint32_t> links(tree.inode_count());
    std::vector<NodeId> open{Tree::kRoot};
    std::size_t visible = 0;
    while (!open.empty()) {
        NodeId directory = open.back();
        open.pop_back();
        std::string_view previous;
        for (const auto& child : tree.children(directory)) {
            const Inode& inode = tree.inode(child.inode);
            check(inode.filled && child.directory == (inode.type == EntryType::kDirectory));
            check(!child.name.empty() && child.name.size() <= 255 && child.name != "." && child.name != "..");
            check(child.name.find('/') == std::string_view::npos && child.name.find('\0') == std::string_view::npos);
            check(previous.empty() || previous < child.name);
            previous = child.name;
            if (inode.type == EntryType::kSymlink) check(!tree.target(inode).empty());
            if (inode.content != kNone) check(inode.content < contents);
            ++links[child.inode];
            check(++visible <= tree.visible_count());
            if (child.directory) open.push_back(child.node);
        }
    }
    check(visible == tree.visible_count());
    for (InodeId id = 0; id < links.size(); ++id)
        if (tree.resolve(id) == id && id != tree.resolve(tree.root_inode())) check(links[id] == tree.inode(id).links);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::vector<std::string> layers;
    while (size > 0 && layers.size() < 8) {
        std::size_t blocks = data[0];
        ++data;
        --size;
        std::size_t bytes = std::min(size, blocks * kBlock);
        layers.emplace_back(reinterpret_cast<const char*>(data), bytes);
        fix_checksums(layers.back());
        data += bytes;
        size -= bytes;
    }
    std::vector<LayerSource> sources;
    for (const auto& layer : layers)
        sources.push_back({"layer", "", [&layer](StreamLimits limits) { return open_stream(base::as_bytes(layer), limits); }});
    CheckingSink sink;
    MergeLimits limits{.max_unpacked_bytes = 4 << 20, .max_entries = 4096};
    auto merged = merge(sources, sink, limits, {});
    if (merged) check_tree(merged->tree, sink.count());
    return 0;
}
