#include "tar/writer.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace caisson::tar {

namespace {

constexpr std::size_t kBlock = 512;
constexpr std::size_t kRecord = 20 * kBlock;
constexpr std::size_t kHeldBytes = 128 << 10;
constexpr std::uint64_t kOctal7 = (1ULL << 21) - 1;   // seven digits
constexpr std::uint64_t kOctal11 = (1ULL << 33) - 1;  // eleven digits

void put_octal(char* field, std::size_t size, std::uint64_t value) {
    for (std::size_t i = size - 1; i-- > 0; value >>= 3) field[i] = static_cast<char>('0' + (value & 7));
}

void add_record(std::string& records, const std::string& key, const std::string& value) {
    // The length counts its own digits.
    const std::size_t rest = key.size() + value.size() + 3;
    std::size_t length = rest + 1;
    while (std::to_string(length).size() + rest != length) length = std::to_string(length).size() + rest;
    records += std::to_string(length) + " " + key + "=" + value + "\n";
}

std::string time_text(std::int64_t seconds, std::uint32_t nanoseconds) {
    std::string sign;
    auto whole = static_cast<std::uint64_t>(seconds);
    if (seconds < 0) {
        sign = "-";
        whole = 0 - whole;
        if (nanoseconds > 0) {
            --whole;
            nanoseconds = 1'000'000'000 - nanoseconds;
        }
    }
    char fraction[16] = "";
    if (nanoseconds > 0) std::snprintf(fraction, sizeof fraction, ".%09u", nanoseconds);
    return sign + std::to_string(whole) + fraction;
}

char type_of(Kind kind) {
    switch (kind) {
        case Kind::kFile: return '0';
        case Kind::kHardLink: return '1';
        case Kind::kSymlink: return '2';
        case Kind::kCharacter: return '3';
        case Kind::kBlock: return '4';
        case Kind::kDirectory: return '5';
        case Kind::kFifo: return '6';
    }
    return '0';
}

std::string sparse_map(const Entry& entry) {
    // A hole at the end is told by an empty piece there.
    const bool tail = entry.extents.empty() || entry.extents.back().offset + entry.extents.back().size < entry.size;
    std::string map = std::to_string(entry.extents.size() + (tail ? 1 : 0)) + "\n";
    for (const auto& extent : entry.extents)
        map += std::to_string(extent.offset) + "\n" + std::to_string(extent.size) + "\n";
    if (tail) map += std::to_string(entry.size) + "\n0\n";
    map.resize((map.size() + kBlock - 1) / kBlock * kBlock, '\0');
    return map;
}

struct Header {
    std::string name, link;
    char type;
    std::uint64_t size;
};

void render(const Header& header, const Entry& entry, char (&block)[kBlock]) {
    std::memset(block, 0, kBlock);
    std::memcpy(block, header.name.data(), std::min<std::size_t>(header.name.size(), 100));
    put_octal(block + 100, 8, entry.mode & 07777);
    put_octal(block + 108, 8, entry.user <= kOctal7 ? entry.user : 0);
    put_octal(block + 116, 8, entry.group <= kOctal7 ? entry.group : 0);
    put_octal(block + 124, 12, header.size <= kOctal11 ? header.size : 0);
    auto seconds = static_cast<std::uint64_t>(entry.seconds);
    put_octal(block + 136, 12, entry.seconds >= 0 && seconds <= kOctal11 ? seconds : 0);
    std::memset(block + 148, ' ', 8);
    block[156] = header.type;
    std::memcpy(block + 157, header.link.data(), std::min<std::size_t>(header.link.size(), 100));
    std::memcpy(block + 257, "ustar\00000", 8);
    put_octal(block + 329, 8, entry.major);
    put_octal(block + 337, 8, entry.minor);
    unsigned sum = 0;
    for (char c : block) sum += static_cast<unsigned char>(c);
    std::snprintf(block + 148, 8, "%06o", sum);
}

}  // namespace

Result<> Writer::put(base::ByteView bytes) {
    written_ += bytes.size();
    if (held_.size() + bytes.size() > kHeldBytes) CAISSON_TRY(flush());
    if (bytes.size() >= kHeldBytes / 4) {
        CAISSON_TRY(flush());
        return sink_(bytes);
    }
    held_.insert(held_.end(), bytes.begin(), bytes.end());
    return {};
}

Result<> Writer::flush() {
    if (held_.empty()) return {};
    auto put = sink_(held_);
    held_.clear();
    return put;
}

Result<> Writer::pad() {
    static constexpr std::uint8_t kZeros[kRecord] = {};
    return put(base::ByteView(kZeros, (kBlock - written_ % kBlock) % kBlock));
}

Result<> Writer::begin(const Entry& entry) {
    CAISSON_CHECK(left_ == 0);
    CAISSON_TRY(pad());
    std::string records;
    std::string map;
    Header header{.name = entry.path, .link = entry.link, .type = type_of(entry.kind), .size = 0};
    if (entry.kind == Kind::kDirectory && header.name.back() != '/') header.name += '/';
    if (entry.kind == Kind::kFile) {
        header.size = left_ = entry.size;
        if (entry.sparse) {
            left_ = 0;
            for (const auto& extent : entry.extents) left_ += extent.size;
            map = sparse_map(entry);
            header.size = map.size() + left_;
            add_record(records, "GNU.sparse.major", "1");
            add_record(records, "GNU.sparse.minor", "0");
            add_record(records, "GNU.sparse.name", entry.path);
            add_record(records, "GNU.sparse.realsize", std::to_string(entry.size));
            header.name = "GNUSparseFile.0/" + entry.path.substr(entry.path.rfind('/') + 1);
        }
    }
    if (!entry.sparse && header.name.size() > 100) add_record(records, "path", header.name);
    if (header.link.size() > 100) add_record(records, "linkpath", header.link);
    if (header.size > kOctal11) add_record(records, "size", std::to_string(header.size));
    if (entry.user > kOctal7) add_record(records, "uid", std::to_string(entry.user));
    if (entry.group > kOctal7) add_record(records, "gid", std::to_string(entry.group));
    if (entry.nanoseconds > 0 || entry.seconds < 0 || static_cast<std::uint64_t>(entry.seconds) > kOctal11)
        add_record(records, "mtime", time_text(entry.seconds, entry.nanoseconds));
    char block[kBlock];
    if (!records.empty()) {
        Entry plain;
        plain.mode = 0644;
        render({.name = "PaxHeaders/" + header.name.substr(0, 80), .type = 'x', .size = records.size()}, plain, block);
        CAISSON_TRY(put(base::as_bytes(std::string_view(block, kBlock))));
        CAISSON_TRY(put(base::as_bytes(records)));
        CAISSON_TRY(pad());
    }
    render(header, entry, block);
    CAISSON_TRY(put(base::as_bytes(std::string_view(block, kBlock))));
    return map.empty() ? Result<>() : put(base::as_bytes(map));
}

Result<> Writer::data(base::ByteView bytes) {
    CAISSON_CHECK(bytes.size() <= left_);
    left_ -= bytes.size();
    return put(bytes);
}

Result<> Writer::finish() {
    CAISSON_CHECK(left_ == 0);
    CAISSON_TRY(pad());
    static constexpr std::uint8_t kZeros[kRecord] = {};
    CAISSON_TRY(put(base::ByteView(kZeros, 2 * kBlock)));
    CAISSON_TRY(put(base::ByteView(kZeros, (kRecord - written_ % kRecord) % kRecord)));
    return flush();
}

}  // namespace caisson::tar
