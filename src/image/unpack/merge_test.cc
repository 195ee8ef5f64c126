#include "image/unpack/merge.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <map>

#include "image/digest.h"
#include "image/unpack/layer_reader.h"
#include "os/file.h"
#include "tar/tar_builder.h"

namespace caisson::image::unpack {
namespace {

using tar::TarBuilder;
using tar::TarEntry;
using testing::HasSubstr;

// Keeps contents in memory.
class MemorySink final : public ContentSink {
  public:
    Result<std::uint32_t> begin(std::uint64_t size, bool sparse) override {
        contents.emplace_back(static_cast<std::size_t>(size), '\0');
        sparse_files += sparse ? 1 : 0;
        return static_cast<std::uint32_t>(contents.size() - 1);
    }
    Result<> write(std::uint64_t offset, base::ByteView data) override {
        contents.back().replace(static_cast<std::size_t>(offset), data.size(), base::as_text(data));
        return {};
    }
    Result<> end() override { return {}; }
    std::vector<std::string> contents;
    int sparse_files = 0;
};

std::string gzip(const std::string& data) {
    z_stream stream{};
    deflateInit2(&stream, 9, Z_DEFLATED, 15 + 16, 9, Z_DEFAULT_STRATEGY);
    std::string out(deflateBound(&stream, data.size()) + 32, '\0');
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(data.data()));
    stream.avail_in = static_cast<uInt>(data.size());
    stream.next_out = reinterpret_cast<Bytef*>(out.data());
    stream.avail_out = static_cast<uInt>(out.size());
    deflate(&stream, Z_FINISH);
    out.resize(stream.total_out);
    deflateEnd(&stream);
    return out;
}

std::string zstd(const std::string& data) {
    std::string out(ZSTD_compressBound(data.size()), '\0');
    out.resize(ZSTD_compress(out.data(), out.size(), data.data(), data.size(), 3));
    return out;
}

// The layers' bytes as they would lie in blobs, lowest first.
struct Case {
    std::vector<std::string> layers;
    std::vector<std::string> diff_ids = {};
    MergeLimits limits = {};
    MemorySink sink = {};

