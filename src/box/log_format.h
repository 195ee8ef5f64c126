// What the files of a log look like. Pure functions over bytes, no I/O.
//
//   file   = file header, record*
//   record = record header, payload
//
// All numbers are little-endian. Both headers end with a CRC-32C over what stands before it in the same header; a
// record's header holds the CRC-32C of its payload, too. A record's checksums start from the file's salt, a random
// number that the guest does not know: the bytes that it writes cannot be taken for a record when a damaged file is
// searched for the next one, and neither can old blocks of another file.
//
// Records are numbered from 0, through all files of a log. Where the numbers jump, records are missing.
#pragma once

#include <cstdint>

#include "base/bytes.h"
#include "base/result.h"

namespace caisson::box {

// Numbers in the files: never given another meaning.
enum class LogSource : std::uint8_t { kStdout = 1, kStderr = 2, kConsole = 3 };

enum class LogKind : std::uint8_t {
    kBytes = 1,    // output
    kLost = 2,     // output could not be written; see LostNote
    kMissing = 3,  // only from the reader: records that are not in the files any more, or cannot be read
};

// ---- limits, in one place. Those of a log's size are the caller's, see LogLimits in log.h.
inline constexpr std::size_t kMostLogRecordBytes = 64 << 10;  // payload of one record; longer output is divided
inline constexpr unsigned kMostLogFiles = 100;
inline constexpr std::uint64_t kLeastLogFileBytes = 4096;

inline constexpr std::size_t kLogFileHeaderBytes = 40;
inline constexpr std::size_t kLogRecordHeaderBytes = 32;
inline constexpr std::size_t kLostNoteBytes = 12;

// CRC-32C (Castagnoli, RFC 3720 appendix B.4) of `bytes`, going on from `before`.
std::uint32_t crc32c(base::ByteView bytes, std::uint32_t before = 0);

struct LogFileHeader {
    std::uint32_t salt = 0;
    std::uint64_t file_sequence = 0;  // 0, 1, 2…: where this file stands among those of its log
    std::uint64_t first_record = 0;   // the number of the first record that was or will be written to it
};
void encode(const LogFileHeader& header, std::uint8_t (&out)[kLogFileHeaderBytes]);
// kCorrupt: these are not the first bytes of a log file. kUnsupported: of a newer version.
Result<LogFileHeader> parse_file_header(base::ByteView bytes);

struct LogRecordHeader {
    std::uint32_t length = 0;  // of the payload
    LogSource source = LogSource::kStdout;
    LogKind kind = LogKind::kBytes;
    std::uint64_t sequence = 0;
    std::int64_t unix_ns = 0;
    std::uint32_t payload_crc = 0;
};
void encode(const LogRecordHeader& header, std::uint32_t salt, std::uint8_t (&out)[kLogRecordHeaderBytes]);

// The payload of a kLost record.
struct LostNote {
    std::uint64_t bytes = 0;  // of output, of all sources
    std::int32_t error_number = 0;
};
void encode(const LostNote& note, std::uint8_t (&out)[kLostNoteBytes]);

enum class Parsed {
    kRecord,      // `header` and `payload` hold; the next record stands at their end
    kBadPayload,  // `header` holds, what follows it is damaged; the next record stands at the end of both
    kShort,       // a record begins here, its end is not among the bytes
    kNone,        // no record begins here
};
struct ParsedRecord {
    Parsed what = Parsed::kNone;
    LogRecordHeader header;
    base::ByteView payload;  // points into the input
    LostNote lost;           // of a kLost record
    std::size_t size() const { return kLogRecordHeaderBytes + header.length; }
};
// What stands at the beginning of `bytes`, which may hold anything.
ParsedRecord parse_record(base::ByteView bytes, std::uint32_t salt);

// "output" and "exec-01ARZ…": letters, digits, '-', '_' and '.', not at the beginning; at most 128. kUsage otherwise.
Result<> check_log_name(const std::string& name);
// "output.log", "output.log.1": slot 0 is the newest.
std::string log_file_name(const std::string& name, unsigned slot);

}  // namespace caisson::box
