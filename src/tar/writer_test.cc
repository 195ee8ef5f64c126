// The writer against the reader, and against GNU tar where that is installed.
#include "tar/writer.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include "tar/test_support.h"

namespace caisson::tar {
namespace {

std::string archive_of(const std::vector<Stored>& all) {
    std::string archive;
    Writer writer(sink_to(archive));
    for (const auto& [entry, data] : all) {
        EXPECT_TRUE(writer.begin(entry));
        if (entry.kind != Kind::kFile) continue;
        if (!entry.sparse) {
            EXPECT_TRUE(writer.data(base::as_bytes(data)));
        }
        for (const auto& extent : entry.extents)
            EXPECT_TRUE(writer.data(base::as_bytes(std::string_view(data).substr(static_cast<std::size_t>(extent.offset),
                                                                                static_cast<std::size_t>(extent.size)))));
    }
    EXPECT_TRUE(writer.finish());
    return archive;
}

rc::Gen<std::string> any_name() {
    return rc::gen::map(rc::gen::container<std::string>(rc::gen::inRange(1, 256)), [](std::string text) {
        for (auto& c : text)
            if (c == '/') c = 'x';
        text = text.substr(0, 120);
        return "n" + text;
    });
}

rc::Gen<Stored> any_entry() {
    return rc::gen::exec([] {
        Stored stored;
        auto& entry = stored.entry;
        entry.kind = static_cast<Kind>(*rc::gen::inRange(0, 7));
        entry.path = *any_name();
        for (int depth = *rc::gen::inRange(0, 4); depth > 0; --depth) entry.path += "/" + *any_name();
        if (entry.kind == Kind::kSymlink || entry.kind == Kind::kHardLink) entry.link = *any_name();
        entry.mode = *rc::gen::inRange(0u, 010000u);
        entry.user = *rc::gen::element(0u, 1000u, 2097151u, 2097152u, 4294967294u);
        entry.group = *rc::gen::element(0u, 5u, 2097151u, 2097152u, 4294967294u);
        entry.seconds = *rc::gen::element<std::int64_t>(0, 1, 1'700'000'000, (1LL << 33) - 1, 1LL << 33, -1, -5'000'000'000);
        entry.nanoseconds = *rc::gen::element(0u, 1u, 999'999'999u);
        if (entry.kind == Kind::kCharacter || entry.kind == Kind::kBlock) {
            entry.major = *rc::gen::inRange(0u, 0x1000u);
            entry.minor = *rc::gen::inRange(0u, 0x100000u);
        }
        if (entry.kind == Kind::kFile) {
            stored.data.resize(*rc::gen::inRange<std::size_t>(0, 3000), 'd');
            entry.size = stored.data.size();
            entry.sparse = *rc::gen::inRange(0, 2) == 1;
            if (entry.sparse) {
                std::string data(stored.data.size(), '\0');
                std::size_t at = 0;
                while (at < data.size()) {
                    at += *rc::gen::inRange<std::size_t>(0, 900);
                    auto size = std::min(*rc::gen::inRange<std::size_t>(1, 900), data.size() - std::min(at, data.size()));
                    if (size == 0) break;
                    data.replace(at, size, size, 'd');
                    entry.extents.push_back({at, size});
                    at += size + 1;
                }
                stored.data = data;
            }
        }
        return stored;
    });
}

RC_GTEST_PROP(TarWriter, WhatItWritesTheReaderReads, ()) {
    auto written = *rc::gen::container<std::vector<Stored>>(any_entry());
    auto read = read_all(archive_of(written), *rc::gen::inRange<std::size_t>(1, 2000));
    if (!read) RC_FAIL(read.error().to_string());
    RC_ASSERT(read->size() == written.size());
    for (std::size_t i = 0; i < written.size(); ++i) {
        const auto& [a, data] = written[i];
        const auto& b = (*read)[i].entry;
        RC_ASSERT(a.kind == b.kind);
        RC_ASSERT(a.path + (a.kind == Kind::kDirectory ? "/" : "") == b.path);
        RC_ASSERT(a.link == b.link);
        RC_ASSERT(a.mode == b.mode);
        RC_ASSERT(a.user == b.user && a.group == b.group);
        RC_ASSERT(a.size == b.size && a.sparse == b.sparse);
        RC_ASSERT(a.seconds == b.seconds && a.nanoseconds == b.nanoseconds);
        RC_ASSERT(a.major == b.major && a.minor == b.minor);
        RC_ASSERT(data == (*read)[i].data);
    }
}

TEST(TarWriter, AFileMayBeLargerThanEightGibibytes) {
    constexpr std::uint64_t kSize = (8ULL << 30) + 5;
    Entry entry;
    entry.path = "large";
    entry.size = kSize;
    std::string head;
    std::uint64_t dropped = 0;
    Writer writer([&](base::ByteView bytes) -> Result<> {
        if (head.size() < 4096) head += base::as_text(bytes);
        dropped += bytes.size();
        return {};
    });
    ASSERT_TRUE(writer.begin(entry));
    const std::string chunk(64 << 20, 'x');
    for (std::uint64_t left = kSize; left > 0;) {
        auto count = std::min<std::uint64_t>(left, chunk.size());
        ASSERT_TRUE(writer.data(base::as_bytes(std::string_view(chunk).substr(0, static_cast<std::size_t>(count)))));
        left -= count;
    }
    ASSERT_TRUE(writer.finish());
    EXPECT_GT(dropped, kSize);
    Reader reader(source_of(head));
    ASSERT_TRUE(*reader.next(entry));
    EXPECT_EQ(entry.size, kSize);
}

TEST(TarWriter, AnArchiveIsWholeRecords) { EXPECT_EQ(archive_of({}).size(), 10240u); }

}  // namespace
}  // namespace caisson::tar
