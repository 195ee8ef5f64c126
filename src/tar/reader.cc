#include "tar/reader.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>

#include "base/text.h"
#include "tar/limits.h"

namespace caisson::tar {

using base::failure;

namespace {

constexpr std::size_t kBlock = 512;
constexpr std::size_t kBufferBytes = 256 << 10;
static_assert(kBufferBytes % kBlock == 0);

// Where a header keeps what; tar(5).
struct Field {
    std::size_t at;
    std::size_t size;
};
constexpr Field kName{0, 100}, kMode{100, 8}, kUser{108, 8}, kGroup{116, 8}, kSize{124, 12}, kTime{136, 12},
    kChecksum{148, 8}, kLink{157, 100}, kMagic{257, 6}, kMajor{329, 8}, kMinor{337, 8}, kPrefix{345, 155};
constexpr std::size_t kType = 156;
// GNU's old form of sparse files: four pieces in the header, more in blocks behind it.
constexpr Field kRealSize{483, 12};
constexpr std::size_t kOldMap = 386, kOldMapPieces = 4, kOldMapMore = 482;
constexpr std::size_t kMorePieces = 21, kMoreMore = 504;
constexpr std::size_t kOldNumber = 12;

std::string_view text_of(const std::uint8_t* header, Field field) {
    const auto* text = reinterpret_cast<const char*>(header + field.at);
    return {text, ::strnlen(text, field.size)};
}

// Octal digits, blanks around them, or GNU's base 256; empty is 0. Nothing for what is neither or does not fit.
std::optional<std::int64_t> number_of(const std::uint8_t* at, std::size_t size) {
    if (at[0] & 0x80) {
        const bool negative = at[0] & 0x40;
        auto value = negative ? ~std::uint64_t{0} : 0;
        for (std::size_t i = 0; i < size; ++i) {
            auto byte = i == 0 && !negative ? static_cast<std::uint8_t>(at[i] & 0x7f) : at[i];
            if (i + 8 < size) {
                if (byte != (negative ? 0xff : 0)) return std::nullopt;
                continue;
            }
            value = value << 8 | byte;
        }
        auto number = static_cast<std::int64_t>(value);
        if ((number < 0) != negative) return std::nullopt;
        return number;
    }
    std::string_view text(reinterpret_cast<const char*>(at), size);
    if (auto null = text.find('\0'); null != std::string_view::npos) text = text.substr(0, null);
    auto first = text.find_first_not_of(' ');
    if (first == std::string_view::npos) return 0;
    text.remove_prefix(first);
    while (text.back() == ' ') text.remove_suffix(1);
    std::uint64_t value = 0;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 8);
    if (error != std::errc{} || end != text.data() + text.size() || value > INT64_MAX) return std::nullopt;
    return static_cast<std::int64_t>(value);
}

std::optional<std::uint64_t> decimal(std::string_view text) {
    std::uint64_t value = 0;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return value;
}

// "-12.5" of a pax header: the fraction goes on from the whole towards larger times.
struct Time {
    std::int64_t seconds = 0;
    std::uint32_t nanoseconds = 0;
};
std::optional<Time> time_of(std::string_view text) {
    auto dot = text.find('.');
    auto whole = text.substr(0, dot);
    const bool negative = !whole.empty() && whole[0] == '-';
    Time time;
    auto [end, error] = std::from_chars(whole.data(), whole.data() + whole.size(), time.seconds);
    if (whole.empty() || error != std::errc{} || end != whole.data() + whole.size()) return std::nullopt;
    if (dot == std::string_view::npos) return time;
    std::uint32_t scale = 100'000'000;
    for (char c : text.substr(dot + 1)) {
        if (c < '0' || c > '9') return std::nullopt;
        time.nanoseconds += static_cast<std::uint32_t>(c - '0') * scale;
        scale /= 10;
    }
    if (negative && time.nanoseconds > 0) {
        if (time.seconds == INT64_MIN) return std::nullopt;
        --time.seconds;
        time.nanoseconds = 1'000'000'000 - time.nanoseconds;
    }
    return time;
}

bool checksum_holds(const std::uint8_t* header) {
    auto expected = number_of(header + kChecksum.at, kChecksum.size);
    if (!expected) return false;
    std::int64_t plain = 0;
    std::int64_t with_sign = 0;  // as some old programs counted
    for (std::size_t i = 0; i < kBlock; ++i) {
        bool own = i >= kChecksum.at && i < kChecksum.at + kChecksum.size;
        auto byte = own ? std::uint8_t{' '} : header[i];
        plain += byte;
        with_sign += static_cast<std::int8_t>(byte);
    }
    return *expected == plain || *expected == with_sign;
}

bool all_zero(const std::uint8_t* header) {
    return std::all_of(header, header + kBlock, [](std::uint8_t byte) { return byte == 0; });
}

}  // namespace

