// One entry of an archive.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace caisson::tar {

enum class Kind : std::uint8_t { kFile, kDirectory, kSymlink, kHardLink, kCharacter, kBlock, kFifo };

// A piece of a file that is not a hole.
struct Extent {
    std::uint64_t offset = 0;
    std::uint64_t size = 0;
};

struct Entry {
    Kind kind = Kind::kFile;
    std::string path;  // any bytes but null, as in the archive
    std::string link;  // symlink: its text; hard link: path of an earlier entry
    std::uint32_t mode = 0;  // permission bits, set-id and sticky
    std::uint32_t user = 0;
    std::uint32_t group = 0;
    std::uint64_t size = 0;  // files only
    std::int64_t seconds = 0;  // time of last change
    std::uint32_t nanoseconds = 0;
    std::uint32_t major = 0;
    std::uint32_t minor = 0;
    // A file with holes: its pieces, ascending, apart from each other, within `size`.
    bool sparse = false;
    std::vector<Extent> extents;
};

// Fills the buffer as far as it can without waiting for more than one byte; 0 at the end.
using Source = std::function<Result<std::size_t>(std::span<std::uint8_t> buffer)>;
// Takes all of it.
using Sink = std::function<Result<>(base::ByteView bytes)>;
// What a person should know though the copy goes on: "skipped x: is a socket".
using Notice = std::function<void(const std::string& text)>;

// Of a blocking descriptor, which stays the caller's.
Source read_from(int fd);
Sink write_to(int fd);

// Several archives in one stream: pieces with their length before them (32 bits, little-endian), and an empty one at the
// end of each archive. Of blocking descriptors, which stay the caller's.
Sink write_framed_to(int fd);
Result<> end_framed(int fd);
class FramedArchives {
  public:
    explicit FramedArchives(int fd) : fd_(fd) {}
    // Waits for the next archive, after the end of the one before. false: the stream has ended. kCorrupt: in its midst.
    Result<bool> next();
    // Of that archive; good until the next one.
    Source source();

  private:
    Result<bool> read_length();
    Result<std::size_t> read(std::span<std::uint8_t> buffer);
    int fd_;
    std::uint32_t left_ = 0;
    bool ended_ = true;
};

}  // namespace caisson::tar