    Result<Merged> run() {
        std::vector<LayerSource> sources;
        for (std::size_t i = 0; i < layers.size(); ++i)
            sources.push_back({"sha256:layer" + std::to_string(i), i < diff_ids.size() ? diff_ids[i] : "",
                               [this, i](StreamLimits stream_limits) {
                                   return open_stream(base::as_bytes(layers[i]), stream_limits);
                               }});
        return merge(sources, sink, limits, {});
    }
    std::string error() {
        auto merged = run();
        return merged ? "no error" : merged.error().to_string();
    }
    // Path → content of the files at the top level.
    std::map<std::string, std::string> files() {
        auto merged = run();
        if (!merged) return {{"error", merged.error().to_string()}};
        std::map<std::string, std::string> out;
        for (const auto& child : merged->tree.children(Tree::kRoot)) {
            const Inode& inode = merged->tree.inode(child.inode);
            out[std::string(child.name)] = inode.content == kNone ? "" : sink.contents[inode.content];
        }
        return out;
    }
};

using Files = std::map<std::string, std::string>;

TEST(Merge, TakesContentOfTheWinningLayer) {
    Case test{{TarBuilder().file("a", "old").file("b", "kept").finish(), TarBuilder().file("a", "new").finish()}};
    EXPECT_EQ(test.files(), (Files{{"a", "new"}, {"b", "kept"}}));
    EXPECT_EQ(test.sink.contents.size(), 2U) << "hidden content must not be written";
}

TEST(Merge, UnderstandsWhiteoutFiles) {
    Case test{{TarBuilder().file("a", "1").file("b", "2").file("d/x", "3").finish(),
               TarBuilder().file(".wh.a").file("d/.wh..wh..opq").file("d/y", "4").file(".wh..wh.plnk").finish()}};
    EXPECT_EQ(test.files(), (Files{{"b", "2"}, {"d", ""}}));
}

TEST(Merge, RefusesWhiteoutOfNothing) {
    EXPECT_THAT((Case{{TarBuilder().file(".wh.").finish()}}.error()), HasSubstr("names nothing"));
    EXPECT_THAT((Case{{TarBuilder().file("d/.wh...").finish()}}.error()), HasSubstr("names nothing"));
}

TEST(Merge, ReadsALayerAgainForHiddenLinkTargets) {
    Case test{{TarBuilder().file("a", "hidden").hard_link("b", "a").finish(), TarBuilder().file(".wh.a").finish()}};
    EXPECT_EQ(test.files(), (Files{{"b", "hidden"}}));
}

TEST(Merge, DecompressesGzipAndZstd) {
    auto tar = TarBuilder().file("a", std::string(100'000, 'x')).finish();
    EXPECT_EQ((Case{{gzip(tar)}}.files()["a"].size()), 100'000U);
    EXPECT_EQ((Case{{zstd(tar)}}.files()["a"].size()), 100'000U);
    auto packed = gzip(tar);
    EXPECT_THAT((Case{{packed.substr(0, packed.size() / 2)}}.error()), HasSubstr("layer sha256:layer0: it cannot be decompressed"));
    packed[packed.size() / 2] = static_cast<char>(packed[packed.size() / 2] ^ 0x55);
    EXPECT_THAT((Case{{packed}}.error()), HasSubstr("layer sha256:layer0"));
}

TEST(Merge, ThreadedStreamsGiveTheSame) {
    auto tar = TarBuilder().file("a", std::string(3'000'000, 'x')).finish();
    auto directory = os::TemporaryDirectory::create(testing::TempDir(), "stream-");
    for (const auto& bytes : {tar, gzip(tar), std::string(), gzip(tar).substr(0, 2000)}) {
        auto path = directory->path() + "/layer";
        ASSERT_TRUE(os::write_file_atomic(path, bytes));
        auto read = [&](bool threaded) {
            auto fd = os::open_file(path, O_RDONLY);
            auto stream = threaded ? open_threaded_stream(fd->get(), {1 << 30}) : open_stream(fd->get(), {1 << 30});
            if (!stream) return stream.error().to_string();
            std::size_t total = 0;
            for (;;) {
                auto chunk = (*stream)->next();
                if (!chunk) return chunk.error().to_string();
                if (chunk->empty()) return (*stream)->digest() + " " + std::to_string(total);
                total += chunk->size();
            }
        };
        EXPECT_EQ(read(true), read(false));
    }
}

TEST(Merge, ThreadedStreamMayBeLeftEarly) {
    auto directory = os::TemporaryDirectory::create(testing::TempDir(), "stream-");
    auto path = directory->path() + "/layer";
    ASSERT_TRUE(os::write_file_atomic(path, std::string(20 << 20, 'x')));
    auto fd = os::open_file(path, O_RDONLY);
    for (int chunks : {0, 1, 5}) {
        ASSERT_EQ(::lseek(fd->get(), 0, SEEK_SET), 0);
        auto stream = open_threaded_stream(fd->get(), {1 << 30});
        ASSERT_TRUE(stream);
        for (int i = 0; i < chunks; ++i) EXPECT_FALSE((*stream)->next()->empty());
    }
}

// Files with these contents, in a directory of their own.
struct LayerFiles {
    explicit LayerFiles(const std::vector<std::string>& contents) {
        for (const auto& content : contents) {
            auto path = directory->path() + "/" + std::to_string(files.size());
            EXPECT_TRUE(os::write_file_atomic(path, content));
            files.push_back(std::move(*os::open_file(path, O_RDONLY)));
        }
    }
    std::vector<int> fds() const {
        std::vector<int> list;
        for (const auto& file : files) list.push_back(file.get());
        return list;
    }
    Result<os::TemporaryDirectory> directory = os::TemporaryDirectory::create(testing::TempDir(), "streams-");
    std::vector<os::Fd> files;
};

std::string read_to_end(Result<std::unique_ptr<Stream>> stream) {
    if (!stream) return stream.error().to_string();
    std::string text;
    for (;;) {
        auto chunk = (*stream)->next();
        if (!chunk) return chunk.error().to_string();
        if (chunk->empty()) break;
        text.append(chunk->begin(), chunk->end());
    }
    EXPECT_EQ((*stream)->digest(), digest_of(text));
    return text;
}

TEST(Merge, StreamsAheadGiveTheSameInAnyOrder) {
    // Small ones, ones larger than what may lie ready, compressed and plain ones.
    std::vector<std::string> contents;
    for (std::size_t size : {std::size_t{1} << 20, kReadAheadBytes + 1000, std::size_t{10}, std::size_t{0}, kReadAheadBytes / 2, std::size_t{3} << 20})
        contents.emplace_back(size, static_cast<char>('a' + contents.size()));
    std::vector<std::string> packed = contents;
    for (std::size_t i = 0; i < packed.size(); i += 2) packed[i] = gzip(packed[i]);
    LayerFiles files(packed);
    StreamsAhead streams(files.fds());
    for (std::size_t index : {5, 4, 3, 2, 1, 0, /* once more */ 0, 5, 4, 4, 1, 0}) {
        auto text = read_to_end(streams.open(index, {1 << 30}));
        EXPECT_TRUE(text == contents[index]) << index << ": " << text.size();
    }
}

TEST(Merge, StreamsAheadMayBeLeftEarly) {
    LayerFiles files({gzip(std::string(100 << 20, 'x')), std::string(100 << 20, 'y'), gzip(std::string(100 << 20, 'z'))});
    for (int chunks : {0, 1, 5}) {
        StreamsAhead streams(files.fds());
        auto stream = streams.open(2, {1 << 30});
        ASSERT_TRUE(stream);
        for (int i = 0; i < chunks; ++i) EXPECT_FALSE((*stream)->next()->empty());
    }
}

TEST(Merge, StreamsAheadReportWhenItIsTheirTurn) {
    auto whole = gzip(std::string(5000, 'x'));
    LayerFiles files({"plain", whole.substr(0, whole.size() / 2), gzip("fine")});
    StreamsAhead streams(files.fds());
    EXPECT_EQ(read_to_end(streams.open(2, {1 << 30})), "fine");
    EXPECT_THAT(read_to_end(streams.open(1, {1 << 30})), HasSubstr("cannot be decompressed"));
    EXPECT_EQ(read_to_end(streams.open(0, {1 << 30})), "plain");
}

TEST(Merge, StreamsAheadKeepTheLimitOfTheirTurn) {
    LayerFiles files({std::string(1000, 'x'), std::string(1000, 'y')});
    for (std::uint64_t left : {999, 1000}) {
        StreamsAhead streams(files.fds());
        EXPECT_EQ(read_to_end(streams.open(1, {2000})).size(), 1000U);
        auto text = read_to_end(streams.open(0, {left}));
        if (left < 1000) EXPECT_THAT(text, HasSubstr("unpacks to more than the 999"));
        else EXPECT_EQ(text.size(), 1000U);
    }
}

TEST(Merge, ReadsConcatenatedGzipMembers) {
    auto tar = TarBuilder().file("a", std::string(5000, 'x')).finish();
    EXPECT_EQ((Case{{gzip(tar.substr(0, 2000)) + gzip(tar.substr(2000))}}.files()["a"].size()), 5000U);
}

TEST(Merge, EmptyLayersAreFine) {
    EXPECT_EQ((Case{{"", std::string(1024, '\0'), gzip(std::string(1024, '\0')), gzip("")}}.files()), Files{});
}

TEST(Merge, ChecksTheDiffId) {
    auto tar = TarBuilder().file("a", "x").finish() + std::string(4096, '\0');
    EXPECT_EQ((Case{{gzip(tar)}, {digest_of(tar)}}.error()), "no error");
    EXPECT_THAT((Case{{gzip(tar)}, {digest_of("other")}}.error()), HasSubstr("layer sha256:layer0: its content has the digest"));
}

TEST(Merge, NamesLayerAndEntryOfARefusal) {
    auto good = TarBuilder().file("a", "x").finish();
    Case test{{good, TarBuilder().file("../../etc/passwd", "x").finish(), good}};
    EXPECT_THAT(test.error(), HasSubstr("layer sha256:layer1: entry ../../etc/passwd tries to leave the image"));
}

TEST(Merge, RefusesDamagedTar) {
    EXPECT_THAT((Case{{std::string(2048, 'x')}}.error()), HasSubstr("tar archive is damaged"));
    auto cut = TarBuilder().file("a", std::string(5000, 'x')).finish().substr(0, 3000);
    EXPECT_THAT((Case{{cut}}.error()), HasSubstr("layer sha256:layer0"));
    EXPECT_THAT((Case{{"not an archive"}}.error()), HasSubstr("damaged"));
}

TEST(Merge, RefusesEscapingHardLinks) {
    EXPECT_THAT((Case{{TarBuilder().hard_link("b", "../../../etc/shadow").finish()}}.error()), HasSubstr("hard link b"));
}

TEST(Merge, LimitsEntries) {
    auto tar = TarBuilder().file("a").file("b").file("c").finish();
    EXPECT_EQ((Case{.layers = {tar}, .limits = {.max_entries = 3}}.error()), "no error");
    EXPECT_THAT((Case{.layers = {tar}, .limits = {.max_entries = 2}}.error()), HasSubstr("more than 2 entries"));
    EXPECT_THAT((Case{.layers = {tar, TarBuilder().file("d").finish()}, .limits = {.max_entries = 3}}.error()),
                HasSubstr("more than 3 entries"));
}

TEST(Merge, LimitsLayers) {
    Case test;
    test.layers.assign(kMaxLayers, "");
    EXPECT_EQ(test.error(), "no error");
    test.layers.emplace_back();
    EXPECT_THAT(test.error(), HasSubstr("257 layers"));
}

TEST(Merge, LimitsUnpackedBytesOfAllLayersTogether) {
    auto tar = TarBuilder().file("a", std::string(100'000, 'x')).finish();  // 102912 bytes
    EXPECT_EQ((Case{.layers = {tar, tar}, .limits = {.max_unpacked_bytes = 2 * tar.size()}}.error()), "no error");
    EXPECT_THAT((Case{.layers = {tar, tar}, .limits = {.max_unpacked_bytes = 2 * tar.size() - 1}}.error()),
                HasSubstr("layer sha256:layer0: it unpacks to more than"));
    EXPECT_THAT((Case{.layers = {gzip(tar)}, .limits = {.max_unpacked_bytes = tar.size() - 1}}.error()),
                HasSubstr("it unpacks to more than"));
}

TEST(Merge, LimitsCompressionRatio) {
    // Zstandard packs zeros far better than any layer; gzip, at its best, stays below the limit.
    std::string zeros(1 << 20, '\0');
    std::string frame = zstd(zeros);
    std::string bomb;
    for (int i = 0; i < 1200; ++i) bomb += frame;
    ASSERT_LT(bomb.size(), std::size_t{1200} << 8);
    auto run = [](const std::string& bytes) {
        auto stream = open_stream(base::as_bytes(bytes), {std::uint64_t{8} << 30});
        if (!stream) return stream.error().to_string();
        for (;;) {
            auto chunk = (*stream)->next();
            if (!chunk) return chunk.error().to_string();
            if (chunk->empty()) return std::string("no error");
        }
    };
    EXPECT_THAT(run(bomb), HasSubstr("times its size"));
    EXPECT_EQ(run(bomb.substr(0, frame.size() * 1000)), "no error");  // below kRatioFreeBytes
}

std::string sparse_file(const std::string& name, long long real_size, const std::string& map, const std::string& data) {
    // GNU sparse format 0.1, in PAX records.
    return TarBuilder()
        .add({.name = "GNUSparseFile/" + name,
              .data = data,
              .pax = {{"GNU.sparse.size", std::to_string(real_size)},
                      {"GNU.sparse.numblocks", std::to_string((std::count(map.begin(), map.end(), ',') + 1) / 2)},
                      {"GNU.sparse.map", map},
                      {"GNU.sparse.name", name}}})
        .finish();
}

TEST(Merge, ReadsSparseFiles) {
    Case test{{sparse_file("s", 100'000, "0,3,50000,4,100000,0", "abcdefg")}};
    auto files = test.files();
    ASSERT_EQ(files["s"].size(), 100'000U) << files["error"];
    EXPECT_EQ(files["s"].substr(0, 4), std::string("abc\0", 4));
    EXPECT_EQ(files["s"].substr(50'000, 5), std::string("defg\0", 5));
    EXPECT_EQ(test.sink.sparse_files, 1);
}

TEST(Merge, CountsHolesAgainstTheLimit) {
    auto tar = sparse_file("s", 1LL << 40, "0,3,1099511627776,0", "abc");
    EXPECT_THAT((Case{{tar}}.error()), HasSubstr("the image unpacks to more than"));
}

TEST(Merge, KeepsNamesByteForByte) {
    auto name_of = [](const TarEntry& entry) {
        Case test{{TarBuilder().add(entry).finish()}};
        auto files = test.files();
        return files.size() == 1 ? files.begin()->first : "?";
    };
    for (const std::string& name : {std::string("caf\xc3\xa9"), std::string("cafe\xcc\x81"), std::string("\xff\xfe\x80")}) {
        EXPECT_EQ(name_of({.name = name}), name);
        EXPECT_EQ(name_of({.name = "x", .pax = {{"path", name}}}), name);
        EXPECT_EQ(name_of({.name = "x", .pax = {{"hdrcharset", "BINARY"}, {"path", name}}}), name);
    }
}

TEST(Merge, KeepsMetadata) {
    Case test{{TarBuilder()
                   .add({.name = "f",
                         .mode = 06755,
                         .uid = 1000,
                         .gid = 2000,
                         .pax = {{"mtime", "1234567890.123456789"},
                                 {"SCHILY.xattr.user.key", std::string("a\0b", 3)},
                                 {"uid", "3000000000"}}})
                   .add({.name = "dev", .type = '4', .major = 259, .minor = 3})
                   .finish()}};
    auto merged = test.run();
    ASSERT_TRUE(merged) << merged.error().to_string();
    auto children = merged->tree.children(Tree::kRoot);
    ASSERT_EQ(children.size(), 2U);
    const Inode& device = merged->tree.inode(children[0].inode);
    EXPECT_EQ(device.type, EntryType::kBlock);
    EXPECT_EQ(device.device_major, 259U);
    EXPECT_EQ(device.device_minor, 3U);
    const Inode& file = merged->tree.inode(children[1].inode);
    EXPECT_EQ(file.mode, 06755);
    EXPECT_EQ(file.uid, 3'000'000'000U);
    EXPECT_EQ(file.gid, 2000U);
    EXPECT_EQ(file.mtime_seconds, 1'234'567'890);
    EXPECT_EQ(file.mtime_nanoseconds, 123'456'789U);
    EXPECT_EQ(merged->tree.xattrs(file), (Xattrs{{"user.key", std::string("a\0b", 3)}}));
}

TEST(Merge, RefusesImpossibleIds) {
    EXPECT_THAT((Case{{TarBuilder().add({.name = "f", .pax = {{"uid", "4294967295"}}}).finish()}}.error()),
                HasSubstr("impossible user id"));
    EXPECT_THAT((Case{{TarBuilder().add({.name = "d", .type = '3', .major = 4096, .minor = 0}).finish()}}.error()),
                HasSubstr("impossible device number"));
}

TEST(Merge, DataOfAHardLinkIsIgnored) {
    // Old PAX archives repeat the content; libarchive skips it and the entry that follows is still found.
    Case test{{TarBuilder().file("a", "one").hard_link("b", "a").file("c", "two").finish()}};
    EXPECT_EQ(test.files(), (Files{{"a", "one"}, {"b", "one"}, {"c", "two"}}));
}

}  // namespace
}  // namespace caisson::image::unpack