struct Reader::Extended {
    std::optional<std::string> path, link, sparse_path;
    std::optional<std::uint64_t> size, user, group, real_size;
    std::optional<Time> time;
    bool sparse = false;           // says something of GNU's sparse files
    std::uint64_t version = 0;     // 1: the map lies before the data
    std::optional<std::string> map;  // version 0.1
};

Reader::Reader(Source source) : source_(std::move(source)), buffer_(new std::uint8_t[kBufferBytes]) {}

base::Failure Reader::corrupt(const std::string& text) const {
    return failure(Errc::kCorrupt, "the archive is damaged" +
                                       (entries_ > 0 ? " at entry " + std::to_string(entries_) : std::string()) + ": " + text);
}

Result<> Reader::more() {
    if (begin_ == end_) begin_ = end_ = 0;
    if (end_ == kBufferBytes) {
        std::memmove(buffer_.get(), buffer_.get() + begin_, end_ - begin_);
        end_ -= begin_;
        begin_ = 0;
    }
    auto got = CAISSON_TRY(source_(std::span(buffer_.get() + end_, kBufferBytes - end_)));
    end_ += got;
    source_ended_ = got == 0;
    return {};
}

// A block stays in the buffer until the next call. `end`: there is nothing any more, not even a part of one.
Result<> Reader::block(const std::uint8_t*& bytes, bool& end) {
    end = false;
    while (end_ - begin_ < kBlock) {
        CAISSON_TRY(more());
        if (!source_ended_) continue;
        if (end_ != begin_) return corrupt("it ends in the middle");
        end = true;
        return {};
    }
    bytes = buffer_.get() + begin_;
    begin_ += kBlock;
    return {};
}

Result<> Reader::take(std::uint64_t bytes, const Sink& sink) {
    while (bytes > 0) {
        if (begin_ == end_) {
            CAISSON_TRY(more());
            if (source_ended_) return corrupt("it ends in the middle");
        }
        auto count = static_cast<std::size_t>(std::min<std::uint64_t>(bytes, end_ - begin_));
        base::ByteView part(buffer_.get() + begin_, count);
        begin_ += count;
        bytes -= count;
        if (sink) CAISSON_TRY(sink(part));
    }
    return {};
}

Result<> Reader::skip_entry() {
    CAISSON_TRY(take(left_, {}));
    left_ = 0;
    CAISSON_TRY(take(padding_, {}));
    padding_ = 0;
    return {};
}

Result<std::string> Reader::long_text(std::uint64_t size, std::size_t limit, const char* what) {
    if (size > limit)
        return failure(Errc::kLimit, std::string(what) + " of entry " + std::to_string(entries_) + " has more than " +
                                         std::to_string(limit) + " bytes");
    std::string text;
    CAISSON_TRY(take(size, [&text](base::ByteView part) -> Result<> {
        text += base::as_text(part);
        return {};
    }));
    CAISSON_TRY(take((kBlock - size % kBlock) % kBlock, {}));
    return text;
}

