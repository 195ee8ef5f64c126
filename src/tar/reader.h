// Reader: a tar archive as a stream of entries. Takes what GNU tar, libarchive, Go and caisson itself write: ustar, v7,
// pax (POSIX.1-2001) and GNU's long names, large numbers and sparse files in all their versions but 0.0.
//
// The bytes may be hostile. The reader answers only for the form of what it hands out (entry.h); what a path means is
// the extractor's business. Single-threaded.
#pragma once

#include <memory>

#include "tar/entry.h"

namespace caisson::tar {

class Reader {
  public:
    explicit Reader(Source source);
    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;

    // False at the end of the archive. What was not read of the entry before is skipped. kCorrupt, kLimit,
    // kUnsupported, and what the source says. An archive without its end mark is kCorrupt: it was cut off.
    Result<bool> next(Entry& entry);
    // The file's bytes in ascending order, without those in holes. Once for each file.
    using Data = std::function<Result<>(std::uint64_t offset, base::ByteView bytes)>;
    Result<> read_data(const Entry& entry, const Data& data);
    // Reads the source to its end, for whoever writes it may be waiting; call it after next() said false.
    Result<> drain();

  private:
    struct Extended;  // what the headers before an entry said about it
    Result<> more();  // at least one more byte in the buffer
    Result<> block(const std::uint8_t*& bytes, bool& end);
    Result<std::string> long_text(std::uint64_t size, std::size_t limit, const char* what);
    Result<> take(std::uint64_t bytes, const Sink& sink);
    Result<> skip_entry();
    Result<> read_extended(std::uint64_t size, Extended& extended);
    Result<> read_old_sparse(const std::uint8_t* header, Entry& entry);
    Result<> read_sparse_map(Entry& entry);
    Result<> check_sparse(const Entry& entry) const;
    Result<> fill(const std::uint8_t* header, const Extended& extended, Entry& entry);
    base::Failure corrupt(const std::string& text) const;

    Source source_;
    std::unique_ptr<std::uint8_t[]> buffer_;
    std::size_t begin_ = 0;
    std::size_t end_ = 0;
    std::uint64_t left_ = 0;     // bytes of the current entry
    std::uint64_t padding_ = 0;  // and behind them, to the next block
    std::uint64_t entries_ = 0;
    bool source_ended_ = false;
};

}  // namespace caisson::tar
