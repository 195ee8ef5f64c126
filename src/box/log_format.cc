#include "box/log_format.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace caisson::box {

using base::failure;
using base::load_le32;
using base::load_le64;
using base::store_le32;
using base::store_le64;

namespace {

constexpr std::uint8_t kMagic[8] = {0xf5, 'C', 'A', 'I', 'S', 'L', 'O', 'G'};
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kMostNameBytes = 128;

// Table K moves a byte K places further: eight bytes are taken at once ("slicing by 8", Kounavis and Berry, 2005).
constexpr auto make_tables() {
    std::array<std::array<std::uint32_t, 256>, 8> tables{};
    for (std::uint32_t i = 0; i < 256; ++i) {
        std::uint32_t value = i;
        for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ (value & 1 ? 0x82f63b78u : 0);
        tables[0][i] = value;
    }
    for (std::size_t k = 1; k < 8; ++k)
        for (std::size_t i = 0; i < 256; ++i) tables[k][i] = tables[k - 1][i] >> 8 ^ tables[0][tables[k - 1][i] & 0xff];
    return tables;
}
constexpr auto kTables = make_tables();

bool known(std::uint8_t source, std::uint8_t kind) {
    return source >= 1 && source <= 3 &&
           (kind == static_cast<std::uint8_t>(LogKind::kBytes) || kind == static_cast<std::uint8_t>(LogKind::kLost));
}

}  // namespace

std::uint32_t crc32c(base::ByteView bytes, std::uint32_t before) {
    std::uint32_t crc = ~before;
    const std::uint8_t* at = bytes.data();
    std::size_t left = bytes.size();
    for (; left >= 8; at += 8, left -= 8) {
        const std::uint32_t low = crc ^ load_le32(at);
        const std::uint32_t high = load_le32(at + 4);
        crc = kTables[7][low & 0xff] ^ kTables[6][low >> 8 & 0xff] ^ kTables[5][low >> 16 & 0xff] ^
              kTables[4][low >> 24] ^ kTables[3][high & 0xff] ^ kTables[2][high >> 8 & 0xff] ^
              kTables[1][high >> 16 & 0xff] ^ kTables[0][high >> 24];
    }
    for (; left > 0; ++at, --left) crc = crc >> 8 ^ kTables[0][(crc ^ *at) & 0xff];
    return ~crc;
}

void encode(const LogFileHeader& header, std::uint8_t (&out)[kLogFileHeaderBytes]) {
    std::memcpy(out, kMagic, sizeof kMagic);
    store_le32(out + 8, kVersion);
    store_le32(out + 12, header.salt);
    store_le64(out + 16, header.file_sequence);
    store_le64(out + 24, header.first_record);
    store_le32(out + 32, 0);
    store_le32(out + 36, crc32c({out, 36}));
}

Result<LogFileHeader> parse_file_header(base::ByteView bytes) {
    if (bytes.size() < kLogFileHeaderBytes || std::memcmp(bytes.data(), kMagic, sizeof kMagic) != 0 ||
        load_le32(bytes.data() + 36) != crc32c(bytes.first(36)))
        return failure(Errc::kCorrupt, "this is not the beginning of a log file");
    if (load_le32(bytes.data() + 8) != kVersion)
        return failure(Errc::kUnsupported, "the log file was written by a newer caisson");
    LogFileHeader header;
    header.salt = load_le32(bytes.data() + 12);
    header.file_sequence = load_le64(bytes.data() + 16);
    header.first_record = load_le64(bytes.data() + 24);
    return header;
}

void encode(const LogRecordHeader& header, std::uint32_t salt, std::uint8_t (&out)[kLogRecordHeaderBytes]) {
    store_le32(out, header.length);
    out[4] = static_cast<std::uint8_t>(header.source);
    out[5] = static_cast<std::uint8_t>(header.kind);
    out[6] = out[7] = 0;
    store_le64(out + 8, header.sequence);
    store_le64(out + 16, static_cast<std::uint64_t>(header.unix_ns));
    store_le32(out + 24, header.payload_crc);
    store_le32(out + 28, crc32c({out, 28}, salt));
}

void encode(const LostNote& note, std::uint8_t (&out)[kLostNoteBytes]) {
    store_le64(out, note.bytes);
    store_le32(out + 8, static_cast<std::uint32_t>(note.error_number));
}

ParsedRecord parse_record(base::ByteView bytes, std::uint32_t salt) {
    ParsedRecord parsed;
    if (bytes.size() < kLogRecordHeaderBytes) {
        parsed.what = Parsed::kShort;
        return parsed;
    }
    const auto* at = bytes.data();
    const auto length = load_le32(at);
    // The cheap questions first: a search asks them at every byte.
    if (length > kMostLogRecordBytes || !known(at[4], at[5]) || at[6] != 0 || at[7] != 0) return parsed;
    if (load_le32(at + 28) != crc32c(bytes.first(28), salt)) return parsed;
    auto& header = parsed.header;
    header.length = length;
    header.source = static_cast<LogSource>(at[4]);
    header.kind = static_cast<LogKind>(at[5]);
    header.sequence = load_le64(at + 8);
    header.unix_ns = static_cast<std::int64_t>(load_le64(at + 16));
    header.payload_crc = load_le32(at + 24);
    if (bytes.size() - kLogRecordHeaderBytes < length) {
        parsed.what = Parsed::kShort;
        return parsed;
    }
    parsed.payload = bytes.subspan(kLogRecordHeaderBytes, length);
    parsed.what = crc32c(parsed.payload, salt) == header.payload_crc ? Parsed::kRecord : Parsed::kBadPayload;
    if (parsed.what == Parsed::kRecord && header.kind == LogKind::kLost) {
        if (length != kLostNoteBytes) parsed.what = Parsed::kBadPayload;
        else
            parsed.lost = {load_le64(parsed.payload.data()),
                           static_cast<std::int32_t>(load_le32(parsed.payload.data() + 8))};
    }
    return parsed;
}

Result<> check_log_name(const std::string& name) {
    static constexpr std::string_view kAllowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    if (name.empty() || name.size() > kMostNameBytes || name.front() == '.' ||
        name.find_first_not_of(kAllowed) != std::string::npos)
        return failure(Errc::kUsage, "a log cannot have this name");
    return {};
}

std::string log_file_name(const std::string& name, unsigned slot) {
    return name + ".log" + (slot == 0 ? std::string() : "." + std::to_string(slot));
}

}  // namespace caisson::box