Result<> Reader::read_extended(std::uint64_t size, Extended& extended) {
    auto text = CAISSON_TRY(long_text(size, kMaxHeaderBytes, "the extended header"));
    std::string_view rest = text;
    while (!rest.empty()) {
        // "LENGTH KEY=VALUE\n", the length counting itself and the newline.
        auto blank = rest.find(' ');
        auto length = blank == std::string_view::npos ? std::nullopt : decimal(rest.substr(0, blank));
        if (!length || *length > rest.size() || *length < blank + 2 || rest[*length - 1] != '\n')
            return corrupt("its extended header is no list of records");
        auto record = rest.substr(blank + 1, *length - blank - 2);
        rest.remove_prefix(*length);
        auto equals = record.find('=');
        if (equals == std::string_view::npos) return corrupt("its extended header has a record without a value");
        auto key = record.substr(0, equals);
        auto value = record.substr(equals + 1);
        auto number = [&](std::optional<std::uint64_t>& into) -> Result<> {
            into = decimal(value);
            if (!into) return corrupt("its extended header has the impossible " + base::printable(record, 100));
            return {};
        };
        if (key == "path") extended.path = value;
        else if (key == "linkpath") extended.link = value;
        else if (key == "size") CAISSON_TRY(number(extended.size));
        else if (key == "uid") CAISSON_TRY(number(extended.user));
        else if (key == "gid") CAISSON_TRY(number(extended.group));
        else if (key == "mtime") {
            extended.time = time_of(value);
            if (!extended.time) return corrupt("its extended header has the impossible " + base::printable(record, 100));
        } else if (base::starts_with(key, "GNU.sparse.")) {
            extended.sparse = true;
            key.remove_prefix(std::strlen("GNU.sparse."));
            std::optional<std::uint64_t> version;
            if (key == "name") extended.sparse_path = value;
            else if (key == "realsize" || key == "size") CAISSON_TRY(number(extended.real_size));
            else if (key == "map") extended.map = value;
            else if (key == "major") {
                CAISSON_TRY(number(version));
                extended.version = *version;
            } else if (key == "offset" || key == "numbytes") {
                return failure(Errc::kUnsupported, "entry " + std::to_string(entries_) + " is a sparse file in GNU's form 0.0",
                               "make the archive without --sparse-version=0.0");
            }
        }
    }
    return {};
}

Result<> Reader::check_sparse(const Entry& entry) const {
    std::uint64_t end = 0;
    std::uint64_t sum = 0;
    for (const auto& extent : entry.extents) {
        if (extent.offset < end || extent.offset > entry.size || extent.size > entry.size - extent.offset)
            return corrupt("the pieces of " + base::printable(entry.path, 300) + " do not fit into it");
        end = extent.offset + extent.size;
        sum += extent.size;
    }
    if (sum != left_) return corrupt("the pieces of " + base::printable(entry.path, 300) + " are not what the archive holds of it");
    return {};
}

namespace {

Result<> too_many_pieces(const Entry& entry) {
    return failure(Errc::kLimit, base::printable(entry.path, 300) + " has more than " + std::to_string(kMaxExtents) + " pieces");
}

}  // namespace

Result<> Reader::read_old_sparse(const std::uint8_t* header, Entry& entry) {
    entry.sparse = true;
    auto size = number_of(header + kRealSize.at, kRealSize.size);
    if (!size || *size < 0) return corrupt(base::printable(entry.path, 300) + " has an impossible size");
    entry.size = static_cast<std::uint64_t>(*size);
    auto pieces = [&](const std::uint8_t* at, std::size_t count) -> Result<> {
        for (std::size_t i = 0; i < count; ++i, at += 2 * kOldNumber) {
            if (at[0] == 0) break;
            auto offset = number_of(at, kOldNumber);
            auto bytes = number_of(at + kOldNumber, kOldNumber);
            if (!offset || !bytes || *offset < 0 || *bytes < 0)
                return corrupt(base::printable(entry.path, 300) + " has an impossible piece");
            if (entry.extents.size() == kMaxExtents) return too_many_pieces(entry);
            entry.extents.push_back({static_cast<std::uint64_t>(*offset), static_cast<std::uint64_t>(*bytes)});
        }
        return {};
    };
    CAISSON_TRY(pieces(header + kOldMap, kOldMapPieces));
    bool more_blocks = header[kOldMapMore] != 0;
    while (more_blocks) {
        const std::uint8_t* at = nullptr;
        bool end = false;
        CAISSON_TRY(block(at, end));
        if (end) return corrupt("it ends in the middle");
        CAISSON_TRY(pieces(at, kMorePieces));
        more_blocks = at[kMoreMore] != 0;
    }
    return check_sparse(entry);
}

// GNU's form 1.0: the map is decimal numbers, one a line, in whole blocks before the data: how many pieces, then each
// one's offset and size.
Result<> Reader::read_sparse_map(Entry& entry) {
    std::string line;
    std::optional<std::uint64_t> count;
    std::uint64_t wanted = 1;
    while (wanted > 0) {
        if (left_ < kBlock) return corrupt("the map of " + base::printable(entry.path, 300) + " is longer than its data");
        const std::uint8_t* at = nullptr;
        bool end = false;
        CAISSON_TRY(block(at, end));
        if (end) return corrupt("it ends in the middle");
        left_ -= kBlock;
        for (std::size_t i = 0; i < kBlock && wanted > 0; ++i) {
            if (at[i] != '\n') {
                if (line.size() == 20) return corrupt("the map of " + base::printable(entry.path, 300) + " is no list of numbers");
                line += static_cast<char>(at[i]);
                continue;
            }
            auto number = decimal(line);
            line.clear();
            if (!number) return corrupt("the map of " + base::printable(entry.path, 300) + " is no list of numbers");
            --wanted;
            if (!count) {
                count = number;
                if (*count > kMaxExtents) return too_many_pieces(entry);
                wanted = 2 * *count;
            } else if (wanted % 2 == 1) {
                entry.extents.push_back({*number, 0});
            } else {
                entry.extents.back().size = *number;
            }
        }
    }
    return check_sparse(entry);
}

