// The archive of a copy, as a hostile guest may write it. The first byte says how much the source hands out at a time.
//
// Header checksums are put right first: the reader refuses everything else, and the fuzzer would learn only that.
#include "tar/reader.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "tar/limits.h"
#include "tar/names.h"

namespace {

using namespace caisson;
using namespace caisson::tar;

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

bool has_null(const std::string& text) { return text.find('\0') != std::string::npos; }

void check_names(const Entry& entry) {
    for (const auto& names : {Names{}, Names{.top = "d"}, Names{.top = "d", .instead = "e"}, Names{.top = "", .instead = "e"}}) {
        auto parts = names.map(entry.path);
        if (!parts) continue;
        for (const auto& part : *parts) check(!part.empty() && part != "." && part != ".." && part.find('/') == std::string::npos);
        if (!names.instead.empty()) check(!parts->empty() && (*parts)[0] == names.instead);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::size_t piece = std::size_t{data[0]} * 8 + 1;
    std::string archive(reinterpret_cast<const char*>(data + 1), size - 1);
    fix_checksums(archive);
    std::size_t at = 0;
    Reader reader([&](std::span<std::uint8_t> buffer) -> Result<std::size_t> {
        check(!buffer.empty());
        auto count = std::min({archive.size() - at, buffer.size(), piece});
        std::memcpy(buffer.data(), archive.data() + at, count);
        at += count;
        return count;
    });
    Entry entry;
    for (bool skip = false;; skip = !skip) {
        auto next = reader.next(entry);
        if (!next || !*next) break;
        check(!entry.path.empty() && entry.path.size() <= kMaxPathBytes && entry.link.size() <= kMaxPathBytes);
        check(!has_null(entry.path) && !has_null(entry.link) && entry.mode <= 07777 && entry.nanoseconds < 1'000'000'000);
        check(entry.user != 0xffffffff && entry.group != 0xffffffff && entry.extents.size() <= kMaxExtents);
        check(entry.link.empty() == (entry.kind != Kind::kSymlink && entry.kind != Kind::kHardLink));
        check_names(entry);
        if (entry.kind != Kind::kFile || skip) continue;
        std::uint64_t end = 0;
        auto read = reader.read_data(entry, [&](std::uint64_t offset, base::ByteView bytes) -> Result<> {
            check(offset >= end && bytes.size() <= entry.size && offset <= entry.size - bytes.size());
            check(entry.sparse || offset == end);
            end = offset + bytes.size();
            return {};
        });
        if (!read) break;
        check(entry.sparse || end == entry.size);
    }
    check(static_cast<bool>(reader.drain()) && at == archive.size());
    return 0;
}
