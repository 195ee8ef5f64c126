#include "image/unpack/merge.h"

#include <string_view>

#include "base/text.h"
#include "image/unpack/layer_reader.h"

namespace caisson::image::unpack {

using base::failure;
using base::printable;

namespace {

constexpr std::string_view kWhiteoutPrefix = ".wh.";
constexpr std::string_view kOpaqueName = ".wh..wh..opq";
constexpr std::string_view kReservedPrefix = ".wh..wh.";  // AUFS bookkeeping
constexpr std::uint64_t kProgressStep = 4 << 20;

struct SplitName {
    std::string_view directory;  // with the slash
    std::string_view name;
};

SplitName split_name(std::string_view path) {
    while (path.ends_with('/')) path.remove_suffix(1);
    auto slash = path.rfind('/');
    if (slash == std::string_view::npos) return {{}, path};
    return {path.substr(0, slash + 1), path.substr(slash + 1)};
}

class Merger {
  public:
    Merger(Tree& tree, ContentSink& sink, const MergeLimits& limits, const MergeProgress& progress)
        : tree_(tree), sink_(sink), limits_(limits), progress_(progress) {}

    Result<> read_layer(const LayerSource& layer, std::uint16_t number, std::size_t order) {
        auto reader = CAISSON_TRY(open(layer));
        When when{number, 0};
        Entry entry;
        std::uint64_t reported = 0;
        for (;;) {
            bool more = CAISSON_TRY(reader->next(entry));
            if (!more) break;
            if (++entries_ > limits_.max_entries)
                return failure(Errc::kLimit, "the image has more than " + std::to_string(limits_.max_entries) + " entries");
            ++when.sequence;
            CAISSON_TRY(take(*reader, entry, when));
            if (progress_ && reader->consumed_bytes() >= reported + kProgressStep) {
                reported = reader->consumed_bytes();
                progress_(order, reported);
            }
        }
        auto sum = CAISSON_TRY(reader->finish());
        unpacked_bytes_ += sum.bytes;
        if (!layer.diff_id.empty() && sum.diff_id != layer.diff_id)
            return failure(Errc::kCorrupt, "its content has the digest " + sum.diff_id + ", but the image's config says " +
                                               layer.diff_id);
        auto wanted = tree_.end_layer();
        if (!wanted.empty()) CAISSON_TRY(read_again(layer, wanted));
        if (progress_) progress_(order + 1, 0);
        return {};
    }

    std::uint64_t unpacked_bytes() const { return unpacked_bytes_ + hole_bytes_; }

  private:
    Result<std::unique_ptr<LayerReader>> open(const LayerSource& layer) {
        std::uint64_t used = unpacked_bytes();
        StreamLimits limits{limits_.max_unpacked_bytes > used ? limits_.max_unpacked_bytes - used : 0};
        auto stream = CAISSON_TRY(layer.open(limits));
        return LayerReader::open(std::move(stream));
    }

    Result<> take(LayerReader& reader, const Entry& entry, When when) {
        auto [directory, name] = split_name(entry.path);
        if (name.starts_with(kWhiteoutPrefix)) {
            if (name == kOpaqueName) return tree_.opaque(directory, when);
            if (name.starts_with(kReservedPrefix)) return {};
            auto hidden = name.substr(kWhiteoutPrefix.size());
            if (hidden.empty() || hidden == "." || hidden == "..")
                return failure(Errc::kCorrupt, "whiteout " + printable(entry.path, 300) + " names nothing");
            return tree_.whiteout(std::string(directory) + std::string(hidden), when);
        }
        if (entry.type == EntryType::kHardLink) return tree_.add_hard_link(entry, when);
        auto added = CAISSON_TRY(tree_.add(entry, when));
        if (added.inode != kNone) return content(reader, entry, added.inode);
        return {};
    }

    Result<> content(LayerReader& reader, const Entry& entry, InodeId inode) {
        if (entry.type != EntryType::kFile || entry.size == 0) return {};
        if (entry.sparse) {
            // Holes are not in the stream, whose length is limited; they count as if they were.
            hole_bytes_ += entry.size;
        }
        if (hole_bytes_ > limits_.max_unpacked_bytes || unpacked_bytes() > limits_.max_unpacked_bytes ||
            entry.size > limits_.max_unpacked_bytes)
            return failure(Errc::kLimit, "with entry " + printable(entry.path, 300) + " (" + base::format_size(entry.size) +
                                             ") the image unpacks to more than " +
                                             base::format_size(limits_.max_unpacked_bytes));
        auto named = [&](Result<> result) -> Result<> {
            if (!result) return base::failure(std::move(result).error().with_context("entry " + printable(entry.path, 300)));
            return result;
        };
        auto number = sink_.begin(entry.size, entry.sparse);
        if (!number) return named(base::failure(std::move(number).error()));
        std::uint64_t written = 0;
        CAISSON_TRY(named(reader.read_data([&](std::uint64_t offset, base::ByteView data) -> Result<> {
            if (data.size() > entry.size || offset > entry.size - data.size())
                return failure(Errc::kCorrupt, "its data goes beyond its size");
            written += data.size();
            return sink_.write(offset, data);
        })));
        if (!entry.sparse && written != entry.size) return named(failure(Errc::kCorrupt, "its data is cut short"));
        CAISSON_TRY(named(sink_.end()));
        tree_.set_content(inode, *number);
        return {};
    }

    // Entries that an upper layer hides, but whose content later hard links of the same layer share.
    Result<> read_again(const LayerSource& layer, const std::unordered_map<std::uint32_t, InodeId>& wanted) {
        auto reader = CAISSON_TRY(open(layer));
        Entry entry;
        std::uint32_t sequence = 0;
        for (std::size_t left = wanted.size(); left > 0;) {
            bool more = CAISSON_TRY(reader->next(entry));
            if (!more) return failure(Errc::kCorrupt, "it changed between two readings");
            auto found = wanted.find(++sequence);
            if (found == wanted.end()) continue;
            --left;
            CAISSON_TRY(tree_.fill(found->second, entry));
            CAISSON_TRY(content(*reader, entry, found->second));
        }
        return {};
    }

    Tree& tree_;
    ContentSink& sink_;
    const MergeLimits& limits_;
    const MergeProgress& progress_;
    std::uint64_t entries_ = 0;
    std::uint64_t unpacked_bytes_ = 0;
    std::uint64_t hole_bytes_ = 0;
};

}  // namespace

Result<Merged> merge(const std::vector<LayerSource>& layers, ContentSink& sink, const MergeLimits& limits,
                     const MergeProgress& progress) {
    if (layers.size() > kMaxLayers)
        return failure(Errc::kLimit, "the image has " + std::to_string(layers.size()) + " layers (the limit is " +
                                         std::to_string(kMaxLayers) + ")");
    std::vector<std::string> names;
    for (const auto& layer : layers) names.push_back(layer.digest);
    Merged merged{Tree(std::move(names)), 0};
    Merger merger(merged.tree, sink, limits, progress);
    if (progress) progress(0, 0);
    for (std::size_t i = layers.size(); i-- > 0;)
        CAISSON_TRY_CTX(merger.read_layer(layers[i], static_cast<std::uint16_t>(i), layers.size() - 1 - i),
                        "layer " + layers[i].digest);
    CAISSON_TRY(merged.tree.finish());
    merged.unpacked_bytes = merger.unpacked_bytes();
    return merged;
}

}  // namespace caisson::image::unpack