Result<> Reader::fill(const std::uint8_t* header, const Extended& extended, Entry& entry) {
    entry = Entry();
    const bool ustar = std::memcmp(header + kMagic.at, "ustar\0", 6) == 0;
    const bool gnu = std::memcmp(header + kMagic.at, "ustar ", 6) == 0;
    std::string name(text_of(header, kName));
    if (ustar && header[kPrefix.at] != 0) name = std::string(text_of(header, kPrefix)) + "/" + name;
    entry.path = extended.sparse_path ? *extended.sparse_path : extended.path ? *extended.path : std::move(name);
    entry.link = extended.link ? *extended.link : std::string(text_of(header, kLink));
    if (entry.path.empty() || entry.path.find('\0') != std::string::npos || entry.link.find('\0') != std::string::npos)
        return corrupt("a name is empty or has a null byte");
    if (entry.path.size() > kMaxPathBytes || entry.link.size() > kMaxPathBytes)
        return failure(Errc::kLimit, "the name " + base::printable(entry.path, 100) + " or its link is longer than " +
                                         std::to_string(kMaxPathBytes) + " bytes");
    const auto shown = base::printable(entry.path, 300);

    switch (header[kType]) {
        case '\0':
        case '0':
        case '7':
            // How the oldest programs spell a directory.
            entry.kind = entry.path.back() == '/' ? Kind::kDirectory : Kind::kFile;
            break;
        case 'S': entry.kind = Kind::kFile; break;
        case '1': entry.kind = Kind::kHardLink; break;
        case '2': entry.kind = Kind::kSymlink; break;
        case '3': entry.kind = Kind::kCharacter; break;
        case '4': entry.kind = Kind::kBlock; break;
        case '5': entry.kind = Kind::kDirectory; break;
        case '6': entry.kind = Kind::kFifo; break;
        default:
            return failure(Errc::kUnsupported, shown + " is of a kind that caisson does not know (" +
                                                   std::to_string(header[kType]) + ")");
    }
    if ((entry.kind == Kind::kSymlink || entry.kind == Kind::kHardLink) && entry.link.empty())
        return corrupt("the link " + shown + " leads nowhere");
    if (entry.kind != Kind::kSymlink && entry.kind != Kind::kHardLink) entry.link.clear();

    auto number = [&](Field field, const char* what) -> Result<std::int64_t> {
        auto value = number_of(header + field.at, field.size);
        if (!value) return corrupt(shown + " has an impossible " + what);
        return *value;
    };
    auto id = [&](Field field, const std::optional<std::uint64_t>& said, const char* what) -> Result<std::uint32_t> {
        auto value = said && *said <= INT64_MAX ? static_cast<std::int64_t>(*said) : CAISSON_TRY(number(field, what));
        // The last one means "no id" to the kernel.
        if (value < 0 || value >= 0xffffffffLL) return corrupt(shown + " has an impossible " + what);
        return static_cast<std::uint32_t>(value);
    };
    entry.mode = static_cast<std::uint32_t>(CAISSON_TRY(number(kMode, "mode")) & 07777);
    entry.user = CAISSON_TRY(id(kUser, extended.user, "user id"));
    entry.group = CAISSON_TRY(id(kGroup, extended.group, "group id"));
    entry.seconds = extended.time ? extended.time->seconds : CAISSON_TRY(number(kTime, "time"));
    entry.nanoseconds = extended.time ? extended.time->nanoseconds : 0;
    if (entry.kind == Kind::kCharacter || entry.kind == Kind::kBlock) {
        auto major = CAISSON_TRY(number(kMajor, "device number"));
        auto minor = CAISSON_TRY(number(kMinor, "device number"));
        // The kernel's dev_t has 12 and 20 bits.
        if (major < 0 || major > 0xfff || minor < 0 || minor > 0xfffff) return corrupt(shown + " has an impossible device number");
        entry.major = static_cast<std::uint32_t>(major);
        entry.minor = static_cast<std::uint32_t>(minor);
    }
    // Whatever size links and the like are said to have, nothing follows them.
    left_ = 0;
    padding_ = 0;
    if (entry.kind != Kind::kFile) return {};
    std::uint64_t stored = extended.size ? *extended.size : 0;
    if (!extended.size) {
        auto said = CAISSON_TRY(number(kSize, "size"));
        if (said < 0) return corrupt(shown + " has a negative size");
        stored = static_cast<std::uint64_t>(said);
    }
    if (stored > kMaxFileBytes - kBlock) return corrupt(shown + " has an impossible size");
    left_ = stored;
    padding_ = (kBlock - stored % kBlock) % kBlock;
    entry.size = stored;
    if (header[kType] == 'S' && gnu) return read_old_sparse(header, entry);
    if (header[kType] == 'S') return corrupt(shown + " is a sparse file outside of a GNU archive");
    if (!extended.sparse) return {};
    if (!extended.real_size || *extended.real_size > kMaxFileBytes) return corrupt(shown + " is a sparse file of unknown size");
    entry.sparse = true;
    entry.size = *extended.real_size;
    if (extended.version == 1) return read_sparse_map(entry);
    if (extended.version > 1 || !extended.map) return failure(Errc::kUnsupported, shown + " is a sparse file in an unknown form");
    // Form 0.1: "offset,size,offset,size" in the header.
    std::string_view map = *extended.map;
    while (!map.empty()) {
        std::uint64_t values[2] = {};
        for (auto& value : values) {
            auto comma = map.find(',');
            auto parsed = decimal(map.substr(0, comma));
            if (!parsed) return corrupt("the map of " + shown + " is no list of numbers");
            value = *parsed;
            map.remove_prefix(comma == std::string_view::npos ? map.size() : comma + 1);
        }
        if (entry.extents.size() == kMaxExtents) return too_many_pieces(entry);
        entry.extents.push_back({values[0], values[1]});
    }
    return check_sparse(entry);
}

Result<bool> Reader::next(Entry& entry) {
    CAISSON_TRY(skip_entry());
    Extended extended;
    bool began = false;  // a header that belongs to the next one
    ++entries_;
    for (;;) {
        const std::uint8_t* header = nullptr;
        bool end = false;
        CAISSON_TRY(block(header, end));
        if (end) return corrupt("it ends without an end mark");
        if (all_zero(header)) {
            if (began) return corrupt("it ends in the middle");
            return false;
        }
        if (!checksum_holds(header)) return corrupt("it has a header with a wrong checksum");
        const auto type = header[kType];
        if (type != 'x' && type != 'g' && type != 'L' && type != 'K' && type != 'V') {
            CAISSON_TRY(fill(header, extended, entry));
            return true;
        }
        auto said = number_of(header + kSize.at, kSize.size);
        if (!said || *said < 0) return corrupt("it has a header of an impossible size");
        auto size = static_cast<std::uint64_t>(*said);
        if (type == 'x') {
            began = true;
            CAISSON_TRY(read_extended(size, extended));
        } else if (type == 'L' || type == 'K') {
            began = true;
            auto text = CAISSON_TRY(long_text(size, kMaxPathBytes + 1, "the name"));
            if (auto null = text.find('\0'); null != std::string::npos) text.resize(null);
            (type == 'L' ? extended.path : extended.link) = std::move(text);
        } else {
            // Comments and labels of the whole archive; defaults for all its entries are not taken from there.
            CAISSON_TRY(long_text(size, kMaxHeaderBytes, "the header"));
        }
    }
}

Result<> Reader::read_data(const Entry& entry, const Data& data) {
    if (!entry.sparse) {
        std::uint64_t offset = 0;
        auto size = std::exchange(left_, 0);
        return take(size, [&](base::ByteView part) -> Result<> {
            CAISSON_TRY(data(offset, part));
            offset += part.size();
            return {};
        });
    }
    for (const auto& extent : entry.extents) {
        auto offset = extent.offset;
        left_ -= extent.size;
        CAISSON_TRY(take(extent.size, [&](base::ByteView part) -> Result<> {
            CAISSON_TRY(data(offset, part));
            offset += part.size();
            return {};
        }));
    }
    return {};
}

Result<> Reader::drain() {
    begin_ = end_ = 0;
    while (!source_ended_) {
        CAISSON_TRY(more());
        begin_ = end_;
    }
    return {};
}

}  // namespace caisson::tar
